"""How many documents may be in flight: a fixed number, or found out from what the servers do.

`auto` climbs while more in flight brings more answers a second, and steps back when it does not or when a server is
overloaded. It only counts and decides; the runner obeys. One instance belongs to the main thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from pipeline.records import ExtractionAttempt

START = 4
WINDOW_ANSWERS = 2
"""A window closes when this many times the limit of answers came in it: enough to compare its rate with the last."""
LEAST_WINDOW_S = 0.5
GAIN = 0.35
"""A step up must bring at least this share of what it would if the servers had room without end."""
BACK_OFF = 0.7
BURST_S = 2.0
"""Overloads that come this soon after one another count once."""


class Limit(Protocol):
    """The number of documents that may be in flight, and in a few words why."""

    value: int
    reason: str

    def finished(self, attempts: Iterable[ExtractionAttempt], *, in_flight: int, now: float) -> None: ...

    def follow(self, servers: tuple[str, ...], *, now: float) -> None: ...


@dataclass(slots=True)
class Fixed:
    """The limit that the user set."""

    value: int
    reason: str = "set"

    def finished(self, attempts: Iterable[ExtractionAttempt], *, in_flight: int, now: float) -> None:
        """Nothing follows from it."""

    def follow(self, servers: tuple[str, ...], *, now: float) -> None:
        """Nor from this."""


class Auto:
    """Climbs by what it gains, a window of answers at each limit: doubles until that does not pay, then half more."""

    def __init__(self, *, servers: tuple[str, ...], ceiling: int, now: float) -> None:
        self._ceiling = max(1, ceiling)
        self._begin(servers, now)

    def follow(self, servers: tuple[str, ...], *, now: float) -> None:
        """Begins anew when other servers are asked: what was found out is about the ones before."""
        if servers != self._servers:
            self._begin(servers, now)

    def _begin(self, servers: tuple[str, ...], now: float) -> None:
        self._servers = servers
        self.value, self.reason = min(START * len(servers), self._ceiling), "start"
        self._since, self._answers, self._was_full, self._overloads = now, 0, True, 0
        self._before: tuple[int, float] | None = None
        self._started = False
        self._hold, self._sprint, self._shrunk_at = 0, True, float("-inf")

    def finished(self, attempts: Iterable[ExtractionAttempt], *, in_flight: int, now: float) -> None:
        """Counts a document's requests; at the end of a window the limit may change. The first starts the clock."""
        if not self._started:
            self._started, self._since = True, now
            return
        for attempt in attempts:
            self._answers += attempt.ok
            self._overloads += attempt.reason in ("overloaded", "timeout")
        self._was_full = self._was_full and in_flight >= self.value - 1
        if self._overloads and now - self._shrunk_at >= BURST_S:
            self._set(max(1, int(self.value * BACK_OFF)), "server overloaded", now)
            self._hold, self._sprint, self._shrunk_at = 5, False, now
        elif self._answers >= WINDOW_ANSWERS * self.value and now - self._since >= LEAST_WINDOW_S:
            self._judge(now)

    def _judge(self, now: float) -> None:
        rate = self._answers / (now - self._since)
        if not self._was_full:
            return self._set(self.value, self.reason, now)
        if self._hold > 0:
            self._hold -= 1
            self._before = (self.value, rate)
            return self._set(self.value, self.reason, now)
        if self._before is not None and self.value > self._before[0]:
            lower, slower = self._before
            wanted = slower * (1 + GAIN * (self.value - lower) / lower)
            if rate < wanted:
                self._hold, self._before, self._sprint = 20, None, False
                return self._set(lower, "more in flight brings no more answers", now)
        self._before = (self.value, rate)
        step = self.value if self._sprint else max(1, self.value // 2)
        return self._set(min(self._ceiling, self.value + step), "climbing", now)

    def _set(self, value: int, reason: str, now: float) -> None:
        self.value, self.reason = value, reason
        self._since, self._answers, self._was_full, self._overloads = now, 0, True, 0
