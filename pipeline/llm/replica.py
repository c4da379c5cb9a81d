"""One server of a provider: whether it can be asked, since when and why not, and how that is found out.

It starts no thread: workers report what they saw, and whoever calls `check` waits for what the server says.
"""

from __future__ import annotations

import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from pipeline.llm.capabilities import Preflight
from pipeline.llm.ollama import OllamaClient
from pipeline.llm.overhead import VerifierRegistry
from pipeline.llm.preflight.preflight import take_over
from pipeline.llm.server_metrics import GaugeReader, Gauges
from pipeline.llm.sharing import HeldModel, SharingWatch
from pipeline.llm.transport.addresses import addresses_of
from pipeline.llm.vllm import VLLMClient

logger = logging.getLogger(__name__)

FIRST_PAUSE_S = 1.0
MAX_PAUSE_S = 30.0
COMPLETIONS_KEPT = 4096
POLL_S = 0.1
IDLE_POLLS = 2
"""How often in a row nothing must be in flight at a server before a tiny completion replaces waiting for documents."""
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
    """What a provider needs from outside: time, chance, sleep (True: stop), how a server is examined, and DNS.

    `registry`: the verifiers of the run's servers.
    """

    clock: Callable[[], float]
    rng: random.Random
    sleep: Callable[[float], object]
    examine: Examine
    look_up: Callable[[str], list[str]] = addresses_of
    registry: VerifierRegistry = field(default_factory=VerifierRegistry)


