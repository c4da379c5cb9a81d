"""One provider: the replicas of one model, used side by side, which of them live, and one ask with its retries.

    ask ─▶ the replica with the least in flight ─▶ call_llm ─▶ settled, or: back-off ─▶ is the server alive? ─▶ again

Alive means that a tiny completion succeeds, or that anything else was completed since. It starts no thread: workers
call `ask`, and one prober calls `recover` again and again.
"""

from __future__ import annotations

import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline.errors import PROVES_LIFE, kind_of
from pipeline.llm.addresses import addresses_of
from pipeline.llm.ollama import OllamaClient
from pipeline.llm.preflight import Preflight, take_over
from pipeline.llm.retry import RetryPolicy
from pipeline.llm.vllm import VLLMClient
from pipeline.records import ExtractionAttempt

logger = logging.getLogger(__name__)

FIRST_PAUSE_S, MAX_PAUSE_S = 1.0, 30.0
COMPLETIONS_KEPT = 4096
LOOK_UP_S = 60.0
LOSSES_BEFORE_ALONE = 3
"""A document in flight at this many losses of a server is sent alone once (contract, section 6)."""

Client = VLLMClient | OllamaClient


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: the prompts, the schema as servers get it, and the document as it stands in the prompt.

    `losses`: how often a server was lost over it before. `alone`: nothing else is in flight, and one loss is the end.
    """

    variant: str
    prompts: Mapping[str, str]
    json_schema: Mapping[str, Any] | None
    document_text: str
    losses: int = 0
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of one ask. `unavailable`: no server could take it, and the document is not to blame.

    `losses`: how many servers were lost while they worked on it.
    """

    attempts: tuple[ExtractionAttempt, ...] = ()
    unavailable: bool = False
    losses: int = 0


@dataclass(slots=True, eq=False)
class Replica:
    """One server: a client for each variant over one pool of connections, and what is known of its health.

    `completed`: when its last completions began and ended.
    """

    clients: Mapping[str, Client]
    in_flight: int = 0
    state: Literal["up", "aside", "misconfigured"] = "up"
    since: float = 0.0
    retry_at: float = 0.0
    pause_s: float = FIRST_PAUSE_S
    checked_at: float = float("-inf")
    why: Preflight | None = None
    checking: threading.Lock = field(default_factory=threading.Lock)
    completed: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=COMPLETIONS_KEPT))

    @property
    def client(self) -> Client:
        """Any of its clients: they differ in what they ask, not in whom."""
        return next(iter(self.clients.values()))


@dataclass(frozen=True, slots=True)
class Tools:
    """What a provider needs from outside: time, chance, sleep (True: stop), how a replica is examined, and DNS."""

    clock: Callable[[], float]
    rng: random.Random
    sleep: Callable[[float], object]
    examine: Callable[[Client, bool], Preflight]
    look_up: Callable[[str], list[str]] = addresses_of


