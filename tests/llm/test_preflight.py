"""What a look at a server finds out before documents are sent to it."""

from __future__ import annotations

from typing import Any

import pytest
from fake_llm import FakeLLM, Fault, Seen
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


def schema_sent(seen: Seen) -> Any:
    """The schema that a chat request carries, in either dialect."""
    wanted = seen.body.get("response_format")
    return wanted["json_schema"]["schema"] if wanted else seen.body.get("format")


@pytest.mark.parametrize("kind", KINDS)
def test_a_good_server_passes_with_its_facts(kind: str) -> None:
    """Model, models, context, version, the size of the bare prompt, and that schemas are enforced."""
    with FakeLLM(("llama3.1:latest", "other:latest"), 4096) as server:
        client = client_of(kind, server.url, **({"num_ctx": 4096} if kind == "ollama" else {}))
        found = look(client)
        assert client.call_llm({"user": "u"}, None, "u").model.digest == found.digest
    assert (found.status, found.reason, found.message, found.warnings) == ("ok", None, "", ())
    assert (found.model, found.models) == ("llama3.1:latest", ("llama3.1:latest", "other:latest"))
    assert (found.context_length, found.server) == (4096, "0.32.0" if kind == "vllm" else "0.32.9")
    assert found.prompt_tokens == (len("You extract.\n<document></document>")) // 4
    assert found.enforcement == "enforced"
    assert (found.digest is not None) is (kind == "ollama")


@pytest.mark.parametrize("kind", KINDS)
def test_the_schema_of_the_agent_goes_before_the_canary(kind: str) -> None:
    """vLLM picks its grammar back end by the first structured request: that must be the documents' own."""
    with FakeLLM() as server:
        look(client_of(kind, server.url))
        asked = [schema_sent(seen) for seen in server.chats() if seen.body["messages"]]
    assert asked == [SCHEMA, canary_schema(SCHEMA)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_ignores_schemas_gets_a_warning(kind: str) -> None:
    """It is used all the same: every answer is validated here."""
    with FakeLLM(enforce_schema=False) as server:
        found = look(client_of(kind, server.url))
    assert (found.status, found.enforcement) == ("ok", "not enforced")
    assert "does not hold the model to the schema" in found.warnings[0]


@pytest.mark.parametrize(
    ("said", "statement"),
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
def test_what_the_canary_proves(said: str, statement: str) -> None:
    """A tiny model put nothing but white space after the brace (vLLM 0.32.0): prose does not begin like that."""
    with FakeLLM(answer=lambda prompt, _: said if "harbour" in prompt else '{"a": 1}') as server:
        assert look(client_of("vllm", server.url)).enforcement == statement


def test_without_a_canary_nothing_is_known_of_enforcement() -> None:
    """The canary goes once to each server and run; other looks leave it out."""
    with FakeLLM(enforce_schema=False) as server:
        found = look(client_of("vllm", server.url), canary=False)
        assert (found.status, found.enforcement, found.warnings, len(server.chats())) == ("ok", "", (), 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_model_is_told_with_the_list(kind: str) -> None:
    """A person sees at once what to write instead, and no completion was paid for it."""
    with FakeLLM(("llama3.1:latest", "mistral:7b")) as server:
        found = look(client_of(kind, server.url, model="nosuch"))
        assert server.chats() == []
    assert (found.status, found.reason) == ("misconfigured", "model_not_found")
    assert found.message == "model 'nosuch' is not available; the server has 'llama3.1:latest', 'mistral:7b'"
    assert found.models == ("llama3.1:latest", "mistral:7b")


@pytest.mark.parametrize("model", ["llama3.1", "llama3.1:latest"])
def test_ollama_knows_a_model_with_and_without_latest(model: str) -> None:
    """`latest` is the tag of a name without one; records keep the configured name."""
    with FakeLLM(("llama3.1:latest",)) as server:
        assert look(client_of("ollama", server.url, model=model)).model == model


def test_ollama_keeps_other_tags_apart() -> None:
    """Another tag is another model."""
    with FakeLLM(("llama3.1:8b",)) as server:
        assert look(client_of("ollama", server.url, model="llama3.1")).reason == "model_not_found"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["strict", "warn", "off"])
def test_a_wrong_key_is_a_dead_end(kind: str, mode: str) -> None:
    """However little is looked at, a key that is refused is found before the first document."""
    with FakeLLM(api_key="right") as server:
        found = look(client_of(kind, server.url, api_key="wrong", preflight=mode))
        right = look(client_of(kind, server.url, api_key="right", preflight=mode))
    assert (found.status, found.reason) == ("misconfigured", "unauthorized")
    assert "wrong" not in repr(found)
    assert right.status == "ok"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, ": no key was sent (set `api_key`, or name its file in `api_key_file`)"),
        ({"api_key": "wrong"}, ": the server refuses the key"),
        ({"headers": {"authorization": "Bearer wrong"}}, ": the server refuses the key"),
        ({"headers": {"X-Api-Key": "wrong"}}, ": the server refuses the key"),
    ],
)
def test_a_missing_key_is_told_from_a_wrong_one(kind: str, settings: dict[str, Any], told: str) -> None:
    """A person sees whether the key did not arrive here, or is not the right one."""
    with FakeLLM(api_key="right") as server:
        found = look(client_of(kind, server.url, **settings))
        user = look(client_of(kind, server.url.replace("//", "//robot:hunter2@")))
    assert user.message.endswith(": the server refuses the key")
    assert found.message == ("/v1/models" if kind == "vllm" else "/api/tags") + " answers HTTP 401" + told


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("page", [reply(b"<html>"), *(reply(b"no", code) for code in (302, 400, 404, 418))])
def test_a_wrong_url_is_a_dead_end(kind: str, page: bytes) -> None:
    """Something answers, but it is no model server."""
    with answering(page) as server:
        found = look(client_of(kind, server.url))
    assert (found.status, found.reason) == ("misconfigured", "not_found")


