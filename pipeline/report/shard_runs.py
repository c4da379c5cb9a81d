"""The runs of the shards of one output, put together: the newest of each shard as one run.

It must not read a file: it is given the summaries of the runs.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.errors import EXIT_FAILURES, EXIT_OK
from pipeline.report.headlines import COUNTS, headline
from pipeline.report.remaining import RemainingFailures, merged
from pipeline.report.stats import merge
from pipeline.terminal import plural

_WORST_FIRST = (70, 2, 1, 3, 143, 130, 0)
"""Exit codes in the order of what a person should see first."""


def age(run: Mapping[str, Any]) -> tuple[int, str, str]:
    """Return what orders runs from the oldest to the newest, and tells them from each other."""
    return run["run"], run["finished_at"], run["shard"] or ""


def shard_of(run: Mapping[str, Any]) -> tuple[int, int]:
    """Return (index, of) of a shard written as I/N or IIIII-of-NNNNN; (0, 1) for a run without shards."""
    numbers = re.findall(r"\d+", run["shard"] or "")
    return (int(numbers[0]), int(numbers[1])) if len(numbers) == 2 else (0, 1)


def runs_by_shard(runs: Sequence[dict[str, Any]], of: int) -> list[list[dict[str, Any]]]:
    """Return the runs of each of `of` shards in the order given."""
    found: list[list[dict[str, Any]]] = [[] for _ in range(of)]
    for run in runs:
        index, count = shard_of(run)
        if count == of and index < of:
            found[index].append(run)
    return found


def last_with_results(runs: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the newest of the runs that has results of its own to compare with, or None."""
    return next((run for run in reversed(runs) if run["stats"]["outcomes"]["done"]), None)


def merged_runs(current: Sequence[dict[str, Any]], missing: Sequence[int], *, awaits_shards: bool) -> dict[str, Any]:
    """Return the newest runs of all shards as one summary."""
    ignored = _most([run["ignored"] for run in current])
    counts = _merged_counts([run["counts"] for run in current], ignored=sum(ignored.values()))
    worst = min(current, key=_badness)
    remaining = merged([RemainingFailures.from_json(run.get("remaining")) for run in current])
    verdict = worst["verdict"] if worst["exit_code"] else headline(counts, 0, remaining=remaining.failed)
    if awaits_shards:
        progress = finished_text(len([run for run in current if _is_finished(run)]), len(current) + len(missing))
        verdict = f"{verdict}: {progress}" if worst["exit_code"] else progress
    elif missing:
        verdict = f"SHARDS ARE MISSING: {verdict}"
    message = f"shard {worst['shard']}: {worst['message']}" if worst["message"] else ""
    newest = max(current, key=age)
    return {
        **newest,
        "output": added_outputs(current),
        "shard": None,
        "exit_code": worst["exit_code"],
        "verdict": verdict,
        "message": message,
        "started_at": min(run["started_at"] for run in current),
        "finished_at": max(run["finished_at"] for run in current),
        "counts": counts,
        "ignored": ignored,
        "remaining": remaining.to_json(),
        "files": {name: where for run in current for name, where in run["files"].items()},
        "parts": [part for run in current for part in run["parts"]],
        "stats": merge([run["stats"] for run in current]),
        "overhead": _added([run.get("overhead", {}) for run in current]),
        "prompt_length": [row for run in current for row in run.get("prompt_length", [])],
        "ask_again": [document_id for run in current for document_id in run.get("ask_again", [])],
    }


def added_outputs(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the counts of the documents of all these shards; {} when one of an earlier version has counted none."""
    tables = [run.get("output") for run in runs]
    if not tables or not all(tables):
        return {}
    return functools.reduce(_sum, tables[1:], dict(tables[0] or {}))


def _sum(left: Any, right: Any) -> Any:
    """Return a new sum of two counts, or of two mappings of counts."""
    if not isinstance(left, Mapping):
        return left + right
    names = dict.fromkeys([*left, *right])
    return {
        name: _sum(left[name], right[name]) if name in left and name in right else left.get(name, right.get(name))
        for name in names
    }


def _added(tables: Sequence[Mapping[str, int]]) -> dict[str, int]:
    names = dict.fromkeys(name for table in tables for name in table)
    return {name: sum(table.get(name, 0) for table in tables) for name in names}


def finished_text(finished: int, of: int) -> str:
    """Return `3 of 16 shards have finished`."""
    return f"{finished:,} of {plural(of, 'shard')} {'has' if finished == 1 else 'have'} finished"


def _is_finished(run: Mapping[str, Any]) -> bool:
    """Return True for a shard that has done all its documents, whether or not some failed."""
    return run["exit_code"] in (EXIT_OK, EXIT_FAILURES) and not run["counts"]["left"]


def _badness(run: Mapping[str, Any]) -> int:
    return _WORST_FIRST.index(run["exit_code"]) if run["exit_code"] in _WORST_FIRST else 0


def _merged_counts(shards: Sequence[Mapping[str, int]], *, ignored: int) -> dict[str, int]:
    """Return the counts of all shards; ignored files belong to no shard and are counted once."""
    added = {name: sum(counts[name] for counts in shards) for name in COUNTS}
    return {**added, "ignored": ignored, "found": added["found"] - added["ignored"] + ignored}


def _most(tables: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Return the maximum per name: every shard lists the same files of the whole input."""
    names = sorted({name for table in tables for name in table})
    return {name: max(table.get(name, 0) for table in tables) for name in names}


def shard_row(run: Mapping[str, Any]) -> dict[str, Any]:
    names = ("shard", "run", "run_id", "exit_code", "verdict", "counts", "started_at", "finished_at")
    return {**{name: run[name] for name in names}, "elapsed_s": run["stats"]["elapsed_s"]}
