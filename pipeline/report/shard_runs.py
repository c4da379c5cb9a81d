"""The runs of the shards of one output, merged: the newest of each shard as one run.

It must not read a file: it is given the summaries of the runs.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline.errors import EXIT_FAILURES, EXIT_OK
from pipeline.report import plain
from pipeline.report.contents import ShardRow
from pipeline.report.headlines import headline
from pipeline.report.merging import merge
from pipeline.report.remaining import merged
from pipeline.report.run_summary import Counts, OutputCounts, Overhead, RunSummary
from pipeline.shards import Shard, shard_of_label
from pipeline.terminal import plural

_WORST_FIRST = (70, 2, 1, 3, 143, 130, 0)
"""Exit codes in order of importance to the reader."""


def age(run: RunSummary) -> tuple[int, str, str]:
    """Return the sort key and identity of a run, oldest first."""
    return run.run, run.finished_at, run.shard or ""


def shard_of(run: RunSummary) -> Shard:
    """Return the shard or the chunk of a run."""
    return shard_of_label(run.shard, chunks=run.chunks or 0)


def runs_by_shard(runs: Sequence[RunSummary]) -> list[list[RunSummary]]:
    """Return the runs of each shard of the newest run's set, in the order given; `runs` has the newest last.

    A plan may have grown: all chunks are one set, whose size is that of the latest plan.
    """
    of_set = runs_of_set(runs)
    by_shard: list[list[RunSummary]] = [[] for _ in range(max(shard_of(run).siblings or 1 for run in of_set))]
    for run in of_set:
        if shard_of(run).index < len(by_shard):
            by_shard[shard_of(run).index].append(run)
    return by_shard


def runs_of_set(runs: Sequence[RunSummary]) -> list[RunSummary]:
    """Return the runs of the newest run's set of shards; a run without shards and one of a single shard are one set."""
    count = max(shard_of(runs[-1]).count, 1)
    return [run for run in runs if max(shard_of(run).count, 1) == count]


def last_with_results(runs: Sequence[RunSummary]) -> RunSummary | None:
    """Return the newest of the runs that has results of its own to compare with, or None."""
    return next((run for run in reversed(runs) if run.stats.outcomes.done), None)


def merged_runs(
    current_runs: Sequence[RunSummary], missing_shards: Sequence[int], *, awaits_shards: bool
) -> RunSummary:
    """Return the newest runs of all shards as one summary."""
    ignored = _ignored(current_runs)
    counts = _merged_counts([run.counts for run in current_runs], ignored=sum(ignored.values()))
    worst_run = min(current_runs, key=_badness)
    remaining = merged([run.remaining for run in current_runs])
    verdict = worst_run.verdict if worst_run.exit_code else headline(counts, 0, remaining=remaining.failed)
    if awaits_shards:
        progress = finished_text(
            len([run for run in current_runs if _is_finished(run)]),
            len(current_runs) + len(missing_shards),
            noun="shard" if worst_run.chunks is None else "chunk",
        )
        verdict = f"{verdict}: {progress}" if worst_run.exit_code else progress
    elif missing_shards:
        verdict = f"{'SHARDS' if worst_run.chunks is None else 'CHUNKS'} ARE MISSING: {verdict}"
    shard = f"shard {worst_run.shard}" if worst_run.chunks is None else worst_run.shard
    message = f"{shard}: {worst_run.message}" if worst_run.message else ""
    newest = max(current_runs, key=age)
    lacks_chunks = bool(missing_shards) and not awaits_shards and newest.chunks is not None
    return replace(
        newest,
        output=added_outputs(current_runs),
        shard=None,
        exit_code=worst_run.exit_code,
        verdict=verdict,
        message=message,
        started_at=min(run.started_at for run in current_runs),
        finished_at=max(run.finished_at for run in current_runs),
        counts=counts,
        ignored=ignored,
        listed_whole=newest.listed_whole and not lacks_chunks,
        remaining=remaining,
        files={name: where for run in current_runs for name, where in run.files.items()},
        parts=tuple(part for run in current_runs for part in run.parts),
        stats=merge([run.stats for run in current_runs]),
        overhead=_added_overhead([run.overhead for run in current_runs if run.overhead is not None]),
        prompt_length=tuple(row for run in current_runs for row in run.prompt_length or ()),
        ask_again=tuple(document_id for run in current_runs for document_id in run.ask_again or ()),
        merge_warnings=tuple(dict.fromkeys(line for run in current_runs for line in run.merge_warnings or ())) or None,
    )


def added_outputs(runs: Sequence[RunSummary]) -> OutputCounts | None:
    """Return the sum of the shards' counts of documents; None when a shard, of an earlier version, has no counts."""
    outputs = [run.output for run in runs if run.output is not None]
    return functools.reduce(_sum, outputs) if outputs and len(outputs) == len(runs) else None


def _sum(left: OutputCounts, right: OutputCounts) -> OutputCounts:
    """Return the sum of two counts, through their JSON, in which an absent key is 0."""
    return plain.from_json(OutputCounts, _added(plain.to_json(left), plain.to_json(right)))


def _added(left: Any, right: Any) -> Any:
    if not isinstance(left, Mapping):
        return left + right
    names = dict.fromkeys([*left, *right])
    return {
        name: _added(left[name], right[name]) if name in left and name in right else left.get(name, right.get(name))
        for name in names
    }


def _added_overhead(spent: Sequence[Overhead]) -> Overhead:
    return Overhead(sum(overhead.requests for overhead in spent), sum(overhead.prompt_tokens for overhead in spent))


def finished_text(finished: int, of: int, *, noun: str) -> str:
    """Return `3 of 16 shards have finished`."""
    return f"{finished:,} of {plural(of, noun)} {'has' if finished == 1 else 'have'} finished"


def _is_finished(run: RunSummary) -> bool:
    """Return True for a shard that has done all its documents, whether or not some failed."""
    return run.exit_code in (EXIT_OK, EXIT_FAILURES) and not run.counts.left


def _badness(run: RunSummary) -> int:
    return _WORST_FIRST.index(run.exit_code) if run.exit_code in _WORST_FIRST else 0


def _merged_counts(shards: Sequence[Counts], *, ignored: int) -> Counts:
    """Return the counts of all shards; `ignored`: the files that all of them ignore."""
    return Counts(
        found=sum(counts.found - counts.ignored for counts in shards) + ignored,
        done=sum(counts.done for counts in shards),
        failed=sum(counts.failed for counts in shards),
        skipped=sum(counts.skipped for counts in shards),
        ignored=ignored,
        left=sum(counts.left for counts in shards),
    )


def _ignored(runs: Sequence[RunSummary]) -> dict[str, int]:
    """Return the ignored files per name: a chunk lists files of its own, and every shard those of the whole input."""
    tables = [run.ignored for run in runs]
    total = sum if shard_of(runs[0]).is_chunk else max
    names = sorted({name for table in tables for name in table})
    return {name: total(table.get(name, 0) for table in tables) for name in names}


def shard_row(run: RunSummary) -> ShardRow:
    """Return the run of a shard as a row of the report."""
    return ShardRow(
        shard=run.shard,
        run=run.run,
        run_id=run.run_id,
        exit_code=run.exit_code,
        verdict=run.verdict,
        counts=run.counts,
        started_at=run.started_at,
        finished_at=run.finished_at,
        elapsed_s=run.stats.elapsed_s,
    )