@pytest.mark.parametrize("kind", KINDS)
def test_a_redirect_is_told_with_its_target(kind: str) -> None:
    """It is not followed, as the key would go along; whoever wrote http for https sees it."""
    page = reply(b"", 308, Location="https://robot:hunter2@gateway.example/v1?token=hunter2")
    with answering(page) as server:
        found = look(client_of(kind, server.url))
        assert len(server.got) == 1
    assert (found.status, found.reason) == ("misconfigured", "not_found")
    assert "answers HTTP 308, a redirect to https://***@gateway.example/v1" in found.message
    assert "hunter2" not in found.message


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_is_away_is_unreachable(kind: str) -> None:
    """Waiting may help: nothing is said about the configuration."""
    found = look(client_of(kind, refusing_url()))
    assert (found.status, found.reason) == ("unreachable", "connection_error")
    with answering(reply({"error": "starting"}, 503)) as server:
        assert look(client_of(kind, server.url)).status == "unreachable"


def test_a_refused_port_of_ollama_asks_whether_it_runs() -> None:
    """Nothing listens there: the message names the command that starts an Ollama, and nothing of it for a vLLM."""
    with FakeLLM() as server:
        url = server.url
    assert look(client_of("ollama", url)).message.endswith("address: start Ollama (`ollama serve`)")
    assert "ollama" not in look(client_of("vllm", url)).message.lower()


def test_a_draining_server_is_unreachable() -> None:
    """Its pages answer with 200; the tiny completion tells the truth."""
    with FakeLLM() as server:
        server.draining = True
        for full in (True, False):
            found = look(client_of("vllm", server.url), full=full)
            assert (found.status, found.reason) == ("unreachable", "server_error")


