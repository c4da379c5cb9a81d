"""The grades of the answers as lines of the summary.

It must not compute a metric: the grades hold them all.
"""

from __future__ import annotations

from pipeline.report.grades import grades_of, metric_text
from pipeline.report.run_summary import Json
from pipeline.terminal import labelled, plural


def answers_lines(evaluation: Json | None, *, width: int) -> list[str]:
    """Return the grades and the gates in a few lines; no lines without an evaluation."""
    grades = grades_of(evaluation)
    if grades is None:
        return []
    judged = f"{plural(grades.gold.graded, 'judged document')} of {grades.gold.file}"
    summary = f"F1 {metric_text(grades.first.overall.f1)}, {judged}"
    lines = labelled("answers", summary, indent=0, width=width)
    for gate in grades.gates:
        lines += labelled("gate", f"{'passed' if gate.passed else 'FAILED'}: {gate.told}", indent=0, width=width)
    return lines
