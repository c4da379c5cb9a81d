"""Replies of a hostile server, and a server of raw sockets that sends them, over TCP on 127.0.0.1.

The server answers all other requests like an ordinary vLLM, so that a run passes its preflight and completes its
ordinary document beside the evil one.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import gzip
import itertools
import json
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

KEY = "sk-evil/0123+456789abcdef"
MARK = "EVIL"
"""Marks the document whose completion is the evil reply."""

ANSWER = json.dumps({"summary": "aaa"})
Reply = Callable[[], Iterable[bytes]]


def completion(content: str = ANSWER, **usage: Any) -> dict[str, Any]:
    """Return a complete answer of the OpenAI protocol."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
    counts = {"prompt_tokens": 9, "completion_tokens": 9, **usage}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "llama3.1"}
    return {**head, "choices": [choice], "usage": counts}


def complete(body: Any, status: int = 200, *headers: str) -> Iterator[bytes]:
    """Yield a reply with its length; a body that is not bytes becomes JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(data)}", *headers]
    yield "\r\n".join(lines).encode() + b"\r\n\r\n" + data


def endless(head: bytes, piece: bytes) -> Iterator[bytes]:
    """Yield the head, then the piece without end."""
    return itertools.chain([head], itertools.repeat(piece * max(1, 65536 // len(piece))))


def dripping(head: bytes, piece: bytes = b"x") -> Iterator[bytes]:
    """Yield the head, then the piece twenty times a second without end."""
    yield head
    while True:
        time.sleep(0.05)
        yield piece


def bomb(kind: str) -> Iterator[bytes]:
    """Yield a body of 500 MB that is packed into a few MB; `gzip`, `deflate` or `gzip, gzip`, one in the other."""
    return complete(_packed(kind), 200, f"Content-Encoding: {kind}")


@functools.cache
def _packed(kind: str) -> bytes:
    if ", " in kind:
        return gzip.compress(_packed("gzip"))
    packer = zlib.compressobj(1, zlib.DEFLATED, 31 if kind == "gzip" else 15)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(500)) + packer.flush()


def events(*pieces: str) -> bytes:
    """Return the chunks of a stream of server-sent events."""
    lines = "".join(
        f"data: {json.dumps({'choices': [{'index': 0, 'delta': {'content': piece}}]})}\n\n" for piece in pieces
    )
    return lines.encode()


def echo() -> str:
    """Return the key in all forms in which a server may repeat it."""
    packed = base64.b64encode(f"user:{KEY}".encode()).decode()
    return f"bad key Bearer {KEY} {quote(KEY, safe='')} {packed} " + KEY.replace("/", "\\/")


def leaks(data: bytes) -> bool:
    """Return whether the data contains the key in one of these forms."""
    packed = base64.b64encode(f"user:{KEY}".encode())[7:-4]
    forms = (KEY.encode(), quote(KEY, safe="").encode(), packed, KEY.replace("/", "\\/").encode())
    return any(form[:14] in data for form in forms)


OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
END = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
MANY = 100_000
FULL = 8 * 1000 * 1000
"""Bytes of a reply just below the client's limit."""

