"""Observers of a run in progress, in the main thread: numbers, progress, signals. They make no decisions."""

from __future__ import annotations

import logging
import os
import random
import signal
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.output.copies import Copied
from pipeline.records import Failure, Left, Postponed, Result, Unchanged
from pipeline.report.remaining import RemainingFailures
from pipeline.report.stats import RunStats
from pipeline.run.display.progress import Progress
from pipeline.run.display.rates import ProgressState
from pipeline.run.display.status import RunStatus
from pipeline.run.document.process import FinishedEntry
from pipeline.run.preview.placeholders import PlaceholderWatch
from pipeline.run.runner import Runner
from pipeline.run.windows.cutting import CutDocument, Divided, WindowFailed
from pipeline.values.profiling import ProfileBuilder
from pipeline.window_answers import WindowAnswer

if TYPE_CHECKING:
    from pipeline.run.display.metrics import Metrics

logger = logging.getLogger(__name__)

PARTS = (CutDocument, WindowAnswer, Divided, WindowFailed)
"""Outcomes of parts of a document; the document itself is counted when it is merged."""


@dataclass(slots=True)
class Display:
    """The observer of each outcome and each turn, which updates the numbers, the progress and the metrics."""

    stats: RunStats
    progress: Progress
    started: float
    profile: ProfileBuilder = field(default_factory=lambda: ProfileBuilder(None, random=random.random))
    placeholders: PlaceholderWatch = field(default_factory=lambda: PlaceholderWatch({}))
    metrics: Metrics | None = None
    tokens: list[int] = field(default_factory=lambda: [0, 0])
    last_failure: Failure | None = None
    waits: deque[float] = field(default_factory=lambda: deque(maxlen=20))

    def outcome(self, finished: FinishedEntry) -> None:
        """Count one outcome."""
        outcome = finished.outcome
        _log(finished)
        if self.metrics is not None:
            self.metrics.outcome(finished)
        if isinstance(outcome, Postponed):
            self.stats.add_attempts(finished.attempts, variant=outcome.failure.variant)
        elif isinstance(outcome, PARTS):
            self.stats.add_attempts(finished.attempts, variant=finished.variant)
        elif not isinstance(outcome, (Unchanged, Left, Copied)):
            self.stats.add_attempts(finished.attempts, variant=outcome.variant)
        if not isinstance(outcome, (Postponed, Left, Copied, *PARTS)):
            self.stats.add(outcome)
        if isinstance(outcome, Failure):
            self.last_failure = outcome
        if isinstance(outcome, Result):
            self.placeholders.add(outcome.variant, outcome.metadata)
            self.profile.add(outcome.output, variant=outcome.variant, fingerprint=outcome.fingerprint)
        self.waits.extend(attempt.queue_s for attempt in finished.attempts if attempt.queue_s is not None)
        for attempt in finished.attempts:
            self.tokens[0] += attempt.prompt_tokens or 0
            self.tokens[1] += attempt.completion_tokens or 0

    def turn(self, status: RunStatus) -> None:
        """Show the status of the run."""
        if self.metrics is not None:
            self.metrics.turn(status)
        self.progress.update(
            ProgressState(
                done=status.counts["done"],
                failed=status.counts["failed"],
                skipped=status.counts["skipped"],
                in_flight=status.in_flight,
                limit=status.limit,
                limit_reason=status.limit_reason,
                found=status.counts["found"],
                total=status.total,
                tokens_in=self.tokens[0],
                tokens_out=self.tokens[1],
                queue_s=sum(self.waits) / len(self.waits) if self.waits else None,
                last_reason=self.last_failure.reason if self.last_failure else None,
                last_failed=self.last_failure.id if self.last_failure else None,
                waiting_for=status.waiting_for,
                long=status.long,
                elapsed_s=time.monotonic() - self.started,
            )
        )

    def end(self, status: RunStatus, exit_code: int, remaining: RemainingFailures | None) -> None:
        """Publish the last metrics; `remaining` is None when a run ended before the failures were counted."""
        if self.metrics is not None:
            self.metrics.end(status, exit_code, remaining)


def _log(finished: FinishedEntry) -> None:
    """Log a line for each document, at debug."""
    if not logger.isEnabledFor(logging.DEBUG):
        return
    outcome: object = finished.outcome
    fields: dict[str, object] = {"document": finished.entry.id, "attempts": len(finished.attempts)}
    if finished.attempts:
        fields["provider"] = finished.attempts[-1].model.provider
    if isinstance(outcome, Postponed):
        fields["losses"] = outcome.losses
        outcome = outcome.failure
    if isinstance(outcome, Failure):
        fields |= {"stage": outcome.stage, "reason": outcome.reason, "error": outcome.error}
    if isinstance(outcome, Result):
        fields["latency_s"] = outcome.latency_s
    logger.debug("document %s", type(finished.outcome).__name__.lower(), extra=fields)


class Signals:
    """Handlers of SIGINT and SIGTERM: before the runner exists they stop the waiting, later they interrupt the run."""

    def __init__(self, stop: threading.Event) -> None:
        self.number: int | None = None
        self.runner: Runner | None = None
        self._stop = stop
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: object) -> None:  # noqa: ARG002
        is_second = self.number is not None
        self.number = self.number or number
        if self.runner is not None:
            self.runner.interrupt(number)
        elif is_second:
            os._exit(128 + number)
        else:
            self._stop.set()
