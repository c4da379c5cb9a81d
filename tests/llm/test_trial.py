"""The preflight passes only servers whose answers a run would accept, and says what to set for others."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from conftest import AGENT, Place
from fake_llm import FakeLLM
from raw_server import Got, Line, RawServer, reply
from test_preflight import SAMPLE, SCHEMA, client_of, look

from pipeline.llm.preflight.preflight import PreflightSample
from pipeline.llm.preflight.schema_canary import canary_schema

CHAT = "/v1/chat/completions"
TEXT = '{"a": 1}'
Answer = Callable[[dict[str, Any]], bytes]


def completion(content: Any, finish: Any = "stop", **message: Any) -> bytes:
    """Return a completion."""
    choice = {"message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}
    return reply({"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 9}})


def refused(message: str, status: int = 400, **more: Any) -> bytes:
    """Return an error."""
    return reply({"error": {"message": message, **more}}, status)


def schema_of(body: dict[str, Any]) -> Any:
    """Return the schema in a request."""
    return (body.get("response_format") or {}).get("json_schema", {}).get("schema")


def filled(schema: Any) -> str:
    """Return the answer of a model that follows the schema: each property's only value, or 1."""
    return json.dumps({name: part.get("enum", [1])[0] for name, part in schema["properties"].items()})


def obedient(body: dict[str, Any]) -> bytes:
    """Return the reply of a good server."""
    schema = schema_of(body)
    return completion(filled(schema) if schema else "ok")


def serving(answer: Answer) -> RawServer:
    """Return a server of one model, `m`, with these completions."""
    server: RawServer

    def talk(line: Line) -> None:
        while (request := line.read()) is not None:
            server.got.append(request)
            line.send(page(request))

    def page(received: Got) -> bytes:
        if received.path == CHAT:
            return answer(received.json)
        return reply({"data": [{"id": "m"}]}) if received.path == "/v1/models" else reply({}, 404)

    server = RawServer(talk)
    return server


def crash(message: str = "") -> Answer:
    """Return the answers of a server that replies 500 to each schema."""
    return lambda body: refused(message, 500) if schema_of(body) else completion("ok")


# the server's reply → reason, the message for the user
FAULTY: list[tuple[str, Answer, str, str]] = [
    (
        "system role",
        lambda _: refused("System role not supported"),
        "rejected_config",
        "`system_prompt` into `user_prompt`",
    ),
    (
        "max_tokens",
        lambda _: refused("Unsupported parameter: 'max_tokens' is not supported with this model."),
        "rejected_config",
        "max_completion_tokens: N",
    ),
    ("422", lambda _: reply({"detail": [{"loc": ["body", "x"], "msg": "no"}]}, 422), "rejected", "body.x: no"),
    ("finish", lambda _: completion(TEXT, "content_filter"), "bad_response", "finish_reason is 'content_filter'"),
    (
        "only thoughts",
        lambda _: completion(None, reasoning_content="hm"),
        "empty_model_response",
        "enable_thinking: false",
    ),
    (
        "cut thoughts",
        lambda _: completion(None, "length", reasoning="hm"),
        "output_truncated",
        "docs/thinking-models.md",
    ),
    ("thoughts", lambda _: completion("<think>I see", "length"), "output_truncated", "only thinks within its answer"),
    ("says nothing", lambda _: completion(""), "empty_model_response", "no content"),
    ("page", lambda _: reply(b"<html>Sign in"), "bad_response", "not a JSON object"),
    ("schema 500", crash(), "rejected_config", "refuses the agent's schema, and completes the same request without it"),
    ("schema 500 text", crash("EOF"), "rejected_config", "simplify the schema"),
    (
        "schema 400",
        lambda body: refused("no such thing") if schema_of(body) else completion("ok"),
        "rejected_config",
        "refuses the agent's schema",
    ),
]


