"""The report at the end of a run: from the counts of each shard, never from the records of the whole output.

It must not change how a run ends: any failure here is a warning, and `pipeline report` can repeat the work.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from pipeline.config import AppConfig
from pipeline.errors import PipelineError
from pipeline.output import Output, RunIndex, backend_of
from pipeline.report import RunSummary, build_report, write_newest
from pipeline.report.contents import Report
from pipeline.report.history import EarlierRuns
from pipeline.shards import Shard

logger = logging.getLogger(__name__)

SMALL_SET = 64
"""Up to this many shards, each shard that ends rebuilds the report of all, which reads a small file for each. For a
larger set the cost would grow with the square of their number, so the last active shard does it."""


def write_report_of(output: Output, summary: RunSummary) -> Report:
    """Return the report of a completed run, with its summary; write it first if that costs little."""
    if output.shard.siblings > SMALL_SET:
        return build_report([replace(summary, shard=None)])

    index = output.run_index

    def runs() -> list[RunSummary]:
        index.refresh()
        summaries = list(map(RunSummary.from_json, index.of_all_shards()))
        return summaries if any(_is_same(run, summary) for run in summaries) else [*summaries, summary]

    try:
        return write_newest(
            output.backend.replace, runs=runs, earlier=partial(EarlierRuns.of_index, index), awaits_shards=True
        )
    except PipelineError as error:
        logger.warning("Report not written; `pipeline report %s` writes it: %s", output.where, error)
        return build_report([summary], awaits_shards=True)


def write_report_of_set(app: AppConfig, shard: Shard, *, stop: Callable[[], bool]) -> None:
    """Write the report of a large set of shards when no other one is active; call it without a lock.

    Of two shards that end together, the second to release its lock finds none active. In the first run of a set, one
    shard at a time, the report is rebuilt each time the number of completed shards has doubled, and at the end. `stop`
    returns True after a signal: the shard has finished, and the sender of the signal must not wait for a report.
    """
    if shard.siblings <= SMALL_SET:
        return
    try:
        backend = backend_of(app.output, shard=shard)
        index = RunIndex(backend, shard)
        finished_count = sum(mark.count == shard.count for mark in index.finished_shards())
        if backend.is_in_use() or (finished_count < shard.siblings and finished_count & (finished_count - 1)):
            return

        def runs() -> list[RunSummary]:
            index.refresh()
            return list(map(RunSummary.from_json, index.of_all_shards(stop=stop)))

        write_newest(backend.replace, runs=runs, earlier=partial(EarlierRuns.of_index, index), awaits_shards=True)
    except PipelineError as error:
        logger.warning("Report of all shards not written; `pipeline report` writes it: %s", error)


def _is_same(run: RunSummary, summary: RunSummary) -> bool:
    return (run.run, run.run_id, run.shard) == (summary.run, summary.run_id, summary.shard)
