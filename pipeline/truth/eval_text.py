"""The evaluation as text for a terminal: the verdict of each gate, the metrics of each output, one line per field.

It must not quote a value of a document, an answer or the gold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.logs import visible
from pipeline.terminal import BOLD, GREEN, RED, cut, hanging_indent, in_colour, paragraph, percent_text, plural
from pipeline.truth.evaluate import HOLDOUT

_FIELD_COLUMNS = 60
"""Widest column of field names; from this width on, precision and recall have columns of their own."""
_WIDE = 90
_VERDICTS = {
    "better": "better",
    "worse": "WORSE",
    "not_shown": "no difference is shown",
    "too_few": "too few documents differ to say",
}


def evaluation_text(content: Mapping[str, Any], *, colour: bool, width: int) -> str:
    """Return the text of an eval.json; for a holdout only its overall and gated metrics."""
    holdout = content["gold"]["set"] == HOLDOUT
    lines = list(_head(content, width=width))
    for output in content["outputs"]:
        lines += ["", *_output(output, colour=colour, width=width, holdout=holdout)]
    if content["differences"]:
        lines += ["", *_differences(content, width=width)]
    if content["gates"]:
        lines += ["", *_gates(content, colour=colour, width=width)]
    return "\n".join(lines)


def metric_text(metric: Mapping[str, Any] | None) -> str:
    """Return a metric with its interval: `0.90 (0.87 to 0.93)`; `-` where it is not defined."""
    if metric is None or metric["value"] is None:
        return "-"
    if metric["low"] is None:
        return f"{metric['value']:.2f}"
    return f"{metric['value']:.2f} ({metric['low']:.2f} to {metric['high']:.2f})"


def _head(content: Mapping[str, Any], *, width: int) -> Iterator[str]:
    gold = content["gold"]
    states = [f"{gold[name]} {name}" for name in ("failed", "changed", "absent") if gold[name]]
    counts = f" ({', '.join(states)})" if states else ""
    yield from paragraph(
        f"{visible(gold['file'])} ({gold['set']}): {gold['graded']} of {plural(gold['documents'], 'document')} "
        f"graded{counts}",
        width=width,
    )
    if gold["set"] == HOLDOUT:
        opened = content["holdout_opened"]
        variants = f", for {plural(content['holdout_questions'], 'fingerprint')}" if opened else ""
        yield from paragraph(f"The holdout was graded {plural(opened, 'time')} before{variants}.", width=width)
    if gold["accepted_unchanged"] is not None and gold["accepted_unchanged"] > 0:
        share = (
            f"{percent_text(gold['accepted_unchanged'])} of the judged fields were accepted as a model had answered."
        )
        yield from paragraph(share, width=width)
    people = content["people"]
    if people is not None:
        share = percent_text(people["agreeing"] / people["values"])
        yield from paragraph(
            f"{people['people']} people agree on {share} of {plural(people['values'], 'value')} that two of them "
            "judged: no model can agree with them more than that.",
            width=width,
        )


def _output(output: Mapping[str, Any], *, colour: bool, width: int, holdout: bool) -> Iterator[str]:
    yield in_colour(cut(visible(output["output"]), width), BOLD, colour=colour)
    rows = [
        ("F1", output["overall"]["f1"]),
        ("precision", output["overall"]["precision"]),
        ("recall", output["overall"]["recall"]),
        ("documents right", output["documents_right"]),
        ("valid answers", output["valid"]),
    ]
    for name, metric in rows:
        yield from hanging_indent(
            f"{name:<16}  {metric_text(metric)}{_too_few(metric)}", indent=2, width=width, hang=20
        )
    if output["hard"] is not None:
        hard = output["hard"]
        number = plural(hard["documents"], "document")
        text = f"F1 {metric_text(hard['overall']['f1'])}, {number} that were not drawn by chance"
        yield from hanging_indent(f"{'looked hard':<16}  {text}", indent=2, width=width, hang=20)
    cost = _cost(output["cost"])
    if cost:
        yield from hanging_indent(f"a document costs {cost}", indent=2, width=width)
    if holdout:
        return
    yield ""
    yield from _fields(output, width=width)
    if output["worst"]:
        yield ""
        yield "  most incorrect values"
        for document in output["worst"]:
            failed = ", failed" if document["state"] == "failed" else ""
            yield f"  {document['wrong']:>6}  {cut(visible(document['id']), width - 18)}{failed}"


def _fields(output: Mapping[str, Any], *, width: int) -> Iterator[str]:
    wide = width >= _WIDE
    names = [visible(name) for name in output["fields"]]
    column = min(max([len("field"), *map(len, names)]), _FIELD_COLUMNS, max(12, width - (58 if wide else 36)))
    head = f"  {'field':<{column}}  {'compared':>8}  {'F1':<20}"
    yield (f"{head}  precision  recall" if wide else head).rstrip()
    for name, row in output["fields"].items():
        line = f"  {cut(visible(name), column):<{column}}  {row['judged']:>8}  {metric_text(row['f1']):<20}"
        if wide:
            line += f"  {_point(row['precision']):>9}  {_point(row['recall']):>6}"
        if row["approximate"]:
            line += "  approximate"
        yield line.rstrip()
    if output["not_graded"]:
        omitted = ", ".join(map(visible, output["not_graded"]))
        text = f"not graded: {omitted} (free text and quotes; eval.fields chooses a comparison)"
        yield from (f"  {line}" for line in paragraph(text, width=width - 2))


def _differences(content: Mapping[str, Any], *, width: int) -> Iterator[str]:
    yield f"against {visible(content['outputs'][0]['output'])}"
    for row in content["differences"]:
        value = "-" if row["value"] is None else f"{row['value']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})"
        text = (
            f"{visible(row['output'])}: {row['field']}.{row['metric']} {value}, {row['differing']} of "
            f"{plural(row['documents'], 'document')} differ: {_VERDICTS[row['verdict']]}"
        )
        yield from (f"  {line}" for line in paragraph(text, width=width - 2))


def _gates(content: Mapping[str, Any], *, colour: bool, width: int) -> Iterator[str]:
    for gate in content["gates"]:
        mark = in_colour("passed", GREEN, colour=colour) if gate["passed"] else in_colour("FAILED", RED, colour=colour)
        first, *more_lines = paragraph(visible(gate["told"]), width=width - 8)
        yield f"{mark}  {first}"
        yield from (f"        {line}" for line in more_lines)


def _cost(cost: Mapping[str, Any]) -> str:
    parts = [
        f"{cost['requests']:.2f} requests" if cost["requests"] is not None else "",
        f"{cost['reasks']:.2f} to correct an invalid answer" if cost["reasks"] else "",
        f"{cost['prompt_tokens']:,.0f} prompt tokens" if cost["prompt_tokens"] is not None else "",
        f"{cost['completion_tokens']:,.0f} answer tokens" if cost["completion_tokens"] is not None else "",
        f"{cost['p50_s']:.2g} s (p95 {cost['p95_s']:.2g} s)" if cost["p50_s"] is not None else "",
        f"{cost['per_1000']:g} for 1,000" if cost["per_1000"] is not None else "",
    ]
    return ", ".join(filter(None, parts))


def _point(metric: Mapping[str, Any]) -> str:
    return "-" if metric["value"] is None else f"{metric['value']:.2f}"


def _too_few(metric: Mapping[str, Any]) -> str:
    return f"  ({plural(metric['documents'], 'document')}: too few to say)" if metric["verdict"] == "too_few" else ""
