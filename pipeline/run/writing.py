"""Write the outcomes that arrive in one turn together, then count them. Belongs to the main thread.

    Landed ─▶ add … add ─▶ write_waiting ─▶ one write of all lines ─▶ counts, failure guard, statistics

A write of its own for each line costs a system call, which gives up the GIL and waits to have it again. An outcome is
counted when its line is in the file, and a turn ends with all its outcomes written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.errors import PipelineError
from pipeline.records import Failure, Result
from pipeline.run.document.process import FinishedEntry
from pipeline.run.stop_rules import FailureGuard, StopReason

if TYPE_CHECKING:
    from pipeline.run.runner import Runner

MOST_TOGETHER = 64
"""Outcomes of one write: they arrive while earlier ones are handled, so without a bound a turn might not end."""


class OutcomeWriter:
    """Writes and counts the outcomes of one run."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._guard = FailureGuard(runner.job.config)
        self._waiting: list[tuple[FinishedEntry, Result | Failure]] = []
        self._answered = 0

    def add(self, finished: FinishedEntry, outcome: Result | Failure) -> None:
        """Write an outcome at the end of the turn."""
        self._waiting.append((finished, self._runner.job.doubtful_unversioned(outcome)))
        if len(self._waiting) >= MOST_TOGETHER:
            self.write_waiting()

    def write_waiting(self) -> None:
        """Write the outcomes of this turn; an error of the output ends the run, and those not written are left."""
        if not self._waiting:
            return
        waiting = self._waiting
        self._waiting = []
        written = 0
        try:
            for _ in self._runner.job.output.write_all([outcome for _, outcome in waiting]):
                finished, outcome = waiting[written]
                written += 1
                self._count(outcome, is_copy=False)
                self._runner.job.watcher.outcome(finished)
        except PipelineError as error:
            self._fail(error, left=len(waiting) - written)

    def write(self, outcome: Result | Failure, *, is_copy: bool = False) -> bool:
        """Write an outcome now; return False when that ended the run. A copy is no evidence of trouble."""
        outcome = self._runner.job.doubtful_unversioned(outcome)
        try:
            self._runner.job.output.write(outcome)
        except PipelineError as error:
            self._fail(error, left=1)
            return False
        self._count(outcome, is_copy=is_copy)
        return True

    def _fail(self, error: PipelineError, *, left: int) -> None:
        self._runner.run_counts.left += left
        self._runner.finish(StopReason.of_error(error))

    def _count(self, outcome: Result | Failure, *, is_copy: bool) -> None:
        counts = self._runner.run_counts
        counts.failed += isinstance(outcome, Failure)
        counts.done += isinstance(outcome, Result)
        self._answered += 1
        if self._answered % self._runner.job.config.refresh_every == 0:
            self._runner.refresh_now()
        if not is_copy:
            self._runner.finish(self._guard.add(outcome))
