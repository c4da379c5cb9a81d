"""`pipeline diff OUT_A OUT_B`: changes between two outputs over the same documents, or two questions in one output.

It must not call a model or write a file.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

from pipeline.agents.fingerprints import translated
from pipeline.cli.arguments import load_app, output_config
from pipeline.cli.flags import add_storage_flags, count
from pipeline.config.constraints import nearest_hint
from pipeline.errors import EXIT_OK, ConfigError
from pipeline.logs import visible
from pipeline.output import backend_of, read_runs
from pipeline.output.latest_pairs import Last, Pair, PairTable
from pipeline.report.comparison import MOST_CHANGES, Comparison, FieldCounts
from pipeline.terminal import (
    BOLD,
    cut,
    fitted,
    grouped,
    paragraph,
    plural,
    tinted,
    unwrapped_or_width,
    wants_colour,
    width_of,
    write_out,
)

EXAMPLES = """examples:
  pipeline diff out out/trial
  pipeline diff out out/trial --field companies.sentiment
  pipeline diff out --by fingerprint"""

_State = tuple[str | None, str | None]

DIFF_VERSION = 1
MOST_FIELDS = 12
_NUMBER_COLUMNS = 48
"""Columns of the table beside the name of a field: four numbers and the head of `change`."""
_STATES = {
    ("done", "done"): "done in both",
    ("done", "failed"): "done before, failed now",
    ("failed", "done"): "failed before, done now",
    ("failed", "failed"): "failed in both",
    ("done", None): "done before, not there now",
    ("failed", None): "failed before, not there now",
    (None, "done"): "not there before, done now",
    (None, "failed"): "not there before, failed now",
}


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the flags of this command."""
    command.add_argument(
        "outputs",
        metavar="OUT",
        nargs="*",
        help="the output before, and the one after: folders, s3://…; default of the first: output.uri",
    )
    command.add_argument(
        "--by", choices=("fingerprint",), help="compare the current and the earlier question within one output"
    )
    command.add_argument("--field", metavar="NAME", help="only this field, with its changes: companies.sentiment")
    command.add_argument(
        "--key",
        metavar="LIST=FIELD",
        action="append",
        default=[],
        help="the field that identifies the objects of a list: companies=ticker; repeatable",
    )
    command.add_argument(
        "--show",
        metavar="N",
        type=count,
        default=0,
        help="also the changed values of the N documents that changed most",
    )
    command.add_argument("--json", action="store_true", help="print JSON, for programs")
    add_storage_flags(command)


def main(arguments: argparse.Namespace, *, environ: Mapping[str, str]) -> int:
    """Return 0, whatever changed; ConfigError for outputs without anything to compare."""
    before, after = _outputs(arguments, environ=environ)
    uris = dict.fromkeys((before, after))
    backends = [backend_of(output_config(arguments, environ=environ, uri=uri)) for uri in uris]
    comparison = Comparison(only=arguments.field, keys=dict(_keys(arguments.key)), shown=arguments.show)
    once = 0
    with closing(PairTable()) as pairs:
        if arguments.by:
            size = pairs.read_fingerprints(backends[0], same_as=translated(read_runs(backends[0])))
            _check_sizes((size,), (before,))
            states, once = _compare_questions(pairs, comparison)
        else:
            sizes = pairs.read_outputs(backends[0], backends[-1])
            _check_sizes(sizes, (before, after))
            states = _compare(pairs.outputs(), comparison)
    if arguments.field and not comparison.fields and comparison.documents:
        raise ConfigError(_unknown_field(arguments.field, list(comparison.names)))
    report = _as_json(before, after, states=states, comparison=comparison, by=arguments.by) | {"asked_once": once}
    if arguments.json:
        write_out(json.dumps(report, indent=1))
    else:
        colour = wants_colour(sys.stdout, environ)
        lines = _lines(report, colour=colour, width=width_of(sys.stdout, environ))
        write_out("\n".join(fitted(lines, unwrapped_or_width(sys.stdout, environ))))
    return EXIT_OK


