"""Replies of a hostile Ollama, in its own protocol; evil_servers.py has those that fit any protocol."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from evil_servers import (
    ANSWER,
    CHUNKED,
    COMPLETIONS,
    FULL,
    MANY,
    OK,
    Received,
    Reply,
    complete,
    dripping,
    echo,
    endless,
)

MODEL = "llama3.1"
NDJSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n"


def chat(content: str = ANSWER, **more: Any) -> dict[str, Any]:
    """A complete answer of /api/chat."""
    counts = {"prompt_eval_count": 9, "eval_count": 9, "total_duration": 9, "load_duration": 1}
    message = {"role": "assistant", "content": content}
    return {"model": MODEL, "message": message, "done": True, "done_reason": "stop", **counts, **more}


def line(content: str, **more: Any) -> bytes:
    """A line of an unfinished stream."""
    return json.dumps({"model": MODEL, "message": {"content": content}, "done": False, **more}).encode() + b"\n"


SHARED = ("drip", "drip_head", "endless_body", "endless_headers", "endless_interim", "gzip_bomb", "chunk_of_2_63",
          "error_500_of_8_mb", "nested_reply", "redirect", "echo_400", "echo_401", "echo_in_200",
          "white_space")  # fmt: skip
"""Replies of evil_servers.py that fit any protocol."""

CHATS: dict[str, Reply] = {
    **{name: COMPLETIONS[name] for name in SHARED},
    "nested_answer": lambda: complete(chat('{"summary":' * MANY)),
    "thoughts_answer": lambda: complete(chat("<think>" * MANY + ANSWER + "</think" * MANY)),
    "thinking_of_8_mb": lambda: complete({**chat(""), "message": {"content": "", "thinking": "{" * FULL}}),
    "pattern": lambda: complete(chat(json.dumps({"summary": "a" * 60 + "!"}))),
    "counts_of_4000_digits": lambda: complete(json.dumps(chat()).replace(": 9", ": " + "9" * 4000).encode()),
    "echo_in_answer": lambda: complete(chat(json.dumps({"summary": echo()}))),
    "error_of_8_mb": lambda: complete({"error": '{"error":' * (FULL // 10)}, 400),
    "never_done": lambda: complete(chat(done=False)),
    "stream_without_end": lambda: endless(NDJSON, line("a")),
    "stream_of_nothing": lambda: endless(NDJSON, b"{}\n"),
    "stream_of_one_line": lambda: endless(NDJSON, b'{"message": "'),
    "stream_dripping": lambda: dripping(NDJSON, line(" ")),
    "stream_with_the_key": lambda: [NDJSON + line("{") + json.dumps({"error": echo()}).encode() + b"\n"],
}
"""The replies to a chat with the evil document."""

PAGES: dict[str, tuple[str, Reply]] = {
    "tags_of_a_million": ("/api/tags", lambda: complete({"models": [{"name": f"m{n}"} for n in range(400_000)]})),
    "tags_dripping": ("/api/tags", lambda: dripping(OK + b"Content-Length: 99999\r\n\r\n")),
    "tags_with_the_key": ("/api/tags", lambda: complete({"models": [{"name": echo()}]})),
    "show_of_8_mb": ("/api/show", lambda: complete({"model_info": {"general.architecture": "a" * FULL}})),
    "show_nested": ("/api/show", lambda: complete(b'{"capabilities":' * MANY)),
    "ps_without_end": ("/api/ps", lambda: endless(CHUNKED, b"1\r\n \r\n")),
    "ps_of_many_digits": (
        "/api/ps",
        lambda: complete(b'{"models":[{"name":"llama3.1","context_length":' + b"9" * 4000 + b"}]}"),
    ),
    "version_with_the_key": ("/api/version", lambda: complete({"version": echo()})),
}
"""The replies to one page; chats get ordinary answers."""


def ordinary(received: Received) -> Iterable[bytes]:
    """Return the answer of an ordinary Ollama."""
    loaded = {"name": f"{MODEL}:latest", "model": f"{MODEL}:latest", "context_length": 8192, "digest": "0" * 64}
    pages: dict[str, Any] = {
        "/api/tags": {"models": [loaded]},
        "/api/ps": {"models": [loaded]},
        "/api/version": {"version": "0.33.0"},
        "/api/show": {"capabilities": ["completion"], "details": {"family": "llama"}, "model_info": {}},
    }
    if received.path in pages:
        return complete(pages[received.path])
    if received.path != "/api/chat":
        return complete({"error": "not found"}, 404)
    body = json.loads(received.body)
    if not body.get("messages"):
        return complete({"model": MODEL, "message": {"content": ""}, "done": True, "done_reason": "load"})
    return _streamed() if body.get("stream") else complete(chat())


def _streamed() -> Iterator[bytes]:
    lines = line(ANSWER) + json.dumps(chat("")).encode() + b"\n"
    return complete(lines, 200, "Content-Type: application/x-ndjson")
