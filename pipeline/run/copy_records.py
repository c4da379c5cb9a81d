"""The records of copies, written by the main thread when everything else of the run is done."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from pipeline.errors import PipelineError
from pipeline.output.copies import Copies
from pipeline.records import Entry
from pipeline.run.process import Finished
from pipeline.run.stop_rules import StopReason

if TYPE_CHECKING:
    from pipeline.run.runner import Runner

_LINES_A_TURN = 200
_TURN_S = 0.1

logger = logging.getLogger(__name__)


def write_copies(copies: Copies | None, runner: Runner) -> StopReason | None:
    """Write the record of each copy from its original's; return why the run ends when that could not be done.

    Copies whose original has no record to share remain for the next run.
    """
    if copies is None or not copies.waiting or runner.end is not None:
        return None
    try:
        written = _write(copies, runner)
    except PipelineError as error:
        return StopReason.of_error(error)
    logger.info("identical documents were not sent again", extra={"documents": written})
    if copies.waiting and runner.end is None:
        told = "%d documents are left: what they are identical to got no answer; the next run does them"
        logger.warning(told, copies.waiting)
    return None


def _write(copies: Copies, runner: Runner) -> int:
    """Return how many records were written; what is in no written part of a store yet is awaited first."""
    output, written, lines = runner.job.output, 0, 0
    output.sync_due(float("inf"))
    while any(output.unwritten):
        if not runner.turn(_TURN_S):
            return 0
    for outcome in copies.outcomes(output.backend):
        if outcome is None:
            lines += 1
            if lines % _LINES_A_TURN == 0 and not runner.turn(0.0):
                return written
            while output.is_full:
                if not runner.turn(_TURN_S):
                    return written
            continue
        if not runner.write(outcome, is_copy=True):
            return written
        entry = Entry(outcome.id, outcome.uri, outcome.version, 0, "text", bytes)
        runner.job.watcher.outcome(Finished(entry, outcome))
        written += 1
    return written