def _outputs(arguments: argparse.Namespace, *, environ: Mapping[str, str]) -> tuple[str, str]:
    """Return the two outputs, the same one with --by; an omitted one is `output.uri`."""
    outs = arguments.outputs
    if len(outs) == (0 if arguments.by else 1):
        outs = [load_app(arguments, environ=environ).output.uri, *outs]
    if len(outs) != (1 if arguments.by else 2):
        need = "one output with --by fingerprint" if arguments.by else "two outputs, or one with --by fingerprint"
        raise ConfigError(f"diff: got {len(outs)} outputs, need {need}")
    return outs[0], outs[-1]


def _unknown_field(name: str, names: Sequence[str]) -> str:
    """Return what is wrong with the field of --field, and the fields that there are."""
    more = ", …" if len(names) > MOST_FIELDS else ""
    known = f"fields: {', '.join(names[:MOST_FIELDS])}{more}{nearest_hint(name, names)}"
    return f"--field: got {name!r}, but no result has this field; {known}"


def _check_sizes(sizes: Sequence[int], outputs: Sequence[str]) -> None:
    for size, uri in zip(sizes, outputs, strict=True):
        if not size:
            raise ConfigError(f"diff: got {uri!r}, which holds no records, need the output of a run")


def _keys(texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    for text in texts:
        name, equals, key = text.partition("=")
        if not (name and equals and key):
            raise ConfigError(f"--key: got {text!r}, need LIST=FIELD, as in companies=ticker")
        yield name, key


def _compare_questions(pairs: PairTable, comparison: Comparison) -> tuple[Counter[_State], int]:
    """Compare the last two questions of each document; return also how many documents have been asked only one."""
    once = 0

    def several() -> Iterator[Pair]:
        nonlocal once
        for pair in pairs.fingerprints():
            once += pair.before is None
            if pair.before is not None:
                yield pair

    states = _compare(several(), comparison)
    return states, once


def _compare(pairs: Iterable[Pair], comparison: Comparison) -> Counter[_State]:
    """Count documents by their states before and now; compare the results of those done in both."""
    states: Counter[_State] = Counter()
    for pair in pairs:
        state = (_state(pair.before), _state(pair.after))
        states[state] += 1
        if state == ("done", "done") and pair.before and pair.after and pair.before.line and pair.after.line:
            comparison.add(pair.id, json.loads(pair.before.line)["output"], json.loads(pair.after.line)["output"])
    return states


def _state(last: Last | None) -> str | None:
    if last is None:
        return None
    return "failed" if last.is_failed else "done"


def _as_json(
    before: str, after: str, *, states: Mapping[_State, int], comparison: Comparison, by: str | None
) -> dict[str, Any]:
    return {
        "v": DIFF_VERSION,
        "before": before,
        "after": after,
        "by": by,
        "documents": {_key(label): states[state] for state, label in _STATES.items() if states.get(state)},
        "done_share": _done_shares(states),
        "compared": comparison.documents,
        "identical": comparison.identical,
        "fields": {name: _field(counts) for name, counts in comparison.fields.items()},
        "most_changed": comparison.most_changed(),
        "shown": comparison.shown(),
    }


def _key(label: str) -> str:
    """Return the JSON key of a state: `done_before_failed_now` for `done before, failed now`."""
    return label.replace(",", "").replace(" ", "_")


def _done_shares(states: Mapping[_State, int]) -> dict[str, float | None]:
    """Return the share of documents on both sides that have a valid result, before and after."""
    both = {state: number for state, number in states.items() if None not in state}
    every = sum(both.values())
    done = [sum(number for state, number in both.items() if state[side] == "done") for side in (0, 1)]
    before, after = (round(number / every, 4) if every else None for number in done)
    return {"before": before, "after": after}


def _field(counts: FieldCounts) -> dict[str, Any]:
    changes = counts.changes.most_common(MOST_CHANGES)
    return {
        "compared": counts.compared,
        "same": counts.same,
        "agreement": round(counts.same / counts.compared, 4),
        "added": counts.added,
        "lost": counts.lost,
        "mean_change": round(counts.moved / counts.numbers, 4) if counts.numbers else None,
        **_numbers(counts),
        "changes": [{"before": old, "after": new, "count": number} for (old, new), number in changes],
    }


def _numbers(counts: FieldCounts) -> dict[str, Any]:
    """Return the medians of the numbers of a field, and how many went up and down."""
    before, after = counts.before.range(), counts.after.range()
    if before is None or after is None:
        return {"median_before": None, "median_after": None, "up": 0, "down": 0}
    return {"median_before": before.median, "median_after": after.median, "up": counts.up, "down": counts.down}


def _number_text(row: Mapping[str, Any]) -> str:
    """Return the change of a field's numbers; "" for one without a change."""
    if not row["up"] and not row["down"]:
        return ""
    median = f"median {row['median_before']:.6g} → {row['median_after']:.6g}"
    return f"  {median}, {grouped(row['up'])} up, {grouped(row['down'])} down"


def _shown_lines(found: Mapping[str, Any], *, colour: bool, width: int) -> Iterator[str]:
    """Yield the changed values of single documents."""
    for document in found["shown"]:
        yield ""
        yield tinted(visible(document["id"]), BOLD, colour=colour)
        for change in document["changes"]:
            yield f"  {visible(change['field'])}"
            for sign, value in (("-", change["before"]), ("+", change["after"])):
                yield f"    {sign} {cut(visible(json.dumps(value, ensure_ascii=False)), max(width, 60) * 4)}"


def _nothing_yet(found: Mapping[str, Any], *, width: int) -> Iterator[str]:
    """Yield why there is nothing to compare in one output, and what gives something to compare."""
    once = found["asked_once"]
    asked = f"{plural(once, 'document')} {'has' if once == 1 else 'have'} been asked one question only"
    ways = "To compare the answers before and after, change a prompt, the schema or the model, and run again."
    yield from paragraph(f"Nothing to compare yet: {asked}. {ways} To compare with another output:", width=width)
    yield f"  pipeline diff {visible(shlex.quote(found['before']))} OTHER"


def _lines(found: Mapping[str, Any], *, colour: bool, width: int) -> Iterator[str]:
    title = (
        f"{found['before']}, earlier and current question" if found["by"] else f"{found['before']} → {found['after']}"
    )
    yield tinted(visible(title), BOLD, colour=colour)
    if not found["documents"]:
        yield from _nothing_yet(found, width=width)
    for label in _STATES.values():
        if number := found["documents"].get(_key(label)):
            yield f"{grouped(number):>12}  {label}"
    if (valid := found["done_share"])["before"] is not None:
        yield f"{'':>12}  valid results: {valid['before']:.1%} before, {valid['after']:.1%} now, of those in both"
    if not found["compared"]:
        return
    share = found["identical"] / found["compared"]
    yield f"{grouped(found['identical']):>12}  the same result ({share:.1%} of those done in both)"
    yield ""
    longest = max(len("field"), *(len(visible(name)) for name in found["fields"]))
    column = max(len("field"), min(44, width - _NUMBER_COLUMNS, longest))
    head = f"{'field':<{column}}{'compared':>12}{'the same':>10}{'added':>9}{'lost':>9}  change"
    yield tinted(head, BOLD, colour=colour)
    for name, row in found["fields"].items():
        items = f"{grouped(row['added']):>9}{grouped(row['lost']):>9}" if row["added"] or row["lost"] else f"{'':>18}"
        mean = _number_text(row)
        label = cut(visible(name), column)
        yield f"{label:<{column}}{grouped(row['compared']):>12}{row['agreement']:>10.1%}{items}{mean}".rstrip()
        for change in row["changes"]:
            yield f"{grouped(change['count']):>12}  {visible(change['before'])} → {visible(change['after'])}"
    if found["most_changed"]:
        yield ""
        yield tinted("Changed most", BOLD, colour=colour)
        for document in found["most_changed"]:
            yield f"{plural(document['changed'], 'value'):>14}  {cut(visible(document['id']), width - 18)}"
    yield from _shown_lines(found, colour=colour, width=width)
