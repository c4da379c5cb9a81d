"""The table of faults by name, and the markers in a document's text that trigger them.

It must not decide when a fault happens: a marker or a test does.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from email.utils import formatdate
from typing import Any

from fake_llm.chat import Chat, Completion, Dialect
from fake_llm.transport import Peer, Reply, head_of, parts_of

MARKER = re.compile(r"\[\[fault:([a-z0-9_]+)(?:\*(\d+))?\]\]")
CONTROLS = ("kill", "slow", "draining", "context", "truncated_prompt")
HUGE_BYTES = 256 * 1024 * 1024
DRIP_S = 0.2
SLOW_S = 2.0
Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault by name; `seconds`: the pause between two bytes, the delay of `slow`, or the downtime after `kill`."""

    name: str
    seconds: float = 0.0

    def __post_init__(self) -> None:
        """Raise ValueError for a name that is not in the table."""
        if self.name not in NAMES:
            raise ValueError(f"fault: got {self.name!r}, need one of {', '.join(sorted(NAMES))}")


def marked_fault(text: str, n: int) -> Fault | None:
    """Return the fault that a text requests for its n-th request (from 1); faults with counts follow each other."""
    used = 0
    for name, times in dict.fromkeys(MARKER.findall(text)):
        if not times:
            return Fault(name)
        used += int(times)
        if n <= used:
            return Fault(name)
    return None


def status_reply(name: str, dialect: Dialect) -> Reply:
    """Return the answer of a fault that consists of a status and a body."""
    if name in PAGES:
        return PAGES[name]
    if name == "http_404_url":
        return dialect.url_not_found()
    if name == "http_429_date":
        return dialect.error(
            429, "too many requests", headers=(("Retry-After", formatdate(time.time() + 2, usegmt=True)),)
        )
    status, message, headers = ERRORS[name]
    return dialect.error(status, message, headers=headers)


ERRORS: Mapping[str, tuple[int, str, Headers]] = {
    "http_400": (400, "the request was not understood", ()),
    "http_401": (401, "unauthorized", ()),
    "http_408": (408, "request timeout", ()),
    "http_429": (429, "too many requests", (("Retry-After", "1"),)),
    "http_429_bare": (429, "too many requests", ()),
    "http_500": (500, "EngineCore encountered an issue. See stack trace (above) for the root cause.", ()),
    "http_503": (503, "The engine is currently busy and cannot accept new requests. Please try again later.", ()),
    "http_503_retry": (
        503,
        "server busy, please try again.  maximum pending requests exceeded",
        (("Retry-After", "1"),),
    ),
    "draining": (500, "cannot schedule new futures after shutdown", ()),
    # transient states that servers and gateways report as a 4xx
    "http_400_crash": (
        400,
        "The model has crashed without additional information. (Exit code: 18446744072635812000)",
        (),
    ),
    "http_400_loading": (400, "The model is loading, please try again later.", ()),
    "http_400_budget": (400, "Budget has been exceeded! Current cost: 10.2, Max budget: 10.0", ()),
    "http_402": (402, "payment required: the account has no credit", ()),
    "http_403": (403, "forbidden", ()),
    "http_409": (409, "model is loading", ()),
    "http_422": (422, "unprocessable request", ()),
    "http_423": (423, "the model is locked", ()),
    "http_424": (424, "Request failed during generation: Server error: CUDA error: device-side assert triggered", ()),
    "http_425": (425, "too early", ()),
    "http_460": (460, "the client closed the connection", ()),
    "http_499": (499, "client closed request", ()),
}
PAGES: Mapping[str, Reply] = {
    "http_403_empty": Reply(403, content_type=""),
    "http_413": Reply(413, b"<html><h1>413 Request Entity Too Large</h1></html>", "text/html"),
    "http_502_html": Reply(502, b"<html><head><title>502 Bad Gateway</title></head><hr>nginx</html>", "text/html"),
    "redirect": Reply(302, content_type="", headers=(("Location", "/elsewhere"),)),
    "html_200": Reply(200, b"<!DOCTYPE html><title>Sign in</title><p>Please sign in.", "text/html; charset=utf-8"),
    "garbage_200": Reply(200, b"\x00\xff{]garbage"),
}


