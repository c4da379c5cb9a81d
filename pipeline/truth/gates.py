"""Gates: the minimum of a metric, and the largest drop against an earlier evaluation.

A gate compares the lower bound of a metric's interval, unless it ends with `:point`. It must not read a file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipeline.config.constraints import nearest, nearest_hint
from pipeline.errors import ConfigError
from pipeline.terminal import percent_text, plural
from pipeline.truth.evaluation import OVERALL, OutputResult, triple_of
from pipeline.truth.intervals import (
    FEWEST_DIFFERING,
    METRICS,
    Change,
    Estimate,
    Triple,
    change,
    documents_needed,
    documents_needed_as_measured,
)

MOST_MISSING = 0.1
"""The largest share of gold documents that may be absent or changed; above it the gates prove nothing about the
archive."""
OVERALL_METRICS = (*METRICS, "documents_right", "valid", "macro_f1")
FIELD_METRICS = (*METRICS, "accuracy")
_GATE = re.compile(r"([^=]+)\.([a-z0-9_]+)(:point)?=([^=]+)")


@dataclass(frozen=True, slots=True)
class Gate:
    """The minimum of a field's metric; with `is_point` the value itself is compared, not its lower bound."""

    field: str
    metric: str
    least: float
    is_point: bool = False

    def __str__(self) -> str:
        return f"{self.field}.{self.metric}{':point' if self.is_point else ''}={self.least:g}"


@dataclass(frozen=True, slots=True)
class GateResult:
    """The verdict of one gate; `told`, a key of eval.json, is its message."""

    gate: str
    passed: bool
    told: str


def parse_gate(text: str, *, fields: Sequence[str], key: str) -> Gate:
    """Parse `FIELD.METRIC=NUMBER` or `FIELD.METRIC:point=NUMBER`; ConfigError that names the nearest field."""
    match = _GATE.fullmatch(text)
    need = "need FIELD.METRIC=NUMBER"
    if match is None:
        raise ConfigError(f"{key}: got {text!r}, {need}, as in {_example(text, fields)}")
    field, metric, point, number = match.groups()
    if f"{field}.{metric}" in fields:
        raise ConfigError(f"{key}: got {text!r}, {need}, as in {field}.{metric}.f1={number}")
    if field != OVERALL and field not in fields:
        near = nearest(field, [OVERALL, *fields])
        raise ConfigError(f"{key}: got {text!r}, {need}{f'; the nearest field is {near}' if near else ''}")
    metrics = OVERALL_METRICS if field == OVERALL else FIELD_METRICS
    if metric not in metrics:
        names = ", ".join(metrics)
        raise ConfigError(f"{key}: got {text!r}, need a metric of {field}: {names}{nearest_hint(metric, metrics)}")
    return Gate(field, metric, _share(number, f"{key}: got {text!r}"), is_point=point is not None)


def judge_gate(gate: Gate, result: OutputResult, *, min_documents: int) -> GateResult:
    """Judge whether the lower bound of the metric reaches the gate; a gate that cannot be judged fails."""
    estimate = estimate_of(result, gate.field, gate.metric)
    name = f"{gate.field}.{gate.metric}"
    if estimate is None or estimate.value is None:
        return GateResult(str(gate), passed=False, told=f"{name}: no document to judge it by")
    if estimate.documents < min_documents:
        message = f"{name}: too few documents to say ({estimate.documents} of {min_documents})"
        return GateResult(str(gate), passed=False, told=message)
    if gate.is_point or estimate.low is None:
        passed = estimate.value >= gate.least
        return GateResult(str(gate), passed, f"{name}: {estimate.value:.2f} {_word(passed)} {gate.least:g}")
    basis = plural(estimate.documents, "document")
    measured = f"{name}: {estimate.value:.2f} ({estimate.low:.2f} to {estimate.high:.2f}, {basis})"
    if estimate.low >= gate.least:
        return GateResult(str(gate), passed=True, told=f"{measured} is {gate.least:g} or more")
    message = f"{measured} is not surely {gate.least:g} or more"
    needed = _documents_needed(gate, estimate)
    if needed is not None:
        message += (
            f"; at {estimate.value:.2f} that takes about {needed:,} documents, or write {name}:point={gate.least:g}"
        )
    return GateResult(str(gate), passed=False, told=message)


def completeness_gate(*, graded: int, missing: int) -> GateResult | None:
    """Return a failed gate when too many gold documents are absent or changed."""
    total = graded + missing
    if not total or missing / total <= MOST_MISSING:
        return None
    most_missing = percent_text(MOST_MISSING)
    message = f"INCOMPLETE: {missing} of {total} gold documents are absent or have changed, more than {most_missing}"
    return GateResult("complete", passed=False, told=message)