COMPLETIONS: dict[str, Reply] = {
    "drip": lambda: dripping(OK + b"Content-Length: 99999\r\n\r\n"),
    "drip_head": lambda: dripping(b"HTTP/1.1 200 OK\r\nX-A: "),
    "drip_chunks": lambda: dripping(CHUNKED, b"1\r\n \r\n"),
    "endless_body": lambda: endless(OK + b"\r\n", b"[1,2,3],"),
    "endless_header": lambda: endless(OK + b"X-A: ", b"a"),
    "endless_headers": lambda: endless(OK, b"X-A: a\r\n"),
    "endless_trailers": lambda: endless(CHUNKED + b"0\r\n", b"X-A: a\r\n"),
    "endless_interim": lambda: endless(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
    "endless_chunk_extension": lambda: endless(CHUNKED + b"5;a=", b"a"),
    "gzip_bomb": lambda: bomb("gzip"),
    "zlib_bomb": lambda: bomb("deflate"),
    "gzip_gzip_bomb": lambda: bomb("gzip, gzip"),
    "chunk_of_2_63": lambda: endless(CHUNKED + b"8000000000000000\r\n", b" "),
    "chunk_of_minus_1": lambda: endless(CHUNKED + b"-1\r\n", b" "),
    "chunk_of_many_digits": lambda: endless(CHUNKED, b"f"),
    "length_of_2_63": lambda: endless(OK + b"Content-Length: 9223372036854775808\r\n\r\n", b" "),
    "length_of_4000_digits": lambda: complete(completion(), 200, "Content-Length: " + "9" * 4000),
    "error_400_of_8_mb": lambda: complete({"error": {"message": "maximum context length is " * (FULL // 26)}}, 400),
    "error_500_of_8_mb": lambda: complete(b"<html>" + b"<p " * (FULL // 3), 500),
    "error_in_200_of_8_mb": lambda: complete({"error": {"message": "\\/ Bearer a%41" * (FULL // 16)}}),
    "nested_reply": lambda: complete(b'{"choices":' * MANY),
    "nested_answer": lambda: complete(completion('{"summary":' * MANY)),
    "nested_list_answer": lambda: complete(completion('{"summary":' + "[" * MANY + "]" * MANY + "}")),
    "prose_answer": lambda: complete(completion('{"summary": "' + '{"a": ```' * (2 * MANY))),
    "thoughts_answer": lambda: complete(completion("<think>" * MANY + ANSWER + "</think" * MANY)),
    "pattern": lambda: complete(completion(json.dumps({"summary": "a" * 60 + "!"}))),
    "numbers_answer": lambda: complete(completion('{"summary": ' + "9" * 1_000_000 + "}")),
    "usage_of_4000_digits": lambda: complete(
        json.dumps(completion(prompt_tokens=7, completion_tokens=5)).replace(": 7", ": " + "9" * 4000).encode()
    ),
    "usage_of_5000_digits": lambda: complete(
        json.dumps(completion(prompt_tokens=7, completion_tokens=5)).replace(": 7", ": " + "9" * 5000).encode()
    ),
    "redirect": lambda: complete(b"", 302, f"Location: /stolen?key={quote(KEY)}"),
    "redirect_307": lambda: complete(b"", 307, "Location: /stolen"),
    "echo_400": lambda: complete({"error": {"message": echo()}}, 400),
    "echo_401": lambda: complete({"error": {"message": echo()}}, 401, f"WWW-Authenticate: {echo()[:60]}"),
    "echo_in_200": lambda: complete({"error": {"message": echo()}}),
    "echo_in_answer": lambda: complete(completion(json.dumps({"summary": echo()}))),
    "echo_in_stream": lambda: [STREAM + b"data: " + json.dumps({"error": {"message": echo()}}).encode() + b"\n\n"],
    "white_space": lambda: complete(b" " * FULL + json.dumps(completion()).encode()[:99]),
    "white_space_answer": lambda: complete(completion('{"summary":' + " \n" * (FULL // 6))),
    "duplicate_keys": lambda: complete(b"{" + b'"choices":[],' * (6 * MANY) + b'"a":1}'),
    "duplicate_keys_answer": lambda: complete(completion("{" + '"summary":"a",' * MANY + '"summary":"fine"}')),
    "many_keys_answer": lambda: complete(completion(json.dumps({**{f"k{n}": n for n in range(MANY)}, "summary": "a"}))),
    "stream_without_end": lambda: endless(STREAM, events("a")),
    "stream_of_nothing": lambda: endless(STREAM, b"data: {}\n\n"),
    "stream_of_comments": lambda: endless(STREAM, b": ping\n\n"),
    "stream_of_one_line": lambda: endless(STREAM, b"data: a"),
    "stream_of_8_mb": lambda: [STREAM, events("a") * (FULL // len(events("a"))), END],
    "stream_dripping": lambda: dripping(STREAM, events(" ")),
}  # fmt: skip
"""The replies to a completion of the evil document."""

PAGES: dict[str, tuple[str, Reply]] = {
    "models_of_a_million": ("/v1/models", lambda: complete(_models(1_000_000))),
    "models_of_8_mb": ("/v1/models", lambda: complete(_models(FULL // 16))),
    "models_dripping": ("/v1/models", lambda: dripping(OK + b"Content-Length: 99999\r\n\r\n")),
    "models_nested": ("/v1/models", lambda: complete(b'{"data":' * MANY)),
    "models_with_the_key": ("/v1/models", lambda: complete({"data": [{"id": echo(), "owned_by": echo()}]})),
    "metrics_of_100_mb": ("/metrics", lambda: _hundred_mb(b'vllm:num_requests_waiting{engine="0"} 1.0\n')),
    "metrics_of_8_mb": ("/metrics", lambda: complete(b'vllm:num_requests_waiting{e="0"} 1e999\n' * (FULL // 40))),
    "metrics_without_end": ("/metrics", lambda: endless(OK + b"\r\n", b"vllm:a 1\n")),
    "version_of_100_mb": ("/version", lambda: _hundred_mb(b'{"version":"0')),
    "version_of_8_mb": ("/version", lambda: complete({"version": "\x1b[31m" * (FULL // 10)})),
    "version_with_the_key": ("/version", lambda: complete({"version": echo()})),
}
"""The replies to one page; completions get ordinary answers."""


def _models(count: int) -> dict[str, Any]:
    return {"data": [{"id": f"m{number}"} for number in range(count)]}


def _hundred_mb(piece: bytes) -> Iterator[bytes]:
    size = 100_000_000
    yield OK + b"Content-Length: %d\r\n\r\n" % size
    chunk = piece * (1_000_000 // len(piece))
    yield from itertools.repeat(chunk, size // len(chunk))


@dataclass(frozen=True, slots=True)
class Received:
    """A request: its path without the query, and its body."""

    path: str
    body: bytes


Ordinary = Callable[[Received], Iterable[bytes]]


class EvilServer:
    """A server that sends the evil reply. `paths`: the requested paths; `sent`: the number of evil replies.

    `page`: the path whose requests get the evil reply; None: completions of the document with MARK. `ordinary`: returns
    the answer to any other request; None: that of a vLLM. `at_work` is set when the first evil reply begins.
    """

    def __init__(self, reply: Reply, page: str | None = None, *, ordinary: Ordinary | None = None) -> None:
        """Listen on a free port."""
        self._reply = reply
        self._page = page
        self._ordinary = ordinary or _ordinary
        self.at_work = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._connections: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.paths: list[str] = []
        self.sent = 0

    def __enter__(self) -> EvilServer:
        """Accept connections in a thread."""
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Cut every connection."""
        for sock in (self._listening, *self._connections):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = self._listening.accept()[0]
                self._connections.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), connection, connection.makefile("rb") as stream:
            while (received := _receive(stream)) is not None:
                self.paths.append(received.path)
                is_evil = self._is_evil(received)
                if self._page == "/metrics" and not is_evil:
                    time.sleep(1.0)  # gauges are only read while documents are in flight
                self.sent += is_evil
                if is_evil:
                    self.at_work.set()
                for piece in self._reply() if is_evil else self._ordinary(received):
                    connection.sendall(piece)
                if is_evil:
                    return

    def _is_evil(self, received: Received) -> bool:
        if self._page is not None:
            return received.path == self._page
        return received.path in ("/v1/chat/completions", "/api/chat") and MARK.encode() in received.body


def _receive(stream: Any) -> Received | None:
    """Read the next request; None when the client has closed."""
    first = stream.readline()
    if not first:
        return None
    length = 0
    while (line := stream.readline().strip()) != b"":
        name, _, value = line.partition(b":")
        length = int(value) if name.lower() == b"content-length" else length
    return Received(first.split(b" ")[1].decode().partition("?")[0], stream.read(length))


def _ordinary(received: Received) -> Iterable[bytes]:
    """Return the answer of an ordinary vLLM."""
    if received.path == "/v1/models":
        return complete({"object": "list", "data": [{"id": "llama3.1", "max_model_len": 8192}]})
    if received.path == "/version":
        return complete({"version": "0.32.0"})
    if received.path != "/v1/chat/completions":
        return complete({"detail": "Not Found"}, 404)
    if json.loads(received.body).get("stream"):
        return complete(events(ANSWER) + END, 200, "Content-Type: text/event-stream")
    return complete(completion())
