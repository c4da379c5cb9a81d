"""The preflight: what it finds out about a server before documents are sent."""

from __future__ import annotations

from typing import Any

import pytest
from fake_llm import FakeLLM, Fault, ReceivedRequest
from raw_server import answering, refusing_url, reply

from pipeline.config import OllamaConfig, VLLMConfig
from pipeline.llm.capabilities import Preflight
from pipeline.llm.ollama import OllamaClient
from pipeline.llm.preflight.preflight import PreflightSample, examine
from pipeline.llm.preflight.schema_canary import canary_schema
from pipeline.llm.vllm import VLLMClient

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
SAMPLE = PreflightSample({"system": "You extract.", "user": "<document></document>"}, SCHEMA)
KINDS = ("vllm", "ollama")


def client_of(kind: str, url: str, **settings: Any) -> VLLMClient | OllamaClient:
    settings = {"model": "llama3.1:latest", "timeout": 60.0, **settings}
    if kind == "ollama":
        return OllamaClient(OllamaConfig(base_url=url, **settings))
    return VLLMClient(VLLMConfig(base_url=url, type=kind, **settings))


def look(
    client: VLLMClient | OllamaClient, *, sample: PreflightSample = SAMPLE, full: bool = True, canary: bool = True
) -> Preflight:
    return examine(client, sample=sample, full=full, canary=canary)


def schema_sent(request: ReceivedRequest) -> Any:
    """Return the schema of a chat request, in either dialect."""
    response_format = request.body.get("response_format")
    return response_format["json_schema"]["schema"] if response_format else request.body.get("format")


@pytest.mark.parametrize("kind", KINDS)
def test_good_server_passes_with_its_capabilities(kind: str) -> None:
    """These are model, models, context, version, size of the bare prompt, and schema enforcement."""
    with FakeLLM(("llama3.1:latest", "other:latest"), 4096) as server:
        client = client_of(kind, server.url, **({"num_ctx": 4096} if kind == "ollama" else {}))
        preflight = look(client)
        assert client.call_llm({"user": "u"}, None, "u").model.digest == preflight.digest
    assert (preflight.status, preflight.reason, preflight.message, preflight.warnings) == ("ok", None, "", ())
    assert (preflight.model, preflight.models) == ("llama3.1:latest", ("llama3.1:latest", "other:latest"))
    assert (preflight.context_length, preflight.server) == (4096, "0.32.0" if kind == "vllm" else "0.32.9")
    assert preflight.prompt_tokens == (len("You extract.\n<document></document>")) // 4
    assert preflight.enforcement == "enforced"
    assert (preflight.digest is not None) is (kind == "ollama")


@pytest.mark.parametrize("kind", KINDS)
def test_agents_schema_is_sent_before_the_canary(kind: str) -> None:
    """vLLM selects its grammar back end by the first structured request."""
    with FakeLLM() as server:
        look(client_of(kind, server.url))
        sent = [schema_sent(chat) for chat in server.chats() if chat.body["messages"]]
    assert sent == [SCHEMA, canary_schema(SCHEMA)]


@pytest.mark.parametrize("kind", KINDS)
def test_server_that_ignores_schemas_causes_a_warning(kind: str) -> None:
    """It is used all the same, because every answer is validated here."""
    with FakeLLM(enforce_schema=False) as server:
        preflight = look(client_of(kind, server.url))
    assert (preflight.status, preflight.enforcement) == ("ok", "not enforced")
    assert "does not hold the model to the schema" in preflight.warnings[0]


@pytest.mark.parametrize(
    ("message", "statement"),
    [
        ('{"canary":\n "kJ7-sulphur"}', "enforced"),
        ('{"canary":\n "kJ7-sulphur", "a": 1}', "enforced"),
        ("{ \n\n\n\n", "enforced"),
        ('{"canary": "kJ7', "enforced"),
        ('{"canary": "a harbour is"}', "not enforced"),
        ('{"harbour": "a place for ships"}', "not enforced"),
        ("A harbour is a place for ships.", "not enforced"),
        ("\\n" * 400, "not enforced"),
        ('{"a": 1, "canary": ', "not verified (the answer does not begin with the property of the test)"),
        ("<think>The user wants prose", "not verified (the model spent the 48 tokens of the test on thoughts)"),
        ("[THINK]hm[/THINK]", "not verified (the model spent the 48 tokens of the test on thoughts)"),
        ('<think>hm</think>{"canary"', "enforced"),
        ("", "not verified (the test was not answered: no content)"),
    ],
)
def test_canary_distinguishes_enforced_schemas(message: str, statement: str) -> None:
    """A tiny model once generated only white space after the brace (vLLM 0.32.0), which prose does not begin with."""
    with FakeLLM(answer=lambda prompt, _: message if "harbour" in prompt else '{"a": 1}') as server:
        assert look(client_of("vllm", server.url)).enforcement == statement