def judge_drop(
    result: OutputResult, baseline: Mapping[str, Any], *, max_drop: float, gates: Sequence[Gate], min_documents: int
) -> list[GateResult]:
    """Compare with an earlier eval.json over the documents with the same gold; ConfigError when it is not an eval.json.

    A metric fails when it fell by `max_drop` or more and the paired interval is below 0, and when fewer than
    `min_documents` can be compared.
    """
    earlier = _earlier_documents(baseline)
    shared = [
        document
        for document in result.documents
        if earlier.get(document.gold.id, {}).get("gold") == document.gold.digest
    ]
    compared = dict.fromkeys(
        [(OVERALL, "f1"), *((gate.field, gate.metric) for gate in gates if gate.metric in METRICS)]
    )
    results: list[GateResult] = []
    for field, metric in compared:
        pairs = [
            (_earlier_counts(earlier[document.gold.id], field, result), triple_of(document, field))
            for document in shared
        ]
        result_of = partial(_drop_result, f"{field}.{metric}", change(pairs, metric), max_drop=max_drop)
        omitted = len(result.documents) - len(shared)
        results.append(result_of(shared=len(shared), omitted=omitted, min_documents=min_documents))
    return results


def estimate_of(result: OutputResult, field: str, metric: str) -> Estimate | None:
    """Return the estimate that a gate names; None when the field has no such metric."""
    if field == OVERALL:
        shares = {"documents_right": result.documents_right, "valid": result.valid}
        if metric == "macro_f1":
            return Estimate(result.macro_f1, None, None, len(result.documents))
        return shares.get(metric) or result.overall.get(metric)
    field_result = result.fields.get(field)
    if field_result is None:
        return None
    return field_result.accuracy if metric == "accuracy" else field_result.metrics.get(metric)


def _example(text: str, fields: Sequence[str]) -> str:
    """Return the gate closest to a text that lacks a field, a metric or a number."""
    name, _, number = text.partition("=")
    name, point, _ = name.partition(":point")
    names = [OVERALL, *fields, *OVERALL_METRICS, *(f"{OVERALL}.{metric}" for metric in OVERALL_METRICS)]
    near = name if name in names else nearest(name, names) or OVERALL
    if near in OVERALL_METRICS:
        near = f"{OVERALL}.{near}"
    elif near == OVERALL or near in fields:
        near = f"{near}.f1"
    return f"{near}{point}={number or 0.8}"


def _documents_needed(gate: Gate, estimate: Estimate) -> int | None:
    """Return the approximate number of documents that a gate needs at this value; a share counts documents."""
    if gate.metric in METRICS:
        return documents_needed_as_measured(estimate, gate.least)
    return documents_needed(estimate.value or 0.0, gate.least)


def _drop_result(
    name: str, change: Change, *, max_drop: float, shared: int, omitted: int, min_documents: int
) -> GateResult:
    """Return the verdict about a metric; the gold of `omitted` documents differs from that of the baseline."""
    gate = f"{name} max_drop={max_drop:g}"
    if change.value is None:
        return GateResult(gate, passed=False, told=f"{name}: no document to compare with the baseline")
    if change.documents < min_documents:
        message = f"{name}: too few documents to compare with the baseline ({change.documents} of {min_documents})"
        return GateResult(gate, passed=False, told=message)
    interval = "" if change.low is None or change.high is None else f"{change.low:+.3f} to {change.high:+.3f}, "
    basis = f"{interval}{plural(shared, 'document')}, {change.differing} differ"
    change_text = f"{name}: {change.value:+.3f} ({basis}) against the baseline"
    if omitted:
        change_text += f" ({plural(omitted, 'document')} with changed gold not compared)"
    if change.value > -max_drop:
        return GateResult(
            gate,
            passed=True,
            told=f"{change_text}, a drop below {max_drop:g}" if change.value < 0 else change_text,
        )
    drop_text = f"{change_text}, a drop of {max_drop:g} or more"
    if change.differing < FEWEST_DIFFERING:
        message = f"{drop_text}; a drop cannot be shown on fewer than {FEWEST_DIFFERING} differing documents"
        return GateResult(gate, passed=True, told=message)
    is_shown = change.high is not None and change.high < 0
    return GateResult(gate, passed=not is_shown, told=drop_text if is_shown else f"{drop_text}; that may be chance")


def _earlier_documents(baseline: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    try:
        return {document["id"]: document for document in baseline["outputs"][0]["documents"] if "counts" in document}
    except (KeyError, IndexError, TypeError) as exc:
        raise ConfigError("--baseline: is not an eval.json, need the one that an earlier evaluation wrote") from exc


def _earlier_counts(document: Mapping[str, Any], field: str, result: OutputResult) -> Triple:
    counts = document["counts"]
    rows = [counts[field]] if field in counts else []
    if field == OVERALL:  # the rows of lists of objects would count their objects twice
        lists = {path for path, field_result in result.fields.items() if not field_result.counts.is_leaf}
        rows = [row for path, row in counts.items() if path not in lists]
    return sum(row[0] for row in rows), sum(row[1] for row in rows), sum(row[2] for row in rows)


def _share(number: str, at: str) -> float:
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ConfigError(f"{at}, need a number from 0 to 1")
    return value


def _word(passed: bool) -> str:
    return "is at least" if passed else "is below"
