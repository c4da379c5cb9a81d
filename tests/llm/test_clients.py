"""The requests of each client, and how it interprets each kind of reply (`responses` stands in for the network)."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import responses
from raw_server import RawServer, answering, reply

from pipeline.answers import parse
from pipeline.config import OllamaConfig, VLLMConfig
from pipeline.llm.ollama import OllamaClient
from pipeline.llm.protocol import LLMClient
from pipeline.llm.transport.http import Endpoint
from pipeline.llm.vllm import VLLMClient, check_vllm_health
from pipeline.records import ExtractionAttempt

VLLM_URL, OLLAMA_URL = "http://vllm.test:8000", "http://ollama.test:11434"
CHATS = {"vllm": VLLM_URL + "/v1/chat/completions", "ollama": OLLAMA_URL + "/api/chat"}
PROMPTS = {"system": "You extract.", "user": "The document."}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
KINDS = ("vllm", "ollama")


def client_of(kind: str, **settings: Any) -> VLLMClient | OllamaClient:
    """Return a client of this dialect made from its config alone."""
    if kind == "vllm":
        return VLLMClient(VLLMConfig(base_url=VLLM_URL, model="m", **settings))
    return OllamaClient(OllamaConfig(base_url=OLLAMA_URL, model="m", **settings))


def body_of(kind: str, text: Any, *, finish: str | None = "stop") -> dict[str, Any]:
    """Return a complete reply with this text."""
    message = {"role": "assistant", "content": text}
    if kind == "vllm":
        usage = {"prompt_tokens": 40, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 16}}
        return {"choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": usage}
    durations = {"total_duration": 10_000_000_000, "load_duration": 1_000_000_000, "eval_duration": 2_000_000_000}
    counts = {"prompt_eval_count": 40, "prompt_eval_duration": 3_000_000_000, "eval_count": 5}
    return {"model": "m", "message": message, "done": True, "done_reason": finish, **durations, **counts}


@pytest.fixture(name="wire")
def _wire() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock() as mock:
        yield mock


def attempt_of(
    wire: responses.RequestsMock, kind: str, *, schema: Any = SCHEMA, settings: Any = None, **answer: Any
) -> ExtractionAttempt:
    """Return the attempt for a single reply."""
    wire.post(CHATS[kind], **answer)
    return client_of(kind, **(settings or {})).call_llm(PROMPTS, schema, "The document.")


def sent(wire: responses.RequestsMock) -> dict[str, Any]:
    """Return the body of the only request."""
    payload: dict[str, Any] = json.loads(wire.calls[0].request.body)
    return payload


def test_vllm_sends_an_openai_request(wire: responses.RequestsMock) -> None:
    """It has messages, sampling settings and the schema as `response_format`."""
    attempt_of(wire, "vllm", json=body_of("vllm", "{}"), settings={"temperature": 0.25, "max_tokens": 77})
    assert sent(wire) == {
        "model": "m",
        "messages": [{"role": "system", "content": "You extract."}, {"role": "user", "content": "The document."}],
        "max_tokens": 77,
        "temperature": 0.25,
        "stream": False,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "extraction", "schema": SCHEMA, "strict": True},
        },
    }


def test_ollama_sends_its_own_request(wire: responses.RequestsMock) -> None:
    """It always has `truncate: false` and `num_ctx`, and the schema as `format`."""
    settings = {"temperature": 0.25, "max_tokens": 77, "num_ctx": 4096, "keep_alive": "5m"}
    attempt_of(wire, "ollama", json=body_of("ollama", "{}"), settings=settings)
    assert sent(wire) == {
        "model": "m",
        "messages": [{"role": "system", "content": "You extract."}, {"role": "user", "content": "The document."}],
        "stream": False,
        "truncate": False,
        "keep_alive": "5m",
        "options": {"num_ctx": 4096, "num_predict": 77, "temperature": 0.25},
        "format": SCHEMA,
    }


def test_request_without_a_schema_is_unconstrained(wire: responses.RequestsMock) -> None:
    """Without a schema the request has no format field."""
    attempt_of(wire, "vllm", json=body_of("vllm", "hello"), schema=None)
    assert "response_format" not in sent(wire)


def test_extra_body_overrides_and_adds_fields(wire: responses.RequestsMock) -> None:
    """`extra_body` takes precedence over the client's own fields."""
    attempt_of(wire, "vllm", json=body_of("vllm", "{}"), settings={"extra_body": {"temperature": 1.5, "seed": 7}})
    assert (sent(wire)["temperature"], sent(wire)["seed"]) == (1.5, 7)


