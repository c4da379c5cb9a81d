"""The state of a run for its progress, and its rates over the last minute.

The remaining time is computed from answers: an open document of a thousand windows takes as long as a thousand short
ones.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from pipeline.run.windows.long_counts import LongStatus

RATE_WINDOW_S = 60.0


@dataclass(frozen=True, slots=True)
class ProgressState:
    """The run at this moment. `total` is None until the listing has ended; `found`: documents listed so far.

    `queue_s`: the recent wait in the server's queue, if reported. `waiting_for`: the current outage. `long`: the
    documents that are read in windows.
    """

    done: int = 0
    failed: int = 0
    skipped: int = 0
    in_flight: int = 0
    limit: int = 0
    limit_reason: str = ""
    found: int = 0
    total: int | None = None
    queue_s: float | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    last_reason: str | None = None
    last_failed: str | None = None
    waiting_for: str | None = None
    long: LongStatus = field(default_factory=LongStatus)
    elapsed_s: float = 0.0

    @property
    def asked(self) -> int:
        """The documents that were sent to a model, or failed before that."""
        return self.done + self.failed

    @property
    def answers(self) -> int:
        """The documents that were sent, and the windows that were answered in this run."""
        return self.asked + self.long.outcomes.get("answered", 0)

    @property
    def answers_left(self) -> float | None:
        """The approximate number of remaining answers; None until the listing has ended.

        An unread document counts as the mean of the finished ones, a parked document as the mean of the open ones.
        """
        if self.total is None:
            return None
        unread = max(0, self.total - self.asked - self.skipped - self.long.open - self.long.parked)
        usual = 1 + self.long.windows_of_finished / self.asked if self.asked else 1.0
        parked = self.long.parked * self.long.windows / max(self.long.open, 1)
        return unread * usual + parked + self.long.windows - self.long.answered + self.long.open


@dataclass(frozen=True, slots=True)
class Rates:
    """Rates over the last minute: per second, and the estimated seconds until the end (None: unknown)."""

    documents: float
    tokens_in: float
    tokens_out: float
    eta_s: float | None


class RateWindow:
    """The states of the last minute and the rates between the first and the last."""

    def __init__(self) -> None:
        self._states: deque[ProgressState] = deque(maxlen=120)

    def add(self, state: ProgressState) -> None:
        """Add the state, at most one a second."""
        if not self._states or state.elapsed_s - self._states[-1].elapsed_s >= 1.0:
            self._states.append(state)
        while len(self._states) > 1 and state.elapsed_s - self._states[0].elapsed_s > RATE_WINDOW_S:
            self._states.popleft()

    def rates(self, state: ProgressState) -> Rates:
        """Return the rates up to this state; skipped documents cost no time and do not count."""
        first = self._states[0] if self._states else state
        seconds = state.elapsed_s - first.elapsed_s
        if seconds <= 0:
            return Rates(0.0, 0.0, 0.0, None)
        documents = (state.asked - first.asked) / seconds
        answers = (state.answers - first.answers) / seconds
        remaining = state.answers_left
        return Rates(
            documents,
            (state.tokens_in - first.tokens_in) / seconds,
            (state.tokens_out - first.tokens_out) / seconds,
            remaining / answers if remaining is not None and answers > 0 else None,
        )
