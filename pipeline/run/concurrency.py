"""The number of documents in flight: fixed, or the sum of an adaptive limit per server.

It must only compute the limit; the runner applies it. The main thread uses it; the prober calls only `read_gauges`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.config import RunnerConfig
from pipeline.errors import kind_of
from pipeline.llm.server_metrics import Gauges
from pipeline.records import ExtractionAttempt
from pipeline.run.adaptive_limit import AdaptiveLimit
from pipeline.run.machine import fitting, most_in_flight

LOOK_EVERY_S = 1.0


class Server(Protocol):
    """One server in use. `share`: its part of the requests, relative to the other servers."""

    share: int

    @property
    def endpoint(self) -> str: ...

    @property
    def timeout_s(self) -> float: ...

    def gauges(self) -> Gauges | None: ...


class Limit(Protocol):
    """The number of documents that may be in flight, with a short reason."""

    value: int
    reason: str

    def record(self, attempts: Iterable[ExtractionAttempt], *, full: bool, now: float) -> None:
        """Record the requests of a document that has just finished; `full`: the limit was in use."""

    def set_servers(self, servers: Sequence[Server]) -> None:
        """Set the servers in use from now on."""

    def read_gauges(self, servers: Sequence[Server], *, now: float) -> None:
        """Read the servers' gauges; may take seconds, and is called by the prober."""


@dataclass(slots=True)
class FixedLimit:
    """The limit that the user set; it never changes."""

    value: int
    reason: str = "set"

    def record(self, attempts: Iterable[ExtractionAttempt], *, full: bool, now: float) -> None:
        """Do nothing: the limit is fixed."""

    def set_servers(self, servers: Sequence[Server]) -> None:
        """Do nothing: the limit is fixed."""

    def read_gauges(self, servers: Sequence[Server], *, now: float) -> None:
        """Do nothing: the limit is fixed."""


class AdaptiveLimits:
    """The sum of the limits of the servers in use; a server that returns keeps its former limit.

    `ceiling`: the largest limit of each server; `highest_total`: of all servers together.
    """

    def __init__(self, *, ceiling: int, highest_total: int = 1 << 15) -> None:
        self.value = 1
        self.reason = ""
        self._ceiling = max(1, ceiling)
        self._highest_total = max(1, highest_total)
        self._servers: list[Server] = []
        self._limits: dict[str, AdaptiveLimit] = {}
        self._gauges: dict[str, Gauges] = {}
        self._looked_at: dict[str, float] = {}

    def record(self, attempts: Iterable[ExtractionAttempt], *, full: bool, now: float) -> None:
        """Record each request at its server's limit; the requests ended one after the other, the last one now."""
        ended_at = now
        for attempt in reversed(tuple(attempts)):
            limit = self._limits.get(attempt.model.endpoint or "")
            if limit is not None:
                self._record(limit, attempt, full=full, ended_at=ended_at)
            ended_at -= attempt.latency_s
        self._add_up()

    def set_servers(self, servers: Sequence[Server]) -> None:
        """Set the servers in use; other servers keep their limits, which do not count until they return."""
        for endpoint in tuple(self._gauges):
            gauges = self._gauges.pop(endpoint)
            limit = self._limits.get(endpoint)
            if limit is not None:
                limit.record_gauges(running=gauges.running, waiting=gauges.waiting, preempted=gauges.preempted)
        if self._servers == list(servers):
            return
        self._servers = list(servers)
        for server in servers:
            self._limits.setdefault(server.endpoint, AdaptiveLimit(self._ceiling, server.timeout_s))
        self._add_up()

    def read_gauges(self, servers: Sequence[Server], *, now: float) -> None:
        """Read the gauges of each server at most once a second; `set_servers` passes them on."""
        for server in servers:
            if now - self._looked_at.get(server.endpoint, float("-inf")) >= LOOK_EVERY_S:
                self._looked_at[server.endpoint] = now
                gauges = server.gauges()
                if gauges is not None:
                    self._gauges[server.endpoint] = gauges

    def _record(self, limit: AdaptiveLimit, attempt: ExtractionAttempt, *, full: bool, ended_at: float) -> None:
        if attempt.reason in ("overloaded", "timeout"):
            limit.record_overload(timed_out=attempt.reason == "timeout", now=ended_at)
        elif attempt.ok or kind_of(attempt.reason or "") == "answer":
            limit.record_answer(attempt.latency_s, attempt.queue_s, full=full, now=ended_at)

    def _add_up(self) -> None:
        """Set the value to the sum of the limits, bounded by `highest_total`, and the share of each server."""
        limits = [self._limits[server.endpoint] for server in self._servers]
        total = sum(limit.allowed for limit in limits)
        for server, limit in zip(self._servers, limits, strict=True):
            server.share = limit.allowed
            limit.ceiling = max(1, min(self._ceiling, self._highest_total - total + limit.allowed))
        self.value = max(1, min(total, self._highest_total))
        self.reason = _reason([(server.endpoint, limit) for server, limit in zip(self._servers, limits, strict=True)])


def _reason(limits: Sequence[tuple[str, AdaptiveLimit]]) -> str:
    """Return the reason if there is one server, else the limits of the first four; "" before anything is measured."""
    if len(limits) == 1:
        return limits[0][1].reason
    return ", ".join(f"{endpoint.partition('://')[2]} {limit.allowed}" for endpoint, limit in limits[:4])


def limit_of(config: RunnerConfig) -> Limit:
    """Return the limit that the settings select, bounded by this machine's open files."""
    if config.concurrency != "auto":
        return FixedLimit(fitting(config.concurrency, setting="runner.concurrency"))
    return AdaptiveLimits(
        ceiling=fitting(config.max_concurrency, setting="runner.max_concurrency"), highest_total=most_in_flight()
    )
