"""The entry of a shard in the index of runs: a small file with the facts about its runs that later runs and reports
need.

    .runs/run-00003-of-00016.00000012.json      shard 3 of 16, whose newest run is 12
    .runs/run.00000013.again.json               runs without shards; documents must be sent again

It must not read or write a file; run_index.py does. An entry holds only derived data: it can always be rebuilt from the
summaries in `runs/`, oldest first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.output.runs import ASK_AGAIN
from pipeline.shards import SUFFIX, Shard, shard_of_label, shard_of_suffix
from pipeline.values.drift import FEWEST_DOCUMENTS
from pipeline.values.value_profile import from_json, merged, to_json

FOLDER = ".runs"
HISTORY = 30
"""The number of earlier runs of a shard in the report's history; only their main figures are kept."""

HISTORY_OF_SET = 2000
"""The most history rows that a report reads of all shards together; each of many shards gets fewer."""

_QUESTIONS = 100
"""The number of newest distinct prompts and schemas in an entry: each may take some kB."""

_NAME = re.compile(rf"{re.escape(FOLDER)}/run(|{SUFFIX})\.([0-9]{{8,}})(\.again)?\.json")
_KEYS = frozenset({"answered", "newest", "kept", "earlier", "ask_again", "questions", "history", "files"})

Run = Mapping[str, Any]
Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class EntryName:
    """The components of an entry's name, from which a listing answers most queries. `asks_again`: see `ask_again`."""

    path: str
    shard: Shard
    run: int
    asks_again: bool


def entry_names(paths: Iterable[str]) -> dict[Shard, EntryName]:
    """Return the newest entry of each shard; a killed run may have left an older one as well."""
    newest: dict[Shard, EntryName] = {}
    for match in filter(None, map(_NAME.fullmatch, paths)):
        shard = shard_of_suffix(match[1])
        name = EntryName(match[0], shard, int(match[2]), bool(match[3]))
        if shard not in newest or newest[shard].run < name.run:
            newest[shard] = name
    return newest


def is_entry_of(path: str, shard: Shard) -> bool:
    """Return True for the path of an entry of this shard."""
    match = _NAME.fullmatch(path)
    return match is not None and match[1] == shard.suffix


def name_of(entry: Entry, shard: Shard) -> EntryName:
    """Return the name of an entry's file."""
    again_suffix = ".again" if entry["ask_again"] else ""
    run = entry["newest"]["run"]
    return EntryName(f"{FOLDER}/run{shard.suffix}.{run:08d}{again_suffix}.json", shard, run, bool(again_suffix))


def shard_of_run(run: Run) -> Shard:
    """Return the shard of a summary, which has it as a label."""
    return shard_of_label(run.get("shard"))


def parsed_entry(data: bytes) -> Entry | None:
    """Return the entry of a file; None for an invalid file or another format."""
    try:
        entry = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) and entry.keys() >= _KEYS else None


def entries_of(runs: Sequence[Run]) -> dict[Shard, Entry]:
    """Return the entries of all shards, built from the summaries of their runs, oldest first."""
    by_shard: dict[Shard, list[Run]] = {}
    for run in runs:
        by_shard.setdefault(shard_of_run(run), []).append(run)
    return {shard: _entry(own) for shard, own in by_shard.items()}


def entry_after(entry: Entry | None, run: Run) -> Entry:
    """Return the entry of a shard after one more run."""
    if entry is None:
        return _entry([run])
    before = entry["newest"]
    compared = _compared([*entry["kept"], before])
    dropped = [earlier_run for earlier_run in [*entry["kept"], before] if earlier_run not in compared]
    return {
        "v": 1,
        "newest": dict(run),
        "kept": compared,
        "earlier": _merged_profiles([*entry["earlier"], *dropped]),
        "ask_again": {**entry["ask_again"], **asked_again([run])},
        "questions": distinct([*questions([run]), *entry["questions"]])[:_QUESTIONS],
        "answered": list(dict.fromkeys([*_answered([run]), *entry["answered"]]))[:_QUESTIONS],
        "history": [*entry["history"], history_row(before)][-HISTORY:],
        "files": entry["files"] + 1,
    }


def _entry(runs: Sequence[Run]) -> Entry:
    """Return the entry of one shard from all its runs."""
    newest = runs[-1]
    before = runs[:-1]
    kept = _compared(before)
    return {
        "v": 1,
        "newest": dict(newest),
        "kept": kept,
        "earlier": _merged_profiles([run for run in before if run not in kept]),
        "ask_again": asked_again(runs),
        "questions": distinct(questions(reversed(runs)))[:_QUESTIONS],
        "answered": list(dict.fromkeys(_answered(reversed(runs))))[:_QUESTIONS],
        "history": [history_row(run) for run in before[-HISTORY:]],
        "files": len(runs),
    }


def _compared(runs: Sequence[Run]) -> list[Run]:
    """Return the runs with which the next run is compared: the last one with results, and the last one with enough."""
    with_results = [run for run in runs if run.get("stats", {}).get("outcomes", {}).get("done")]
    profiled = [run for run in runs if _profiled_documents(run) >= FEWEST_DOCUMENTS]
    chosen = with_results[-1:] + profiled[-1:]
    return [run for run in runs if any(run is compared_run for compared_run in chosen)]


def _profiled_documents(run: Run) -> int:
    return sum(profile["documents"] for profile in run.get("profile", {}).values())


def _merged_profiles(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """Return the profiles of runs, merged by variant and set of fingerprints, in the form of runs."""
    groups: dict[tuple[str, tuple[str, ...]], list[Mapping[str, Any]]] = {}
    for run in runs:
        for variant, profile in run.get("profile", {}).items():
            if profile["documents"]:
                groups.setdefault((variant, tuple(profile["fingerprints"])), []).append(profile)
    return [
        {"profile": {variant: parts[0] if len(parts) == 1 else to_json(merged(map(from_json, parts)))}}
        for (variant, _), parts in groups.items()
    ]


def asked_again(runs: Iterable[Run]) -> dict[str, int]:
    """Return the ids whose results may have been cut, each with the run that wrote the result."""
    return {document_id: run["run"] for run in runs for document_id in run.get(ASK_AGAIN, ())}


def questions(runs: Iterable[Run]) -> Iterator[dict[str, Any]]:
    """Yield the questions of runs, in the form of the version that wrote them."""
    for run in runs:
        config = run.get("config")
        by_variant = config.get("question") if isinstance(config, Mapping) else None
        yield from (
            (question for question in by_variant.values() if isinstance(question, dict))
            if isinstance(by_variant, Mapping)
            else ()
        )


def _answered(runs: Iterable[Run]) -> Iterator[str]:
    """Yield the fingerprints of the questions that runs have results of."""
    for run in runs:
        for row in run.get("stats", {}).get("questions", {}).values():
            yield from row


def distinct(questions: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return questions without repetitions, in their order."""
    return list({json.dumps(question, sort_keys=True): question for question in questions}.values())


def history_row(run: Run) -> dict[str, Any]:
    """Return the fields of a run that the history in the report needs, in the form of its summary."""
    names = ("run", "run_id", "shard", "exit_code", "verdict", "started_at", "finished_at", "counts", "eval")
    stats = run.get("stats", {})
    total = {name: stats.get("total", {}).get(name, 0) for name in ("prompt_tokens", "completion_tokens")}
    numbers = {"elapsed_s": stats.get("elapsed_s", 0.0), "total": total}
    return {**{name: run[name] for name in names if name in run}, "stats": numbers}
