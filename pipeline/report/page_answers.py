"""The section "Are the answers true?" of the report page: sentences, bars of fields, quality against cost.

It must not compute a metric: the grades hold them all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.report.charts import Placed, PointChart, point_chart
from pipeline.report.grades import Cost, Gate, Grades, Metric, metric_text, point_text
from pipeline.report.history import HistoryRow
from pipeline.report.tables import Table, worst_documents
from pipeline.terminal import percent_text, plural

_BAR = 120
"""Pixels of a bar from 0 to 1."""


@dataclass(frozen=True, slots=True)
class FieldBar:
    """A field with a bar of its F1 and a line over its interval, in pixels; no `width` without a value."""

    name: str
    compared: int
    f1: str
    precision: str
    recall: str
    width: str
    low: str
    high: str
    tone: str


@dataclass(frozen=True, slots=True)
class Answers:
    """The content of the section."""

    gates: Sequence[Gate]
    sentences: Sequence[str]
    fields: Sequence[FieldBar]
    worst: Table


def answers(grades: Grades) -> Answers:
    """Return the grades of the first output as the page shows them."""
    output = grades.first
    bars = [
        FieldBar(
            name=f"{name} (approximate)" if row.approximate else name,
            compared=row.judged,
            f1=metric_text(row.f1),
            precision=point_text(row.precision),
            recall=point_text(row.recall),
            width=_pixels(row.f1.value if row.f1.low is not None else None),
            low=_pixels(row.f1.low),
            high=_pixels(row.f1.high),
            tone="r5" if row.f1.verdict == "too_few" else "ok",
        )
        for name, row in output.fields.items()
    ]
    return Answers(grades.gates, list(_sentences(grades)), bars, worst_documents(output))


def _pixels(share: float | None) -> str:
    return "" if share is None else f"{share * _BAR:.1f}"


def _sentences(grades: Grades) -> Iterator[str]:
    gold = grades.gold
    output = grades.first
    graded_text = f"{gold.graded} of {plural(gold.documents, 'document')} judged in {gold.file}"
    counts = {"failed": gold.failed, "changed": gold.changed, "absent": gold.absent}
    states = ", ".join(f"{number} {name}" for name, number in counts.items() if number)
    yield f"Graded {grades.at[:10]} against {graded_text}{f' ({states})' if states else ''}, gold {gold.sha256[:12]}."
    right = metric_text(output.documents_right)
    yield (
        f"F1 {metric_text(output.overall.f1)}, documents without an incorrect value {right}, "
        f"valid answers {metric_text(output.valid)}; each with its 95 % interval."
    )
    if cost := _cost_text(output.cost):
        yield f"A document took {cost}."
    if grades.people is not None:
        share = percent_text(grades.people.agreeing / grades.people.values)
        yield f"People who judged the same documents agree on {share} of {plural(grades.people.values, 'value')}."
    if grades.holdout_opened:
        times = plural(grades.holdout_opened, "time")
        yield f"The holdout was graded {times}, for {plural(grades.holdout_questions, 'fingerprint')}."
    if len(output.fields) > 1:
        number = len(output.fields)
        yield f"{number} fields are shown: about one interval in twenty misses its true value by chance."
    if output.not_graded:
        yield f"Not graded: {', '.join(output.not_graded)}."


def _cost_text(cost: Cost) -> str:
    """Return the cost of a graded document, to show beside its quality; "" when it is not known."""
    parts = [
        "" if cost.requests is None else f"{cost.requests:.2f} requests",
        f"{cost.reasks:.2f} to correct an invalid answer" if cost.reasks else "",
        "" if cost.prompt_tokens is None else f"{cost.prompt_tokens:,.0f} tokens in",
        "" if cost.completion_tokens is None else f"{cost.completion_tokens:,.0f} tokens out",
        "" if cost.p50_s is None or cost.p95_s is None else f"{cost.p50_s:.1f} s (95 % within {cost.p95_s:.1f} s)",
        "" if cost.per_1000 is None else f"{cost.per_1000:,.2f} for 1,000 documents",
    ]
    return ", ".join(filter(None, parts))


def quality_chart(rows: Sequence[HistoryRow]) -> PointChart | None:
    """Return F1 over the cost of a document, a point per run: over money if two runs, including the newest, know it.

    None for fewer than two graded runs: a single point compares nothing.
    """
    graded = [row for row in rows if _is_placed(row.f1) and row.document_s is not None]
    if len(graded) < 2:
        return None
    priced = [row for row in graded if row.per_1000 is not None]
    has_money = len(priced) > 1 and priced[-1] is graded[-1]
    graded = priced if has_money else graded
    placed = [
        Placed(f"run {row.run}, {row.finished_at[:10]}", x or 0.0, f1.value or 0.0, f1.low or 0.0, f1.high or 0.0)
        for row in graded
        if (f1 := row.f1) is not None
        for x in (row.per_1000 if has_money else row.document_s,)
    ]
    over = "money for 1,000 documents" if has_money else "seconds a document"
    return point_chart(f"F1 over {over}", placed, over=over)


def _is_placed(metric: Metric | None) -> bool:
    return metric is not None and metric.value is not None and metric.low is not None
