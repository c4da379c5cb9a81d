"""How the clients interpret every recorded chat of a real Ollama 0.33.0-rc2, served over a real socket."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from chat_requests import body_for
from fake_llm import FakeLLM, Fault
from raw_server import answering, reply
from requests import post

from pipeline.config import OllamaConfig, VLLMConfig
from pipeline.llm.ollama import OllamaClient
from pipeline.llm.preflight.preflight import PreflightSample, examine
from pipeline.llm.vllm import VLLMClient
from pipeline.records import ExtractionAttempt

PATH = Path(__file__).parents[1] / "data/ollama_transcripts.jsonl"
RECORDINGS: dict[str, Any] = {
    record["name"]: record for record in map(json.loads, PATH.read_text("utf-8").splitlines())
}
NATIVE, OPENAI = "/api/chat", "/v1/chat/completions"
CHATS = sorted(
    name
    for name, record in RECORDINGS.items()
    if record["request"]["path"] in (NATIVE, OPENAI) and record["request"]["method"] == "POST"
)
JSON = '{\n  "company'
NESTED = "n_prompt_tokens 5309, n_ctx 2048"

# exchange → error, reason, prompt tokens, beginning of the text, part of the message
TABLE: dict[str, tuple[str | None, str | None, int | None, str, str]] = {
    "chat_cold_schema": (None, None, 40, JSON, ""),
    "chat_warm_schema": (None, None, 40, JSON, ""),
    "chat_same_again_prefix_cached": (None, None, 40, JSON, ""),
    "chat_plain": (None, None, 22, "One colour", ""),
    "chat_json_mode": ("output_truncated", "output_truncated", 40, '{\n  "type"', "after 40 tokens"),
    "chat_stream_default": (None, None, 40, JSON, ""),
    "chat_stream_length": ("output_truncated", "output_truncated", 40, "{", "after 6 tokens"),
    "chat_length": ("output_truncated", "output_truncated", 40, JSON, "after 6 tokens"),
    "chat_too_long_truncate_false": ("http_400", "context_length", None, "", NESTED),
    "chat_too_long_stream_truncate_false": ("http_400", "context_length", None, "", NESTED),
    "chat_too_long_truncate_default": ("prompt_truncated", "prompt_truncated", 1026, JSON, "read 1026 tokens"),
    "chat_ctx_over_trained": ("output_truncated", "output_truncated", 22, "One colour", "after 5 tokens"),
    "preload": ("bad_response", "bad_response", None, "", "done_reason is 'load'"),
    "unknown_model": ("http_404", "model_not_found", None, "", "model 'nosuch:1b' not found"),
    "name_without_tag": ("http_404", "model_not_found", None, "", "model 'smollm2' not found"),
    "bad_json": ("http_400", "rejected", None, "", "unexpected EOF"),
    "schema_unresolved_ref": ("http_400", "rejected_config", None, "", "conversion failed"),
    "think_true_on_model_without": ("http_400", "rejected_config", None, "", "does not support thinking"),
    "think_false_on_model_without": (None, None, 40, JSON, ""),
    "thinking_absent_with_schema": ("empty_model_response", "empty_model_response", 44, "", "only thinking"),
    "thinking_false_with_schema": (None, None, 40, JSON, ""),
    "keep_alive_without_unit": ("http_400", "rejected_config", None, "", "missing unit"),
    "v1_chat_schema": (None, None, 31, JSON, ""),
    "v1_chat_length": ("output_truncated", "output_truncated", 31, '{\n  "compan', "after 6 tokens"),
    "v1_too_long_cut_in_silence": (None, None, 2050, "{", ""),
    "v1_unknown_model": ("http_404", "model_not_found", None, "", "model 'nosuch' not found"),
}


def replayed(name: str) -> ExtractionAttempt:
    """Return the attempt for a recorded reply."""
    recorded, answer = RECORDINGS[name]["request"], RECORDINGS[name]["response"]
    body = recorded["json"] if isinstance(recorded["json"], dict) else {}
    with answering({recorded["path"]: reply(answer["body"], answer["status"])}) as server:
        if recorded["path"] == OPENAI:
            config = VLLMConfig(base_url=server.url, model="m", type="openai", max_tokens=body.get("max_tokens", 60))
            return VLLMClient(config).call_llm({"user": "u"}, None, "u")
        options = body.get("options", {"num_ctx": 2048})
        stream = body.get("stream") is not False and isinstance(answer["body"], str)
        native = OllamaConfig(base_url=server.url, model="m", num_ctx=options["num_ctx"], stream=stream)
        text = "Harbour Foods said so. " * 1_000 if "too_long" in name else "u"
        return OllamaClient(native).call_llm({"user": text}, None, text)


def test_each_recorded_chat_has_an_expectation() -> None:
    """A new recording needs a line with the expected attempt."""
    assert sorted(TABLE) == CHATS


@pytest.mark.parametrize("name", CHATS)
def test_recorded_chat_gives_the_expected_attempt(name: str) -> None:
    """Error, reason, prompt tokens, text and message are compared."""
    error, reason, tokens, begins, message = TABLE[name]
    attempt = replayed(name)
    assert (attempt.error, attempt.reason, attempt.prompt_tokens) == (error, reason, tokens)
    assert (attempt.raw_text or "").startswith(begins)
    assert message in attempt.message
    by_ollama = RECORDINGS[name]["request"]["path"] == OPENAI and error != "http_404"
    assert attempt.server == ("ollama" if by_ollama else None)


def test_ollama_is_recognised_by_its_recorded_pages() -> None:
    """The mark is `owned_by: library`, and the message names the setting to use instead."""
    pages = {path: reply(RECORDINGS[name]["response"]["body"]) for path, name in (("/v1/models", "v1_models"),)}
    with answering({**pages, OPENAI: reply(RECORDINGS["v1_chat_schema"]["response"]["body"])}) as server:
        client = VLLMClient(VLLMConfig(base_url=server.url, model="smollm2:135m", type="openai"))
        preflight = examine(client, sample=PreflightSample({"user": ""}), full=True, canary=False)
        assert (preflight.status, preflight.reason, preflight.dead_end) == ("misconfigured", "rejected_config", True)
        assert "type: ollama" in preflight.message


def asked_of_fake(server: FakeLLM, path: str, text: str, **more: Any) -> tuple[int, Any]:
    """Return status and body of the fake server's reply."""
    answer = post(server.url + path, json=body_for(path, text, **more), timeout=60)
    return answer.status_code, answer.json()