@pytest.mark.parametrize(("answer", "reason", "message"), [row[1:] for row in FAULTY], ids=[row[0] for row in FAULTY])
def test_server_that_refuses_every_completion_fails_preflight(answer: Answer, reason: str, message: str) -> None:
    """It is a configuration error with the server's message and the setting to change."""
    with serving(answer) as server:
        result = look(client_of("openai", server.url, model="m"))
        warned = look(client_of("openai", server.url, model="m", preflight="warn"))
    assert (result.status, result.reason) == ("misconfigured", reason)
    assert message in result.message
    assert warned.status != "ok" or result.message in warned.warnings


@pytest.mark.parametrize(("status", "message"), [(500, "boom"), (503, "busy"), (429, "slow down")])
def test_server_that_fails_without_a_schema_is_unavailable(status: int, message: str) -> None:
    """Failing with and without the schema is a temporary fault of the server."""
    with serving(lambda _: refused(message, status)) as server:
        preflight = look(client_of("openai", server.url, model="m"))
    assert (preflight.status, message in preflight.message) == ("unreachable", True)


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        (refused("Payment required", 402), 2),
        (refused("Budget has been exceeded! Current cost: 10", 400), 2),
        (refused("The model has crashed without additional information. (Exit code: 6)"), 3),
        (refused("model is loading", 409), 3),
    ],
)
def test_check_reports_the_servers_message(place: Place, refusal: bytes, code: int) -> None:
    """A temporary fault is exit 3, an unpaid account is exit 2."""
    with serving(lambda _: refusal) as server:
        place.configure({"vllm.type": "openai", "vllm.base_url": server.url, "vllm.model": "m"})
        ran = place.call("check")
    message = json.loads(refusal.partition(b"\r\n\r\n")[2])["error"]["message"]
    assert (ran.code, "FAILED" in ran.out, message in ran.out) == (code, True, True), ran.out


@pytest.mark.parametrize("bad", [refused("", 500), completion("", "stop"), completion(TEXT, "odd"), reply(b"<html>")])
def test_one_bad_answer_does_not_fail_preflight(bad: bytes) -> None:
    """A server whose next answer is right passes."""
    remaining = [bad]
    with serving(lambda body: remaining.pop() if remaining else obedient(body)) as server:
        assert look(client_of("openai", server.url, model="m")).status == "ok"


def test_thinking_model_gets_the_agents_max_tokens() -> None:
    """48 tokens of thoughts prove little, so the preflight waits for the answer that a run would get."""

    def answer(body: dict[str, Any]) -> bytes:
        if body["max_tokens"] < 500:
            return completion(None, "length", reasoning="hm")
        return completion(TEXT, reasoning="hm")

    with serving(answer) as server:
        preflight = look(client_of("openai", server.url, model="m", max_tokens=500))
        assert [request.json["max_tokens"] for request in server.got if request.path == CHAT] == [48, 500, 1, 1, 48]
    assert (preflight.status, preflight.enforcement) == (
        "ok",
        "not verified (the model spent the 48 tokens of the test on thoughts)",
    )


def test_answer_in_the_reasoning_passes_preflight() -> None:
    """It passes unless the configuration refuses such answers."""
    with serving(lambda _: completion(None, reasoning_content=TEXT)) as server:
        client = client_of("openai", server.url, model="m")
        assert look(client).status == "ok"
        client.from_reasoning = False
        assert look(client).reason == "empty_model_response"


def drops(own: bool) -> Answer:
    """Return a server that ignores schemas with a pattern; with `own` only the agent's schema."""

    def answer(body: dict[str, Any]) -> bytes:
        schema = schema_of(body)
        dropped = schema == PATTERN if own else "pattern" in json.dumps(schema)
        return completion("A harbour shelters ships.") if dropped else obedient(body)

    return answer


PATTERN = {**SCHEMA, "properties": {"a": {"type": "string", "pattern": "^x"}}}