class Replica:
    """A client for each variant over one pool of connections, and what is known of the server's health; thread-safe.

    `in_flight` is its provider's to count, `share` how many that may be, against the other replicas.
    `completed_at`: when a request was last completed. `proved_at`: when the latest of the completed requests began.
    `found`: what the last whole examination told of each variant.
    `why`: the first trouble in what was found last, else how it passed; None: nobody has looked. `looking`: somebody
    does, because `recover` has it done.
    """

    def __init__(self, provider: str, clients: Mapping[str, Client], *, tools: Tools) -> None:
        self.clients = clients
        self.in_flight = 0
        self.share = 1
        self.state: State = "up"
        self.since = 0.0
        self.retry_at = 0.0
        self.pause_s = FIRST_PAUSE_S
        self.completed_at = self.proved_at = NEVER
        self.looking = False
        self.why: Preflight | None = None
        self.found: Mapping[str, Preflight] = {}
        self._provider = provider
        self._tools = tools
        self._checking = threading.Lock()
        self._checked_at = NEVER
        self._lock = threading.Lock()
        self._reported = False
        self.sharing = SharingWatch(tools.clock)
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

    @property
    def is_dead_end(self) -> bool:
        """True when waiting for it at a first start is in vain: a person must change something."""
        return self.state == "misconfigured" or (self.state != "up" and self.why is not None and self.why.unpaid)

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
        """Note that a request which began at `started` was completed now."""
        with self._lock:
            self.completed_at = self._tools.clock()
            self.proved_at = max(self.proved_at, started)
            self._completed.append((started, self.completed_at))
            self.pause_s = FIRST_PAUSE_S

    def completed_since(self, moment: float) -> bool:
        """True when a request that began after that moment has been completed.

        One that began before proves nothing: a server that refuses new requests may still finish its old ones.
        """
        return self.proved_at > moment

    def lives_after(self, moment: float) -> bool:
        """Wait until the server has completed a request that began after that moment; False when it is in trouble.

        Others in flight there are waited for, at most as long as a request may take. With none, a tiny completion is
        sent: one for all that wait.
        """
        idle = 0
        deadline = self._tools.clock() + self.timeout_s
        while self.state == "up" and not self.completed_since(moment):
            idle = 0 if self.in_flight else idle + 1
            if idle >= IDLE_POLLS or self._tools.clock() >= deadline:
                with self._checking:
                    if self.state == "up" and not self.completed_since(moment):
                        self._check(full=False)
                break
            if self._tools.sleep(POLL_S) is True:
                break
        return self.completed_since(moment)

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
            before = self.state
            self.state = "misconfigured" if why.status == "misconfigured" else "aside"
            if (before, self.state) == ("aside", "misconfigured"):
                self.pause_s = FIRST_PAUSE_S  # it answers again, and may say something else at any moment
            self.since = now if first else self.since
            self.why, self.retry_at = why, now + self.pause_s * self._tools.rng.uniform(0.75, 1.25)
            self.pause_s = min(MAX_PAUSE_S, self.pause_s * 2)
            # the first look at a replica that was only held back changes nothing for anybody
            changed = first or (self._reported and before != self.state)
            self._reported = True
        if changed:
            fields = {"provider": self._provider, "endpoint": self.client.model.endpoint, "reason": why.reason}
            logger.warning("server marked unavailable%s: %s", "" if first else ", now", why.message, extra=fields)

    def recover(self, start: Start) -> None:
        """Check the server when it is unavailable and its pause is over; called by one thread at a time."""
        self.watch(start)
        if self.state == "up" or self.looking or self.retry_at > self._tools.clock():
            return
        self.looking = True
        start(self._look, f"look at {self.client.model.endpoint}")

    def watch(self, start: Start) -> None:
        """Has it found out whether a request that waits for long waits for other clients of the server."""
        if self.sharing.is_due(completed_at=self.completed_at):
            start(self._look_for_others, f"watch of {self.client.model.endpoint}")

    def _look_for_others(self) -> None:
        before = self.sharing.held
        held = self.sharing.look()
        if held is None or held is before:
            return
        finding = _busy_for_others(held)
        if self.state == "up":
            self.set_aside(finding, probed=False)
            self.retry_at = self._tools.clock()  # the look is the request that waits for the end of it
            return
        self.why = finding
        fields = {"provider": self._provider, "endpoint": self.client.model.endpoint, "reason": finding.reason}
        logger.warning("server is busy for others: %s", finding.message, extra=fields)

    def _look(self) -> None:
        try:
            self.check(full=True)
        finally:
            self.looking = False

    def check(self, *, full: bool) -> Preflight:
        """Return what an examination finds; the state follows it, and threads that wait at the same time share it."""
        wanted_at = self._tools.clock()
        with self._checking:
            if self._checked_at >= wanted_at and self.why is not None:
                return self.why
            return self._check(full=full)

    def _check(self, *, full: bool) -> Preflight:
        """Examine the server; the caller holds the lock. `_checked_at` is when the last examination began."""
        was_checked = self._checked_at != NEVER
        began = self._tools.clock()
        finding = self._judged(self._examined(full=full), began=began)
        self._checked_at = began
        self.why = finding
        if finding.status != "ok":
            if not self._is_busy(finding, began=began):
                self.set_aside(finding, probed=True)
            return finding
        self.mark_alive(began)
        if self.state != "up":
            self._take_in(back=was_checked)
        return finding

    def _judged(self, finding: Preflight, *, began: float) -> Preflight:
        """The finding, where a server that has completed requests before is in trouble rather than misconfigured."""
        if finding.status == "unreachable" and self.sharing.held is not None:
            return _busy_for_others(self.sharing.held)
        if finding.reason == "rejected" and NEVER < self.completed_at < began:
            return replace(finding, status="unreachable")
        return finding

    def _is_busy(self, finding: Preflight, *, began: float) -> bool:
        """True when a server that is in use refused a tiny completion for a full queue: that is no outage."""
        if finding.reason != "overloaded" or self.state != "up":
            return False
        is_working = self.in_flight > 0 and began - self.completed_at < self.timeout_s
        return is_working or self.completed_at >= began

    def _examined(self, *, full: bool) -> Preflight:
        """What the examination of each variant says: the first trouble, else the first.

        A server that cannot be reached is not asked for the next variant.
        """
        models = {variant: client.config.model for variant, client in self.clients.items()}
        findings: dict[str, Preflight] = {}
        by_model: dict[str, Preflight] = {}
        for variant, client in self.clients.items():
            known = by_model.get(models[variant])
            with self.sharing.pending(client):
                finding = self._tools.examine(client, variant=variant, full=full, known=known)
            if finding.status == "misconfigured" and len(models) > 1:
                finding = replace(finding, message=f"variant {variant}: {finding.message}")
            findings[variant] = finding
            if finding.status == "unreachable":
                break
            if finding.status == "ok":
                by_model.setdefault(models[variant], finding)
                if finding.model:
                    take_over(client, finding)
        self.found = findings if full else self.found
        return next((finding for finding in findings.values() if finding.status != "ok"), next(iter(findings.values())))

    def _take_in(self, *, back: bool) -> None:
        with self._lock:
            self.state = "up"
            self.pause_s = FIRST_PAUSE_S
            self._reported = False
        if back:
            for client in self.clients.values():
                client.verifier.forget_verified_length()
            logger.info("server is back", extra={"provider": self._provider, "endpoint": self.client.model.endpoint})


def _busy_for_others(held: HeldModel) -> Preflight:
    return Preflight("unreachable", "overloaded", held.message)
