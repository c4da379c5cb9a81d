"""One server of a provider: whether it can be asked, since when and why not, and how that is found out.

It starts no thread: workers report what they saw, and whoever calls `check` waits for what the server says.
"""

from __future__ import annotations

import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from pipeline.llm.addresses import addresses_of
from pipeline.llm.capabilities import Preflight
from pipeline.llm.ollama import OllamaClient
from pipeline.llm.preflight import take_over
from pipeline.llm.server_metrics import GaugeReader, Gauges
from pipeline.llm.vllm import VLLMClient

logger = logging.getLogger(__name__)

FIRST_PAUSE_S, MAX_PAUSE_S = 1.0, 30.0
COMPLETIONS_KEPT = 4096
NEVER = float("-inf")

Client = VLLMClient | OllamaClient
State = Literal["up", "aside", "misconfigured"]
Start = Callable[[Callable[[], object], str], object]
"""Runs a function by itself, in a thread of the runner's; the text names it."""


def at_once(body: Callable[[], object], name: str) -> None:  # noqa: ARG001 - a Start
    """Runs the function here and now: one look after the other."""
    body()


class Examine(Protocol):
    """What a client's server is fit for, asked as this variant asks; `known`: what its model was found to be."""

    def __call__(self, client: Client, *, variant: str, full: bool, known: Preflight | None) -> Preflight: ...


@dataclass(frozen=True, slots=True)
class Tools:
    """What a provider needs from outside: time, chance, sleep (True: stop), how a server is examined, and DNS."""

    clock: Callable[[], float]
    rng: random.Random
    sleep: Callable[[float], object]
    examine: Examine
    look_up: Callable[[str], list[str]] = addresses_of


class Replica:
    """A client for each variant over one pool of connections, and what is known of the server's health; thread-safe.

    `in_flight` is its provider's to count, `share` how many that may be, against the other replicas.
    `found`: what the last whole examination told of each variant.
    `why`: the first trouble in what was found last, else how it passed; None: nobody has looked. `looking`: somebody
    does, because `recover` has it done.
    """

    def __init__(self, provider: str, clients: Mapping[str, Client], *, tools: Tools) -> None:
        self.clients = clients
        self.in_flight, self.share = 0, 1
        self.state: State = "up"
        self.since, self.retry_at, self.pause_s = 0.0, 0.0, FIRST_PAUSE_S
        self.completed_at = NEVER
        self.looking = False
        self.why: Preflight | None = None
        self.found: Mapping[str, Preflight] = {}
        self._provider, self._tools = provider, tools
        self._checking, self._checked_at = threading.Lock(), NEVER
        self._lock = threading.Lock()
        self._gauges: GaugeReader | None = None
        self._completed: deque[tuple[float, float]] = deque(maxlen=COMPLETIONS_KEPT)

    @property
    def endpoint(self) -> str:
        """Where it is, as records name it."""
        return str(self.client.model.endpoint)

    @property
    def timeout_s(self) -> float:
        """How long a request may take."""
        return self.client.config.timeout

    def gauges(self) -> Gauges | None:
        """What the server tells of its queue; None from one that does not."""
        if self._gauges is None and isinstance(self.client, VLLMClient):
            self._gauges = self.client.gauge_reader()
        return self._gauges.read() if self._gauges is not None else None

    @property
    def client(self) -> Client:
        """Any of its clients: they differ in what they ask, not in whom."""
        return next(iter(self.clients.values()))

    def mark_alive(self, started: float) -> None:
        """Notes that a request which began at `started` was completed now."""
        with self._lock:
            self.completed_at = self._tools.clock()
            self._completed.append((started, self.completed_at))
            self.pause_s = FIRST_PAUSE_S

    def outlived(self, moment: float) -> bool:
        """True when a request that was in flight at that moment has been completed since."""
        with self._lock:
            return any(began < moment < ended for began, ended in self._completed)

    def quarantine(self) -> None:
        """Out of use until somebody looks at it."""
        self.state, self.since, self.retry_at = "aside", self._tools.clock(), float("inf")

    def set_aside(self, why: Preflight, *, probed: bool) -> None:
        """Out of rotation, for longer with each probe that fails; it comes back through a preflight only."""
        now = self._tools.clock()
        with self._lock:
            first = self.state == "up"
            if not (first or probed):
                return
            before, self.state = self.state, "misconfigured" if why.status == "misconfigured" else "aside"
            if (before, self.state) == ("aside", "misconfigured"):
                self.pause_s = FIRST_PAUSE_S  # it answers again, and may say something else at any moment
            self.since = now if first else self.since
            self.why, self.retry_at = why, now + self.pause_s * self._tools.rng.uniform(0.75, 1.25)
            self.pause_s = min(MAX_PAUSE_S, self.pause_s * 2)
        if first:
            fields = {"provider": self._provider, "endpoint": self.client.model.endpoint, "reason": why.reason}
            logger.warning("server set aside: %s", why.message, extra=fields)

    def recover(self, start: Start) -> None:
        """Has the server looked at when it is set aside and its pause is over; called by one thread at a time."""
        if self.state == "up" or self.looking or self.retry_at > self._tools.clock():
            return
        self.looking = True
        start(self._look, f"look at {self.client.model.endpoint}")

    def _look(self) -> None:
        try:
            self.check(full=True)
        finally:
            self.looking = False

    def check(self, *, full: bool) -> Preflight:
        """What an examination says, which the state then follows; threads that ask at the same time share one."""
        wanted_at = self._tools.clock()
        with self._checking:
            if self._checked_at >= wanted_at and self.why is not None:
                return self.why
            known = self._checked_at != NEVER
            found = self._examined(full=full)
            self._checked_at, self.why = self._tools.clock(), found
            if found.status != "ok":
                self.set_aside(found, probed=True)
            elif self.state != "up":
                self._take_in(back=known)
            else:
                self.mark_alive(wanted_at)
            return found

    def _examined(self, *, full: bool) -> Preflight:
        """What the examination of each variant says: the first trouble, else the first.

        A server that cannot be reached is not asked for the next variant.
        """
        models = {variant: client.config.model for variant, client in self.clients.items()}
        found: dict[str, Preflight] = {}
        by_model: dict[str, Preflight] = {}
        for variant, client in self.clients.items():
            known = by_model.get(models[variant])
            seen = self._tools.examine(client, variant=variant, full=full, known=known)
            if seen.status == "misconfigured" and len(models) > 1:
                seen = replace(seen, message=f"variant {variant}: {seen.message}")
            found[variant] = seen
            if seen.status == "unreachable":
                break
            if seen.status == "ok":
                by_model.setdefault(models[variant], seen)
                if seen.model:
                    take_over(client, seen)
        self.found = found if full else self.found
        return next((seen for seen in found.values() if seen.status != "ok"), next(iter(found.values())))

    def _take_in(self, *, back: bool) -> None:
        with self._lock:
            self.state, self.pause_s = "up", FIRST_PAUSE_S
            self.completed_at = self._tools.clock()
        if back:
            logger.info("server is back", extra={"provider": self._provider, "endpoint": self.client.model.endpoint})
