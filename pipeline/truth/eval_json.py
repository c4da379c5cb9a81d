"""The content of eval.json: the evaluation as plain data, with the counts of each document for a later baseline.

It must not compute a metric.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.truth.evaluation import Agreement, FieldResult, OutputDifference, OutputResult
from pipeline.truth.gates import GateResult
from pipeline.truth.gold import Gold
from pipeline.truth.graded_output import ABSENT, CHANGED, FAILED, GradedDocument, GradedOutput
from pipeline.truth.intervals import Estimate

EVAL_VERSION = 1
DIGITS = 4
WORST = 10
"""Number of listed documents, those with the most incorrect values."""


@dataclass(frozen=True, slots=True)
class Openings:
    """Number of gradings of the holdout, and of the different prompts and schemas in them."""

    times: int = 0
    questions: int = 0


def gold_json(gold: Gold, output: GradedOutput, *, part: str) -> dict[str, Any]:
    """Return the documents of the gold by their state in the first output."""
    share = gold.accepted_unchanged
    return {
        "file": gold.path,
        "sha256": gold.sha256,
        "lines": gold.lines,
        "set": part,
        "documents": len(output.documents),
        "graded": sum(document.is_graded for document in output.documents),
        "failed": output.count(FAILED),
        "changed": output.count(CHANGED),
        "absent": output.count(ABSENT),
        "unknown_values": sum(document.grade.unknown for document in output.documents if document.grade is not None),
        "accepted_unchanged": None if share is None else round(share, DIGITS),
    }


def output_json(result: OutputResult, *, min_documents: int, per_1000: float | None = None) -> dict[str, Any]:
    """Return the grade of one output; `per_1000` is the cost of 1,000 documents."""
    tp, fp, fn = result.totals
    metrics = {name: metric_json(estimate, min_documents) for name, estimate in result.overall.items()}
    return {
        "output": result.name,
        "fingerprints": list(result.fingerprints),
        "valid": metric_json(result.valid, min_documents),
        "documents_right": metric_json(result.documents_right, min_documents),
        "overall": {"tp": tp, "fp": fp, "fn": fn, **metrics},
        "macro_f1": _rounded(result.macro_f1),
        "fields": {path: field_json(field, min_documents) for path, field in result.fields.items()},
        "not_graded": list(result.not_graded),
        "cost": {**{name: _rounded(value) for name, value in asdict(result.cost).items()}, "per_1000": per_1000},
        "hard": None if result.hard is None else _hard_json(result.hard, min_documents),
        "worst": _worst_documents(result.documents),
        "documents": [document_json(document) for document in result.documents],
    }


def metric_json(estimate: Estimate, min_documents: int) -> dict[str, Any]:
    """Return a metric with its interval and whether it rests on enough documents."""
    return {
        "value": _rounded(estimate.value),
        "low": _rounded(estimate.low),
        "high": _rounded(estimate.high),
        "documents": estimate.documents,
        "verdict": "ok" if estimate.documents >= min_documents else "too_few",
    }


def field_json(field: FieldResult, min_documents: int) -> dict[str, Any]:
    """Return the grade of one field."""
    counts = field.counts
    return {
        "compare": field.compare,
        "judged": counts.judged,
        "tp": counts.tp,
        "fp": counts.fp,
        "fn": counts.fn,
        "tn": counts.tn,
        **{name: metric_json(estimate, min_documents) for name, estimate in field.metrics.items()},
        "accuracy": None if field.accuracy is None else metric_json(field.accuracy, min_documents),
        "agreement": _rounded(field.agreement),
        "approximate": counts.approximate,
        "confusion": [[gold, predicted, number] for (gold, predicted), number in counts.confusion.items()] or None,
    }


def document_json(document: GradedDocument) -> dict[str, Any]:
    """Return the counts [TP, FP, FN, TN] of each field of a document, without any value."""
    fields = document.grade.fields if document.grade is not None else {}
    return {
        "id": document.gold.id,
        "sha256": document.gold.sha256,
        "gold": document.gold.digest,
        "state": document.state,
        "counts": {path: [c.tp, c.fp, c.fn, c.tn] for path, c in fields.items()},
    }


def difference_json(difference: OutputDifference) -> dict[str, Any]:
    """Return a paired difference with its verdict."""
    return {
        "output": difference.output,
        "field": difference.field,
        "metric": difference.metric,
        "value": _rounded(difference.change.value),
        "low": _rounded(difference.change.low),
        "high": _rounded(difference.change.high),
        "documents": difference.change.documents,
        "differing": difference.change.differing,
        "verdict": difference.verdict,
    }


def evaluation_json(
    *,
    gold: Mapping[str, Any],
    outputs: Sequence[Mapping[str, Any]],
    differences: Sequence[OutputDifference],
    gates: Sequence[GateResult],
    people: Agreement | None,
    openings: Openings,
    at: str,
) -> dict[str, Any]:
    """Return the content of eval.json."""
    return {
        "v": EVAL_VERSION,
        "at": at,
        "gold": dict(gold),
        "outputs": [dict(output) for output in outputs],
        "differences": [difference_json(difference) for difference in differences],
        "gates": [asdict(gate) for gate in gates],
        "people": None if people is None else asdict(people),
        "holdout_opened": openings.times,
        "holdout_questions": openings.questions,
    }


def without_documents(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a holdout's evaluation that may be shown: overall and gated metrics, no documents, no other
    fields."""
    gated = {gate["gate"].rpartition("=")[0].rpartition(".")[0] for gate in content["gates"]}
    outputs = [
        {
            **{name: value for name, value in output.items() if name not in ("documents", "worst")},
            "fields": {path: {**row, "confusion": None} for path, row in output["fields"].items() if path in gated},
        }
        for output in content["outputs"]
    ]
    return {**content, "outputs": outputs}


def _worst_documents(documents: Sequence[GradedDocument]) -> list[dict[str, Any]]:
    wrong_counts = [(sum(document.grade.totals[1:]), document) for document in documents if document.grade is not None]
    ranked = sorted((pair for pair in wrong_counts if pair[0]), key=lambda pair: (-pair[0], pair[1].gold.id))
    return [{"id": document.gold.id, "state": document.state, "wrong": number} for number, document in ranked[:WORST]]


def _hard_json(result: OutputResult, min_documents: int) -> dict[str, Any]:
    metrics = {name: metric_json(estimate, min_documents) for name, estimate in result.overall.items()}
    return {"documents": len(result.documents), "valid": metric_json(result.valid, min_documents), "overall": metrics}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)