def test_fake_v1_truncates_as_recorded() -> None:
    """Half of the window is kept, with a 200, a valid answer and the token count of a truncation."""
    real = RECORDINGS["v1_too_long_cut_in_silence"]["response"]
    with FakeLLM(("llama3.1",), 4096, dialects=("ollama", "ollama_v1")) as server:
        status, body = asked_of_fake(server, OPENAI, "Line. " * 6000)
        assert (status, body["usage"]["prompt_tokens"]) == (real["status"], real["body"]["usage"]["prompt_tokens"])
        assert body["system_fingerprint"] == real["body"]["system_fingerprint"]
        assert sorted(body) == sorted(real["body"])


@pytest.mark.parametrize("thinking", [True, False])
def test_fake_server_returns_thinking_without_content_as_recorded(thinking: bool) -> None:
    """Thinking that is not switched off leaves the content empty."""
    name = "thinking_absent_with_schema" if thinking else "thinking_false_with_schema"
    real = RECORDINGS[name]["response"]["body"]
    with FakeLLM(thinking=True, thinks_without_content=True) as server:
        _, body = asked_of_fake(server, NATIVE, "text", **({} if thinking else {"think": False}))
        assert bool(body["message"].get("thinking")) == bool(real["message"].get("thinking"))
        assert bool(body["message"]["content"]) == bool(real["message"]["content"])
        assert (body["done"], body["done_reason"]) == (real["done"], real["done_reason"])


def test_fake_server_needs_exact_model_names() -> None:
    """A model installed under a tag is not found without it."""
    real = RECORDINGS["name_without_tag"]["response"]
    with FakeLLM(("smollm2:135m",)) as server:
        assert asked_of_fake(server, NATIVE, "x", model="smollm2") == (real["status"], real["body"])


def test_fake_server_ends_a_stream_with_an_error_as_recorded() -> None:
    """The last line of the stream is an error when the runner is killed."""
    with FakeLLM(faults=lambda _seen, _n: Fault("stream_error")) as server:
        lines = post(server.url + NATIVE, json=body_for(NATIVE, "x", stream=True), timeout=60).text.splitlines()
        assert json.loads(lines[-1]) == {"error": "an error was encountered while running the model: unexpected EOF"}
