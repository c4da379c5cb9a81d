"""Detect an Ollama that keeps the model loaded for other clients, with another context than the requested one.

    a request waits 4 s ─▶ GET /api/ps, every 2.5 s ─▶ twice another context ─▶ load conflict

Ollama 0.33 answers a request with another num_ctx only after the loaded model's keep_alive has expired, and each
request of the other client renews it; /api/ps answers meanwhile. This module starts no thread and changes no server.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from pipeline.config.keys import provider_key
from pipeline.llm.ollama import AUTO_NUM_CTX, OllamaClient
from pipeline.llm.protocol import decode_object, whole_number
from pipeline.llm.transport.http import CallFailedError
from pipeline.llm.vllm import VLLMClient

logger = logging.getLogger(__name__)

PS_TIMEOUT_S = 2.0
SMALLEST_DOCUMENT = 1024
"""Least tokens that `num_ctx: auto` leaves for a document."""
MEASURE_TIMEOUT_S = 60.0
UNUSUAL_WAIT_S = 4.0
CHECK_EVERY_S = 2.5
"""Two requests and their time-out take less than 10 s, the time within which the wait must be reported."""
REPEAT_S = 60.0
"""Time before a conflict is reported again when only its expiry has changed."""
LONG_AGO = float("-inf")

_ENDLESS = timedelta(days=365)
"""Ollama shows a keep_alive of -1 as an expiry in about 292 years."""
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)")

Client = VLLMClient | OllamaClient


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A row of /api/ps: the context in tokens, and the time when the model is unloaded if it is not used."""

    context: int
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class LoadConflict:
    """A model that other clients keep loaded with the context `loaded`, while a request waits for `requested`.

    `setting`: the dotted key of the context.
    """

    model: str
    loaded: int
    requested: int
    setting: str
    expires_at: datetime | None

    @property
    def message(self) -> str:
        """The loaded and the requested context, the expiry, and what to do."""
        text = f"another client keeps the model {self.model} loaded with a context of {self.loaded} tokens"
        text += f"{_until(self.expires_at)}, and a request with {self.requested} waits until it is unloaded: "
        return (
            text + f"set `{self.setting}: {self.loaded}` (or `auto`), stop the other client, or run"
            f" `ollama stop {self.model}`"
        )

    def short_message(self, now: datetime) -> str:
        """Return both contexts, the expiry and the setting in one line for a terminal of 80 columns."""
        until = _until_short(self.expires_at, now)
        return f"context is {self.loaded}, need {self.requested}{until}: set {self.setting}"


def loaded_model(client: OllamaClient) -> LoadedModel | None:
    """Return the row of the client's model in /api/ps; None when it is not loaded or the server does not answer."""
    return _of_model(_loaded_models(client) or [], client)


def _loaded_models(client: OllamaClient) -> list[Any] | None:
    """Return the rows of /api/ps; None when the server does not return them."""
    try:
        reply = client.endpoint.get("/api/ps", timeout_s=PS_TIMEOUT_S)
    except CallFailedError:
        return None
    body = decode_object(reply.body) if reply.status == 200 else None
    if body is None:
        return None
    rows = body.get("models")
    return rows if isinstance(rows, list) else []


def _of_model(rows: list[Any], client: OllamaClient) -> LoadedModel | None:
    names = names_of(client.config.model)
    for row in rows:
        if isinstance(row, dict) and row.get("name") in names and (context := whole_number(row.get("context_length"))):
            return LoadedModel(context, _moment(row.get("expires_at")))
    return None


def names_of(model: str) -> tuple[str, ...]:
    """Return the names under which a model may be listed: a model without a tag has the tag `latest`."""
    return model, f"{model}:latest", model.removesuffix(":latest")


def load_conflict(client: OllamaClient, *, last: LoadConflict | None = None) -> LoadConflict | None:
    """Return the conflict if the model is loaded with a context that this client does not request; else None.

    `last`: the earlier result, returned while the server does not answer.
    """
    rows = _loaded_models(client)
    if rows is None:
        return last
    loaded = _of_model(rows, client)
    if loaded is None or loaded.context in client.contexts:
        return None
    name = client.config.model
    setting = provider_key(client.model.provider, "num_ctx")
    return LoadConflict(name, loaded.context, client.wanted_context, setting, loaded.expires_at)


