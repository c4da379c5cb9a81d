"""The concepts that the dialects of the fake server share: chats, completions and tokens.

It must not know any wire format except JSON.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fake_llm.transport import Reply, Request

CHARS_PER_TOKEN = 4
JSON_MODE: Mapping[str, Any] = {"type": "object", "properties": {"answer": {"const": "ok"}}}
DOCUMENT_ID = re.compile(r"\[\[doc:([^\]]+)\]\]")
UTF8_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
ASCII_JSON = json.JSONEncoder(separators=(",", ":"))


class Refusal(Exception):
    """A request that the server answers with an error."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


@dataclass(frozen=True, slots=True)
class Settings:
    """Properties of the simulated server; `context` in tokens.

    `tokenizer`: the factor by which the counts of /tokenize are wrong; 0: there is no such page.
    """

    models: tuple[str, ...]
    context: int
    tokenizer: float = 1.0
    thinking: bool = False
    truncates: bool = False
    started: int = 0


@dataclass(frozen=True, slots=True)
class Chat:
    """A requested completion. `max_tokens` None: no limit. `schema` None: free text."""

    model: str
    prompt: str
    document_text: str
    prompt_tokens: int
    context: int
    max_tokens: int | None
    schema: Mapping[str, Any] | None = None
    choices: tuple[str, ...] = ()
    thinks: bool = False
    stream: bool = False
    include_usage: bool = False
    generate: bool = False
    preload: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Completion:
    """The model's answer; `finish` None: generation was interrupted; `prompt_tokens` None: no count is reported."""

    content: str | None
    finish: str | None = "stop"
    reasoning: str | None = None
    stop_reason: str | None = None
    prompt_tokens: int | None = 0
    no_choices: bool = False
    breaks_off: bool = False

    @property
    def tokens(self) -> int:
        """The number of generated tokens."""
        return count_tokens((self.content or "") + (self.reasoning or ""))


@dataclass(frozen=True, slots=True)
class Timing:
    """Durations of one completion in nanoseconds; `total` is the sum of the four."""

    queue: int = 0
    load: int = 0
    prompt: int = 0
    generation: int = 0

    @property
    def total(self) -> int:
        """The time from the request to its answer."""
        return self.queue + self.load + self.prompt + self.generation


class Dialect(Protocol):
    """A wire format: pages other than chats, parsing of chats, rendering of answers and errors."""

    def serves(self, path: str) -> bool:
        """Return whether a path belongs to this dialect."""

    def page(self, request: Request) -> Reply:
        """Return the answer to anything that is not a chat."""

    def parse(self, body: object, *, path: str, request_id: str) -> Chat:
        """Parse a decoded body, or the bytes of one that is not JSON; raise Refusal."""

    def render(self, chat: Chat, completion: Completion, *, timing: Timing) -> Reply:
        """Return the answer as it goes over the wire."""

    def error(self, status: int, message: str, *, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
        """Return an error in the shape of this dialect."""

    def model_not_found(self, model: str) -> Reply:
        """Return the 404 of an unknown model."""

    def url_not_found(self) -> Reply:
        """Return the 404 of an unknown path."""

    def context_exceeded(self, tokens: int, *, context: int) -> Reply:
        """Return the 400 of a prompt that does not fit."""


def count_tokens(text: str) -> int:
    """Return the size of a text in tokens: four characters each, at least one token."""
    return max(1, len(text) // CHARS_PER_TOKEN)


def json_bytes(value: object) -> bytes:
    """Return UTF-8 JSON; lone surrogates stay escaped."""
    try:
        return UTF8_JSON.encode(value).encode()
    except UnicodeEncodeError:
        return ASCII_JSON.encode(value).encode()


def decoded(body: bytes) -> Any:
    """Return the JSON value of a body, else its bytes."""
    try:
        return json.loads(body)
    except ValueError:
        return body


def text_of(content: object) -> str:
    """Return the text of a message's content: a string, or a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return ""


def texts_of(messages: object) -> tuple[str, str]:
    """Return all texts of a conversation joined, and the last one of the user."""
    texts = []
    last = ""
    for message in messages if isinstance(messages, list) else []:
        text = text_of(message.get("content")) if isinstance(message, dict) else ""
        texts.append(text)
        if isinstance(message, dict) and message.get("role") == "user":
            last = text
    return "\n".join(texts), last


def document_of(body: object) -> tuple[str, str]:
    """Return the id of the document in a chat request and the text with it; two empty strings for other requests."""
    if not isinstance(body, dict):
        return "", ""
    text = texts_of(body["messages"])[1] if "messages" in body else text_of(body.get("prompt"))
    if not text:
        return "", ""
    marked = DOCUMENT_ID.search(text)
    if marked:
        return marked[1], text
    return hashlib.sha256(text[:400].encode("utf-8", "surrogatepass")).hexdigest()[:16], text


def cut_to_fit(completion: Completion, max_tokens: int | None) -> Completion:
    """Return the completion, cut with finish `length` if it is longer than allowed."""
    if max_tokens is None or max_tokens < 0 or completion.tokens <= max_tokens:
        return completion
    content = (completion.content or "")[: max_tokens * CHARS_PER_TOKEN]
    return Completion(content, finish="length", prompt_tokens=completion.prompt_tokens)


def pieces(text: str, *, size: int = 6) -> Sequence[str]:
    """Return a text in pieces of a few characters, as a model streams it."""
    return [text[start : start + size] for start in range(0, len(text), size)]


def nanoseconds() -> int:
    """Return a monotonic clock's reading."""
    return time.monotonic_ns()