@pytest.mark.parametrize("kind", KINDS)
def test_complete_reply_gives_text_and_counts(wire: responses.RequestsMock, kind: str) -> None:
    """The attempt has no error."""
    attempt = attempt_of(wire, kind, json=body_of(kind, '{"a": 1}'))
    assert (attempt.ok, attempt.raw_text, attempt.error, attempt.reason) == (True, '{"a": 1}', None, None)
    assert (attempt.prompt_tokens, attempt.completion_tokens) == (40, 5)
    assert (attempt.model.provider, attempt.model.name, attempt.model.endpoint) == (
        kind,
        "m",
        CHATS[kind][: -len("/v1/chat/completions") if kind == "vllm" else -len("/api/chat")],
    )
    if kind == "vllm":
        assert attempt.cached_tokens == 16
    else:
        assert (attempt.load_s, attempt.queue_s) == (pytest.approx(1.0), pytest.approx(4.0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("empty", ["", None, "  \n "])
def test_empty_answer_is_empty_model_response(wire: responses.RequestsMock, kind: str, empty: str | None) -> None:
    """The same applies to null and white space."""
    attempt = attempt_of(wire, kind, json=body_of(kind, empty))
    assert (attempt.error, attempt.reason, attempt.retryable) == ("empty_model_response", "empty_model_response", True)


def test_empty_choices_are_empty_model_response(wire: responses.RequestsMock) -> None:
    """The reply has an empty list `choices`."""
    attempt = attempt_of(wire, "vllm", json={"choices": [], "usage": {"prompt_tokens": 3}})
    assert (attempt.error, attempt.prompt_tokens) == ("empty_model_response", 3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("raised", [requests.ReadTimeout("slow"), requests.Timeout("slow")])
def test_request_timeout_is_retryable(wire: responses.RequestsMock, kind: str, raised: Exception) -> None:
    """Its reason is `timeout`."""
    attempt = attempt_of(wire, kind, body=raised)
    assert (attempt.error, attempt.reason, attempt.retryable) == ("timeout", "timeout", True)


@pytest.mark.parametrize("kind", KINDS)
def test_connection_error_has_its_details(wire: responses.RequestsMock, kind: str) -> None:
    """The text begins with `connection_error: ` and continues with the cause."""
    attempt = attempt_of(wire, kind, body=requests.ConnectionError("no route to host"))
    assert (attempt.error, attempt.reason) == ("connection_error: no route to host", "connection_error")
    assert attempt.retryable


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("status", "reason", "retryable"),
    [(500, "server_error", True), (400, "rejected", False), (503, "overloaded", True)],
)
def test_http_status_is_the_error(
    wire: responses.RequestsMock, kind: str, status: int, reason: str, retryable: bool
) -> None:
    """The error is `http_{code}`; a 500 may be retried, a 400 may not."""
    attempt = attempt_of(wire, kind, status=status, json={"error": "because"})
    assert (attempt.error, attempt.reason, attempt.retryable) == (f"http_{status}", reason, retryable)
    assert attempt.message == f"HTTP {status}: because"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("text", "repaired"), [('{"a": 1}', False), ('```json\n{"a": 1}\n```', True), ('Sure:\n{"a": 1,}', True)]
)
def test_client_returns_the_answer_text_unrepaired(
    wire: responses.RequestsMock, kind: str, text: str, repaired: bool
) -> None:
    """Removing fences and repairing commas is the task of the answers module."""
    attempt = attempt_of(wire, kind, json=body_of(kind, text))
    assert attempt.raw_text == text
    answer = parse(attempt.raw_text or "")
    assert (answer.value, answer.repaired) == ({"a": 1}, repaired)


@pytest.mark.parametrize("kind", KINDS)
def test_key_is_sent_but_not_shown(wire: responses.RequestsMock, kind: str) -> None:
    """The request header has it, and no attempt does."""
    attempt = attempt_of(wire, kind, status=401, json={"error": "Unauthorized"}, settings={"api_key": "sk-secret"})
    assert wire.calls[0].request.headers["Authorization"] == "Bearer sk-secret"
    assert (attempt.reason, attempt.retryable) == ("unauthorized", False)
    assert "sk-secret" not in repr(attempt)


@pytest.mark.parametrize("kind", KINDS)
def test_clients_implement_llm_client(kind: str) -> None:
    """Both have the two methods of the protocol, and `close` may be called twice."""
    client: LLMClient = client_of(kind)
    client.close()
    client.close()


def test_healthy_server_is_logged_at_info(wire: responses.RequestsMock, caplog: pytest.LogCaptureFixture) -> None:
    """A server that lists its models is healthy; the request has the key."""
    caplog.set_level(logging.INFO, logger="pipeline.llm.vllm")
    wire.get(VLLM_URL + "/v1/models", json={"data": []})
    assert check_vllm_health(VLLM_URL + "/v1", api_key="k") is True
    assert wire.calls[0].request.headers["Authorization"] == "Bearer k"
    message = f"vLLM health check passed: {VLLM_URL}"
    assert [(record.levelname, record.message) for record in caplog.records] == [("INFO", message)]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"status": 503}, "http_503"),
        ({"body": requests.ConnectionError("refused")}, "connection_error: refused"),
        ({"body": requests.ReadTimeout()}, "timeout"),
    ],
)
def test_unhealthy_server_is_logged_at_warning(
    wire: responses.RequestsMock, caplog: pytest.LogCaptureFixture, answer: dict[str, Any], error: str
) -> None:
    """Any other reply, or none, gives False with the reason and never an exception."""
    caplog.set_level(logging.INFO, logger="pipeline.llm.vllm")
    wire.get(VLLM_URL + "/v1/models", **answer)
    assert check_vllm_health(VLLM_URL, timeout=2.0) is False
    assert [(record.levelname, record.__dict__["error"]) for record in caplog.records] == [("WARNING", error)]
    assert caplog.records[0].message == f"vLLM health check failed: {VLLM_URL}: {error}"


