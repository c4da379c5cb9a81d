"""A streamed answer is judged like an unstreamed one, however the network splits it."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from fake_llm import FakeLLM, Fault
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_server import RawServer, answering, chunked, reply

from pipeline.config import OllamaConfig, VLLMConfig
from pipeline.llm.ollama import OllamaClient
from pipeline.llm.transport.sse import join_chunks, join_lines
from pipeline.llm.vllm import VLLMClient
from pipeline.records import ExtractionAttempt

KINDS = ("vllm", "ollama")
TEXT = '{"a": "Zürich – 中 🙂"}'
USAGE = {"prompt_tokens": 40, "completion_tokens": 9}
DONE = {"done": True, "done_reason": "stop", "prompt_eval_count": 40, "eval_count": 9}


def client_of(kind: str, url: str) -> VLLMClient | OllamaClient:
    if kind == "vllm":
        return VLLMClient(VLLMConfig(base_url=url, model="llama3.1:latest", stream=True, timeout=60.0))
    return OllamaClient(OllamaConfig(base_url=url, stream=True, timeout=60.0))


def attempt_of(kind: str, wire: bytes) -> ExtractionAttempt:
    """Return the attempt of a client that requested a stream and received these bytes."""
    with answering(wire) as server:
        return client_of(kind, server.url).call_llm({"user": "u"}, None, "u")


def events(*chunks: Any, done: bool = True) -> bytes:
    """Return server-sent events as vLLM sends them."""
    lines = [b"data: " + json.dumps(chunk, ensure_ascii=False).encode() for chunk in chunks]
    return b"".join(line + b"\n\n" for line in (*lines, *([b"data: [DONE]"] if done else [])))


def lines(*chunks: Any) -> bytes:
    """Return JSON Lines as Ollama sends them."""
    return b"".join(json.dumps(chunk, ensure_ascii=False).encode() + b"\n" for chunk in chunks)


def stream_of(kind: str, pieces: list[str], *, finish: str | None = "stop") -> bytes:
    """Return a stream of these pieces; with `finish` None it breaks off."""
    if kind == "ollama":
        text = [{"message": {"role": "assistant", "content": piece}, "done": False} for piece in pieces]
        last = [{"message": {"role": "assistant", "content": ""}, **DONE, "done_reason": finish}] if finish else []
        return lines(*text, *last)
    text = [{"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]} for piece in pieces]
    last = [{"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}, {"choices": [], "usage": USAGE}]
    return events(*text, *(last if finish else []), done=finish is not None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 61, 4096])
def test_network_segments_do_not_change_the_answer(kind: str, size: int) -> None:
    """Chunks that split lines and characters give the same text and counts."""
    attempt = attempt_of(kind, chunked(stream_of(kind, list(TEXT)), size))
    assert (attempt.error, attempt.raw_text) == (None, TEXT)
    assert (attempt.prompt_tokens, attempt.completion_tokens) == (40, 9)


@pytest.mark.parametrize("kind", KINDS)
def test_streamed_answer_equals_the_unstreamed_one(kind: str) -> None:
    """The request asks the fake server for a stream with usage."""
    with FakeLLM(answer=lambda *_: TEXT) as server:
        attempt = client_of(kind, server.url).call_llm({"user": "u"}, None, "u")
        body = server.chats()[0].body
    assert (attempt.error, attempt.raw_text, attempt.prompt_tokens is not None) == (None, TEXT, True)
    assert body["stream"] is True
    assert body.get("stream_options") == ({"include_usage": True} if kind == "vllm" else None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("wire", "reason", "text"),
    [
        (lambda kind: stream_of(kind, ["{", "}"], finish="length"), "output_truncated", "{}"),
        (lambda kind: stream_of(kind, ["  "]), "empty_model_response", "  "),
        (lambda kind: stream_of(kind, []), "empty_model_response", None),
        (lambda kind: stream_of(kind, ["\n  " * 99], finish="length"), "generation_loop", "\n  " * 99),
    ],
    ids=["length", "blank", "empty", "loop"],
)
def test_stream_follows_the_rules_of_whole_replies(kind: str, wire: Any, reason: str, text: str | None) -> None:
    """A reply that is refused as a whole is refused as a stream."""
    attempt = attempt_of(kind, chunked(wire(kind)))
    assert (attempt.error, attempt.reason, attempt.raw_text) == (reason, reason, text)


@pytest.mark.parametrize("kind", KINDS)
def test_incomplete_stream_is_refused(kind: str) -> None:
    """It needs `[DONE]` or `done: true`, however complete the text looks."""
    attempt = attempt_of(kind, chunked(stream_of(kind, ['{"a": 1}'], finish=None)))
    assert attempt.reason == "bad_response"
    assert "incomplete" in attempt.message


@pytest.mark.parametrize("kind", KINDS)
def test_connection_broken_within_a_stream_is_a_loss(kind: str) -> None:
    """The connection ended before the last chunk, so the server was lost."""
    half = chunked(stream_of(kind, list(TEXT)))[:-40]
    with RawServer(lambda line: (line.read(), line.send(half), line.close())) as server:
        attempt = client_of(kind, server.url).call_llm({"user": "u"}, None, "u")
    assert (attempt.reason, attempt.lost) == ("connection_error", True)


@pytest.mark.parametrize(
    ("kind", "error", "reason"),
    [
        ("vllm", {"message": "Internal server error", "type": "InternalServerError", "code": 500}, "server_error"),
        ("vllm", "Internal server error", "server_error"),
        ("vllm", {"message": "EngineCore encountered an issue. See stack trace (above)."}, "server_error"),
        ("ollama", "an error was encountered while running the model: unexpected EOF", "server_error"),
        ("ollama", "prediction aborted, token repeat limit reached", "generation_loop"),
    ],
)
def test_error_within_a_stream_is_a_failure(kind: str, error: Any, reason: str) -> None:
    """A 200 that continues with an error gives a failure with the server's message."""
    begun = stream_of(kind, ["{"], finish=None)
    attempt = attempt_of(kind, chunked(begun + (events if kind == "vllm" else lines)({"error": error})))
    assert (attempt.error, attempt.reason) == (reason, reason)
    assert "error in mid-stream: " + (error if isinstance(error, str) else error["message"]) == attempt.message
    assert attempt.lost is ("EngineCore" in attempt.message)


