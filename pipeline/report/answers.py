"""The grades of the answers in a report: a section of the page, and lines of the summary.

It must not compute a metric: `eval` of the report holds them all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.report.markup import section, text
from pipeline.terminal import labelled, plural

_BAR = 120
"""Pixels of a bar from 0 to 1."""


def answers_lines(evaluation: Mapping[str, Any] | None, *, width: int) -> list[str]:
    """Return the grades and the gates in a few lines; no lines without an evaluation."""
    if evaluation is None:
        return []
    output = evaluation["outputs"][0]
    gold = evaluation["gold"]
    told = f"F1 {_metric(output['overall']['f1'])}, {plural(gold['graded'], 'judged document')} of {gold['file']}"
    lines = labelled("answers", told, indent=0, width=width)
    for gate in evaluation["gates"]:
        lines += labelled("gate", f"{'passed' if gate['passed'] else 'FAILED'}: {gate['told']}", indent=0, width=width)
    return lines


def answers_section(evaluation: Mapping[str, Any] | None) -> str:
    """Return the section "Are the answers true?"; "" without an evaluation."""
    if evaluation is None:
        return ""
    output = evaluation["outputs"][0]
    return section(
        "Are the answers true?",
        "\n".join(
            [
                *(f"<p>{sentence}</p>" for sentence in _sentences(evaluation, output)),
                _fields_table(output),
                _worst_table(output),
            ]
        ),
    )


def _sentences(evaluation: Mapping[str, Any], output: Mapping[str, Any]) -> Iterator[str]:
    gold = evaluation["gold"]
    for gate in evaluation["gates"]:
        mark = "passed" if gate["passed"] else "failed"
        yield f"<strong>Gate {mark}:</strong> {text(gate['told'])}"
    counted = f"{gold['graded']} of {plural(gold['documents'], 'document')} judged in {gold['file']}"
    states = ", ".join(f"{gold[name]} {name}" for name in ("failed", "changed", "absent") if gold[name])
    digest = gold["sha256"][:12]
    yield text(f"Graded {evaluation['at'][:10]} against {counted}{f' ({states})' if states else ''}, gold {digest}.")
    right = _metric(output["documents_right"])
    valid = _metric(output["valid"])
    yield text(
        f"F1 {_metric(output['overall']['f1'])}, documents without any wrong value {right}, valid answers {valid}; "
        f"each with its 95 % interval."
    )
    if (cost := _cost(output["cost"])) is not None:
        yield text(cost)
    people = evaluation["people"]
    if people is not None:
        share = people["agreeing"] / people["values"]
        yield text(f"People who judged the same documents agree on {share:.0%} of {people['values']:,} values.")
    if output["not_graded"]:
        yield text(f"Not graded: {', '.join(output['not_graded'])}.")


def _cost(cost: Mapping[str, Any]) -> str | None:
    """Return what a graded document cost, which belongs beside its quality; None when nothing is known."""
    parts = [
        f"{cost['requests']:.2f} requests" if cost["requests"] is not None else "",
        f"{cost['prompt_tokens']:,.0f} tokens in" if cost["prompt_tokens"] is not None else "",
        f"{cost['completion_tokens']:,.0f} tokens out" if cost["completion_tokens"] is not None else "",
        f"{cost['p50_s']:.1f} s (95 % within {cost['p95_s']:.1f} s)" if cost["p50_s"] is not None else "",
        f"{cost['per_1000']:,.2f} for 1,000 documents" if cost["per_1000"] is not None else "",
    ]
    known = ", ".join(filter(None, parts))
    return f"A document took {known}." if known else None


def _fields_table(output: Mapping[str, Any]) -> str:
    head = "".join(
        f"<th scope=col>{name}</th>" for name in ("Field", "Judged", "F1, from 0 to 1", "F1", "Precision", "Recall")
    )
    rows = "".join(_field_row(name, row) for name, row in output["fields"].items())
    if not rows:
        return ""
    return f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"


def _field_row(name: str, row: Mapping[str, Any]) -> str:
    approximate = " (approximate)" if row["approximate"] else ""
    cells = (row["judged"], _metric(row["f1"]), _point(row["precision"]), _point(row["recall"]))
    judged, *metrics = (f"<td class=n>{text(cell)}</td>" for cell in cells)
    return (
        f"<tr><th scope=row>{text(name + approximate)}</th>{judged}<td>{_bar(row['f1'])}</td>{''.join(metrics)}</tr>\n"
    )


def _bar(metric: Mapping[str, Any]) -> str:
    """Return a bar of the value with a line over its interval."""
    if metric["value"] is None or metric["low"] is None:
        return ""
    value, low, high = (round(metric[name] * _BAR, 1) for name in ("value", "low", "high"))
    name = text(f"F1 {_metric(metric)}")
    opacity = "0.35" if metric["verdict"] == "too_few" else "0.6"
    return (
        f'<svg role=img aria-label="{name}" width={_BAR} height=14 viewBox="0 0 {_BAR} 14">'
        f'<rect x=0 y=3 width={value} height=8 fill="currentColor" opacity={opacity} />'
        f'<line x1={low} x2={high} y1=7 y2=7 stroke="currentColor" stroke-width=2 /></svg>'
    )


def _worst_table(output: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><th scope=row>{text(document['id'])}</th><td class=n>{text(document['wrong'])}</td>"
        f"<td>{text(document['state'])}</td></tr>\n"
        for document in output.get("worst", ())
    )
    if not rows:
        return ""
    head = "".join(f"<th scope=col>{name}</th>" for name in ("Document", "Wrong values", "State"))
    return f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"


def _metric(metric: Mapping[str, Any]) -> str:
    if metric["value"] is None:
        return "–"
    interval = "" if metric["low"] is None else f" ({metric['low']:.2f} to {metric['high']:.2f})"
    return f"{metric['value']:.2f}{interval}{', too few documents' if metric['verdict'] == 'too_few' else ''}"


def _point(metric: Mapping[str, Any]) -> str:
    return "–" if metric["value"] is None else f"{metric['value']:.2f}"
