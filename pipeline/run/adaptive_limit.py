"""The search for how many requests one server can use at a time, by what its answers tell. It knows no other server.

    climb: double while that brings more ──▶ refine: the fewest that bring as much ──▶ hold, and try a step now and then

What comes back is measured by Little's law: answers a second = in flight / latency, over requests that were sent after
the number had settled. Belongs to one thread.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

START = 4
LEAST_GAIN = 0.08
"""Going up must bring this share of what it would if the server had room without end (of log rate over log number)."""
AS_GOOD = 0.98
"""So much of the best rate is as good as the best, if it takes less in flight."""
STEP, STEP_GAIN = 0.12, 0.25
"""The step that is tried now and then, and the share of it that must come back as a higher rate."""
FEW = 8
"""With fewer in flight than this, one less is a large part: it is tried least often."""
LEAST_ANSWERS = 16
WORSE = 0.8
"""A rate below this part of the best is seen before a whole window is over."""
PATIENCE, MOST_PATIENCE = 1, 8
"""Windows between two steps that are tried; each that fails doubles it."""
FALL, RISE = 0.75, 1.3
"""The rate at an unchanged number that says that the server has changed."""
QUEUE_SHARE = 0.1
"""More of the latency than this, spent in the server's queue, is too much in flight."""
BACK_OFF = 0.7
BURST_S = 2.0
"""Overloads that come this soon after one another count once."""
REMEMBERED_S = 30.0
"""How long a number at which a server was overloaded is not reached again."""
OF_TIMEOUT = 0.7


@dataclass(slots=True)
class _Window:
    """What the requests sent from `opens` on have told; `early`: those sent since the number was set."""

    set_at: float
    opens: float
    needed: int
    count: int = 0
    latency_s: float = 0.0
    queue_s: float = 0.0
    slowest_s: float = 0.0
    early: int = 0
    early_latency_s: float = 0.0
    is_full: bool = True
    waiting_share: float = 0.0


