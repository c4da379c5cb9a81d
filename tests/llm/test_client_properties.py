"""Properties of both clients for every status, every reply and every text."""

from __future__ import annotations

import json
from typing import Any

import pytest
import responses
from hypothesis import given, settings
from hypothesis import strategies as st
from test_clients import CHATS, KINDS, PROMPTS, SCHEMA, body_of, client_of, sent

from pipeline.config import OllamaConfig, VLLMConfig
from pipeline.errors import TRANSIENT_STATUSES, is_retryable, reason_of_status
from pipeline.llm.ollama import OllamaClient
from pipeline.llm.transport.http import Reply
from pipeline.llm.vllm import VLLMClient
from pipeline.records import ExtractionAttempt

OPENAI_FIELDS = {"model", "messages", "max_tokens", "temperature", "stream", "stream_options", "response_format"}
OLLAMA_FIELDS = {"format", "options", "keep_alive", "truncate", "think", "num_ctx", "num_predict"}
STATUSES = [status for status in range(100, 600) if status != 200]
ENVELOPE = ["choices", "message", "content", "delta", "usage", "error", "done", "done_reason", "finish_reason", "type"]
COUNTS = ["index", "prompt_tokens_details", "prompt_tokens", "prompt_eval_count", "thinking", "reasoning", "detail"]
KEYS = [*ENVELOPE, *COUNTS]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=12,
)
SHAPED = st.fixed_dictionaries(
    {}, optional={"choices": st.lists(JSON, max_size=2), "message": JSON, "done": st.just(True), "usage": JSON}
)


class _Canned:
    """An endpoint with one reply for every request, including replies that no library would send."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply

    def post(self, *_: object, **__: object) -> Reply:
        """Return the reply."""
        return self.reply


def canned(kind: str, reply: Reply, **settings: Any) -> ExtractionAttempt:
    """Return the attempt that a client makes of a reply."""
    endpoint: Any = _Canned(reply)
    if kind == "vllm":
        return VLLMClient(VLLMConfig(model="m", **settings), endpoint=endpoint).call_llm(PROMPTS, SCHEMA, "x")
    return OllamaClient(OllamaConfig(model="m", **settings), endpoint=endpoint).call_llm(PROMPTS, SCHEMA, "x")


@pytest.mark.parametrize("kind", KINDS)
def test_retry_of_each_status_follows_its_reason(kind: str) -> None:
    """For 100 to 599 the status gives the reason, and the reason decides the retry."""
    for status in STATUSES:
        attempt = canned(kind, Reply(status, {}, b""))
        assert attempt.error == f"http_{status}"
        assert attempt.reason == reason_of_status(status)
        assert attempt.retryable == is_retryable(reason_of_status(status))
        assert attempt.retryable == (status in TRANSIENT_STATUSES or status == 429 or status >= 500 or status < 300), (
            status
        )


@pytest.mark.parametrize("kind", KINDS)
def test_both_clients_report_the_status_of_the_server(kind: str) -> None:
    """This covers every status from 201 on that HTTP allows for a final reply."""
    for status in range(201, 600):
        with responses.RequestsMock() as wire:
            wire.post(CHATS[kind], status=status, body="")
            attempt = client_of(kind).call_llm(PROMPTS, SCHEMA, "x")
        assert (attempt.error, attempt.reason) == (f"http_{status}", reason_of_status(status))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stream", [False, True])
@settings(deadline=None)
@given(value=JSON | SHAPED, status=st.sampled_from([200, 400, 404, 500]), event=st.booleans())
def test_call_llm_returns_an_attempt_for_any_json(
    kind: str, stream: bool, value: Any, status: int, event: bool
) -> None:
    """No JSON reply makes it raise."""
    data = json.dumps(value).encode()
    body = b"data: " + data + b"\n\ndata: [DONE]\n\n" if event else data
    attempt = canned(kind, Reply(status, {"Retry-After": "²"}, body), stream=stream)
    assert attempt.ok or attempt.reason is not None


ODD = [None, 7, "x", [], [[]], [None], {}, {"a": 1}, [{"content": 3}], {"content": ["x"]}, {"content": {"text": "x"}}]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("odd", ODD, ids=str)
def test_unexpected_shapes_of_reply_parts_do_not_raise(kind: str, odd: Any) -> None:
    """Each part has an undocumented shape: in whole, streamed and error replies."""
    choices = [odd, [odd], [{"message": odd}], [{"delta": odd}], [{"delta": odd, "finish_reason": odd, "index": 0}]]
    bodies: list[Any] = [{"choices": part, "usage": odd} for part in choices]
    bodies += [{"message": odd, "done": True, "done_reason": odd}, {"error": odd}, {"detail": odd}, odd]
    for body in bodies:
        data = json.dumps(body).encode()
        for stream, wire in ((False, data), (True, data), (True, b"data: " + data + b"\n\ndata: [DONE]\n\n")):
            for status in (200, 400):
                attempt = canned(kind, Reply(status, {}, wire), stream=stream)
                assert attempt.reason is not None


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)
@given(body=st.binary(max_size=60))
def test_arbitrary_bytes_are_a_bad_response(kind: str, body: bytes) -> None:
    """No bytes make `call_llm` raise."""
    attempt = canned(kind, Reply(200, {}, b"\x00" + body))
    assert attempt.reason == "bad_response"


@settings(deadline=None)
@given(
    system=st.text(max_size=40),
    user=st.text(max_size=200),
    stream=st.booleans(),
    schema=st.sampled_from([None, SCHEMA]),
)
def test_vllm_payload_has_only_openai_fields(system: str, user: str, stream: bool, schema: Any) -> None:
    """For all prompts it has none of Ollama's fields, and the document's message comes last."""
    payload = client_of("vllm", stream=stream).payload({"system": system, "user": user}, schema)
    assert set(payload) <= OPENAI_FIELDS
    assert not set(payload) & OLLAMA_FIELDS
    assert {"messages", "max_tokens", "temperature"} <= set(payload)
    assert payload["messages"][-1] == {"role": "user", "content": user}


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)
@given(user=st.text(alphabet=st.characters(), max_size=50))
def test_any_text_can_be_sent(kind: str, user: str) -> None:
    """A lone surrogate becomes a question mark; all other text arrives unchanged."""
    with responses.RequestsMock() as wire:
        wire.post(CHATS[kind], json=body_of(kind, "{}"))
        client_of(kind).call_llm({"system": "", "user": user}, None, user)
        assert sent(wire)["messages"] == [{"role": "user", "content": user.encode("utf-8", "replace").decode()}]