@pytest.mark.parametrize("own", [True, False])
def test_server_that_ignores_only_this_schema_is_detected(own: bool) -> None:
    """With the bug llama.cpp #19051 all other schemas are enforced."""
    with serving(drops(own)) as server:
        sample = PreflightSample(SAMPLE.prompts, PATTERN)
        preflight = look(client_of("openai", server.url, model="m"), sample=sample)
        assert look(client_of("openai", server.url, model="m")).enforcement == "enforced"
    assert (preflight.status, preflight.enforcement, len(preflight.warnings)) == ("ok", "not enforced", 1)


@pytest.mark.parametrize(
    ("own", "statement"),
    [
        (completion(TEXT), "enforced"),
        (completion('{"a"', "length"), "enforced"),
        (completion('{"a": "x"}'), "not enforced"),
        (completion('{"b": 1', "length"), "not enforced"),
        (completion("Here it is: " + TEXT), "not enforced"),
        (completion("```json\n" + TEXT + "\n```"), "not enforced"),
    ],
)
def test_answer_to_the_agents_schema_is_checked_too(own: bytes, statement: str) -> None:
    """An enforced grammar cannot produce an answer that breaks its schema."""
    with serving(lambda body: own if schema_of(body) == SCHEMA else obedient(body)) as server:
        assert look(client_of("openai", server.url, model="m")).enforcement == statement


@pytest.mark.parametrize("root", [{"allOf": [{"required": ["a"]}]}, {"maxProperties": 1}])
def test_schema_without_room_for_a_canary_is_not_verified(root: dict[str, Any]) -> None:
    """One more property would change its meaning."""
    with serving(obedient) as server:
        preflight = look(
            client_of("openai", server.url, model="m"), sample=PreflightSample(SAMPLE.prompts, {**SCHEMA, **root})
        )
    assert preflight.enforcement.startswith("not verified (the schema's root")
    assert canary_schema({**SCHEMA, **root}) is None


def test_refused_canary_leaves_enforcement_unverified() -> None:
    """The message says why."""
    with serving(lambda body: refused("odd", 500) if "canary" in json.dumps(body) else obedient(body)) as server:
        preflight = look(client_of("openai", server.url, model="m"))
    assert (preflight.status, preflight.enforcement) == (
        "ok",
        "not verified (the test was not answered: HTTP 500: odd)",
    )


@pytest.mark.parametrize("text", ["{" + " \n" * 40, TEXT + "\n" * 90, '{"a": 1' + " " * 60])
def test_white_space_flood_is_reported(text: str) -> None:
    """The warning names the server's setting."""
    with serving(lambda _: completion(text, "length")) as server:
        preflight = look(client_of("openai", server.url, model="m"))
    assert preflight.status == "ok"
    assert any("disable_any_whitespace" in warning for warning in preflight.warnings)


@pytest.mark.parametrize(("answer", "message"), [(row[1], row[3]) for row in FAULTY], ids=[row[0] for row in FAULTY])
def test_check_and_run_exit_with_2_at_once(place: Place, answer: Answer, message: str) -> None:
    """Both print the server's message and the setting to change, and no document fails."""
    place.documents(3)
    with serving(answer) as server:
        place.configure({"vllm.type": "openai", "vllm.base_url": server.url, "vllm.model": "m"})
        checked = place.call("check")
        assert (checked.code, "FAILED" in checked.out, message in checked.out) == (2, True, True), checked.out
        ran = place.call("run")
    assert (ran.code, message in ran.err + ran.out) == (2, True), ran.err
    assert (place.lines("results.jsonl"), place.lines("errors.jsonl")) == ([], [])


def test_check_reports_schema_enforcement(place: Place, server: FakeLLM) -> None:
    """It is reported as enforced, not enforced or not verified."""
    assert "schema: enforced" in place.call("check").out
    server.enforce_schema = False
    assert "schema: not enforced" in place.call("check").out
    place.configure(agent={"schema": {**AGENT["schema"], "minProperties": 1, "maxProperties": 1}})
    server.enforce_schema = True
    assert "schema: not verified (the schema's root" in place.call("check").out
