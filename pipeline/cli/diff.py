"""`pipeline diff OUT_A OUT_B`: changes between two outputs over the same documents, or two questions in one output.

It must not call a model or write a file.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

from pipeline.agents.fingerprints import translated
from pipeline.cli.arguments import load_app, output_config
from pipeline.cli.diff_text import STATES, State, diff_lines, state_key
from pipeline.cli.flags import add_storage_flags, count
from pipeline.config.constraints import nearest_hint
from pipeline.errors import EXIT_OK, ConfigError
from pipeline.output import ReadableOutput, backend_of, read_runs
from pipeline.output.latest_pairs import LastRecord, Pair, PairTable
from pipeline.report.comparison import MOST_CHANGES, Comparison, FieldCounts
from pipeline.terminal import fitted, unwrapped_or_width, wants_colour, width_of, write_out

EXAMPLES = """examples:
  pipeline diff out out/trial
  pipeline diff out out/trial --field companies.sentiment
  pipeline diff out --by fingerprint"""

DIFF_VERSION = 1
MOST_FIELDS = 12


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the flags of this command."""
    command.add_argument(
        "outputs",
        metavar="OUT",
        nargs="*",
        help="the output before, and the one after: folders, s3://…; default of the first: output.uri",
    )
    command.add_argument(
        "--by",
        choices=("fingerprint",),
        help="compare the results of the current and the previous fingerprint in one output",
    )
    command.add_argument("--field", metavar="NAME", help="only this field, with its changes: companies.sentiment")
    command.add_argument(
        "--key",
        metavar="LIST=FIELD",
        action="append",
        default=[],
        help="the field that identifies the objects of a list: companies=ticker; repeatable; default: the schema's "
        "x-key, else a usual name",
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
    """Print the comparison and return 0; ConfigError for outputs without common documents."""
    before, after = _outputs(arguments, environ=environ)
    uris = dict.fromkeys((before, after))
    backends = [backend_of(output_config(arguments, environ=environ, uri=uri)) for uri in uris]
    keys = {**_schema_keys(backends), **dict(_keys(arguments.key))}
    comparison = Comparison(only=arguments.field, keys=keys, shown=arguments.show)
    single_answers = 0
    with closing(PairTable()) as pairs:
        if arguments.by:
            size = pairs.read_fingerprints(backends[0], same_as=translated(read_runs(backends[0])))
            _check_sizes((size,), (before,))
            states, single_answers = _compare_questions(pairs, comparison)
        else:
            sizes = pairs.read_outputs(backends[0], backends[-1])
            _check_sizes(sizes, (before, after))
            states = _compare(pairs.outputs(), comparison)
    if arguments.field and not comparison.fields and comparison.documents:
        raise ConfigError(_unknown_field(arguments.field, list(comparison.names)))
    report = _as_json(before, after, states=states, comparison=comparison, by=arguments.by) | {
        "asked_once": single_answers
    }
    if arguments.json:
        write_out(json.dumps(report, indent=1))
    else:
        colour = wants_colour(sys.stdout, environ)
        lines = diff_lines(report, colour=colour, width=width_of(sys.stdout, environ))
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
    """Return the error message for an unknown --field, with the existing fields."""
    ellipsis = ", …" if len(names) > MOST_FIELDS else ""
    hint = f"fields: {', '.join(names[:MOST_FIELDS])}{ellipsis}{nearest_hint(name, names)}"
    return f"--field: got {name!r}, but no result has this field; {hint}"


def _check_sizes(sizes: Sequence[int], outputs: Sequence[str]) -> None:
    for size, uri in zip(sizes, outputs, strict=True):
        if not size:
            raise ConfigError(f"diff: got {uri!r}, which holds no records, need the output of a run")


def _schema_keys(backends: Iterable[ReadableOutput]) -> dict[str, Sequence[str]]:
    """Return the keys of lists (`x-key`) in the newest run of each output; those of the last output count."""
    keys: dict[str, Sequence[str]] = {}
    for backend in backends:
        newest = read_runs(backend)[-1:]
        keys |= newest[0].get("config", {}).get("list_keys", {}) if newest else {}
    return keys


def _keys(texts: Iterable[str]) -> Iterator[tuple[str, Sequence[str]]]:
    for text in texts:
        name, equals, key = text.partition("=")
        if not (name and equals and key):
            raise ConfigError(f"--key: got {text!r}, need LIST=FIELD, as in companies=ticker")
        yield name, (key,)


def _compare_questions(pairs: PairTable, comparison: Comparison) -> tuple[Counter[State], int]:
    """Compare the last two answers to different prompts of each document; also count documents with only one."""
    single_answers = 0

    def complete_pairs() -> Iterator[Pair]:
        nonlocal single_answers
        for pair in pairs.fingerprints():
            single_answers += pair.before is None
            if pair.before is not None:
                yield pair

    states = _compare(complete_pairs(), comparison)
    return states, single_answers


def _compare(pairs: Iterable[Pair], comparison: Comparison) -> Counter[State]:
    """Count documents by their states before and now; compare the results of those done in both."""
    states: Counter[State] = Counter()
    for pair in pairs:
        state = (_state(pair.before), _state(pair.after))
        states[state] += 1
        if state == ("done", "done") and pair.before and pair.after and pair.before.line and pair.after.line:
            comparison.add(pair.id, json.loads(pair.before.line)["output"], json.loads(pair.after.line)["output"])
    return states


def _state(last: LastRecord | None) -> str | None:
    if last is None:
        return None
    return "failed" if last.is_failed else "done"


def _as_json(
    before: str, after: str, *, states: Mapping[State, int], comparison: Comparison, by: str | None
) -> dict[str, Any]:
    return {
        "v": DIFF_VERSION,
        "before": before,
        "after": after,
        "by": by,
        "documents": {state_key(label): states[state] for state, label in STATES.items() if states.get(state)},
        "done_share": _done_shares(states),
        "compared": comparison.documents,
        "identical": comparison.identical,
        "fields": {name: _field(counts) for name, counts in comparison.fields.items()},
        "most_changed": comparison.most_changed(),
        "shown": comparison.shown_documents(),
    }


def _done_shares(states: Mapping[State, int]) -> dict[str, float | None]:
    """Return the share of documents on both sides that have a valid result, before and after."""
    common = {state: number for state, number in states.items() if None not in state}
    every = sum(common.values())
    done = [sum(number for state, number in common.items() if state[side] == "done") for side in (0, 1)]
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