@dataclass(slots=True)
class AdaptiveLimit:
    """One server: `value` may be in flight there, `reason` says why; an answer that takes `timeout_s` is lost.

    `lost`: requests that timed out and hold a slot of an Ollama still. `ceiling` may change at any time.
    """

    ceiling: int
    timeout_s: float = math.inf
    value: int = START
    reason: str = "start"
    lost: int = 0
    _window: _Window = field(default_factory=lambda: _Window(0.0, 0.0, START))
    _then: Callable[[float, float], None] | None = None
    _levels: dict[int, float] = field(default_factory=dict)
    _usual: float = 0.0
    _latency_s: float = 0.0
    _idle_queue_s: float = math.inf
    _patience: int = PATIENCE
    _factor: float = 2.0
    _tells_queue: bool = False
    _tells: bool = False
    _held: int = 0
    _up_next: bool = True
    _shrunk_at: float = -math.inf
    _cap: int | None = None
    _capped_at: float = -math.inf

    def __post_init__(self) -> None:
        self.value = min(self.value, self.ceiling)
        self._then = self._climb

    @property
    def allowed(self) -> int:
        """How many more make sense, with those that nobody waits for any more but that hold a slot still."""
        return max(1, min(self.value, self.ceiling) - self.lost)

    # ---- what is told

    def answered(self, latency_s: float, queue_s: float | None, *, full: bool, now: float) -> None:
        """One answer came; `queue_s` of it was the wait at the server, where that tells. `full`: all were used."""
        window = self._window
        window.is_full = window.is_full and full
        self._tells_queue = self._tells_queue or queue_s is not None
        self._tells = self._tells or self._tells_queue
        if self.lost and (queue_s is None or queue_s < latency_s / 2):
            self.lost = 0  # what timed out does not hold its slot any more
        if now - latency_s < window.set_at:
            return None
        window.early += 1
        window.early_latency_s += latency_s
        if self._is_worse(window):
            return self._judge(window, now)
        if now - latency_s < window.opens:
            return None
        self._idle_queue_s = min(self._idle_queue_s, queue_s or 0.0)
        window.count += 1
        window.latency_s += latency_s
        window.queue_s += (queue_s or 0.0) - self._idle_queue_s
        window.slowest_s = max(window.slowest_s, latency_s)
        return self._judge(window, now) if window.count >= window.needed else None

    def _is_worse(self, window: _Window) -> bool:
        """True when it is plain before the end of a window that this number was a step too far."""
        best = max(self._usual, *self._levels.values(), 0.0)
        enough = max(8, window.needed // 8)
        return window.early >= enough and self.value * window.early < WORSE * best * window.early_latency_s

    def overloaded(self, *, timed_out: bool, now: float) -> None:
        """The server refused a request or did not answer it in time; one that timed out may hold its slot still."""
        self.lost = min(self.value - 1, self.lost + (timed_out and self._tells_queue))
        if now - self._shrunk_at >= BURST_S:
            self._shrunk_at = now
            self._cap_at(self.value, now)
            self._hold(max(1, int(self.value * BACK_OFF)), "server overloaded", now=now)

    def gauged(self, *, running: float, waiting: float, preempted: bool) -> None:
        """What the server says of itself: requests at work and waiting, and whether it threw work away since."""
        share = waiting / (running + waiting) if waiting else 0.0
        self._tells = True
        self._window.waiting_share = max(share, 2 * QUEUE_SHARE if preempted else 0.0)

    # ---- what follows

    def _judge(self, window: _Window, now: float) -> None:
        """At the end of a window: too much in flight is put right at once, else the search goes on."""
        if not window.is_full:
            return self._open(now)
        count, total_s = window.count, window.latency_s
        if count < window.needed:
            count, total_s = window.early, window.early_latency_s
        latency_s = total_s / count
        rate = self.value / latency_s if latency_s > 0 else math.inf
        self._latency_s = latency_s
        share = max(window.waiting_share, window.queue_s / window.latency_s if window.latency_s else 0.0)
        if window.slowest_s > OF_TIMEOUT * self.timeout_s and self.value > 1:
            self._cap_at(self.value, now)
            fewer = int(self.value * OF_TIMEOUT * self.timeout_s / window.slowest_s)
            self._hold(max(1, min(self.value - 1, fewer)), "answers come near the timeout", now=now)
        elif share > QUEUE_SHARE and self.value > 1:
            fewer = math.ceil(self.value * (1 - share))
            self._hold(max(1, min(self.value - 1, fewer)), "requests wait at the server", now=now)
        elif self._then is not None:
            self._then(rate, now)
        return None

    def _climb(self, rate: float, now: float) -> None:
        below = max((level for level in self._levels if level < self.value), default=None)
        self._levels[self.value] = rate
        pays = below is None or _gain(below, self._levels[below], self.value, rate) >= LEAST_GAIN
        if not pays or self.value >= self._top(now):
            return self._refine(now)
        wanted, self._factor = math.ceil(self._factor * self.value), min(2.0, 1.2 * self._factor)
        return self._go(min(self._top(now), wanted), "climbing", then=self._climb, now=now)

    def _refine(self, now: float) -> None:
        """Looks for the fewest in flight that bring as much as the best number did, from below."""
        levels = self._levels
        best = max(levels.values())
        good = min(level for level, rate in levels.items() if rate >= AS_GOOD * best)
        above = min((level for level in levels if level > good), default=good)
        if above > 1.5 * good and levels[above] < AS_GOOD * best:
            return self._go(round(math.sqrt(good * above)), "looking for the peak", then=self._refined, now=now)
        below = max((level for level in levels if level < good), default=0)
        wanted = math.ceil(below * best / levels[below]) if below else good // 2
        if 1.1 * below < good < 1.9 * below:
            wanted = max(wanted, round(math.sqrt(below * good)))
        wanted = max(wanted, below + 1)
        if wanted >= good or good <= 1.1 * below:
            return self._hold(good, "more in flight brings no more answers", now=now, usual=levels[good])
        return self._go(wanted, "looking for the fewest that bring as much", then=self._refined, now=now)

    def _refined(self, rate: float, now: float) -> None:
        self._levels[self.value] = rate
        self._refine(now)

    def _hold(self, number: int, reason: str, *, now: float, usual: float = 0.0) -> None:
        self._usual, self._held = usual, 0
        self._go(number, reason, then=self._held_on, now=now)

    def _held_on(self, rate: float, now: float) -> None:
        """One more window at the number that is held: has the server changed, is it time to try another?"""
        if self._usual and not FALL < rate / self._usual < RISE:
            self._levels, self._patience = {}, PATIENCE
            number = max(1, min(self.value, math.ceil(self.value * rate / self._usual)))
            return self._go(number, "the server has changed", then=self._climb, now=now)
        self._usual = rate if not self._usual else 0.7 * self._usual + 0.3 * rate
        self._held += 1
        if self._held < self._patience:
            return self._open(now)
        self._held = 0
        up, self._up_next = self._up_next, not self._up_next
        return self._try(up, now)

    def _try(self, up: bool, now: float) -> None:
        step = max(1, round(self.value * STEP))
        if not up and (self._tells or (self.value < FEW and self._patience < MOST_PATIENCE)):
            return self._open(now)
        number = min(self._top(now), self.value + step) if up else max(1, self.value - step)
        if number == self.value:
            return self._open(now)
        tried = partial(self._tried, self.value, self.reason)
        return self._go(number, "trying more" if up else "trying fewer", then=tried, now=now)

    def _tried(self, before: int, reason: str, rate: float, now: float) -> None:
        number, usual = self.value, self._usual
        if number > before and rate >= usual * (1 + STEP_GAIN * (number - before) / before):
            self._levels, self._patience = {before: usual, number: rate}, PATIENCE
            self._factor = 1.25
            return self._climb(rate, now)
        if number < before and rate >= AS_GOOD * usual:
            self._patience = PATIENCE
            self._up_next = False
            return self._hold(number, "fewer in flight bring as much", now=now, usual=max(usual, rate))
        if number > before and rate < AS_GOOD * usual:
            self._cap_at(number, now)
        self._patience = min(MOST_PATIENCE, 2 * self._patience)
        return self._hold(before, reason, now=now, usual=usual)

    def _go(self, number: int, reason: str, *, then: Callable[[float, float], None], now: float) -> None:
        self.value, self.reason, self._then = max(1, min(number, self.ceiling)), reason, then
        self._open(now)

    def _open(self, now: float) -> None:
        self._window = _Window(now, now + self._latency_s, max(LEAST_ANSWERS, self.value))

    def _cap_at(self, number: int, now: float) -> None:
        self._cap, self._capped_at = max(1, number - 1), now

    def _top(self, now: float) -> int:
        """The ceiling; below a number that was too many not long ago."""
        if self._cap is not None and now - self._capped_at < REMEMBERED_S:
            return min(self.ceiling, self._cap)
        return self.ceiling


def _gain(fewer: int, slower: float, more: int, faster: float) -> float:
    """The share of the growth in flight that came back as growth of the rate: 1 all, 0 nothing, below 0 it fell."""
    if more <= fewer or slower <= 0 or not math.isfinite(faster):
        return 1.0
    return math.log(max(faster, 1e-12) / slower) / math.log(more / fewer)
