"""Counts per time span of a run, in at most 120 equal spans.

It must not grow with the run: when all spans are used, each pair of spans is merged into one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from pipeline.records import Failure, Result
from pipeline.report.numbers import Timeline

BUCKETS = 120
_KEPT_REASONS = 60
_OTHERS = "(others)"
_NOTHING = (0, 0, 0, 0, 0.0)


class Spans:
    """The time spans of a run in progress; at first, each is one second long."""

    def __init__(self, timeline: Timeline | None = None) -> None:
        start = timeline or Timeline()
        self.bucket_s = start.bucket_s
        self._rows = [list(row) for row in start.rows]
        self._reasons = {name: list(counts) for name, counts in start.reasons.items()}

    def count(self, elapsed_s: float, *, outcome: Result | Failure) -> None:
        """Add an outcome at its time since the start, except a copy of another result, which took no time."""
        if isinstance(outcome, Result) and not outcome.attempts:
            return
        while elapsed_s >= self.bucket_s * BUCKETS:
            self.coarsen()
        index = int(max(elapsed_s, 0.0) / self.bucket_s)
        self._rows.extend(list(_NOTHING) for _ in range(index + 1 - len(self._rows)))
        row = self._rows[index]
        row[isinstance(outcome, Failure)] += 1
        row[2] += outcome.usage.prompt_tokens or 0
        row[3] += outcome.usage.completion_tokens or 0
        if isinstance(outcome, Result):
            row[4] += outcome.latency_s
            return
        is_separate = outcome.reason in self._reasons or len(self._reasons) < _KEPT_REASONS
        counts = self._reasons.setdefault(outcome.reason if is_separate else _OTHERS, [])
        counts.extend([0] * (index + 1 - len(counts)))
        counts[index] += 1

    def coarsen(self) -> None:
        """Merge each pair of spans into one of twice the length."""
        ends = [*self._rows[1::2], []]
        self._rows = [_added(row, end) for row, end in zip(self._rows[::2], ends, strict=False)]
        self._reasons = {
            name: [sum(counts[at : at + 2]) for at in range(0, len(counts), 2)]
            for name, counts in self._reasons.items()
        }
        self.bucket_s *= 2

    def snapshot(self) -> Timeline:
        """Return the spans so far."""
        reasons = {name: tuple(map(int, counts)) for name, counts in self._reasons.items()}
        return Timeline(self.bucket_s, tuple(map(tuple, self._rows)), reasons)


def merged(left: Timeline, right: Timeline) -> Timeline:
    """Return the sum of two timelines; times count from the start of each."""
    first, second = Spans(left), Spans(right)
    while first.bucket_s != second.bucket_s:
        min(first, second, key=lambda spans: spans.bucket_s).coarsen()
    first_snapshot = first.snapshot()
    second_snapshot = second.snapshot()
    rows = [tuple(_added(a, b)) for a, b in zip_longest(first_snapshot.rows, second_snapshot.rows, fillvalue=_NOTHING)]
    names = dict.fromkeys([*first_snapshot.reasons, *second_snapshot.reasons])
    reasons = {
        name: tuple(map(int, _added(first_snapshot.reasons.get(name, ()), second_snapshot.reasons.get(name, ()))))
        for name in names
    }
    return Timeline(first_snapshot.bucket_s, tuple(rows), reasons)


def _added(left: Sequence[float], right: Sequence[float]) -> list[float]:
    return [a + b for a, b in zip_longest(left, right, fillvalue=0)]
