"""The charts of the report page: the last runs side by side, and this run over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest

from pipeline.report.charts import BarChart, Series, run_chart, timeline_chart
from pipeline.report.history import HistoryRow
from pipeline.report.numbers import Timeline

_SHOWN_REASONS = 5
"""Reasons with their own colour in the chart of failures; the others share one."""

_TOKENS = (("in", 2, "r3"), ("out", 3, "ok"))


def history_charts(rows: Sequence[HistoryRow]) -> list[BarChart]:
    """Return documents, tokens and seconds of the last runs; none for a single run."""
    if len(rows) < 2:
        return []
    labels = [f"{row.run}, {row.finished_at[:10]}" for row in rows]
    charts = {
        "Documents per run": [
            Series("done", [row.done for row in rows], "ok"),
            Series("failed", [row.failed for row in rows], "r0"),
        ],
        "Tokens per run": [
            Series("in", [row.prompt_tokens for row in rows], "r3"),
            Series("out", [row.completion_tokens for row in rows], "ok"),
        ],
        "Seconds per run": [Series("seconds", [row.elapsed_s for row in rows], "ok")],
    }
    return [run_chart(title, series, labels=labels) for title, series in charts.items() if _holds(series)]


def timeline_charts(timeline: Timeline) -> list[BarChart]:
    """Return documents, failures, seconds and tokens over the time of a run; none for a short one."""
    rows = timeline.rows
    bucket_s = timeline.bucket_s
    if len(rows) < 2:
        return []
    mean_s = [row[4] / row[0] if row[0] else None for row in rows]
    tokens = [Series(name, [row[at] / bucket_s for row in rows], tone) for name, at, tone in _TOKENS]
    charts = {
        "Documents done per second": [Series("done", [row[0] / bucket_s for row in rows], "ok")],
        "Documents failed, by reason": _reasons(timeline.reasons),
        "Mean seconds per document": [Series("seconds", mean_s, "ok")],
        "Tokens per second": tokens,
    }
    filled = {title: series for title, series in charts.items() if _holds(series)}
    return [timeline_chart(title, series, spans=len(rows), bucket_s=bucket_s) for title, series in filled.items()]


def _holds(series: Sequence[Series]) -> bool:
    return any(value for row in series for value in row.values)


def _reasons(counts: Mapping[str, Sequence[int]]) -> list[Series]:
    """Return the most frequent reasons, each in its own colour, and the others as one series."""
    ordered = sorted(counts, key=lambda name: (-sum(counts[name]), name))
    frequent = ordered[:_SHOWN_REASONS]
    remaining = ordered[_SHOWN_REASONS:]
    series = [Series(name, counts[name], f"r{at}") for at, name in enumerate(frequent)]
    other_counts = [sum(span) for span in zip_longest(*(counts[name] for name in remaining), fillvalue=0)]
    return [*series, Series("others", other_counts, "r5")] if remaining else series