class Provider:
    """Asks the replicas of one model; safe for many threads.

    `find` gives the replicas there are now, those known among them; None: they never change.
    """

    def __init__(
        self,
        name: str,
        replicas: list[Replica],
        *,
        policy: RetryPolicy,
        tools: Tools,
        find: Callable[[list[Replica]], list[Replica]] | None = None,
    ) -> None:
        self.name, self.replicas, self.policy, self._tools, self._find = name, replicas, policy, tools, find
        self._lock = threading.Lock()
        self._completed_at, self._found_at = float("-inf"), tools.clock()

    @property
    def available(self) -> bool:
        """True while a replica is not set aside."""
        return any(replica.state == "up" for replica in self.replicas)

    @property
    def trouble(self) -> Replica | None:
        """The replica that tells best why the provider is not available; None when it is."""
        if self.available:
            return None
        return min(self.replicas, key=lambda replica: (replica.state != "misconfigured", replica.since))

    def ask(self, question: Question) -> Asked:
        """Asks until it is settled, the retries are used up (max_retries + 1 requests), or no replica is left."""
        failures: list[ExtractionAttempt] = []
        losses, failed_at = 0, float("inf")
        while (replica := self._take()) is not None:
            started, keys = self._tools.clock(), replica.client.endpoint.key_changes
            attempt = self._call(replica, question)
            kind = kind_of(attempt.reason) if attempt.reason else None
            if kind not in ("backend", "config"):
                self._lives(replica, started)
                return Asked((*failures, attempt))
            failures.append(attempt)
            if kind == "config":
                return Asked(tuple(failures), unavailable=not self._passes(replica, attempt, keys=keys))
            moment = self._tools.clock()
            failed_at = min(failed_at, moment)
            self._note(replica, attempt, started=started)
            if not self.policy.allows(failures):
                dead = not (self.available and self._alive(replica, failed_at))
                return Asked(tuple(failures), unavailable=dead, losses=losses + (dead and attempt.lost))
            if self.available and self._tools.sleep(self.policy.delay_s(failures, self._tools.rng)) is True:
                return Asked(tuple(failures), unavailable=True, losses=losses)
            losses += self._was_lost(replica, attempt, moment)
            if losses and (question.alone or question.losses + losses >= LOSSES_BEFORE_ALONE):
                return Asked(tuple(failures), unavailable=True, losses=losses)
            self._alive(replica, failed_at)
        return Asked(tuple(failures), unavailable=True, losses=losses)

    def examine(self, replica: Replica) -> Preflight:
        """The full preflight of a replica, whose state follows it."""
        return self._check(replica, full=True)

    def recover(self) -> None:
        """Looks again at each replica that was set aside and whose pause is over. Called by the one prober.

        Once a minute it looks for replicas that came or went, too.
        """
        if self._find is not None and self._tools.clock() - self._found_at >= LOOK_UP_S:
            self._found_at = self._tools.clock()
            self._adjust(self._find(self.replicas))
        for replica in self.replicas:
            if replica.state != "up" and replica.retry_at <= self._tools.clock():
                self._check(replica, full=True)

    def close(self) -> None:
        """Closes the idle connections of all replicas."""
        for replica in self.replicas:
            replica.client.close()

    def _adjust(self, found: list[Replica]) -> None:
        """Takes the replicas that are there now; a new one is asked when it has passed its preflight."""
        with self._lock:
            gone = [replica for replica in self.replicas if replica not in found]
            for replica in found:
                if replica not in self.replicas:
                    replica.state, replica.since = "aside", self._tools.clock()
            self.replicas = found
        for replica in gone:
            replica.client.close()

    def _take(self) -> Replica | None:
        with self._lock:
            up = [replica for replica in self.replicas if replica.state == "up"]
            if not up:
                return None
            least = min(replica.in_flight for replica in up)
            chosen = self._tools.rng.choice([replica for replica in up if replica.in_flight == least])
            chosen.in_flight += 1
            return chosen

    def _call(self, replica: Replica, question: Question) -> ExtractionAttempt:
        try:
            client = replica.clients[question.variant]
            return client.call_llm(question.prompts, question.json_schema, question.document_text)
        finally:
            with self._lock:
                replica.in_flight -= 1

    def _lives(self, replica: Replica, started: float) -> None:
        with self._lock:
            self._completed_at = self._tools.clock()
            replica.completed.append((started, self._completed_at))
            replica.pause_s = FIRST_PAUSE_S

    def _note(self, replica: Replica, attempt: ExtractionAttempt, *, started: float) -> None:
        logger.warning(
            "request failed",
            extra={"provider": self.name, "endpoint": attempt.model.endpoint, "reason": attempt.reason}
            | {"error": attempt.error},
        )
        if attempt.reason in PROVES_LIFE:
            self._lives(replica, started)
        elif not attempt.sent:
            self._set_aside(replica, Preflight("unreachable", attempt.reason, attempt.error or ""), probed=False)

    def _set_aside(self, replica: Replica, why: Preflight, *, probed: bool) -> None:
        """Out of rotation, for longer with each probe that fails; it comes back through a preflight only."""
        now = self._tools.clock()
        with self._lock:
            first = replica.state == "up"
            if not (first or probed):
                return
            replica.state = "misconfigured" if why.status == "misconfigured" else "aside"
            replica.since = now if first else replica.since
            replica.why, replica.retry_at = why, now + replica.pause_s * self._tools.rng.uniform(0.75, 1.25)
            replica.pause_s = min(MAX_PAUSE_S, replica.pause_s * 2)
        if first:
            fields = {"provider": self.name, "endpoint": replica.client.model.endpoint, "reason": why.reason}
            logger.warning("server set aside: %s", why.message, extra=fields)

    def _alive(self, replica: Replica, since: float) -> bool:
        """True when the provider has completed something since; else a tiny completion tells.

        A replica that is set aside is not asked: its cool-down would grow with every document that it failed.
        """
        if self._completed_at > since or replica.state != "up":
            return self._completed_at > since
        return self._check(replica, full=False).status == "ok" or self._completed_at > since

    def _was_lost(self, replica: Replica, attempt: ExtractionAttempt, moment: float) -> bool:
        """True when the server went away over this attempt: it hung up, or it said that it dies and is dead now.

        Not when another request that was in flight there at that moment has been completed since.
        """
        if not attempt.lost:
            return False
        with self._lock:
            if any(began < moment < ended for began, ended in replica.completed):
                return False
        return attempt.reason == "connection_error" or not self._alive(replica, moment)

    def _passes(self, replica: Replica, attempt: ExtractionAttempt, *, keys: int) -> bool:
        """True when a preflight passes after a configuration error, and no key is newer than the request's."""
        if attempt.reason == "unauthorized":
            replica.client.endpoint.reload_key()
        return self._check(replica, full=True).status == "ok" and replica.client.endpoint.key_changes == keys

    def _check(self, replica: Replica, *, full: bool) -> Preflight:
        """What an examination says; threads that ask at the same time share one."""
        wanted_at = self._tools.clock()
        with replica.checking:
            if replica.checked_at >= wanted_at and replica.why is not None:
                return replica.why
            found = self._examined(replica, full=full)
            replica.checked_at, replica.why = self._tools.clock(), found
            if found.status != "ok":
                self._set_aside(replica, found, probed=True)
            elif replica.state != "up":
                self._take_back(replica)
            else:
                self._lives(replica, wanted_at)
            return found

    def _examined(self, replica: Replica, *, full: bool) -> Preflight:
        """What the examination of each model that the variants use says: the first trouble, else the first."""
        asked = {client: client.config.model for client in replica.clients.values()}
        one_each = {model: client for client, model in reversed(asked.items())}
        found = {model: self._tools.examine(client, full) for model, client in one_each.items()}
        for client, model in asked.items():
            seen = found[model]
            if seen.status == "ok" and seen.model:
                take_over(client, seen)
        return next((seen for seen in found.values() if seen.status != "ok"), found[asked[replica.client]])

    def _take_back(self, replica: Replica) -> None:
        with self._lock:
            replica.state, replica.pause_s = "up", FIRST_PAUSE_S
            self._completed_at = self._tools.clock()
        logger.info("server is back", extra={"provider": self.name, "endpoint": replica.client.model.endpoint})
