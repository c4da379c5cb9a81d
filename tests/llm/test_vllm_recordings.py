"""How the vLLM client interprets every recorded exchange of a real vLLM 0.32.0, served over a real socket."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
from raw_server import Line, RawServer, answering, reply
from timing import assert_less

from pipeline.config import VLLMConfig
from pipeline.llm.preflight.preflight import PreflightSample, examine
from pipeline.llm.vllm import VLLMClient
from pipeline.records import ExtractionAttempt

RECORDINGS = {
    record["name"]: record
    for record in map(
        json.loads, (Path(__file__).parents[1] / "data/vllm_transcripts.jsonl").read_text("utf-8").splitlines()
    )
}
CHAT = "/v1/chat/completions"
CHATS = sorted(name for name, record in RECORDINGS.items() if record["request"]["path"] in (CHAT, "/v1/nope"))

# exchange → error, reason, beginning of the text (None: no text), part of the message; `err_404_route` was the
# answer to another path, the one that a wrong `base_url` gets
TABLE: dict[str, tuple[str | None, str | None, str | None, str]] = {
    "chat_json_schema_ok": (None, None, '{\n  "vendor": "ACME GmbH"', ""),
    "chat_json_schema_seeded_a": (None, None, '{\n  "vendor": "Acme GmbH"', ""),
    "chat_structured_outputs_json": (None, None, '{\n  "vendor": "ACME GmbH"', ""),
    "chat_structured_outputs_choice": (None, None, "EUR", ""),
    "chat_json_object": ("output_truncated", "output_truncated", '{\n  "id": "12.50"', "after 120 tokens"),
    "chat_guided_json_ignored": ("output_truncated", "output_truncated", "Ack! I'm sorry", "after 40 tokens"),
    "chat_max_completion_tokens": ("output_truncated", "output_truncated", "Ack! I'm", "after 5 tokens (max_tokens 5)"),
    "chat_truncated_json": ("output_truncated", "output_truncated", '{\n  "vendor": "AC', "after 8 tokens"),
    "max_tokens_over_remaining_room_clamped": (
        *("output_truncated", "output_truncated", "the* Mull"),
        "after 117 tokens (max_tokens 1000): the server clamped it",
    ),
    "empty_content": ("output_truncated", "output_truncated", "I'm here", "after 3 tokens"),
    "priority_5_accepted_under_fcfs": ("output_truncated", "output_truncated", "Ack! I'm sorry", "after 16 tokens"),
    "logprobs": ("output_truncated", "output_truncated", "{\n ", "after 2 tokens"),
    "prefix_cache_2": ("output_truncated", "output_truncated", "The invoice ", "after 3 tokens"),
    "schema_auto_multipleOf": ("output_truncated", "output_truncated", '{\n  "a": 1232', "after 24 tokens"),
    "stream_usage": ("output_truncated", "output_truncated", '{\n  "vendor":', "after 6 tokens"),
    "auth_ok_no_request_id_header": ("output_truncated", "output_truncated", "Hello there!", "after 3 tokens"),
    "whitespace_loop": ("generation_loop", "generation_loop", "[\n \n   \n", "after 200 tokens"),
    "repetition_detection": ("generation_loop", "generation_loop", "[\n \n   \n", "repetition"),
    "err_prompt_too_long": ("http_400", "context_length", None, "maximum context length is 2048 tokens"),
    "err_prompt_exactly_fills_context": ("http_400", "context_length", None, "max_tokens must be at least 1, got 0"),
    "err_max_tokens_0": ("http_400", "context_length", None, "max_tokens must be at least 1, got 0"),
    "err_max_tokens_over_context": ("http_400", "rejected_config", None, "cannot be greater than max_model_len=2048"),
    "err_temperature_3": ("http_400", "rejected_config", None, "temperature must be in [0, 2]"),
    "err_rf_json_schema_missing": ("http_400", "rejected_config", None, "'json_schema' field must be provided"),
    "err_structured_outputs_and_response_format": ("http_400", "rejected_config", None, "only use one kind"),
    "schema_auto_format_unknown": ("http_400", "rejected_config", None, "Unknown format: iban"),
    "schema_auto_ref_missing": ("http_400", "rejected_config", None, "Pointer '/$defs/nope' does not exist"),
    "schema_xgrammar_uniqueItems": ("http_400", "rejected_config", None, "not supported by xgrammar"),
    "schema_xgrammar_pattern_bad": ("http_400", "rejected_config", None, "Unclosed '['"),
    "err_unknown_model": ("http_404", "model_not_found", None, "Valid aliases: smollm2"),
    "err_404_route": ("http_404", "not_found", None, "Not Found"),
    "err_malformed_json": ("http_400", "rejected", None, "JSON decode error"),
    "err_missing_messages": ("http_400", "rejected", None, "Field required"),
    "err_empty_messages": ("http_400", "rejected", None, "empty conversation"),
    "err_null_content": ("http_400", "rejected", None, "19 validation errors"),
    "err_lone_surrogate_in_prompt": ("http_400", "rejected", None, "TextEncodeInput"),
    "err_invalid_utf8_body": ("http_400", "rejected", None, "There was an error parsing the body"),
    "auth_missing": ("http_401", "unauthorized", None, "Unauthorized"),
    "queue_full_503": ("http_503", "overloaded", None, "The engine is currently busy"),
    "engine_died_in_flight_500": ("http_500", "server_error", None, "EngineCore encountered an issue"),
    "draining_new_request_500": ("http_500", "server_error", None, "cannot schedule new futures after shutdown"),
}


def recorded(name: str) -> bytes:
    """Return the recorded reply as bytes on the wire."""
    answer = RECORDINGS[name]["response"]
    return reply(answer["body"], answer["status"])


def replayed(name: str, **settings: Any) -> ExtractionAttempt:
    """Return the attempt for a recorded reply to a request with the recorded limit."""
    request_body = RECORDINGS[name]["request"].get("json") or {}
    limits = {key: request_body[key] for key in ("max_completion_tokens",) if key in request_body}
    with answering({CHAT: recorded(name)}) as server:
        config = VLLMConfig(
            base_url=server.url,
            model="smollm2",
            max_tokens=request_body.get("max_tokens") or 1024,
            stream=bool(request_body.get("stream")),
            extra_body=limits,
            **settings,
        )
        return VLLMClient(config).call_llm({"system": "s", "user": "u"}, None, "u")


def test_each_recorded_chat_has_an_expectation() -> None:
    """A new recording needs a line with the expected attempt."""
    assert sorted(TABLE) == CHATS


@pytest.mark.parametrize("name", CHATS)
def test_recorded_chat_gives_the_expected_attempt(name: str) -> None:
    """Error, reason, text and message are compared."""
    error, reason, begins, message = TABLE[name]
    attempt = replayed(name)
    assert (attempt.error, attempt.reason) == (error, reason)
    assert message in attempt.message
    if begins is None:
        assert attempt.raw_text is None
    else:
        assert attempt.raw_text is not None
        assert attempt.raw_text.startswith(begins)


def test_clamped_max_tokens_are_noted() -> None:
    """vLLM silently allows fewer tokens than requested; the note shows it."""
    assert replayed("max_tokens_over_remaining_room_clamped").notes == ("max_tokens_clamped",)
    assert replayed("chat_max_completion_tokens").notes == ()
    assert replayed("chat_truncated_json").notes == ()


def test_engine_error_may_mean_a_lost_server() -> None:
    """An engine error counts as a lost server; a server that shuts down or is full does not."""
    assert replayed("engine_died_in_flight_500").lost is True
    assert replayed("draining_new_request_500").lost is False
    assert replayed("queue_full_503").lost is False


def test_token_counts_equal_the_recorded_usage() -> None:
    """These are prompt, answer and cached tokens, also in a stream."""
    whole, streamed, cached = (replayed(name) for name in ("chat_json_schema_ok", "stream_usage", "prefix_cache_2"))
    assert (whole.prompt_tokens, whole.completion_tokens, whole.cached_tokens) == (40, 34, 0)
    assert (streamed.prompt_tokens, streamed.completion_tokens) == (40, 6)
    assert cached.cached_tokens == 256


def test_overflow_is_counted_by_the_tokenizer() -> None:
    """vLLM stops counting at its limit, so one POST /tokenize with the same messages gives the length."""
    count = reply({"count": 3000, "max_model_len": 2048, "tokens": [], "token_strs": None})
    with answering({CHAT: recorded("err_prompt_too_long"), "/tokenize": count}) as server:
        client = VLLMClient(VLLMConfig(base_url=server.url, model="smollm2"))
        attempt = client.call_llm({"system": "s", "user": "u"}, None, "u")
        assert attempt.message.startswith(
            "the prompt has 3000 tokens, the context 2048; HTTP 400: This model's maximum"
        )
        assert (attempt.error, attempt.reason, attempt.context_length) == ("http_400", "context_length", 2048)
        assert [request.path for request in server.got] == [CHAT, "/tokenize"]
        assert server.got[1].json == {
            "model": "smollm2",
            "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
            "add_generation_prompt": True,
        }


@pytest.mark.parametrize(
    "answer",
    [recorded("tokenize_prompt")[:60], reply("<html>", 502), reply([1]), reply({"count": "many"}), reply(b"", 401)],
    ids=["cut", "502", "list", "text", "401"],
)
def test_overflow_without_a_count_keeps_its_reason(answer: bytes) -> None:
    """Any reply of /tokenize leaves the failure as it is."""
    with answering({CHAT: recorded("err_prompt_too_long"), "/tokenize": answer}) as server:
        config = VLLMConfig(base_url=server.url, model="smollm2", timeout=3.0)
        attempt = VLLMClient(config).call_llm({"system": "s", "user": "u"}, None, "u")
        assert attempt.reason == "context_length"
        assert attempt.message.startswith("HTTP 400: This model's maximum")


def test_counting_an_overflow_respects_the_deadline() -> None:
    """The timeout covers both requests, and a hanging /tokenize is abandoned at its end."""

    def talk(line: Line) -> None:
        while (request := line.read()) is not None:
            line.ended.wait(1.2 if request.path == CHAT else None)
            line.send(recorded("err_prompt_too_long"))

    def spent_s() -> float:
        with RawServer(talk) as server:
            begun = time.monotonic()
            client = VLLMClient(VLLMConfig(base_url=server.url, model="m", timeout=1.6))
            attempt = client.call_llm({"user": "u"}, None, "u")
            ended = time.monotonic()
        if attempt.reason == "timeout":  # on a busy machine the first answer is late already
            return math.inf
        assert attempt.reason == "context_length"
        return max(attempt.latency_s, ended - begun)

    assert_less(2.4, spent_s)


def test_only_vllm_overflows_are_counted() -> None:
    """Other replies cost no second request, and other servers have no /tokenize."""
    for kind, name, requests in (("vllm", "chat_json_schema_ok", 1), ("vllm", "err_temperature_3", 1)):
        assert paths_asked(kind, name) == [CHAT] * requests
    assert paths_asked("openai", "err_prompt_too_long") == [CHAT]
    assert paths_asked("vllm", "err_prompt_too_long") == [CHAT, "/tokenize"]


def paths_asked(kind: Any, name: str) -> list[str]:
    """Return the paths requested for a single call."""
    with answering({CHAT: recorded(name)}) as server:
        VLLMClient(VLLMConfig(base_url=server.url, model="m", type=kind)).call_llm({"user": "u"}, None, "u")
        return [request.path for request in server.got]


def recorded_site(**changes: bytes) -> dict[str, bytes]:
    """Yield a server with all recorded pages."""
    pages = {"/v1/models": "models_ok", "/version": "version", CHAT: "chat_json_schema_ok"}
    return {path: recorded(name) for path, name in pages.items()} | {f"/{key}": page for key, page in changes.items()}


def test_preflight_reads_the_recorded_pages() -> None:
    """Model, context and version are those of the recorded server; later attempts have its context."""
    with answering(recorded_site()) as server:
        client = VLLMClient(VLLMConfig(base_url=server.url))
        preflight = examine(client, sample=PreflightSample({"system": "s", "user": ""}), full=True, canary=False)
        assert (preflight.status, preflight.model, preflight.models) == ("ok", "smollm2", ("smollm2",))
        assert (preflight.context_length, preflight.server, preflight.prompt_tokens) == (2048, "0.32.0", 40)
        attempt = client.call_llm({"user": "u"}, None, "u")
        assert (attempt.context_length, attempt.model.name) == (2048, "smollm2")
        assert [request.path for request in server.got] == ["/v1/models", "/version", CHAT, CHAT]


@pytest.mark.parametrize(
    ("version", "kind", "sent"),
    [
        *(("0.32.0", "vllm", True), ("0.33.1rc2", "vllm", True), ("1.0", "vllm", True)),
        *(("0.31.9", "vllm", False), ("dev", "vllm", False), ("0.32.0", "openai", False)),
    ],
)
def test_repetition_detection_is_sent_to_vllm_0_32_and_later(version: str, kind: Any, sent: bool) -> None:
    """No other server gets the field."""
    with answering({**recorded_site(), "/version": reply({"version": version})}) as server:
        client = VLLMClient(VLLMConfig(base_url=server.url, type=kind))
        assert "repetition_detection" not in client.payload({"user": ""}, None)
        examine(client, sample=PreflightSample({"user": ""}), full=True, canary=False)
        assert ("repetition_detection" in server.got[-1].json) is sent
        assert ("repetition_detection" in client.payload({"user": "u"}, None)) is sent


def test_extra_body_overrides_the_repetition_detection() -> None:
    """A value configured by the user takes precedence."""
    with answering(recorded_site()) as server:
        mine = {"max_pattern_size": 7}
        client = VLLMClient(VLLMConfig(base_url=server.url, extra_body={"repetition_detection": mine}))
        examine(client, sample=PreflightSample({"user": ""}), full=True, canary=False)
        assert client.payload({"user": "u"}, None)["repetition_detection"]["max_pattern_size"] == 7
        client = VLLMClient(VLLMConfig(base_url=server.url, extra_body={"repetition_detection": None}))
        examine(client, sample=PreflightSample({"user": ""}), full=True, canary=False)
        assert "repetition_detection" not in client.payload({"user": "u"}, None)