def hang(peer: Peer, _: float) -> None:
    """Send no byte until the client or the server ends."""
    peer.pause(None)


def close(peer: Peer, _: float) -> None:
    """Close the connection before the first byte."""
    peer.close()


def reset(peer: Peer, _: float) -> None:
    """Reset the connection before the first byte."""
    peer.reset()


def half_body(peer: Peer, _: float) -> None:
    """Announce more bytes than are sent, then close."""
    peer.send(head_of(Reply(), length=1000) + b'{"model":"m","created_at":"2026-08-21T10:11:12Z","mess')
    peer.close()


def drip(peer: Peer, seconds: float, *, head: bytes) -> None:
    """Send a byte from time to time, for ever."""
    peer.send(head)
    while True:
        peer.pause(seconds or DRIP_S)
        peer.send(b"x")


def huge(peer: Peer, _: float) -> None:
    """Send a body that is too large to keep in memory."""
    peer.send(head_of(Reply(), length=HUGE_BYTES))
    block = b" " * 1048576
    for _offset in range(0, HUGE_BYTES, len(block)):
        peer.send(block)


def endless(peer: Peer, _: float) -> None:
    """Send chunks as fast as possible, for ever."""
    peer.send(head_of(Reply(), length=None))
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    while True:
        peer.send(chunk)


TRANSPORT: Mapping[str, Callable[[Peer, float], None]] = {
    "hang": hang,
    "close": close,
    "reset": reset,
    "half_body": half_body,
    "huge": huge,
    "endless": endless,
    "drip_header": lambda peer, seconds: drip(peer, seconds, head=b"HTTP/1.1 200 OK\r\nx-slow: "),
    "drip_body": lambda peer, seconds: drip(peer, seconds, head=head_of(Reply(), length=1_000_000)),
}


