"""What every language-model client is, and what both dialects share; nothing here does I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

from pipeline.answers import looks_like_loop
from pipeline.config import OllamaConfig, VLLMConfig
from pipeline.config.loading import read_api_key, register_provider_secrets
from pipeline.config.redaction import SECRETS
from pipeline.config.resolved_agent import ANSWER_TURN
from pipeline.errors import reason_of_status
from pipeline.llm.error_patterns import is_dying, is_unpaid, reason_of_text
from pipeline.llm.transport.http import Access, CallFailedError, Reply
from pipeline.records import ExtractionAttempt, ModelMetadata, changed

MAX_TOKENS = 10**9
"""No prompt and no answer has more tokens; a server that says so counts wrong, and no metric can add such numbers."""

MESSAGE_CHARS = 400


class LLMClient(Protocol):
    """A client of one server that sends one request for each call; safe in threads."""

    def call_llm(
        self, prompts: Mapping[str, str], json_schema: Mapping[str, Any] | None, document_text: str
    ) -> ExtractionAttempt:
        """Send one request and return its outcome; never raise for a server or a network: `error` and `reason` say it.

        `prompts`: `system` and `user` after substitution, and the turns of examples (`messages`). `json_schema`: of the
        answer; None for free text. `document_text`: the document in the prompt, by which a cut prompt is recognised.
        """
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


@dataclass(frozen=True, slots=True)
class ServerError:
    """An error body, read: its text, and the dialect's own type and parameter where it names them.

    `needed_tokens` and `context_length`: what it tells of a prompt that does not fit. `page`: it is an HTML page.
    """

    message: str
    kind: str | None = None
    param: str | None = None
    needed_tokens: int | None = None
    context_length: int | None = None
    page: bool = False


def messages(prompts: Mapping[str, str]) -> list[dict[str, str]]:
    """The chat's messages: the system prompt first (its bytes never change), the document's message last.

    Every other prompt is a turn of an example, in order: of the user, or of the assistant when its name ends in
    `_answer`.
    """
    system = prompts.get("system", "")
    user = prompts.get("user", "")
    head = [{"role": "system", "content": system}] if system else []
    turns = [
        {"role": "assistant" if name.endswith(ANSWER_TURN) else "user", "content": text}
        for name, text in prompts.items()
        if name not in ("system", "user")
    ]
    return [*head, *turns, {"role": "user", "content": user}]


def encode(payload: Mapping[str, Any] | str) -> bytes:
    """The request's body; a lone surrogate, which servers refuse, becomes a question mark."""
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


_HOLE = "\x00the user's message\x00"
_FRAMES_KEPT = 8


@dataclass(frozen=True, slots=True)
class _Frame:
    """A body's bytes around the user's message; `schema` keeps the object alive whose id is the key."""

    before: bytes
    after: bytes
    schema: Mapping[str, Any] | None


class Bodies:
    """Request bodies, of which only the user's message is encoded each time; safe for many threads.

    All that is the same for an agent and variant has the same bytes, up to the document. `payload` makes the mapping
    of a body, which may depend on the prompts and the schema only.
    """

    def __init__(self, payload: Callable[[Mapping[str, str], Mapping[str, Any] | None], dict[str, Any]]) -> None:
        self._payload = payload
        self._settings: dict[str, Any] | None = None
        self._frames: dict[tuple[tuple[str, ...], int], _Frame | None] = {}

    @property
    def settings(self) -> Mapping[str, Any]:
        """A body without prompts and schema, which has the same other fields as all others."""
        if self._settings is None:
            self._settings = self._payload({}, None)
        return self._settings

    def body(self, prompts: Mapping[str, str], json_schema: Mapping[str, Any] | None) -> bytes:
        """The body as `encode(payload(prompts, json_schema))` gives it."""
        key = (tuple(text for name, text in prompts.items() if name != "user"), id(json_schema))
        if key not in self._frames:
            if len(self._frames) >= _FRAMES_KEPT:
                self._frames = {}
            self._frames[key] = self._frame(prompts, json_schema)
        frame = self._frames.get(key)
        if frame is None or frame.schema is not json_schema:
            return encode(self._payload(prompts, json_schema))
        return frame.before + encode(prompts.get("user", "")) + frame.after

    def _frame(self, prompts: Mapping[str, str], json_schema: Mapping[str, Any] | None) -> _Frame | None:
        """None when the message does not stand in the body just once: `extra_body` may replace the messages."""
        whole = encode(self._payload({**prompts, "user": _HOLE}, json_schema))
        parts = whole.split(encode(_HOLE))
        return _Frame(parts[0], parts[1], json_schema) if len(parts) == 2 else None


