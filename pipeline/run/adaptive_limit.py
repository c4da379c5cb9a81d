"""Search for the number of requests that one server can use at a time. It must not know other servers.

    climb: double the limit while the rate grows
      └─▶ refine: find the lowest limit that still gives the best rate
            └─▶ hold: keep it, and try a step up or down from time to time; climb again when the server changes

The rate (answers per second) follows from Little's law: requests in flight / mean latency. It is measured over one
window of answers, and only over requests that were sent after the limit had been set; this is much less noisy than
counting answers per second. A window counts only if the limit was fully used. At its end, overload is checked first: a
latency near the timeout, or requests that wait in the server's queue (Ollama's queue times, vLLM's gauges), lower the
limit at once. A refused or timed-out request lowers the limit between windows, and for REMEMBERED_S seconds the search
stays below the limit at which that happened.

The constants were tuned together on the server models of `scripts/bench/concurrency.py` until each of the 20 models
reached 95 % of the best fixed limit within 30 s (22 s at the time). "Measured" below: seven of these models for 90 s of
their clock, with only that constant changed. After a change run `python -m bench concurrency` in scripts/;
tests/run/test_concurrency.py checks the same bound. A limit is used by one thread.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

START = 4
"""First limit. Measured: 1 reaches each rate as early, 16 up to 2 s later. A small server gets only a short queue."""
LEAST_GAIN = 0.08
"""Least gain of a climb: log of the rate's growth over log of the limit's growth, 1 for unlimited room. Doubling must
bring 2 ** 0.08 = 5.7 % more. Measured: 0.04 and 0.16 change nothing on the models; it only has to exceed the noise."""
AS_GOOD = 0.98
"""A limit with this share of the best rate or more is as good, if it is lower. Measured: 0.95 costs 3 % of the rate on
servers that saturate slowly or preempt, 0.995 gains nothing."""
STEP = 0.12
"""Share of the limit that is tried up or down while holding. Measured: with 0.06 a server that grew threefold takes 31
instead of 4 s and one that slowed down loses 5 %; with 0.25 up to 12 % more than the slots are in flight."""
STEP_GAIN = 0.25
"""Share of a step up that must come back as a higher rate: 3 % for a step of 12 %. Measured: 0.1 and 0.5 change little
on the models; it only has to exceed the noise."""
SMALL_LIMIT = 8
"""Limits below this try a step down least often, as one less than 8 is already a step of 12 %."""
LEAST_ANSWERS = 16
"""Fewest answers in a window. Measured: 32 costs 1.5 % of the rate and 2 s. 8 is as good on the models; but real
latencies vary more than theirs, so this is twice as many."""
WORSE_RATE = 0.8
"""A rate below this share of the best ends a window early. Measured: 0.6 leaves a preempting server 3 % slower; 0.9
takes noise for a loss and ends 3 % slower on a server that saturates slowly."""
PATIENCE = 1
"""Windows between two tried steps at first; each failed step doubles it. Judgement."""
MOST_PATIENCE = 8
"""Most windows between two tried steps. Judgement: a stable server is disturbed in at most one window of nine."""
FALL = 0.75
"""Share of the usual rate, at an unchanged limit, below which the server has changed. Judgement: well beyond noise."""
RISE = 1.3
"""Share of the usual rate above which the server has changed. Judgement: about 1 / FALL."""
QUEUE_SHARE = 0.1
"""Share of the latency spent in the server's queue above which the limit is too high. Measured: 0.05 changes nothing,
0.2 leaves the rate and keeps more requests waiting."""
BACK_OFF = 0.7
"""Factor for the limit after an overload. Judgement; TCP CUBIC uses the same factor."""
BURST_S = 2.0
"""Seconds within which overloads count once. Judgement: requests in flight together are refused together."""
REMEMBERED_S = 30.0
"""Seconds for which a limit that overloaded the server is not reached again. Judgement."""
TIMEOUT_SHARE = 0.7
"""Share of the timeout that the slowest answer of a window may take. Judgement: a document may be 40 % slower still."""


@dataclass(slots=True)
class _Window:
    """The answers to requests sent from `opens` on, a latency after the limit was set; `early`: since it was set."""

    set_at: float
    opens: float
    needed_answers: int
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
    """The limit of one server: `value` requests in flight, for `reason`; a request fails after `timeout_s`.

    `occupied_slots`: slots of an Ollama that timed-out requests still occupy. `ceiling` may change at any time.
    """

    ceiling: int
    timeout_s: float = math.inf
    value: int = START
    reason: str = ""
    occupied_slots: int = 0
    _window: _Window = field(default_factory=lambda: _Window(0.0, 0.0, START))
    _next_step: Callable[[float, float], None] | None = None
    _levels: dict[int, float] = field(default_factory=dict)
    _usual_rate: float = 0.0
    _latency_s: float = 0.0
    _idle_queue_s: float = math.inf
    _patience: int = PATIENCE
    _factor: float = 2.0
    _reports_queue: bool = False
    _has_gauges: bool = False
    _windows_held: int = 0
    _up_next: bool = True
    _shrunk_at: float = -math.inf
    _cap: int | None = None
    _capped_at: float = -math.inf

    def __post_init__(self) -> None:
        self.value = min(self.value, self.ceiling)
        self._next_step = self._climb

    @property
    def allowed(self) -> int:
        """The requests that may be in flight, minus the timed-out ones that still occupy a slot; at least 1."""
        return max(1, min(self.value, self.ceiling) - self.occupied_slots)

    def record_answer(self, latency_s: float, queue_s: float | None, *, full: bool, now: float) -> None:
        """Record an answer; `queue_s`: its wait at the server, if reported. `full`: the limit was in use."""
        window = self._window
        window.is_full = window.is_full and full
        self._reports_queue = self._reports_queue or queue_s is not None
        self._has_gauges = self._has_gauges or self._reports_queue
        if self.occupied_slots and (queue_s is None or queue_s < latency_s / 2):
            self.occupied_slots = 0  # this answer did not wait, so the timed-out requests have freed their slots
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
        return self._judge(window, now) if window.count >= window.needed_answers else None

    def _is_worse(self, window: _Window) -> bool:
        """Return True when the early answers of a window show that this limit is too high."""
        best_rate = max(self._usual_rate, *self._levels.values(), 0.0)
        needed = max(8, window.needed_answers // 8)
        return window.early >= needed and self.value * window.early < WORSE_RATE * best_rate * window.early_latency_s

    def record_overload(self, *, timed_out: bool, now: float) -> None:
        """Record a refused or timed-out request; a timed-out one may still occupy its slot."""
        self.occupied_slots = min(self.value - 1, self.occupied_slots + (timed_out and self._reports_queue))
        if now - self._shrunk_at >= BURST_S:
            self._shrunk_at = now
            self._cap_at(self.value, now)
            self._hold(max(1, int(self.value * BACK_OFF)), "server overloaded", now=now)

    def record_gauges(self, *, running: float, waiting: float, preempted: bool) -> None:
        """Record the server's gauges: requests running and waiting, and whether it has preempted any since."""
        share = waiting / (running + waiting) if waiting else 0.0
        self._has_gauges = True
        self._window.waiting_share = max(share, 2 * QUEUE_SHARE if preempted else 0.0)

    def _judge(self, window: _Window, now: float) -> None:
        """End a window: lower the limit at once when the server is overloaded, else continue the search."""
        if not window.is_full:
            return self._open(now)
        count = window.count
        total_s = window.latency_s
        if count < window.needed_answers:  # ended early
            count = window.early
            total_s = window.early_latency_s
        latency_s = total_s / count
        rate = self.value / latency_s if latency_s > 0 else math.inf
        self._latency_s = latency_s
        share = max(window.waiting_share, window.queue_s / window.latency_s if window.latency_s else 0.0)
        if window.slowest_s > TIMEOUT_SHARE * self.timeout_s and self.value > 1:
            self._cap_at(self.value, now)
            fewer = int(self.value * TIMEOUT_SHARE * self.timeout_s / window.slowest_s)
            self._hold(max(1, min(self.value - 1, fewer)), "latency near the timeout", now=now)
        elif share > QUEUE_SHARE and self.value > 1:
            fewer = math.ceil(self.value * (1 - share))
            self._hold(max(1, min(self.value - 1, fewer)), "requests queue at the server", now=now)
        elif self._next_step is not None:
            self._next_step(rate, now)
        return None

    def _climb(self, rate: float, now: float) -> None:
        """Raise the limit by `_factor` while the rate grows, then refine."""
        below = max((level for level in self._levels if level < self.value), default=None)
        self._levels[self.value] = rate
        pays = below is None or _gain(below, self._levels[below], self.value, rate) >= LEAST_GAIN
        if not pays or self.value >= self._highest_allowed(now):
            return self._refine(now)
        higher = math.ceil(self._factor * self.value)
        self._factor = min(2.0, 1.2 * self._factor)
        return self._set_limit(min(self._highest_allowed(now), higher), "rising", then=self._climb, now=now)

    def _refine(self, now: float) -> None:
        """Search from below for the lowest limit with a rate as good as the best one."""
        levels = self._levels
        best_rate = max(levels.values())
        best_limit = min(level for level, rate in levels.items() if rate >= AS_GOOD * best_rate)
        above = min((level for level in levels if level > best_limit), default=best_limit)
        if above > 1.5 * best_limit and levels[above] < AS_GOOD * best_rate:
            middle = round(math.sqrt(best_limit * above))
            return self._set_limit(middle, "searching for the peak", then=self._refine_more, now=now)
        below = max((level for level in levels if level < best_limit), default=0)
        next_value = math.ceil(below * best_rate / levels[below]) if below else best_limit // 2
        if 1.1 * below < best_limit < 1.9 * below:
            next_value = max(next_value, round(math.sqrt(below * best_limit)))
        next_value = max(next_value, below + 1)
        if next_value >= best_limit or best_limit <= 1.1 * below:
            return self._hold(best_limit, "a higher limit is not faster", now=now, usual_rate=levels[best_limit])
        reason = "searching for the lowest limit that is as fast"
        return self._set_limit(next_value, reason, then=self._refine_more, now=now)

    def _refine_more(self, rate: float, now: float) -> None:
        self._levels[self.value] = rate
        self._refine(now)

    def _hold(self, number: int, reason: str, *, now: float, usual_rate: float = 0.0) -> None:
        self._usual_rate = usual_rate
        self._windows_held = 0
        self._set_limit(number, reason, then=self._check_held_limit, now=now)

    def _check_held_limit(self, rate: float, now: float) -> None:
        """End a window at the held limit: climb again if the server has changed, or try a step when one is due."""
        if self._usual_rate and not FALL < rate / self._usual_rate < RISE:
            self._levels = {}
            self._patience = PATIENCE
            number = max(1, min(self.value, math.ceil(self.value * rate / self._usual_rate)))
            return self._set_limit(number, "the server has changed", then=self._climb, now=now)
        self._usual_rate = rate if not self._usual_rate else 0.7 * self._usual_rate + 0.3 * rate
        self._windows_held += 1
        if self._windows_held < self._patience:
            return self._open(now)
        self._windows_held = 0
        is_up = self._up_next
        self._up_next = not is_up
        return self._try(is_up, now)

    def _try(self, is_up: bool, now: float) -> None:
        step = max(1, round(self.value * STEP))
        if not is_up and (self._has_gauges or (self.value < SMALL_LIMIT and self._patience < MOST_PATIENCE)):
            return self._open(now)
        number = min(self._highest_allowed(now), self.value + step) if is_up else max(1, self.value - step)
        if number == self.value:
            return self._open(now)
        judge = partial(self._judge_step, self.value, self.reason)
        reason = "trying a higher limit" if is_up else "trying a lower limit"
        return self._set_limit(number, reason, then=judge, now=now)

    def _judge_step(self, former_limit: int, reason: str, rate: float, now: float) -> None:
        number = self.value
        usual_rate = self._usual_rate
        if number > former_limit and rate >= usual_rate * (1 + STEP_GAIN * (number - former_limit) / former_limit):
            self._levels = {former_limit: usual_rate, number: rate}
            self._patience = PATIENCE
            self._factor = 1.25  # the peak is probably near: climb in smaller steps than doubling
            return self._climb(rate, now)
        if number < former_limit and rate >= AS_GOOD * usual_rate:
            self._patience = PATIENCE
            self._up_next = False
            return self._hold(number, "a lower limit is as fast", now=now, usual_rate=max(usual_rate, rate))
        if number > former_limit and rate < AS_GOOD * usual_rate:
            self._cap_at(number, now)
        self._patience = min(MOST_PATIENCE, 2 * self._patience)
        return self._hold(former_limit, reason, now=now, usual_rate=usual_rate)

    def _set_limit(self, number: int, reason: str, *, then: Callable[[float, float], None], now: float) -> None:
        self.value = max(1, min(number, self.ceiling))
        self.reason = reason
        self._next_step = then
        self._open(now)

    def _open(self, now: float) -> None:
        self._window = _Window(now, now + self._latency_s, max(LEAST_ANSWERS, self.value))

    def _cap_at(self, number: int, now: float) -> None:
        self._cap = max(1, number - 1)
        self._capped_at = now

    def _highest_allowed(self, now: float) -> int:
        """Return the ceiling, lowered below a limit that was recently too high."""
        if self._cap is not None and now - self._capped_at < REMEMBERED_S:
            return min(self.ceiling, self._cap)
        return self.ceiling


def _gain(lower_limit: int, lower_rate: float, higher_limit: int, higher_rate: float) -> float:
    """Return the log growth of the rate over the log growth of the limit: 1 is ideal, 0 no gain, below 0 a loss."""
    if higher_limit <= lower_limit or lower_rate <= 0 or not math.isfinite(higher_rate):
        return 1.0
    return math.log(max(higher_rate, 1e-12) / lower_rate) / math.log(higher_limit / lower_limit)
