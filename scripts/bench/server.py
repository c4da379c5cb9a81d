"""A very cheap stub of Ollama and vLLM: the same answer to all requests, after a fixed time.

It is no test server (fake_llm is): of a request it only finds the end.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
import time
from collections.abc import Mapping
from typing import Any

FIELDS = 20
MODEL = "bench"
DIGEST = "0" * 64
CANARY = b"kJ7-sulphur"
DOCUMENT = b"rose by a tenth"
"""Text of every document, and of no request of a preflight."""
COUNT = b"7000000"
"""The place of the prompt's count in a prepared response."""
BYTES_A_TOKEN = 4
CONTEXT = 32768


def schema(fields: int = FIELDS) -> dict[str, Any]:
    """Return a schema with this many required fields, of realistic kinds."""
    kinds: list[dict[str, Any]] = [
        {"type": "string", "maxLength": 200},
        {"type": "integer", "minimum": 0, "maximum": 100},
        {"type": "string", "enum": ["positive", "neutral", "negative", "mixed"]},
        {"type": "array", "maxItems": 6, "items": {"type": "string", "maxLength": 80}},
        {"type": ["string", "null"], "maxLength": 40},
    ]
    properties = {f"field_{number:02}": kinds[number % len(kinds)] for number in range(fields)}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def answer(fields: int = FIELDS) -> str:
    """Return the model's answer: an object that fits the schema."""
    values: list[Any] = ["Profits rose by a tenth.", 40, "positive", ["interest rates", "supply chain"], None]
    return json.dumps({f"field_{number:02}": values[number % len(values)] for number in range(fields)})


def page(value: Any) -> bytes:
    """Return a whole response with a JSON value."""
    body = json.dumps(value).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def vllm_chat(content: str) -> bytes:
    """Return the whole response of an OpenAI-like server."""
    message = {"role": "assistant", "content": content}
    usage = {"prompt_tokens": int(COUNT), "completion_tokens": 250}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": MODEL}
    return page({**head, "choices": [choice], "usage": usage})


def ollama_chat(content: str, latency_s: float) -> bytes:
    """Return the whole response of an Ollama."""
    total = int(latency_s * 1e9)
    counts = {"prompt_eval_count": int(COUNT), "eval_count": 250}
    times = {
        "total_duration": total,
        "load_duration": 0,
        "prompt_eval_duration": total // 4,
        "eval_duration": total - total // 4,
    }
    message = {
        "model": MODEL,
        "created_at": "2026-01-01T00:00:00Z",
        "message": {"role": "assistant", "content": content},
    }
    return page({**message, "done": True, "done_reason": "stop", **counts, **times})


def tokenized(body: Mapping[str, Any]) -> bytes:
    """Return the whole response of vLLM about the tokens of a text or of a chat."""
    text = body.get("prompt") or "".join(message["content"] for message in body.get("messages", ()))
    count = -(-len(text.encode()) // BYTES_A_TOKEN)
    return page({"count": count, "max_model_len": CONTEXT, "tokens": [0] * count})


class Stub:
    """The prepared answers, and the counts: times of the first document's request and the last answer, answers."""

    def __init__(self, latency_s: float, answer_text: str | None = None) -> None:
        answer_text = answer() if answer_text is None else answer_text
        canary = json.dumps({"canary": CANARY.decode()})
        self.latency_s = latency_s
        self.chats = {b"/v1": vllm_chat(answer_text), b"/ap": ollama_chat(answer_text, latency_s)}
        self.canaries = {b"/v1": vllm_chat(canary), b"/ap": ollama_chat(canary, latency_s)}
        name = f"{MODEL}:latest"
        model = {"id": MODEL, "owned_by": "vllm", "max_model_len": CONTEXT}
        self.pages = {
            b"/v1/models": page({"object": "list", "data": [model]}),
            b"/version": page({"version": "0.32.0"}),
            b"/api/version": page({"version": "0.32.9"}),
            b"/api/tags": page({"models": [{"name": name, "digest": DIGEST}]}),
            b"/api/ps": page({"models": [{"name": name, "context_length": CONTEXT}]}),
            b"/api/show": page({"details": {"family": "llama"}, "capabilities": ["completion"]}),
        }
        self.first = self.last = 0.0
        self.answered = 0

    def count(self, request: bytes) -> bool:
        """Return whether a request is for a document."""
        return DOCUMENT in request

    def stats(self, *, reset: bool) -> bytes:
        """Return the counts since the last reset, and the CPU seconds of this process."""
        names = ("first", "last", "answered")
        counts = {name: getattr(self, name) for name in names} | {"cpu_s": time.process_time()}
        if reset:
            self.first = self.last = 0.0
            self.answered = 0
        return page(counts)


class Connection(asyncio.Protocol):
    """One client's connection: requests one after the other, never two at a time."""

    def __init__(self, stub: Stub, loop: asyncio.AbstractEventLoop) -> None:
        self._stub = stub
        self._loop = loop
        self._buffer = b""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's
        """Stop writing."""
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Receive bytes, and answer each complete request."""
        self._buffer = self._buffer + data if self._buffer else data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        at = head.find(b"content-length:")
        size = int(head[at + 15 : (head + b"\r\n").index(b"\r\n", at)]) if at >= 0 else 0
        if len(self._buffer) < end + 4 + size:
            return
        request = self._buffer
        self._buffer = b""
        self._answer(request)

    def _answer(self, request: bytes) -> None:
        stub = self._stub
        path = request.split(b" ", 2)[1]
        if path == b"/stats":
            self._write(stub.stats(reset=True))
        elif path == b"/peek":
            self._write(stub.stats(reset=False))
        elif path in stub.pages:
            self._write(stub.pages[path])
        elif path == b"/tokenize":
            self._write(tokenized(json.loads(request.partition(b"\r\n\r\n")[2])))
        else:
            is_document = stub.count(request)
            if is_document and not stub.first:
                stub.first = time.monotonic()
            chat = stub.canaries if CANARY in request else stub.chats
            # messages are the last field of a body: what precedes them, such as a schema, is no part of the prompt
            count = b"%-7d" % ((len(request) - max(request.find(b'"messages"'), 0)) // BYTES_A_TOKEN)
            data = chat[path[:3]].replace(COUNT, count, 1)
            self._loop.call_later(stub.latency_s, self._chat, data, is_document)

    def _chat(self, data: bytes, is_document: bool) -> None:
        self._write(data)
        if is_document:
            self._stub.answered += 1
            self._stub.last = time.monotonic()

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


async def serve(latency_s: float, answer_text: str | None) -> None:
    """Serve until the process ends; print the port as the first line."""
    loop = asyncio.get_running_loop()
    stub = Stub(latency_s, answer_text)
    server = await loop.create_server(lambda: Connection(stub, loop), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    gc.freeze()
    await server.serve_forever()


def main() -> int:
    """Return the exit code, when the process is interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", type=float, default=0.2, metavar="SECONDS")
    parser.add_argument("--answer", metavar="JSON", help="what is always answered; default: twenty fields")
    options = parser.parse_args()
    try:
        asyncio.run(serve(options.latency, options.answer))
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