def decode_object(body: bytes) -> dict[str, Any] | None:
    """The reply as a mapping; None when it is not a JSON object."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def is_answer(reply: Reply) -> bool:
    """Return True for a status that a completion comes with: 200, and from some gateways 201."""
    return reply.status == 200 or (reply.status == 201 and bool(reply.body.strip()))


def failed_call(attempt: ExtractionAttempt, failure: CallFailedError) -> ExtractionAttempt:
    """The attempt, ended by the transport."""
    return changed(
        attempt,
        error=_short(failure.error),
        reason=failure.reason,
        message=_short(failure.error),
        sent=failure.sent,
        lost=failure.lost,
    )


def failed_stream(attempt: ExtractionAttempt, error: ServerError) -> ExtractionAttempt:
    """The attempt, ended by an error that came after its 200."""
    reason = reason_of_text(500, error.message, kind=error.kind, param=error.param) or "server_error"
    failed = failed_answer(attempt, reason, f"error in mid-stream: {error.message}")
    return changed(failed, lost=is_dying(500, error.message))


def failed_answer(attempt: ExtractionAttempt, reason: str, message: str) -> ExtractionAttempt:
    """The attempt, ended by what a 200 said; the model's text stays in it."""
    return changed(attempt, error=reason, reason=reason, message=_short(message))


def failed_status(
    attempt: ExtractionAttempt, reply: Reply, body_error: ServerError, *, now: Callable[[], float]
) -> ExtractionAttempt:
    """The attempt, ended by an HTTP status of failure: by the server's words where they tell, else the status.

    `lost` when the server says that it dies; whether it did is to be seen.
    """
    reason = reason_of_text(reply.status, body_error.message, kind=body_error.kind, param=body_error.param)
    if reason is None:
        # a firewall's page, which says nothing about a key
        reason = "rejected" if body_error.page and reply.status == 403 else reason_of_status(reply.status)
    return changed(
        attempt,
        error=f"http_{reply.status}",
        reason=reason,
        message=_short(f"HTTP {reply.status}: {body_error.message}"),
        retry_after_s=retry_after_s(reply.headers.get("Retry-After"), now=now),
        needed_tokens=body_error.needed_tokens,
        context_length=body_error.context_length or attempt.context_length,
        lost=is_dying(reply.status, body_error.message),
        unpaid=is_unpaid(reply.status, body_error.message),
    )


def retry_after_s(value: str | None, *, now: Callable[[], float]) -> float | None:
    """Seconds to wait from a Retry-After in seconds or as an HTTP date (RFC 9110, 10.2.3); None when there is none."""
    if not value:
        return None
    seconds = value.strip()
    if seconds.isascii() and seconds.isdigit():
        return float(seconds[:9])
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now())
    except (ValueError, TypeError, OverflowError):
        return None


def cut_reason(text: str | None) -> str:
    """Why an answer that was stopped for length did not end: a loop is no matter of length."""
    return "generation_loop" if text and looks_like_loop(text) else "output_truncated"


def served_by(provider: str, model: str, base_url: str) -> ModelMetadata:
    """Who is asked, with an endpoint fit for records: no user, no query."""
    parts = urlsplit(base_url)
    netloc = parts.netloc.rpartition("@")[2]
    return ModelMetadata(provider, model, urlunsplit((parts.scheme, netloc, parts.path, "", "")))


def whole_number(value: object, *, most: int = MAX_TOKENS) -> int | None:
    """Return a count as a server gives it; None for anything but a whole number from 0 to `most`."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most else None


def count_notes(*values: object) -> tuple[str, ...]:
    """Return the note for counts that no server can mean; they are then unknown."""
    implausible = any(isinstance(value, int) and value > MAX_TOKENS for value in values)
    return ("implausible_usage",) if implausible else ()


def version_numbers(text: str) -> tuple[int, ...]:
    """Return `0.32.1rc1` as (0, 32, 1): the numbers that its first three parts begin with."""
    numbers = (re.match(r"\d+", part) for part in text.split(".")[:3])
    return tuple(int(number[0]) for number in numbers if number)


def _short(message: str) -> str:
    """The message cut to MESSAGE_CHARS, without secrets; the search for them needs no more than the beginning."""
    return SECRETS.redact(message[: 8 * MESSAGE_CHARS])[:MESSAGE_CHARS]


def access_of(config: OllamaConfig | VLLMConfig, *, pool_size: int, address: str | None = None) -> Access:
    """How the config's server is reached; `address`: the one of its host name's to connect to."""
    register_provider_secrets(config)
    return Access(
        read_key=lambda: read_api_key(config),
        headers=config.headers,
        ca_file=config.ca_file,
        client_cert=config.client_cert,
        client_key=config.client_key,
        proxy=config.proxy,
        max_connection_age_s=config.max_connection_age_s,
        pool_size=pool_size,
        address=address,
    )
