"""No request gets another request's reply, whatever a server or gateway sends on a kept connection."""

from __future__ import annotations

import json
import os
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
from raw_server import Got, Line, RawServer, answering, reply
from timing import until

from pipeline.config import VLLMConfig
from pipeline.llm.transport.http import Access, CallFailedError, Endpoint
from pipeline.llm.transport.request_ids import new_request_id
from pipeline.llm.vllm import VLLMClient

TLS = Path(__file__).parents[1] / "data/tls"
PROCESSING = b"HTTP/1.1 102 Processing\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nLink: </b>; rel=preload\r\n\r\n"


def echo(request: Got) -> bytes:
    """Return a reply with the content of the request."""
    return reply(b"to " + request.body)


@pytest.fixture(params=["direct", "proxied"])
def way(request: pytest.FixtureRequest) -> str:
    """Return how the server is reached; in place of a proxy the connections are urllib3's."""
    return str(request.param)


def replies_in_turn(server: RawServer, number: int = 4, *, way: str = "direct", **access: Any) -> list[str]:
    """Return the replies to a few requests in a row, or the reason of a failure."""
    if way == "proxied":
        endpoint, answers = Endpoint("http://models.example", Access(proxy=server.url, **access)), []
    else:
        endpoint, answers = Endpoint(server.url, Access(**access)), []
    for index in range(number):
        try:
            answer = endpoint.post("/x", b"%d" % index, timeout_s=60)
        except CallFailedError as failed:
            answers.append(failed.reason)
        else:
            answers.append(answer.body.decode() if answer.status == 200 else str(answer.status))
    endpoint.close()
    return answers


@pytest.mark.parametrize(
    "interim",
    [
        PROCESSING,
        HINTS,
        PROCESSING * 3 + HINTS,
        b"HTTP/1.1 100 Continue\r\n\r\n" + HINTS,
    ],
    ids=["102", "103 with headers", "several", "100 and 103"],
)
@pytest.mark.parametrize("apart", [True, False])
def test_interim_responses_are_skipped(interim: bytes, apart: bool, way: str) -> None:
    """Every 1xx before the reply is skipped, even in a segment of its own, and the connection is kept."""

    def talk(line: Line) -> None:
        while (request := line.read()) is not None:
            parts = [interim, echo(request)] if apart else [interim + echo(request)]
            for part in parts:
                line.send(part)

    with RawServer(talk) as server:
        assert replies_in_turn(server, way=way) == ["to 0", "to 1", "to 2", "to 3"]
        assert server.accepts == 1


@pytest.mark.parametrize(
    "interim",
    [
        PROCESSING * 2000,
        b"HTTP/1.1 102 P\r\nX: " + b"x" * 60_000 + b"\r\n\r\n" + HINTS * 3000,
    ],
    ids=["number", "bytes"],
)
def test_interim_responses_are_bounded(interim: bytes, way: str) -> None:
    """A server that sends only 1xx responses is a bad response before the deadline."""

    def talk(line: Line) -> None:
        while (request := line.read()) is not None:
            line.send(interim + echo(request))

    with RawServer(talk) as server:
        assert replies_in_turn(server, 2, way=way) == ["bad_response", "bad_response"]
        assert server.accepts == 2


