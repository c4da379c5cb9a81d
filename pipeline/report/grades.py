"""The grades of the answers as frozen values: the part of an eval.json that text and page show.

It must not compute a metric.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.report import plain
from pipeline.report.run_summary import Json


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric with its 95 % interval; `verdict`: ok or too_few (documents)."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    verdict: str = "ok"


@dataclass(frozen=True, slots=True)
class Overall:
    """The metrics over all values."""

    f1: Metric = Metric()


@dataclass(frozen=True, slots=True)
class GradedField:
    """The metrics of one field; `approximate`: its lists were too long for the best pairing.

    `judged`: comparisons, those with values that no person named included.
    """

    judged: int = 0
    f1: Metric = Metric()
    precision: Metric = Metric()
    recall: Metric = Metric()
    approximate: bool = False


@dataclass(frozen=True, slots=True)
class Cost:
    """The average cost of a graded document; `per_1000`: money for 1,000 documents."""

    prompt_tokens: float | None = None
    completion_tokens: float | None = None
    requests: float | None = None
    reasks: float | None = None
    p50_s: float | None = None
    p95_s: float | None = None
    per_1000: float | None = None


@dataclass(frozen=True, slots=True)
class WorstDocument:
    """One of the documents with the most incorrect values."""

    id: str = ""
    wrong: int = 0
    state: str = ""


@dataclass(frozen=True, slots=True)
class GradedOutput:
    """The grades of one output."""

    output: str = ""
    valid: Metric = Metric()
    documents_right: Metric = Metric()
    overall: Overall = Overall()
    fields: Mapping[str, GradedField] = field(default_factory=dict)
    not_graded: tuple[str, ...] = ()
    cost: Cost = Cost()
    worst: tuple[WorstDocument, ...] = ()


@dataclass(frozen=True, slots=True)
class GoldRow:
    """The gold file, and its coverage by the output."""

    file: str = ""
    sha256: str = ""
    documents: int = 0
    graded: int = 0
    failed: int = 0
    changed: int = 0
    absent: int = 0


@dataclass(frozen=True, slots=True)
class Gate:
    """A gate and its explanation."""

    gate: str = ""
    passed: bool = False
    told: str = ""


@dataclass(frozen=True, slots=True)
class People:
    """The agreement of people who judged the same documents."""

    agreeing: int = 0
    values: int = 0


@dataclass(frozen=True, slots=True)
class Grades:
    """The grades of one or several outputs against gold."""

    at: str = ""
    gold: GoldRow = GoldRow()
    outputs: tuple[GradedOutput, ...] = ()
    gates: tuple[Gate, ...] = ()
    people: People | None = None
    holdout_opened: int = 0
    holdout_questions: int = 0

    @property
    def first(self) -> GradedOutput:
        """The output of the report; the others are compared with it."""
        return self.outputs[0] if self.outputs else GradedOutput()


def grades_of(evaluation: Json | None) -> Grades | None:
    """Return the grades in a run's summary; None without any."""
    return None if evaluation is None else plain.from_json(Grades, evaluation)


def metric_text(metric: Metric) -> str:
    """Return `0.90 (0.85 to 0.93)`, a dash without a value."""
    if metric.value is None:
        return "–"
    interval = "" if metric.low is None else f" ({metric.low:.2f} to {metric.high:.2f})"
    return f"{metric.value:.2f}{interval}{', too few documents' if metric.verdict == 'too_few' else ''}"


def point_text(metric: Metric) -> str:
    """Return the value alone, a dash without one."""
    return "–" if metric.value is None else f"{metric.value:.2f}"
