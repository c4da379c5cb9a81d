"""How many documents may be in flight: a fixed number, or found out for each server from what it does.

It only counts and decides; the runner obeys. One instance belongs to the main thread; `look` alone is the prober's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.errors import kind_of
from pipeline.llm.server_metrics import Gauges
from pipeline.records import ExtractionAttempt
from pipeline.run.adaptive_limit import AdaptiveLimit

LOOK_EVERY_S = 1.0


class Server(Protocol):
    """One server that is asked. `share`: how many requests are meant for it, against those of the others."""

    share: int

    @property
    def endpoint(self) -> str: ...

    @property
    def timeout_s(self) -> float: ...

    def gauges(self) -> Gauges | None: ...


class Limit(Protocol):
    """The number of documents that may be in flight, and in a few words why."""

    value: int
    reason: str

    def finished(self, attempts: Iterable[ExtractionAttempt], *, full: bool, now: float) -> None:
        """Learns from the requests of a document that has just come back; `full`: as many as may be were in flight."""

    def follow(self, servers: Sequence[Server]) -> None:
        """Takes note of the servers that are asked from now on."""

    def look(self, servers: Sequence[Server], *, now: float) -> None:
        """Asks servers what they tell of themselves; may take seconds, and is called by the prober."""


@dataclass(slots=True)
class Fixed:
    """The limit that the user set: nothing follows from anything."""

    value: int
    reason: str = "set"

    def finished(self, attempts: Iterable[ExtractionAttempt], *, full: bool, now: float) -> None:
        """Nothing follows from it."""

    def follow(self, servers: Sequence[Server]) -> None:
        """Nor from this."""

    def look(self, servers: Sequence[Server], *, now: float) -> None:
        """Nor from this."""


class Auto:
    """The sum of what was found for each server that is asked now; what was found is kept for when it comes back."""

    def __init__(self, *, ceiling: int) -> None:
        self.value, self.reason = 1, "start"
        self._ceiling = max(1, ceiling)
        self._servers: list[Server] = []
        self._lanes: dict[str, AdaptiveLimit] = {}
        self._gauges: dict[str, Gauges] = {}
        self._looked_at: dict[str, float] = {}

    def finished(self, attempts: Iterable[ExtractionAttempt], *, full: bool, now: float) -> None:
        """Each request tells its own server's lane; they ended one after the other, the last one now."""
        ended = now
        for attempt in reversed(tuple(attempts)):
            lane = self._lanes.get(attempt.model.endpoint or "")
            if lane is not None:
                self._tell(lane, attempt, full=full, ended=ended)
            ended -= attempt.latency_s
        self._add_up()

    def follow(self, servers: Sequence[Server]) -> None:
        """Servers that come and go: each keeps its lane, and those that are not asked now do not count."""
        for endpoint in tuple(self._gauges):
            gauges, lane = self._gauges.pop(endpoint), self._lanes.get(endpoint)
            if lane is not None:
                lane.gauged(running=gauges.running, waiting=gauges.waiting, preempted=gauges.preempted)
        if self._servers == list(servers):
            return
        self._servers = list(servers)
        for server in servers:
            self._lanes.setdefault(server.endpoint, AdaptiveLimit(self._ceiling, server.timeout_s))
        self._add_up()

    def look(self, servers: Sequence[Server], *, now: float) -> None:
        """Notes the gauges of each server, once a second; `follow` hands them on."""
        for server in servers:
            if now - self._looked_at.get(server.endpoint, float("-inf")) >= LOOK_EVERY_S:
                self._looked_at[server.endpoint] = now
                gauges = server.gauges()
                if gauges is not None:
                    self._gauges[server.endpoint] = gauges

    def _tell(self, lane: AdaptiveLimit, attempt: ExtractionAttempt, *, full: bool, ended: float) -> None:
        if attempt.reason in ("overloaded", "timeout"):
            lane.overloaded(timed_out=attempt.reason == "timeout", now=ended)
        elif attempt.ok or kind_of(attempt.reason or "") == "answer":
            lane.answered(attempt.latency_s, attempt.queue_s, full=full, now=ended)

    def _add_up(self) -> None:
        """The lanes' sum under the ceiling; each server learns its share."""
        lanes = [self._lanes[server.endpoint] for server in self._servers]
        total = sum(lane.allowed for lane in lanes)
        for server, lane in zip(self._servers, lanes, strict=True):
            server.share = lane.allowed
            lane.ceiling = max(1, self._ceiling - total + lane.allowed)
        self.value = max(1, min(total, self._ceiling))
        self.reason = _told([(server.endpoint, lane) for server, lane in zip(self._servers, lanes, strict=True)])


def _told(lanes: Sequence[tuple[str, AdaptiveLimit]]) -> str:
    """Why it is this number, in a few words; of several servers each one's number."""
    if len(lanes) == 1:
        return lanes[0][1].reason
    return ", ".join(f"{endpoint.partition('://')[2]} {lane.allowed}" for endpoint, lane in lanes[:4]) or "start"