def test_switch_of_protocols_is_a_bad_response(way: str) -> None:
    """The bytes after a 101 are not HTTP, and no client requested it."""
    with answering(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n" + reply(b"x")) as server:
        assert replies_in_turn(server, 2, way=way) == ["bad_response", "bad_response"]
        assert server.accepts == 2


@pytest.mark.parametrize(
    "begun",
    [
        PROCESSING,
        HINTS + PROCESSING,
        b"HTTP/1.1 2",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        PROCESSING + b"HTTP/1.1 200 OK\r\n",
    ],
    ids=["102", "103 and 102", "half a status line", "half a head", "102 and half a head"],
)
@pytest.mark.parametrize("resets", [False, True])
def test_request_with_a_partial_reply_is_not_resent(begun: bytes, resets: bool, way: str) -> None:
    """The server has received it, so this is not a connection closed while idle."""

    def talk(line: Line) -> None:
        while (request := line.read()) is not None:
            if request.body == b"1":
                line.send(begun)
                if resets:
                    line.wait_until_read()  # or the reset overtakes the bytes
                    return line.reset()
                return line.close()
            line.send(echo(request))
        return None

    with RawServer(talk) as server:
        first, broken, last = replies_in_turn(server, 3, way=way)
        assert (first, last, server.accepts) == ("to 0", "to 2", 2)
    # http.client, which reads for proxies, accepts the end of the connection as the end of the headers: no JSON follows
    assert broken == "connection_error" or (way == "proxied" and broken in ("", "bad_response"))


@pytest.mark.parametrize(
    "framing",
    [
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
    ],
    ids=["chunks in HTTP/1.0", "a length beside chunks"],
)
def test_reply_with_ambiguous_framing_closes_its_connection(framing: bytes, way: str) -> None:
    """By RFC 9112, 6.1 it may hide another reply."""

    def talk(line: Line) -> None:
        while (request := line.read()) is not None:
            text = b"to " + request.body
            line.send(framing + b"%x\r\n%b\r\n0\r\n\r\n" % (len(text), text))

    with RawServer(talk) as server:
        assert replies_in_turn(server, 2, way=way) == ["to 0", "to 1"]
        assert server.accepts == 2


@pytest.mark.parametrize("status", [201, 400, 404, 429, 503, 504])
def test_late_reply_after_a_gateway_error_is_not_read(status: int, way: str) -> None:
    """After any status but 200 the connection is closed."""

    def talk(line: Line) -> None:
        while (request := line.read()) is not None:
            if request.body == b"1":
                line.send(reply(b"gave up", status))
            line.send(echo(request))

    with RawServer(talk) as server:
        assert replies_in_turn(server, way=way) == ["to 0", str(status), "to 2", "to 3"]
        assert server.accepts == 2
        until(lambda: server.closes == 2)


def test_doubled_reply_closes_the_connection(way: str) -> None:
    """On a new connection the first reply counts, the second is dropped, and the connection is not reused."""

    def talk(line: Line) -> None:
        while (request := line.read()) is not None:
            line.send(echo(request) * 2)

    with RawServer(talk) as server:
        assert replies_in_turn(server, way=way) == ["to 0", "to 1", "to 2", "to 3"]
        assert server.accepts == 4


def test_reply_with_surplus_bytes_on_a_reused_connection_is_refused(way: str) -> None:
    """One of the two replies is late or doubled, and it is unknown which one."""
    late: list[bytes] = []

    def talk(line: Line) -> None:
        while (request := line.read()) is not None:
            answer = b"".join([*late, echo(request)])
            late[:] = (
                [echo(request)] if request.body == b"1" else []
            )  # set before the reply is sent, because the next request may come on another connection
            line.send(answer)

    with RawServer(talk) as server:
        assert replies_in_turn(server, way=way) == ["to 0", "to 1", "bad_response", "to 3"]
        assert server.accepts == 2


def going_on(tail: bytes, read: threading.Event, sent: threading.Event, **how: Any) -> RawServer:
    """Return a server that sends `tail` once its first reply was `read`, and then sets `sent`."""

    def talk(line: Line) -> None:
        while (request := line.read()) is not None:
            line.send(echo(request))
            if request.body == b"0":
                read.wait(60)
                line.send(tail)
                sent.set()

    return RawServer(talk, **how)


def answers_around(tail: bytes, **how: Any) -> tuple[list[bytes], int]:
    """Return the replies to four requests, with `tail` sent after the first, and the number of connections."""
    read, sent = threading.Event(), threading.Event()
    with going_on(tail, read, sent, **how) as server:
        endpoint = Endpoint(server.url, Access(ca_file=str(TLS / "cert.pem")))
        answers = [endpoint.post("/x", b"0", timeout_s=60).body]
        read.set()
        assert sent.wait(60)
        answers += [endpoint.post("/x", b"%d" % index, timeout_s=60).body for index in range(1, 4)]
        endpoint.close()
        return answers, server.accepts


@pytest.mark.parametrize("secure", [False, True])
def test_bytes_on_an_idle_connection_close_it(secure: bool) -> None:
    """They are no reply to the next request, even if TLS has buffered them."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "cert.pem", TLS / "key.pem")
    answers, accepts = answers_around(reply(b"late"), tls=context if secure else None)
    assert answers == [b"to 0", b"to 1", b"to 2", b"to 3"]
    assert accepts == 4  # no connection to this server is reused from now on


@pytest.mark.parametrize("tail", [reply(b"", 408, Connection="close"), b"\r\n"], ids=["408", "an empty line"])
def test_408_on_an_idle_connection_is_no_stray_reply(tail: bytes) -> None:
    """haproxy and others send it before closing; later connections are kept as before."""
    assert answers_around(tail) == ([b"to 0", b"to 1", b"to 2", b"to 3"], 2)


def completion(request: Got, request_id: str) -> bytes:
    """Return a chat completion with an id, as vLLM sends it."""
    message = {"role": "assistant", "content": request.json["messages"][-1]["content"]}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return reply(
        {
            "id": f"chatcmpl-{request_id}",
            "object": "chat.completion",
            "model": "m",
            "choices": choices,
        }
    )


def test_each_request_has_its_own_id() -> None:
    """X-Request-Id differs between requests, even for a resend."""
    with answering(reply(b"ok")) as server:
        replies_in_turn(server, 5)
        ids = [received.headers["x-request-id"] for received in server.got]
    assert len(set(ids)) == 5


def test_a_forked_process_has_ids_of_its_own() -> None:
    """A program that uses the clients may fork, and both processes continue from the same state."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writer, new_request_id().encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 100).decode() != new_request_id()
    os.close(reader)
    os.close(writer)


def test_configured_request_id_is_sent_unchanged() -> None:
    """`headers` may name the job; replies are then not checked by id."""
    with answering(reply(b"ok")) as server:
        replies_in_turn(server, 2, headers={"x-request-id": "night-job"})
        assert [received.headers["x-request-id"] for received in server.got] == ["night-job"] * 2


@pytest.mark.parametrize("streamed", [False, True])
def test_reply_with_another_requests_id_is_refused(streamed: bool) -> None:
    """vLLM's id has X-Request-Id: a wrong one is a bad response, and its connection is closed."""
    before: list[Got] = []

    def talk(line: Line) -> None:
        while (received := line.read()) is not None:
            shown = before[-1] if len(before) == 1 else received
            before.append(received)
            answer = completion(shown, shown.headers["x-request-id"])
            line.send(stream(answer) if streamed else answer)

    with RawServer(talk) as server:
        client = VLLMClient(VLLMConfig(base_url=server.url, model="m", stream=streamed))
        attempts = [client.call_llm({"user": f"question {n}"}, None, "") for n in range(3)]
        assert [attempt.reason for attempt in attempts] == [None, "bad_response", None]
        assert "another request" in str(attempts[1].message)
        assert attempts[2].raw_text == "question 2"
        assert attempts[1].raw_text is None
        assert server.accepts == 2
        client.close()


@pytest.mark.parametrize("request_id", ["cmpl-7", None, 17, "chatcmpl-550e8400e29b41d4a716446655440000"])
def test_foreign_reply_id_is_accepted(request_id: Any) -> None:
    """Most servers and gateways generate ids of their own."""

    def talk(line: Line) -> None:
        while (request := line.read()) is not None:
            body = json.loads(completion(request, "x").partition(b"\r\n\r\n")[2])
            line.send(reply(body | {"id": request_id}))

    with RawServer(talk) as server:
        client = VLLMClient(VLLMConfig(base_url=server.url, model="m"))
        assert client.call_llm({"user": "question"}, None, "").raw_text == "question"
        client.close()


def test_reply_header_with_another_requests_id_is_refused() -> None:
    """Gateways and vLLM may return X-Request-Id as a header, in any dialect."""
    ids: list[str] = []

    def talk(line: Line) -> None:
        while (received := line.read()) is not None:
            ids.append(received.headers["x-request-id"])
            line.send(reply(b"to " + received.body, X_Request_Id=ids[0]))

    with RawServer(talk) as server:
        assert replies_in_turn(server, 2) == ["to 0", "bad_response"]


def stream(answer: bytes) -> bytes:
    """Return the stream of an unstreamed completion."""
    whole = json.loads(answer.partition(b"\r\n\r\n")[2])
    choice = whole["choices"][0]
    chunk = whole | {"choices": [{"index": 0, "delta": choice["message"], "finish_reason": "stop"}]}
    return reply(
        f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n",
        Content_Type="text/event-stream",
    )