def test_health_check_respects_its_timeout() -> None:
    """A silent server is unhealthy after the given seconds."""
    with RawServer(lambda line: line.ended.wait()) as server:
        begun = time.monotonic()
        assert check_vllm_health(server.url, 0.3) is False
        assert 0.25 < time.monotonic() - begun < 60.0


def test_health_check_logs_no_secret_of_the_url(caplog: pytest.LogCaptureFixture) -> None:
    """Neither the user nor the key is logged, whatever the outcome."""
    caplog.set_level(logging.DEBUG)
    with answering(reply({"data": []})) as server:
        url = server.url.replace("//", "//robot:hunter2@")
        assert check_vllm_health(url, api_key="sk-secret") is True
    assert check_vllm_health(url, 1.0, api_key="sk-secret") is False
    records = " ".join(str(vars(record)) for record in caplog.records if record.name.startswith("pipeline"))
    assert "health check passed" in records
    assert "health check failed" in records
    assert [secret for secret in ("robot", "hunter2", "sk-secret") if secret in records] == []


def test_small_clients_share_the_endpoint() -> None:
    """A small request uses the same connections and the same key."""
    client = client_of("vllm")
    assert isinstance(client.endpoint, Endpoint)
    assert client.short_client(max_tokens=3, timeout_s=1.0).endpoint is client.endpoint
