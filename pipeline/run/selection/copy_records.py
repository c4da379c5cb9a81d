"""The end of a run for the copies: write their records, and send those that still wait.

The main thread calls it when all other work of the run is done. It must not decide which documents are copies.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from pipeline.errors import PipelineError, TryLaterError
from pipeline.output.copies import Copies
from pipeline.records import Entry
from pipeline.run.document.process import FinishedEntry
from pipeline.run.stop_rules import StopReason
from pipeline.terminal import plural

if TYPE_CHECKING:
    from pipeline.run.runner import Runner

_LINES_A_TURN = 200
_TURN_S = 0.1

logger = logging.getLogger(__name__)


def end_copies(runner: Runner) -> None:
    """Write the record of each copy from its original's; send copies whose original has no record to share.

    An original has none when it failed because of a server, or when its line is damaged.
    """
    copies = runner.job.copies
    if copies is None:
        return
    _write(copies, runner)
    if copies.waiting and runner.end is None:
        runner.ask_copies(copies)
        _write(copies, runner)
    if copies.waiting and runner.end is None and runner.job.budget is None:
        message = f"{plural(copies.waiting, 'document')} waiting for the result of an identical one got none"
        runner.finish(StopReason.of_error(TryLaterError(f"{message}; run the same command again")))


def _write(copies: Copies, runner: Runner) -> None:
    """Write the record of each copy whose original has one; an error ends the run."""
    if not copies.waiting or runner.end is not None:
        return
    try:
        record_count = _write_all(copies, runner)
    except PipelineError as error:
        runner.finish(StopReason.of_error(error))
    else:
        logger.info("Wrote the records of documents identical to others", extra={"documents": record_count})


def _write_all(copies: Copies, runner: Runner) -> int:
    """Return how many records were written; wait first until the store has the parts of all originals."""
    output = runner.job.output
    record_count = read_lines = 0
    output.sync_due(float("inf"))
    while any(output.unwritten):
        if not runner.turn(_TURN_S):
            return 0
    for outcome in copies.outcomes(output.backend):
        if outcome is None:
            read_lines += 1
            if read_lines % _LINES_A_TURN == 0 and not runner.turn(0.0):
                return record_count
            while output.is_full:
                if not runner.turn(_TURN_S):
                    return record_count
            continue
        if not runner.write(outcome, is_copy=True):
            return record_count
        entry = Entry(outcome.id, outcome.uri, outcome.version, 0, "text", bytes)
        runner.job.watcher.outcome(FinishedEntry(entry, outcome))
        record_count += 1
    return record_count