@pytest.mark.parametrize("kind", KINDS)
def test_error_within_a_stream_of_the_fake_server(kind: str) -> None:
    """The attempt is the same as with real bytes."""
    with FakeLLM(faults=lambda *_: Fault("stream_error")) as server:
        attempt = client_of(kind, server.url).call_llm({"user": "u"}, None, "u")
    assert (attempt.error, attempt.reason) == ("server_error", "server_error")


@pytest.mark.parametrize("kind", KINDS)
def test_error_before_the_stream_is_a_status(kind: str) -> None:
    """A refused request has a plain error body."""
    attempt = attempt_of(kind, reply({"error": "too busy"}, 503))
    assert (attempt.error, attempt.reason) == ("http_503", "overloaded")


@pytest.mark.parametrize("kind", KINDS)
def test_unstreamed_reply_to_a_stream_request_is_accepted(kind: str) -> None:
    """Some gateways answer with one whole object."""
    message = {"role": "assistant", "content": "{}"}
    body = (
        {"choices": [{"message": message, "finish_reason": "stop"}]} if kind == "vllm" else {"message": message, **DONE}
    )
    attempt = attempt_of(kind, reply(body))
    assert (attempt.error, attempt.raw_text) == (None, "{}")


def test_comments_and_other_event_fields_are_skipped() -> None:
    """Proxies send keep-alive comments and event names; a second choice is skipped too."""
    first = {"choices": [{"index": 0, "delta": {"content": "a"}}, {"index": 1, "delta": {"content": "X"}}]}
    last = {"choices": [{"index": 0, "delta": {"content": "b"}, "finish_reason": "stop"}]}
    body = join_chunks(b": ping\r\n\r\nevent: x\r\n" + events(first).replace(b"data: [DONE]\n\n", b"") + events(last))
    assert body is not None
    assert body["choices"] == [
        {"message": {"role": "assistant", "content": "ab", "reasoning": ""}, "finish_reason": "stop"}
    ]


def test_reasoning_in_a_stream_is_separated() -> None:
    """A chain of thought is no answer, under any of its names."""
    for name in ("reasoning", "reasoning_content"):
        chunk = {"choices": [{"delta": {name: "hm"}, "finish_reason": "stop"}]}
        attempt = attempt_of("vllm", chunked(events(chunk)))
        assert attempt.reason == "empty_model_response"
        assert attempt.message.startswith("only reasoning, no content: turn thinking off")
    thinking = {"message": {"thinking": "hm", "content": ""}, **DONE}
    assert attempt_of("ollama", chunked(lines(thinking))).message.startswith("only thinking, no content")


@given(pieces=st.lists(st.text(max_size=8), max_size=8))
@settings(max_examples=60, deadline=None)
def test_any_text_survives_streaming(pieces: list[str]) -> None:
    """Any text in any pieces is joined unchanged."""
    whole = "".join(pieces).encode("utf-8", "replace").decode()
    clean = [piece.encode("utf-8", "replace").decode() for piece in pieces]
    joined = (join_chunks(stream_of("vllm", clean)), join_lines(stream_of("ollama", clean)))
    assert joined[0] is not None
    assert joined[1] is not None
    assert joined[0]["choices"][0]["message"]["content"] == whole
    assert joined[1]["message"]["content"] == whole


@pytest.mark.parametrize("kind", KINDS)
def test_last_event_ends_an_open_stream(kind: str) -> None:
    """The server keeps the stream open: the answer is returned at once, and the connection is not reused."""
    wire = stream_of(kind, [TEXT])
    header = b"text/event-stream" if kind == "vllm" else b"application/x-ndjson"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: " + header + b"\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = chunked(wire, 7).partition(b"\r\n\r\n")[2].removesuffix(b"0\r\n\r\n")
    with answering(head + body) as server:
        client = client_of(kind, server.url)
        started = time.monotonic()
        attempts = [client.call_llm({"user": "u"}, None, "u") for _ in range(2)]
        assert time.monotonic() - started < 50.0, "it waited for the time-out of 60 s"
        assert [attempt.raw_text for attempt in attempts] == [TEXT, TEXT]
        assert server.accepts == 2


@pytest.mark.parametrize("kind", KINDS)
def test_ended_stream_keeps_its_connection(kind: str) -> None:
    """The end of the body comes with the last event."""
    with answering(chunked(stream_of(kind, [TEXT]))) as server:
        client = client_of(kind, server.url)
        for _ in range(3):
            assert client.call_llm({"user": "u"}, None, "u").raw_text == TEXT
        assert server.accepts == 1
