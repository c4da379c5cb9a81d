"""Requests of tests to the fake server: chats of both dialects, and raw connections."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from fake_llm import FakeLLM, Fault, ReceivedRequest  # noqa: E402

SCHEMA = {
    "type": "object",
    "properties": {"vendor": {"type": "string", "maxLength": 40}, "total": {"type": "number"}},
    "required": ["vendor", "total"],
    "additionalProperties": False,
}
CHATS = ("/api/chat", "/v1/chat/completions")


def body_for(path: str, text: str, *, schema: Any = SCHEMA, **more: Any) -> dict[str, Any]:
    """Return a chat request in the dialect of a path."""
    messages = [{"role": "system", "content": "Extract."}, {"role": "user", "content": text}]
    body: dict[str, Any] = {"model": "llama3.1", "messages": messages, "stream": False}
    if path == "/api/chat":
        return {**body, "format": schema, "truncate": False, **more}
    named = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    return {**body, **({"response_format": named} if schema else {}), **more}


def ask(server: FakeLLM, path: str, text: str, *, schema: Any = SCHEMA, **more: Any) -> requests.Response:
    """Return the reply to a chat."""
    return requests.post(
        server.url + path, json=body_for(path, text, schema=schema, **more), timeout=60, allow_redirects=False
    )


def content_of(answer: requests.Response) -> Any:
    """Return the answer text, in either dialect."""
    body = answer.json()
    return body["message"]["content"] if "message" in body else body["choices"][0]["message"]["content"]


def always(fault: Fault) -> Callable[[ReceivedRequest, int], Fault]:
    """Return a `faults` function that gives one fault to every chat."""
    return lambda _seen, _n: fault


def saying(text: str) -> Callable[[str, Any], str]:
    """Return an `answer` function that always returns one text."""
    return lambda _prompt, _schema: text


def connected(server: FakeLLM, text: str, *, path: str = CHATS[0]) -> socket.socket:
    """Return a connection on which a chat was sent."""
    body = json.dumps(body_for(path, text)).encode()
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    sock.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    return sock