def test_an_empty_model_is_the_only_one_served() -> None:
    """It is taken over into the requests and the records."""
    with FakeLLM(("qwen",)) as server:
        client = client_of("vllm", server.url, model="")
        assert look(client).model == "qwen"
        assert client.call_llm({"user": "u"}, None, "u").model.name == "qwen"
        assert server.chats()[-1].body["model"] == "qwen"


def test_an_empty_model_among_several_is_a_dead_end() -> None:
    """Which one is meant, nobody can know."""
    with FakeLLM(("a", "b")) as server:
        found = look(client_of("vllm", server.url, model=""))
    assert (found.status, found.reason, found.models) == ("misconfigured", "model_not_found", ("a", "b"))
    assert "'a', 'b'" in found.message


ADVICE = {
    "ollama": "raise `ollama.num_ctx`, or lower `max_tokens` in the agent's file, or `ollama.max_tokens` where",
    "vllm": "start the server with a larger context, or lower `max_tokens` in the agent's file, or `vllm.max_tokens`",
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_that_cannot_fit_is_a_dead_end(kind: str) -> None:
    """Bare prompt and max_tokens together must leave room in the context; one token less of an answer does."""
    tokens = len("You extract.\n<document></document>") // 4
    settings = {"num_ctx": 1000} if kind == "ollama" else {}
    with FakeLLM(context=1000) as server:
        fits = look(client_of(kind, server.url, max_tokens=1000 - tokens, **settings))
        found = look(client_of(kind, server.url, max_tokens=1001 - tokens, **settings))
    assert fits.status == "ok"
    assert (found.status, found.reason) == ("misconfigured", "rejected_config")
    assert f"takes {tokens} tokens and max_tokens is {1001 - tokens}" in found.message
    assert ADVICE[kind] in found.message


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_that_cannot_fit_is_a_dead_end(kind: str) -> None:
    """A prompt that overflows without any document would fail every document."""
    sample = PreflightSample({"system": "word " * 2000, "user": ""}, SCHEMA)
    with FakeLLM(context=1000) as server:
        found = look(client_of(kind, server.url, max_tokens=10), sample=sample)
    assert (found.status, found.reason) == ("misconfigured", "rejected_config")
    assert "does not fit" in found.message
    assert ADVICE[kind] in found.message


def test_a_schema_that_the_server_refuses_is_a_dead_end() -> None:
    """The first structured request is the agent's own, so its refusal is known at once."""
    schema = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}
    with FakeLLM() as server:
        found = look(client_of("vllm", server.url), sample=PreflightSample(SAMPLE.prompts, schema))
    assert (found.status, found.reason) == ("misconfigured", "rejected_config")
    assert "uniqueItems" in found.message


@pytest.mark.parametrize(("thinking", "think"), [(True, False), (False, None)])
def test_thinking_is_switched_off_where_there_is_some(thinking: bool, think: bool | None) -> None:
    """`think: false` for a model with the capability; for the others the field is not sent."""
    with FakeLLM(thinking=thinking) as server:
        client = client_of("ollama", server.url)
        assert look(client).think is think
        client.call_llm({"user": "u"}, SCHEMA, "u")
        bodies = [seen.body for seen in server.chats() if seen.body["messages"]]
    assert [body.get("think", "absent") for body in bodies] == ["absent" if think is None else think] * 3


@pytest.mark.parametrize(("family", "think"), [("gptoss", "low"), ("qwen3", False)])
def test_a_model_that_cannot_stop_thinking_thinks_little(family: str, think: object) -> None:
    """gpt-oss knows levels only."""
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


def test_a_cold_model_is_loaded_first_with_empty_messages() -> None:
    """The load has `load_timeout`, not `timeout`: Ollama drops a load whose client leaves."""
    with FakeLLM(load_s=1.5) as server:
        found = look(client_of("ollama", server.url, timeout=1.0, load_timeout=60.0))
        first = server.chats()[0].body
        assert (found.status, server.loads) == ("ok", 1)
    assert (first["messages"], first["keep_alive"], first["options"]) == ([], "10m", {"num_ctx": 8192})