def test_enforcement_is_unknown_without_a_canary() -> None:
    """The canary is sent once per server and run; later preflights omit it."""
    with FakeLLM(enforce_schema=False) as server:
        preflight = look(client_of("vllm", server.url), canary=False)
        assert (preflight.status, preflight.enforcement, preflight.warnings, len(server.chats())) == ("ok", "", (), 1)


@pytest.mark.parametrize("kind", KINDS)
def test_missing_model_is_reported_with_the_available_ones(kind: str) -> None:
    """No completion was sent for it."""
    with FakeLLM(("llama3.1:latest", "mistral:7b")) as server:
        preflight = look(client_of(kind, server.url, model="nosuch"))
        assert server.chats() == []
    assert (preflight.status, preflight.reason) == ("misconfigured", "model_not_found")
    assert preflight.message == "model 'nosuch' is not available; the server has 'llama3.1:latest', 'mistral:7b'"
    assert preflight.models == ("llama3.1:latest", "mistral:7b")


@pytest.mark.parametrize("model", ["llama3.1", "llama3.1:latest"])
def test_ollama_model_name_matches_with_and_without_latest(model: str) -> None:
    """`latest` is the default tag; records keep the configured name."""
    with FakeLLM(("llama3.1:latest",)) as server:
        assert look(client_of("ollama", server.url, model=model)).model == model


def test_ollama_tags_are_different_models() -> None:
    """Only `latest` may be omitted."""
    with FakeLLM(("llama3.1:8b",)) as server:
        assert look(client_of("ollama", server.url, model="llama3.1")).reason == "model_not_found"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["strict", "warn", "off"])
def test_wrong_key_is_a_configuration_error(kind: str, mode: str) -> None:
    """It is found before the first document, at every preflight setting."""
    with FakeLLM(api_key="right") as server:
        result = look(client_of(kind, server.url, api_key="wrong", preflight=mode))
        right = look(client_of(kind, server.url, api_key="right", preflight=mode))
    assert (result.status, result.reason) == ("misconfigured", "unauthorized")
    assert "wrong" not in repr(result)
    assert right.status == "ok"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, ": no key was sent (set `api_key`, or name its file in `api_key_file`)"),
        ({"api_key": "wrong"}, ": the server refuses the key"),
        ({"headers": {"authorization": "Bearer wrong"}}, ": the server refuses the key"),
        ({"headers": {"X-Api-Key": "wrong"}}, ": the server refuses the key"),
    ],
)
def test_missing_key_is_distinguished_from_a_wrong_one(kind: str, settings: dict[str, Any], message: str) -> None:
    """The message says whether the key was not sent or not accepted."""
    with FakeLLM(api_key="right") as server:
        preflight = look(client_of(kind, server.url, **settings))
        user = look(client_of(kind, server.url.replace("//", "//robot:hunter2@")))
    assert user.message.endswith(": the server refuses the key")
    assert preflight.message == ("/v1/models" if kind == "vllm" else "/api/tags") + " answers HTTP 401" + message


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("page", [reply(b"<html>"), *(reply(b"no", code) for code in (302, 400, 404, 418))])
def test_wrong_url_is_a_configuration_error(kind: str, page: bytes) -> None:
    """A server answers there, but it is no model server."""
    with answering(page) as server:
        preflight = look(client_of(kind, server.url))
    assert (preflight.status, preflight.reason) == ("misconfigured", "not_found")


@pytest.mark.parametrize("kind", KINDS)
def test_redirect_is_reported_with_its_target(kind: str) -> None:
    """It is not followed, because the key would be sent along; the message reveals http instead of https."""
    page = reply(b"", 308, Location="https://robot:hunter2@gateway.example/v1?token=hunter2")
    with answering(page) as server:
        preflight = look(client_of(kind, server.url))
        assert len(server.got) == 1
    assert (preflight.status, preflight.reason) == ("misconfigured", "not_found")
    assert "answers HTTP 308, a redirect to https://***@gateway.example/v1" in preflight.message
    assert "hunter2" not in preflight.message


@pytest.mark.parametrize("kind", KINDS)
def test_unreachable_server_is_no_configuration_error(kind: str) -> None:
    """Waiting may help."""
    preflight = look(client_of(kind, refusing_url()))
    assert (preflight.status, preflight.reason) == ("unreachable", "connection_error")
    with answering(reply({"error": "starting"}, 503)) as server:
        assert look(client_of(kind, server.url)).status == "unreachable"


