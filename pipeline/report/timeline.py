"""What happened when: counts by equal spans of time, at most 120 of them, however long a run takes.

It must not grow with the run: when the spans are used up, each two become one.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

from pipeline.records import Failure, Result

BUCKETS = 120
_KEPT_REASONS = 60
_OTHERS = "(others)"

Timeline = dict[str, Any]
"""`bucket_s` seconds a span; `rows` of done, failed, prompt tokens, completion tokens, seconds that the done ones took;
`reasons`: failures by reason, a count for each span up to the last one with such a failure."""


def empty() -> Timeline:
    """A timeline without anything in it, of one second a span."""
    return {"bucket_s": 1.0, "rows": [], "reasons": {}}


def count(timeline: Timeline, elapsed_s: float, *, outcome: Result | Failure) -> None:
    """Adds an outcome at its time since the start; no copy of another document's result, which took no time."""
    if isinstance(outcome, Result) and not outcome.attempts:
        return
    while elapsed_s >= timeline["bucket_s"] * BUCKETS:
        _coarsen(timeline)
    index = int(max(elapsed_s, 0.0) / timeline["bucket_s"])
    usage, done = outcome.usage, isinstance(outcome, Result)
    latency_s = outcome.latency_s if isinstance(outcome, Result) else 0.0
    added = [int(done), int(not done), usage.prompt_tokens or 0, usage.completion_tokens or 0, latency_s]
    rows = timeline["rows"]
    rows.extend([0, 0, 0, 0, 0.0] for _ in range(index + 1 - len(rows)))
    rows[index] = _added(rows[index], added)
    if isinstance(outcome, Failure):
        reasons = timeline["reasons"]
        name = outcome.reason if outcome.reason in reasons or len(reasons) < _KEPT_REASONS else _OTHERS
        counts = reasons.setdefault(name, [])
        counts.extend([0] * (index + 1 - len(counts)))
        counts[index] += 1


def merged(left: Mapping[str, Any], right: Mapping[str, Any]) -> Timeline:
    """Both as one, as a new value; times count from the start of each."""
    first, second = _copy(left), _copy(right)
    while first["bucket_s"] != second["bucket_s"]:
        _coarsen(min(first, second, key=lambda each: float(each["bucket_s"])))
    rows = [_added(a, b) for a, b in zip_longest(first["rows"], second["rows"], fillvalue=[0, 0, 0, 0, 0.0])]
    names = [*first["reasons"], *(name for name in second["reasons"] if name not in first["reasons"])]
    reasons = {name: _added(first["reasons"].get(name, []), second["reasons"].get(name, [])) for name in names}
    return {"bucket_s": first["bucket_s"], "rows": rows, "reasons": reasons}


def _coarsen(timeline: Timeline) -> None:
    rows = timeline["rows"]
    timeline["rows"] = [_added(*_pair(rows, at, [])) for at in range(0, len(rows), 2)]
    timeline["reasons"] = {
        name: [sum(counts[at : at + 2]) for at in range(0, len(counts), 2)]
        for name, counts in timeline["reasons"].items()
    }
    timeline["bucket_s"] *= 2


def _pair(rows: list[Any], at: int, missing: Any) -> tuple[Any, Any]:
    return rows[at], rows[at + 1] if at + 1 < len(rows) else missing


def _added(left: list[Any], right: list[Any]) -> list[Any]:
    return [a + b for a, b in zip_longest(left, right, fillvalue=0)]


def _copy(timeline: Mapping[str, Any]) -> Timeline:
    return {"bucket_s": timeline["bucket_s"], "rows": list(timeline["rows"]), "reasons": dict(timeline["reasons"])}
