"""`pipeline diff OUT_A OUT_B`: what changed between two outputs over the same documents, or two questions in one.

It calls no model and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from typing import Any

from pipeline.agents.fingerprints import translated
from pipeline.cli.arguments import load_app, output_config
from pipeline.cli.flags import add_storage_flags
from pipeline.errors import EXIT_OK, ConfigError
from pipeline.logs import visible
from pipeline.output import backend_of, read_runs
from pipeline.output.latest_pairs import Last, Pair, Pairs
from pipeline.report.comparison import MOST_CHANGES, Comparison, FieldCounts
from pipeline.terminal import BOLD, WIDTH, cut, grouped, plural, tinted, wants_colour, write_out

EXAMPLES = """examples:
  pipeline diff out out/trial
  pipeline diff out out/trial --field companies.sentiment
  pipeline diff out --by fingerprint"""

_State = tuple[str | None, str | None]

DIFF_VERSION = 1
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
    command.add_argument("--by", choices=("fingerprint",), help="within one output: what was asked now and before")
    command.add_argument("--field", metavar="NAME", help="this field only, and how it changed: companies.sentiment")
    command.add_argument(
        "--key",
        metavar="LIST=FIELD",
        action="append",
        default=[],
        help="what tells the objects of a list apart: companies=ticker; repeatable",
    )
    command.add_argument("--json", action="store_true", help="for programs")
    add_storage_flags(command)


def main(arguments: argparse.Namespace, *, environ: Mapping[str, str]) -> int:
    """0, whatever changed; ConfigError for outputs that have nothing to compare."""
    before, after = _outputs(arguments, environ=environ)
    uris = dict.fromkeys((before, after))
    mediums = [backend_of(output_config(arguments, environ=environ, uri=uri)) for uri in uris]
    comparison = Comparison(only=arguments.field, keys=dict(_keys(arguments.key)))
    with closing(Pairs()) as pairs:
        if arguments.by:
            pairs.read_fingerprints(mediums[0], same_as=translated(read_runs(mediums[0])))
            states = _compare((pair for pair in pairs.fingerprints() if pair.before is not None), comparison)
        else:
            sizes = pairs.read_outputs(mediums[0], mediums[-1])
            _check_sizes(sizes, (before, after))
            states = _compare(pairs.outputs(), comparison)
    if not states:
        raise ConfigError(f"diff: got {before!r}, in which no document was asked in two ways")
    if arguments.field and not comparison.fields and comparison.documents:
        raise ConfigError(f"--field: got {arguments.field!r}, which no result has, need one as in companies.sentiment")
    found = _as_json(before, after, states=states, comparison=comparison, by=arguments.by)
    if arguments.json:
        write_out(json.dumps(found, indent=1))
    else:
        write_out("\n".join(_lines(found, colour=wants_colour(sys.stdout, environ))))
    return EXIT_OK


def _outputs(arguments: argparse.Namespace, *, environ: Mapping[str, str]) -> tuple[str, str]:
    """The two outputs, which are one with --by; the configured one is the one before, or the only one."""
    outs = arguments.outputs
    if len(outs) == (0 if arguments.by else 1):
        outs = [load_app(arguments, environ=environ).output.uri, *outs]
    if len(outs) != (1 if arguments.by else 2):
        need = "one output with --by fingerprint" if arguments.by else "two outputs, or one with --by fingerprint"
        raise ConfigError(f"diff: got {len(outs)} outputs, need {need}")
    return outs[0], outs[-1]


def _check_sizes(sizes: tuple[int, int], outputs: tuple[str, str]) -> None:
    for size, uri in zip(sizes, outputs, strict=True):
        if not size:
            raise ConfigError(f"diff: got {uri!r}, which holds no record, need the output of a run")


def _keys(texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    for text in texts:
        name, equals, key = text.partition("=")
        if not (name and equals and key):
            raise ConfigError(f"--key: got {text!r}, need LIST=FIELD, as in companies=ticker")
        yield name, key


def _compare(pairs: Iterable[Pair], comparison: Comparison) -> Counter[_State]:
    """Documents by what they were and are; the results of those that are done in both are compared."""
    states: Counter[_State] = Counter()
    for pair in pairs:
        state = (_state(pair.before), _state(pair.after))
        states[state] += 1
        if state == ("done", "done") and pair.before and pair.after and pair.before.line and pair.after.line:
            comparison.add(pair.id, json.loads(pair.before.line)["output"], json.loads(pair.after.line)["output"])
    return states


def _state(last: Last | None) -> str | None:
    return None if last is None else ("failed" if last.is_failed else "done")


def _as_json(
    before: str, after: str, *, states: Mapping[_State, int], comparison: Comparison, by: str | None
) -> dict[str, Any]:
    return {
        "v": DIFF_VERSION,
        "before": before,
        "after": after,
        "by": by,
        "documents": {_key(told): states[state] for state, told in _STATES.items() if states.get(state)},
        "done_share": _done_shares(states),
        "compared": comparison.documents,
        "identical": comparison.identical,
        "fields": {name: _field(counts) for name, counts in comparison.fields.items()},
        "most_changed": comparison.most_changed(),
    }


def _key(told: str) -> str:
    """`done before, failed now` for programs: `done_before_failed_now`."""
    return told.replace(",", "").replace(" ", "_")


def _done_shares(states: Mapping[_State, int]) -> dict[str, float | None]:
    """How many of the documents that are on both sides have a valid result before and after."""
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
        "changes": [{"before": old, "after": new, "count": number} for (old, new), number in changes],
    }


def _lines(found: Mapping[str, Any], *, colour: bool) -> Iterator[str]:
    what = f"{found['before']}, asked before and now" if found["by"] else f"{found['before']} → {found['after']}"
    yield tinted(visible(what), BOLD, colour=colour)
    for told in _STATES.values():
        if number := found["documents"].get(_key(told)):
            yield f"{grouped(number):>12}  {told}"
    if (valid := found["done_share"])["before"] is not None:
        yield f"{'':>12}  valid results: {valid['before']:.1%} before, {valid['after']:.1%} now, of those in both"
    if not found["compared"]:
        return
    share = found["identical"] / found["compared"]
    yield f"{grouped(found['identical']):>12}  the same result ({share:.1%} of those done in both)"
    yield ""
    width = min(44, max(len("field"), *(len(visible(name)) for name in found["fields"])))
    head = f"{'field':<{width}}{'compared':>12}{'the same':>10}{'added':>9}{'lost':>9}  change"
    yield tinted(head, BOLD, colour=colour)
    for name, row in found["fields"].items():
        items = f"{grouped(row['added']):>9}{grouped(row['lost']):>9}" if row["added"] or row["lost"] else f"{'':>18}"
        mean = "" if not row["mean_change"] else f"  {row['mean_change']:+.3g} on average"
        label = cut(visible(name), width)
        yield f"{label:<{width}}{grouped(row['compared']):>12}{row['agreement']:>10.1%}{items}{mean}".rstrip()
        for change in row["changes"]:
            yield f"{grouped(change['count']):>12}  {visible(change['before'])} → {visible(change['after'])}"
    if found["most_changed"]:
        yield ""
        yield tinted("Changed most", BOLD, colour=colour)
        for each in found["most_changed"]:
            yield f"{plural(each['changed'], 'value'):>14}  {cut(visible(each['id']), WIDTH - 18)}"