def test_refused_ollama_port_suggests_ollama_serve() -> None:
    """The message for a vLLM does not have this hint."""
    with FakeLLM() as server:
        url = server.url
    assert look(client_of("ollama", url)).message.endswith("address: start Ollama (`ollama serve`)")
    assert "ollama" not in look(client_of("vllm", url)).message.lower()


def test_draining_server_is_unreachable() -> None:
    """Its pages answer with 200, but the tiny completion fails."""
    with FakeLLM() as server:
        server.draining = True
        for full in (True, False):
            preflight = look(client_of("vllm", server.url), full=full)
            assert (preflight.status, preflight.reason) == ("unreachable", "server_error")


def test_empty_model_means_the_only_served_model() -> None:
    """Requests and records then have its name."""
    with FakeLLM(("qwen",)) as server:
        client = client_of("vllm", server.url, model="")
        assert look(client).model == "qwen"
        assert client.call_llm({"user": "u"}, None, "u").model.name == "qwen"
        assert server.chats()[-1].body["model"] == "qwen"


def test_empty_model_among_several_is_a_configuration_error() -> None:
    """The choice would be ambiguous."""
    with FakeLLM(("a", "b")) as server:
        preflight = look(client_of("vllm", server.url, model=""))
    assert (preflight.status, preflight.reason, preflight.models) == ("misconfigured", "model_not_found", ("a", "b"))
    assert "'a', 'b'" in preflight.message


ADVICE = {
    "ollama": "raise `ollama.num_ctx`, or lower `max_tokens` in the agent's file, or `ollama.max_tokens` where",
    "vllm": "start the server with a larger context, or lower `max_tokens` in the agent's file, or `vllm.max_tokens`",
}


@pytest.mark.parametrize("kind", KINDS)
def test_max_tokens_beyond_the_context_is_a_configuration_error(kind: str) -> None:
    """Bare prompt and max_tokens must fit the context together; one token less passes."""
    tokens = len("You extract.\n<document></document>") // 4
    settings = {"num_ctx": 1000} if kind == "ollama" else {}
    with FakeLLM(context=1000) as server:
        fits = look(client_of(kind, server.url, max_tokens=1000 - tokens, **settings))
        preflight = look(client_of(kind, server.url, max_tokens=1001 - tokens, **settings))
    assert fits.status == "ok"
    assert (preflight.status, preflight.reason) == ("misconfigured", "rejected_config")
    assert f"takes {tokens} tokens and max_tokens is {1001 - tokens}" in preflight.message
    assert ADVICE[kind] in preflight.message


@pytest.mark.parametrize("kind", KINDS)
def test_prompt_beyond_the_context_is_a_configuration_error(kind: str) -> None:
    """A prompt that overflows without a document would fail every document."""
    sample = PreflightSample({"system": "word " * 2000, "user": ""}, SCHEMA)
    with FakeLLM(context=1000) as server:
        preflight = look(client_of(kind, server.url, max_tokens=10), sample=sample)
    assert (preflight.status, preflight.reason) == ("misconfigured", "rejected_config")
    assert "does not fit" in preflight.message
    assert ADVICE[kind] in preflight.message


def test_refused_schema_is_a_configuration_error() -> None:
    """The first structured request has the agent's own schema."""
    schema = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}
    with FakeLLM() as server:
        preflight = look(client_of("vllm", server.url), sample=PreflightSample(SAMPLE.prompts, schema))
    assert (preflight.status, preflight.reason) == ("misconfigured", "rejected_config")
    assert "uniqueItems" in preflight.message


@pytest.mark.parametrize(("thinking", "think"), [(True, False), (False, None)])
def test_think_false_is_sent_only_to_thinking_models(thinking: bool, think: bool | None) -> None:
    """Requests for other models lack the field."""
    with FakeLLM(thinking=thinking) as server:
        client = client_of("ollama", server.url)
        assert look(client).think is think
        client.call_llm({"user": "u"}, SCHEMA, "u")
        bodies = [chat.body for chat in server.chats() if chat.body["messages"]]
    assert [body.get("think", "absent") for body in bodies] == ["absent" if think is None else think] * 3


