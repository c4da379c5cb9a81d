"""Counts per time span of a run, in at most 120 equal spans.

It must not grow with the run: when all spans are used, each two are merged into one.
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
"""`bucket_s`: seconds per span. `rows`: done, failed, prompt tokens, completion tokens, seconds of the done documents.
`reasons`: failures by reason, a count per span up to the last span with such a failure."""


def empty() -> Timeline:
    """Return an empty timeline with spans of one second."""
    return {"bucket_s": 1.0, "rows": [], "reasons": {}}


def count(timeline: Timeline, elapsed_s: float, *, outcome: Result | Failure) -> None:
    """Add an outcome at its time since the start; no copy of another document's result, which took no time."""
    if isinstance(outcome, Result) and not outcome.attempts:
        return
    while elapsed_s >= timeline["bucket_s"] * BUCKETS:
        _coarsen(timeline)
    index = int(max(elapsed_s, 0.0) / timeline["bucket_s"])
    rows = timeline["rows"]
    rows.extend([0, 0, 0, 0, 0.0] for _ in range(index + 1 - len(rows)))
    row = rows[index]
    row[isinstance(outcome, Failure)] += 1
    row[2] += outcome.usage.prompt_tokens or 0
    row[3] += outcome.usage.completion_tokens or 0
    row[4] += outcome.latency_s if isinstance(outcome, Result) else 0.0
    if isinstance(outcome, Failure):
        reasons = timeline["reasons"]
        name = outcome.reason if outcome.reason in reasons or len(reasons) < _KEPT_REASONS else _OTHERS
        counts = reasons.setdefault(name, [])
        counts.extend([0] * (index + 1 - len(counts)))
        counts[index] += 1


def merged(left: Mapping[str, Any], right: Mapping[str, Any]) -> Timeline:
    """Return the merged timeline as a new value; times count from the start of each."""
    first = _copy(left)
    second = _copy(right)
    while first["bucket_s"] != second["bucket_s"]:
        _coarsen(min(first, second, key=lambda line: float(line["bucket_s"])))
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