def test_a_cold_model_is_loaded_without_a_preflight_too() -> None:
    """With `preflight: off` the tiny completion waits as long as the load may take."""
    with FakeLLM(load_s=1.5) as server:
        client = client_of("ollama", server.url, timeout=1.0, load_timeout=60.0, preflight="off")
        assert look(client).status == "ok"
        assert [seen.path for seen in server.requests] == ["/api/chat"]


def test_a_clamped_num_ctx_is_warned_of_and_recorded() -> None:
    """Ollama gives no more context than the model was trained for, and does not say so."""
    with FakeLLM(context=2048) as server:
        client = client_of("ollama", server.url, num_ctx=8192)
        found = look(client)
        assert found.context_length == 2048
        assert found.warnings == ("`ollama.num_ctx` is 8192, but the loaded model has a context of 2048 tokens",)
        assert client.call_llm({"user": "u"}, None, "u").context_length == 2048


def test_the_context_of_another_model_is_no_matter() -> None:
    """Others may be loaded beside it, with less."""
    pages = {
        "/api/tags": reply({"models": [{"name": "llama3.1:latest"}]}),
        "/api/show": reply({"capabilities": ["completion"]}),
        "/api/chat": reply({"message": {"content": "ok"}, "done": True, "done_reason": "stop"}),
        "/api/ps": reply({"models": [{"name": "tiny:latest", "context_length": 512}]}),
        "/api/version": reply({"version": "0.32.9"}),
    }
    with answering(pages) as server:
        found = look(client_of("ollama", server.url), canary=False)
    assert (found.status, found.context_length, found.warnings) == ("ok", 8192, ())


@pytest.mark.parametrize("kind", KINDS)
def test_attempts_carry_the_context_that_was_found(kind: str) -> None:
    """Records tell what fitted."""
    with FakeLLM(context=4096) as server:
        client = client_of(kind, server.url, **({"num_ctx": 4096} if kind == "ollama" else {}))
        look(client)
        assert client.call_llm({"user": "u"}, None, "u").context_length == 4096
        assert client.small(max_tokens=2, timeout_s=5).call_llm({"user": "u"}, None, "u").context_length == 4096


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_known_of_the_context_outlives_a_look_that_tells_nothing(kind: str) -> None:
    """A gateway that stops telling takes nothing away."""
    client = client_of(kind, refusing_url())
    client.adopt(model="m", think=None, digest=None, context_length=4096)
    client.adopt(model="m", think=None, digest=None)
    assert client.context_length == 4096


@pytest.mark.parametrize("kind", KINDS)
def test_a_short_look_is_one_tiny_completion(kind: str) -> None:
    """Whether a server lives takes one request of a few tokens, without a schema."""
    with FakeLLM() as server:
        assert look(client_of(kind, server.url), full=False) == Preflight("ok")
        seen = server.requests
        assert (len(seen), len(server.chats()), schema_sent(seen[0])) == (1, 1, None)


@pytest.mark.parametrize("name", ["truncated", "empty_content", "context", "html_200"])
def test_a_poor_answer_is_a_sign_of_life(name: str) -> None:
    """A cut, empty or strange answer comes from a server that lives."""
    with FakeLLM(faults=lambda *_: Fault(name)) as server:
        assert look(client_of("vllm", server.url), full=False).status == "ok"


def test_unenforced_keywords_are_told() -> None:
    """The author of a schema learns which keywords this kind of server does not hold a model to."""
    schema = {**SCHEMA, "properties": {"a": {"type": "integer", "multipleOf": 5}}}
    with FakeLLM() as server:
        found = look(client_of("vllm", server.url), sample=PreflightSample(SAMPLE.prompts, schema))
    assert found.unenforced == ("$.a: multipleOf",)