def choose_context(client: OllamaClient, prompts: Mapping[str, str]) -> None:
    """Resolve `num_ctx: auto`: the loaded context if prompt, answer and a short document fit into it, else 8192.

    `prompts`: the prompts without a document.
    """
    if client.config.num_ctx != "auto":
        return
    loaded = loaded_model(client)
    fits = loaded is not None and _fits(client, prompts, loaded.context)
    client.ask_for_context(loaded.context if loaded is not None and fits else AUTO_NUM_CTX)
    fields = {"endpoint": client.model.endpoint, "model": client.config.model, "context": client.num_ctx}
    logger.info("num_ctx auto: context chosen", extra=fields | {"loaded": loaded.context if loaded else 0})


def _fits(client: OllamaClient, prompts: Mapping[str, str], context: int) -> bool:
    room = context - client.config.max_tokens - SMALLEST_DOCUMENT
    if room <= 0:
        return False
    short_client = client.short_client(max_tokens=1, timeout_s=MEASURE_TIMEOUT_S)
    short_client.ask_for_context(context)
    attempt = short_client.call_llm(prompts, None, "")
    client.overhead.add(attempt.prompt_tokens)
    return attempt.prompt_tokens is not None and attempt.prompt_tokens <= room


class SharingWatch:
    """Unanswered requests of a server, and whether they wait for other clients; thread-safe.

    `conflict`: the conflict as last reported; None while no request waits because of it.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.conflict: LoadConflict | None = None
        self._clock = clock
        self._lock = threading.Lock()
        self._pending: dict[int, tuple[float, OllamaClient]] = {}
        self._number = 0
        self._next_check = LONG_AGO
        self._reported_at = LONG_AGO
        self._conflict_at = LONG_AGO
        self._suspected = self._is_checking = False

    @contextmanager
    def pending(self, client: Client) -> Iterator[None]:
        """Count a request of this client as unanswered for the block."""
        if not isinstance(client, OllamaClient):
            yield
            return
        with self._lock:
            self._number += 1
            number = self._number
            self._pending[number] = (self._clock(), client)
        try:
            yield
        finally:
            with self._lock:
                del self._pending[number]

    def is_due(self, *, completed_at: float) -> bool:
        """Return whether the caller should call `check` now; a completion shows that its model is loaded."""
        now = self._clock()
        with self._lock:
            if self._is_checking or now < self._next_check or not self._pending:
                return False
            oldest = min(began for began, _ in self._pending.values())
            if now - max(oldest, completed_at) < UNUSUAL_WAIT_S:
                return False
            self._is_checking = True
            self._next_check = now + CHECK_EVERY_S
        return True

    def check(self) -> LoadConflict | None:
        """Return the conflict once /api/ps has shown it twice in a row; call it only after `is_due` returned True."""
        try:
            with self._lock:
                oldest = min(self._pending.values(), key=lambda entry: entry[0], default=None)
            conflict = load_conflict(oldest[1], last=self.conflict) if oldest else None
            is_confirmed = self._suspected and conflict is not None
            self._suspected = conflict is not None
            if conflict is None:
                self.conflict = None
            elif is_confirmed:
                self._conflict_at = self._clock()
                self.conflict = self._reported(conflict)
            return self.conflict
        finally:
            self._is_checking = False

    def conflicted_since(self, moment: float) -> bool:
        """Return whether a conflict was confirmed after that moment."""
        return self._conflict_at >= moment

    def release(self) -> None:
        """Record that the server has answered."""
        self.conflict = None
        self._suspected = False

    def _reported(self, conflict: LoadConflict) -> LoadConflict:
        """Return the last report while its contexts and expiry are valid or it is under 60 s old, else this one."""
        last = self.conflict
        now = self._clock()
        if last is not None and (last.loaded, last.requested) == (conflict.loaded, conflict.requested):
            expired = last.expires_at is None or last.expires_at <= datetime.now(timezone.utc)
            if now - self._reported_at < REPEAT_S or not expired:
                return last
        self._reported_at = now
        return conflict


def _moment(text: Any) -> datetime | None:
    """Parse a time as Go prints it; return it in UTC, or None for any other text."""
    match = _TIME.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return None
    try:
        return datetime.fromisoformat(match[1] + match[2].replace("Z", "+00:00")).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None


def _until(expires_at: datetime | None) -> str:
    if expires_at is None:
        return ""
    if expires_at - datetime.now(timezone.utc) > _ENDLESS:
        return " without end"
    return f" until {expires_at:%Y-%m-%d %H:%M:%S} UTC or longer"


def _until_short(expires_at: datetime | None, now: datetime) -> str:
    if expires_at is None:
        return ""
    if expires_at - now > _ENDLESS:
        return ", without end"
    moment = f"{expires_at:%H:%M}" if expires_at.date() == now.date() else f"{expires_at:%m-%d %H:%M}"
    return f", until {moment} UTC"
