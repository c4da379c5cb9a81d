"""One server of a provider: whether it is available, since when and why not, and how it becomes available again.

It starts no thread: workers report the results of their requests, and `check` waits for the server's reply.
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
from pipeline.llm.sharing import LoadConflict, SharingWatch
from pipeline.llm.transport.addresses import addresses_of
from pipeline.llm.vllm import VLLMClient

logger = logging.getLogger(__name__)

FIRST_PAUSE_S = 1.0
MAX_PAUSE_S = 30.0
COMPLETIONS_KEPT = 4096
POLL_S = 0.1
IDLE_POLLS = 2
"""Polls in a row without a request in flight, after which a tiny completion replaces the wait for documents."""
LONG_AGO = float("-inf")

Client = VLLMClient | OllamaClient
State = Literal["up", "unavailable", "misconfigured"]
Start = Callable[[Callable[[], object], str], object]
"""Run a function in a thread of the runner; the text names the thread."""


def at_once(body: Callable[[], object], name: str) -> None:  # noqa: ARG001 - a Start
    """Run the function in this thread, so that servers are checked one after the other."""
    body()


class Examine(Protocol):
    """Run the preflight of a client's server with a variant's requests; `earlier_facts`: those of the same model."""

    def __call__(self, client: Client, *, variant: str, full: bool, earlier_facts: Preflight | None) -> Preflight: ...


@dataclass(frozen=True, slots=True)
class Tools:
    """Dependencies of a provider: clock, random numbers, sleep (True: stop), preflight, and DNS.

    `registry`: the verifiers of the run's servers.
    """

    clock: Callable[[], float]
    rng: random.Random
    sleep: Callable[[float], object]
    examine: Examine
    look_up: Callable[[str], list[str]] = addresses_of
    registry: VerifierRegistry = field(default_factory=VerifierRegistry)


class Replica:
    """The health of one server, and a client for each variant over one pool of connections; thread-safe.

    `in_flight`: requests in flight, counted by the provider. `share`: its share of requests among the replicas.
    `completed_at`: time of the last completion. `alive_at`: the latest start of a completed request.
    `preflights`: the results of the last full preflight by variant. `preflight`: the first failed one of the last
    examination, else the first; None before it. `is_checking`: a thread that `recover` started examines the server.
    """

    def __init__(self, provider: str, clients: Mapping[str, Client], *, tools: Tools) -> None:
        self.clients = clients
        self.in_flight = 0
        self.share = 1
        self.state: State = "up"
        self.changed_at = 0.0
        self.retry_at = 0.0
        self.pause_s = FIRST_PAUSE_S
        self.completed_at = self.alive_at = LONG_AGO
        self.is_checking = False
        self.preflight: Preflight | None = None
        self.preflights: Mapping[str, Preflight] = {}
        self._provider = provider
        self._tools = tools
        self._checking = threading.Lock()
        self._checked_at = LONG_AGO
        self._lock = threading.Lock()
        self._reported = False
        self.sharing = SharingWatch(tools.clock)
        self._gauges: GaugeReader | None = None
        self._completed: deque[tuple[float, float]] = deque(maxlen=COMPLETIONS_KEPT)

    @property
    def endpoint(self) -> str:
        """The server's URL as records contain it."""
        return str(self.client.model.endpoint)

    @property
    def timeout_s(self) -> float:
        """The time limit of a request in seconds."""
        return self.client.config.timeout

    @property
    def is_dead_end(self) -> bool:
        """Return whether waiting for the server is useless, because a person must change something."""
        return self.state == "misconfigured" or (
            self.state != "up" and self.preflight is not None and self.preflight.unpaid
        )

    def gauges(self) -> Gauges | None:
        """Return the gauges of the server's queue; None when it reports none."""
        if self._gauges is None and isinstance(self.client, VLLMClient):
            self._gauges = self.client.gauge_reader()
        return self._gauges.read() if self._gauges is not None else None

    @property
    def client(self) -> Client:
        """The client of the first variant; all clients use the same server."""
        return next(iter(self.clients.values()))

    def mark_alive(self, started_at: float) -> None:
        """Record that a request which began at `started_at` was completed now."""
        with self._lock:
            self.completed_at = self._tools.clock()
            self.alive_at = max(self.alive_at, started_at)
            self._completed.append((started_at, self.completed_at))
            self.pause_s = FIRST_PAUSE_S

    def completed_since(self, moment: float) -> bool:
        """Return whether a request that began after that moment was completed; older ones do not count."""
        return self.alive_at > moment

    def completes_after(self, moment: float) -> bool:
        """Wait until the server has completed a request that began after that moment; return False if it does not.

        The wait is for other requests in flight there, at most as long as a request may take. Without any, one tiny
        completion is sent for all waiting threads.
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

    def survived(self, moment: float) -> bool:
        """Return whether a request that was in flight at that moment has been completed since."""
        with self._lock:
            return any(began < moment < ended for began, ended in self._completed)

    def quarantine(self) -> None:
        """Make the server unavailable until it is examined."""
        self.state = "unavailable"
        self.changed_at = self._tools.clock()
        self.retry_at = float("inf")

    def mark_unavailable(self, preflight: Preflight, *, probed: bool) -> None:
        """Make the server unavailable until a preflight succeeds; each failed probe doubles the pause."""
        now = self._tools.clock()
        with self._lock:
            was_up = self.state == "up"
            if not (was_up or probed):
                return
            old_state = self.state
            self.state = "misconfigured" if preflight.status == "misconfigured" else "unavailable"
            if (old_state, self.state) == ("unavailable", "misconfigured"):
                self.pause_s = FIRST_PAUSE_S  # it answers again, and its settings may be corrected at any moment
            self.changed_at = now if was_up else self.changed_at
            self.preflight = preflight
            self.retry_at = now + self.pause_s * self._tools.rng.uniform(0.75, 1.25)
            self.pause_s = min(MAX_PAUSE_S, self.pause_s * 2)
            # the first check of a quarantined replica is not a change
            changed = was_up or (self._reported and old_state != self.state)
            self._reported = True
        if changed:
            fields = {"provider": self._provider, "endpoint": self.client.model.endpoint, "reason": preflight.reason}
            logger.warning(
                "server %s unavailable: %s", "marked" if was_up else "still", preflight.message, extra=fields
            )

    def recover(self, start: Start) -> None:
        """Check the server when it is unavailable and its pause is over; called by one thread at a time."""
        self.watch(start)
        if self.state == "up" or self.is_checking or self.retry_at > self._tools.clock():
            return
        self.is_checking = True
        start(self._check_full, f"check of {self.client.model.endpoint}")

    def watch(self, start: Start) -> None:
        """Start a check whether a long wait of a request is due to other clients of the server."""
        if self.sharing.is_due(completed_at=self.completed_at):
            start(self._check_for_conflict, f"watch of {self.client.model.endpoint}")

    def _check_for_conflict(self) -> None:
        last = self.sharing.conflict
        conflict = self.sharing.check()
        if conflict is None or conflict is last:
            return
        finding = _busy_for_others(conflict)
        if self.state == "up":
            self.mark_unavailable(finding, probed=False)
            self.retry_at = self._tools.clock()  # this preflight waits until the conflict ends
            return
        self.preflight = finding
        fields = {"provider": self._provider, "endpoint": self.client.model.endpoint, "reason": finding.reason}
        logger.warning("server is busy for others: %s", finding.message, extra=fields)

    def _check_full(self) -> None:
        try:
            self.check(full=True)
        finally:
            self.is_checking = False

    def check(self, *, full: bool) -> Preflight:
        """Examine the server, update the state, and return the result; threads that wait at the same time share it."""
        called_at = self._tools.clock()
        with self._checking:
            if self._checked_at >= called_at and self.preflight is not None:
                return self.preflight
            return self._check(full=full)

    def _check(self, *, full: bool) -> Preflight:
        """Examine the server; the caller holds the lock. `_checked_at`: the start of the last examination."""
        was_checked = self._checked_at != LONG_AGO
        began = self._tools.clock()
        finding = self._correct(self._examine_variants(full=full), began=began)
        self._checked_at = began
        self.preflight = finding
        if finding.status != "ok":
            if not self._is_busy(finding, began=began):
                self.mark_unavailable(finding, probed=True)
            return finding
        self.mark_alive(began)
        if self.state != "up":
            self._make_available(was_checked=was_checked)
        return finding

    def _correct(self, finding: Preflight, *, began: float) -> Preflight:
        """Return the finding, corrected: a server that has completed requests is in trouble, not misconfigured."""
        if finding.status == "unreachable" and self.sharing.conflict is not None:
            return _busy_for_others(self.sharing.conflict)
        if finding.reason == "rejected" and LONG_AGO < self.completed_at < began:
            return replace(finding, status="unreachable")
        return finding

    def _is_busy(self, finding: Preflight, *, began: float) -> bool:
        """Return whether an available server refused a tiny completion due to a full queue, which is not an outage."""
        if finding.reason != "overloaded" or self.state != "up":
            return False
        is_working = self.in_flight > 0 and began - self.completed_at < self.timeout_s
        return is_working or self.completed_at >= began

    def _examine_variants(self, *, full: bool) -> Preflight:
        """Examine each variant; return the first result that is not ok, else the first.

        An unreachable server ends the examination.
        """
        models = {variant: client.config.model for variant, client in self.clients.items()}
        findings: dict[str, Preflight] = {}
        by_model: dict[str, Preflight] = {}
        for variant, client in self.clients.items():
            facts = by_model.get(models[variant])
            with self.sharing.pending(client):
                finding = self._tools.examine(client, variant=variant, full=full, earlier_facts=facts)
            if finding.status == "misconfigured" and len(models) > 1:
                finding = replace(finding, message=f"variant {variant}: {finding.message}")
            findings[variant] = finding
            if finding.status == "unreachable":
                break
            if finding.status == "ok":
                by_model.setdefault(models[variant], finding)
                if finding.model:
                    take_over(client, finding)
        self.preflights = findings if full else self.preflights
        return next((finding for finding in findings.values() if finding.status != "ok"), next(iter(findings.values())))

    def _make_available(self, *, was_checked: bool) -> None:
        with self._lock:
            self.state = "up"
            self.pause_s = FIRST_PAUSE_S
            self._reported = False
        if was_checked:
            for client in self.clients.values():
                client.verifier.forget_verified_length()
            logger.info("server is back", extra={"provider": self._provider, "endpoint": self.client.model.endpoint})


def _busy_for_others(conflict: LoadConflict) -> Preflight:
    return Preflight("unreachable", "overloaded", conflict.message)