@pytest.mark.parametrize(("family", "think"), [("gptoss", "low"), ("qwen3", False)])
def test_gpt_oss_gets_the_lowest_thinking_level(family: str, think: object) -> None:
    """Its thinking has levels but cannot be switched off."""
    pages = {
        "/api/tags": reply({"models": [{"name": "llama3.1:latest"}]}),
        "/api/show": reply({"capabilities": ["completion", "thinking"], "details": {"family": family}}),
        "/api/chat": reply({"message": {"content": "ok"}, "done": True, "done_reason": "stop"}),
        "/api/ps": reply({"models": []}),
        "/api/version": reply({"version": "0.32.9"}),
    }
    with answering(pages) as server:
        assert look(client_of("ollama", server.url), canary=False).think == think
        assert server.got[-1].json["think"] == think


def test_cold_model_is_loaded_with_empty_messages_first() -> None:
    """The load has `load_timeout` and not `timeout`, because Ollama drops a load whose client leaves."""
    with FakeLLM(load_s=1.5) as server:
        preflight = look(client_of("ollama", server.url, timeout=1.0, load_timeout=60.0))
        first = server.chats()[0].body
        assert (preflight.status, server.loads) == ("ok", 1)
    assert (first["messages"], first["keep_alive"], first["options"]) == ([], "10m", {"num_ctx": 8192})


def test_cold_model_is_loaded_with_preflight_off() -> None:
    """The tiny completion may then take as long as the load."""
    with FakeLLM(load_s=1.5) as server:
        client = client_of("ollama", server.url, timeout=1.0, load_timeout=60.0, preflight="off")
        assert look(client).status == "ok"
        assert [request.path for request in server.requests] == ["/api/chat"]


def test_clamped_num_ctx_is_reported_and_recorded() -> None:
    """Ollama silently limits the context to what the model was trained for."""
    with FakeLLM(context=2048) as server:
        client = client_of("ollama", server.url, num_ctx=8192)
        preflight = look(client)
        assert preflight.context_length == 2048
        assert preflight.warnings == ("`ollama.num_ctx` is 8192, but the loaded model has a context of 2048 tokens",)
        assert client.call_llm({"user": "u"}, None, "u").context_length == 2048


def test_context_of_another_loaded_model_is_ignored() -> None:
    """Other models may be loaded with a smaller context."""
    pages = {
        "/api/tags": reply({"models": [{"name": "llama3.1:latest"}]}),
        "/api/show": reply({"capabilities": ["completion"]}),
        "/api/chat": reply({"message": {"content": "ok"}, "done": True, "done_reason": "stop"}),
        "/api/ps": reply({"models": [{"name": "tiny:latest", "context_length": 512}]}),
        "/api/version": reply({"version": "0.32.9"}),
    }
    with answering(pages) as server:
        preflight = look(client_of("ollama", server.url), canary=False)
    assert (preflight.status, preflight.context_length, preflight.warnings) == ("ok", 8192, ())


@pytest.mark.parametrize("kind", KINDS)
def test_attempts_have_the_detected_context_length(kind: str) -> None:
    """Records then show the limit."""
    with FakeLLM(context=4096) as server:
        client = client_of(kind, server.url, **({"num_ctx": 4096} if kind == "ollama" else {}))
        look(client)
        assert client.call_llm({"user": "u"}, None, "u").context_length == 4096
        assert client.short_client(max_tokens=2, timeout_s=5).call_llm({"user": "u"}, None, "u").context_length == 4096


@pytest.mark.parametrize("kind", KINDS)
def test_known_context_survives_a_preflight_without_one(kind: str) -> None:
    """A gateway may stop reporting it."""
    client = client_of(kind, refusing_url())
    client.adopt(model="m", think=None, digest=None, context_length=4096)
    client.adopt(model="m", think=None, digest=None)
    assert client.context_length == 4096


@pytest.mark.parametrize("kind", KINDS)
def test_liveness_check_is_one_tiny_completion(kind: str) -> None:
    """It has a few tokens and no schema."""
    with FakeLLM() as server:
        assert look(client_of(kind, server.url), full=False) == Preflight("ok")
        requests = server.requests
        assert (len(requests), len(server.chats()), schema_sent(requests[0])) == (1, 1, None)


@pytest.mark.parametrize("name", ["truncated", "empty_content", "context", "html_200"])
def test_any_answer_shows_that_the_server_is_alive(name: str) -> None:
    """The answer may be cut, empty or strange."""
    with FakeLLM(faults=lambda *_: Fault(name)) as server:
        assert look(client_of("vllm", server.url), full=False).status == "ok"


def test_unenforced_schema_keywords_are_reported() -> None:
    """They depend on the kind of server."""
    schema = {**SCHEMA, "properties": {"a": {"type": "integer", "multipleOf": 5}}}
    with FakeLLM() as server:
        preflight = look(client_of("vllm", server.url), sample=PreflightSample(SAMPLE.prompts, schema))
    assert preflight.unenforced == ("$.a: multipleOf",)