def parsed(text: str) -> Any:
    """Return the value of a JSON text, or the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def wrong_type(text: str) -> str:
    """Return JSON that violates the schema: the first property has a wrong type."""
    value = parsed(text)
    if not isinstance(value, dict) or not value:
        return '[["unexpected"]]'
    first = next(iter(value))
    return json.dumps({**value, first: {"unexpected": True} if not isinstance(value[first], dict) else "unexpected"})


def not_a_number(text: str) -> str:
    """Return the text with NaN as its first number, or as an additional property."""
    replaced, count = re.subn(r"(?<=: )-?\d[\d.eE+-]*", "NaN", text, count=1)
    return replaced if count else text.rstrip("}") + ', "score": NaN}'


def duplicate_key(text: str) -> str:
    """Return an object that has its first key twice; the second value is right."""
    value = parsed(text)
    if not isinstance(value, dict) or not value:
        return '{"answer": null, "answer": "ok"}'
    return "{" + json.dumps(next(iter(value))) + ": null, " + text.lstrip()[1:]


def surrogate(text: str) -> str:
    """Return the text with half an emoji at the end of its longest string."""
    strings = re.findall(r'("(?:[^"\\]|\\.)*")(\s*:)?', text)
    longest = max((string for string, colon in strings if not colon), key=len, default="")
    broken = re.sub(r'(?:\\u[0-9a-fA-F]{4}|\\?.)"$', '\ud83d"', longest)
    return text.replace(longest, broken, 1) if longest else text + "\ud83d"


TEXTS: Mapping[str, Callable[[str], str]] = {
    "invalid_json": lambda _: '{"answer": <not json> ',
    "wrong_type": wrong_type,
    "fenced": lambda text: f"```json\n{text}\n```",
    "prose": lambda text: f"Sure, here is the JSON you asked for:\n\n{text}\n\nLet me know if you need more.",
    "think_block": lambda text: f'<think>\nThe user wants {{"a": 1}}, I guess.\n</think>\n\n{text}',
    "nan": not_a_number,
    "trailing_comma": lambda text: re.sub(r"\}\s*$", ",}", text),
    "doubly_encoded": json.dumps,
    "surrogate": surrogate,
    "duplicate_key": duplicate_key,
    "deep": lambda _: "[" * 10_000 + "]" * 10_000,
}
COMPLETIONS: Mapping[str, Callable[[str], Completion]] = {
    "empty_content": lambda _: Completion(""),
    "null_content": lambda _: Completion(None),
    "no_choices": lambda text: Completion(text, no_choices=True),
    "truncated": lambda text: Completion(text[: len(text) * 3 // 5], finish="length"),
    "done_false": lambda text: Completion(text, finish=None),
    "abort": lambda text: Completion(text[: len(text) // 2], finish="abort"),
    "loop_whitespace": lambda text: Completion(
        text[: len(text) // 10 + 1] + " \n   " * (2 * len(text)), finish="length"
    ),
    "repetition": lambda text: Completion(
        text[: len(text) // 2] + "......" * 40, finish="repetition", stop_reason="repetition_detected"
    ),
    "thinking_only": lambda _: Completion("", reasoning="First I look at the document. Then I look again."),
    "answer_in_reasoning": lambda text: Completion("", reasoning=text),
    "stream_error": lambda text: Completion(text[: len(text) // 2], finish=None, breaks_off=True),
}
COUNTS: Mapping[str, Callable[[int], int | None]] = {
    "count_high": lambda tokens: 3 * tokens,
    "count_low": lambda tokens: tokens // 3,
    "count_zero": lambda _: 0,
    "count_missing": lambda _: None,
}
"""Wrong counts of the tokens of a prompt beside a right answer."""
PROCESSING = b"HTTP/1.1 102 Processing\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nContent-Length: 3\r\n\r\n"
AHEAD: Mapping[str, bytes] = {
    "interim_102": PROCESSING,
    "interim_103": HINTS,
    "interim_many": PROCESSING * 3 + HINTS * 2,
    **{
        f"late_after_{status}": b"".join(parts_of(Reply(status, b'{"error":"the gateway gave up"}')))
        for status in (429, 504)
    },
}
"""Sent ahead of the right answer: interim responses, or a gateway's own answer, so that the right one arrives late."""
STATUSES = frozenset(ERRORS) | frozenset(PAGES) | {"http_404_model", "http_404_url", "http_429_date"}
DISPLACED = frozenset(AHEAD) | {"doubled"}
NAMES = (
    STATUSES
    | frozenset(TRANSPORT)
    | frozenset(TEXTS)
    | frozenset(COMPLETIONS)
    | frozenset(COUNTS)
    | frozenset(CONTROLS)
    | DISPLACED
)


def displaced(reply: Reply, name: str) -> Reply:
    """Return the reply with bytes before or after it on its connection; unchanged for other faults."""
    return replace(reply, before=AHEAD.get(name, b""), copies=2 if name == "doubled" else 1)


def faulty(completion: Completion, name: str, *, chat: Chat) -> Completion:
    """Return the completion with a fault of the model; unchanged for other kinds of faults."""
    text = completion.content or ""
    if name in TEXTS:
        return replace(completion, content=TEXTS[name](text))
    if name in COMPLETIONS:
        return replace(COMPLETIONS[name](text), prompt_tokens=completion.prompt_tokens)
    if name in COUNTS:
        return replace(completion, prompt_tokens=COUNTS[name](chat.prompt_tokens))
    if name == "truncated_prompt":
        return replace(completion, prompt_tokens=half_window(chat.context))
    return completion


def half_window(context: int) -> int:
    """Return the prompt tokens that Ollama keeps of a truncated prompt."""
    return context - max((context - 4) // 2, 1)
