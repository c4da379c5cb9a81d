"""The protocol of all language-model clients, and the code that both dialects share. It does no I/O."""

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
"""Most tokens of a prompt or an answer; a higher count of a server is wrong, and no metric could add it."""

MESSAGE_CHARS = 400


class LLMClient(Protocol):
    """A client of one server that sends one request for each call; safe in threads."""

    def call_llm(
        self, prompts: Mapping[str, str], json_schema: Mapping[str, Any] | None, document_text: str
    ) -> ExtractionAttempt:
        """Send one request and return its outcome; a failure of server or network is in `error` and `reason`.

        `prompts`: `system` and `user` after substitution, and the turns of examples (`messages`). `json_schema`: of the
        answer; None for free text. `document_text`: the document in the prompt, whose length shows a truncated prompt.
        """
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


@dataclass(frozen=True, slots=True)
class ServerError:
    """A parsed error body: its text, and the dialect's own type and parameter, if any.

    `needed_tokens` and `context_length`: the counts for a prompt that is too long. `page`: it is an HTML page.
    """

    message: str
    kind: str | None = None
    param: str | None = None
    needed_tokens: int | None = None
    context_length: int | None = None
    page: bool = False


def messages(prompts: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the chat's messages: the system prompt first (its bytes never change), the document's message last.

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
    """Return the request's body; a lone surrogate, which servers refuse, becomes a question mark."""
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


_PLACEHOLDER = "\x00the user's message\x00"
_FRAMES_KEPT = 8


@dataclass(frozen=True, slots=True)
class _Frame:
    """A body's bytes before and after the user's message; `schema` keeps the object alive whose id is in the key."""

    head: bytes
    tail: bytes
    schema: Mapping[str, Any] | None


class Bodies:
    """Request bodies, of which only the user's message is encoded each time; safe for many threads.

    The bytes before the document are the same for all requests of an agent and variant. `payload` returns the mapping
    of a body, which must depend on prompts and schema only.
    """

    def __init__(self, payload: Callable[[Mapping[str, str], Mapping[str, Any] | None], dict[str, Any]]) -> None:
        self._payload = payload
        self._settings: dict[str, Any] | None = None
        self._frames: dict[tuple[tuple[str, ...], int], _Frame | None] = {}

    @property
    def settings(self) -> Mapping[str, Any]:
        """The fields of every body, without prompts and schema."""
        if self._settings is None:
            self._settings = self._payload({}, None)
        return self._settings

    def body(self, prompts: Mapping[str, str], json_schema: Mapping[str, Any] | None) -> bytes:
        """Return the same body as `encode(payload(prompts, json_schema))`."""
        key = (tuple(text for name, text in prompts.items() if name != "user"), id(json_schema))
        if key not in self._frames:
            if len(self._frames) >= _FRAMES_KEPT:
                self._frames = {}
            self._frames[key] = self._frame(prompts, json_schema)
        frame = self._frames.get(key)
        if frame is None or frame.schema is not json_schema:
            return encode(self._payload(prompts, json_schema))
        return frame.head + encode(prompts.get("user", "")) + frame.tail

    def _frame(self, prompts: Mapping[str, str], json_schema: Mapping[str, Any] | None) -> _Frame | None:
        """Return None unless the body contains the message exactly once: `extra_body` may replace the messages."""
        body = encode(self._payload({**prompts, "user": _PLACEHOLDER}, json_schema))
        parts = body.split(encode(_PLACEHOLDER))
        return _Frame(parts[0], parts[1], json_schema) if len(parts) == 2 else None


def decode_object(body: bytes) -> dict[str, Any] | None:
    """Return the reply as a mapping; None when it is not a JSON object."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def is_answer(reply: Reply) -> bool:
    """Return whether the status is that of a completion: 200, and from some gateways 201."""
    return reply.status == 200 or (reply.status == 201 and bool(reply.body.strip()))


def failed_call(attempt: ExtractionAttempt, failure: CallFailedError) -> ExtractionAttempt:
    """Return the attempt as failed in the transport."""
    return changed(
        attempt,
        error=_shortened(failure.error),
        reason=failure.reason,
        message=_shortened(failure.error),
        sent=failure.sent,
        lost=failure.lost,
    )


def failed_stream(attempt: ExtractionAttempt, error: ServerError) -> ExtractionAttempt:
    """Return the attempt as failed by an error that followed its 200."""
    reason = reason_of_text(500, error.message, kind=error.kind, param=error.param) or "server_error"
    attempt_failed = failed_answer(attempt, reason, f"error in mid-stream: {error.message}")
    return changed(attempt_failed, lost=is_dying(500, error.message))


def failed_answer(attempt: ExtractionAttempt, reason: str, message: str) -> ExtractionAttempt:
    """Return the attempt as failed by the content of a 200; it keeps the model's text."""
    return changed(attempt, error=reason, reason=reason, message=_shortened(message))


def failed_status(
    attempt: ExtractionAttempt, reply: Reply, body_error: ServerError, *, now: Callable[[], float]
) -> ExtractionAttempt:
    """Return the attempt as failed by an HTTP status: the reason comes from the server's message, else from the status.

    `lost`: the server reports that it ends, which the caller verifies.
    """
    reason = reason_of_text(reply.status, body_error.message, kind=body_error.kind, param=body_error.param)
    if reason is None:
        # a page of a firewall, which is not about the key
        reason = "rejected" if body_error.page and reply.status == 403 else reason_of_status(reply.status)
    return changed(
        attempt,
        error=f"http_{reply.status}",
        reason=reason,
        message=_shortened(f"HTTP {reply.status}: {body_error.message}"),
        retry_after_s=retry_after_s(reply.headers.get("Retry-After"), now=now),
        needed_tokens=body_error.needed_tokens,
        context_length=body_error.context_length or attempt.context_length,
        lost=is_dying(reply.status, body_error.message),
        unpaid=is_unpaid(reply.status, body_error.message),
    )


def retry_after_s(value: str | None, *, now: Callable[[], float]) -> float | None:
    """Parse a Retry-After in seconds or as an HTTP date (RFC 9110, 10.2.3); return seconds to wait, or None."""
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
    """Return the reason of an answer that was stopped for length: `output_truncated`, or a loop of the model."""
    return "generation_loop" if text and looks_like_loop(text) else "output_truncated"


def served_by(provider: str, model: str, base_url: str) -> ModelMetadata:
    """Return the metadata of a model, with an endpoint without user and query, as records need it."""
    parts = urlsplit(base_url)
    netloc = parts.netloc.rpartition("@")[2]
    return ModelMetadata(provider, model, urlunsplit((parts.scheme, netloc, parts.path, "", "")))


def whole_number(value: object, *, maximum: int = MAX_TOKENS) -> int | None:
    """Return a server's count; None for anything but a whole number from 0 to `maximum`."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= maximum else None


def count_notes(*values: object) -> tuple[str, ...]:
    """Return a note if a count is implausible; such counts are unknown."""
    implausible = any(isinstance(value, int) and value > MAX_TOKENS for value in values)
    return ("implausible_usage",) if implausible else ()


def version_numbers(text: str) -> tuple[int, ...]:
    """Return `0.32.1rc1` as (0, 32, 1): the numbers that its first three parts begin with."""
    numbers = (re.match(r"\d+", part) for part in text.split(".")[:3])
    return tuple(int(number[0]) for number in numbers if number)


def _shortened(message: str) -> str:
    """Return the message without secrets, cut to MESSAGE_CHARS; only its beginning is searched for secrets."""
    return SECRETS.redact(message[: 8 * MESSAGE_CHARS])[:MESSAGE_CHARS]


def access_of(config: OllamaConfig | VLLMConfig, *, pool_size: int, address: str | None = None) -> Access:
    """Return the access to the config's server; `address`: the address of its host name to connect to."""
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
