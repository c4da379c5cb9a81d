"""The comparison of two outputs as text, from the mapping that `pipeline diff --json` prints."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.logs import visible
from pipeline.terminal import BOLD, cut, grouped, in_colour, paragraph, percent_text, plural

State = tuple[str | None, str | None]
"""The states of a document before and now; None: it has no record."""

_NUMBER_COLUMNS = 48
"""Columns of the table beside the name of a field: four numbers and the head of `change`."""
STATES = {
    ("done", "done"): "done in both",
    ("done", "failed"): "done before, failed now",
    ("failed", "done"): "failed before, done now",
    ("failed", "failed"): "failed in both",
    ("done", None): "done before, not there now",
    ("failed", None): "failed before, not there now",
    (None, "done"): "not there before, done now",
    (None, "failed"): "not there before, failed now",
}


def state_key(label: str) -> str:
    """Return the JSON key of a state: `done_before_failed_now` for `done before, failed now`."""
    return label.replace(",", "").replace(" ", "_")


def _number_text(row: Mapping[str, Any]) -> str:
    """Return the change of a field's numbers; "" for one without a change."""
    if not row["up"] and not row["down"]:
        return ""
    median = f"median {row['median_before']:.6g} → {row['median_after']:.6g}"
    return f"  {median}, {grouped(row['up'])} up, {grouped(row['down'])} down"


def _shown_lines(comparison: Mapping[str, Any], *, colour: bool, width: int) -> Iterator[str]:
    """Yield the changed values of single documents."""
    for document in comparison["shown"]:
        yield ""
        yield in_colour(visible(document["id"]), BOLD, colour=colour)
        for change in document["changes"]:
            yield f"  {visible(change['field'])}"
            for sign, value in (("-", change["before"]), ("+", change["after"])):
                yield f"    {sign} {cut(visible(json.dumps(value, ensure_ascii=False)), max(width, 60) * 4)}"


def _nothing_yet(comparison: Mapping[str, Any], *, width: int) -> Iterator[str]:
    """Yield the reason why one output has nothing to compare, and the commands that make it comparable."""
    once = comparison["asked_once"]
    reason = f"{plural(once, 'document')} {'has' if once == 1 else 'have'} results of one fingerprint only"
    ways = "To compare the answers before and after, change a prompt, the schema or the model, and run again."
    yield from paragraph(f"Nothing to compare yet: {reason}. {ways} To compare with another output:", width=width)
    yield f"  pipeline diff {visible(shlex.quote(comparison['before']))} OTHER"


def diff_lines(comparison: Mapping[str, Any], *, colour: bool, width: int) -> Iterator[str]:
    """Yield the lines of the text."""
    title = (
        f"{comparison['before']}, earlier and current prompt, schema or model"
        if comparison["by"]
        else f"{comparison['before']} → {comparison['after']}"
    )
    yield in_colour(visible(title), BOLD, colour=colour)
    if not comparison["documents"]:
        yield from _nothing_yet(comparison, width=width)
    for label in STATES.values():
        if number := comparison["documents"].get(state_key(label)):
            yield f"{grouped(number):>12}  {label}"
    if (valid := comparison["done_share"])["before"] is not None:
        before = percent_text(valid["before"], 1)
        now = percent_text(valid["after"], 1)
        yield f"{'':>12}  valid results: {before} before, {now} now, of those in both"
    if not comparison["compared"]:
        return
    share = comparison["identical"] / comparison["compared"]
    yield f"{grouped(comparison['identical']):>12}  the same result ({percent_text(share, 1)} of those done in both)"
    yield ""
    longest = max(len("field"), *(len(visible(name)) for name in comparison["fields"]))
    column = max(len("field"), min(44, width - _NUMBER_COLUMNS, longest))
    head = f"{'field':<{column}}{'compared':>12}{'the same':>10}{'added':>9}{'lost':>9}  change"
    yield in_colour(head, BOLD, colour=colour)
    for name, row in comparison["fields"].items():
        items = f"{grouped(row['added']):>9}{grouped(row['lost']):>9}" if row["added"] or row["lost"] else f"{'':>18}"
        mean = _number_text(row)
        label = cut(visible(name), column)
        yield f"{label:<{column}}{grouped(row['compared']):>12}{row['agreement']:>10.1%}{items}{mean}".rstrip()
        for change in row["changes"]:
            yield f"{grouped(change['count']):>12}  {visible(change['before'])} → {visible(change['after'])}"
    if comparison["most_changed"]:
        yield ""
        yield in_colour("Changed most", BOLD, colour=colour)
        for document in comparison["most_changed"]:
            yield f"{plural(document['changed'], 'value'):>14}  {cut(visible(document['id']), width - 18)}"
    yield from _shown_lines(comparison, colour=colour, width=width)
