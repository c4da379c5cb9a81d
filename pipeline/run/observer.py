"""What the main thread shows and hears while a run goes on: numbers, progress, signals. It decides nothing."""

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

from pipeline.config.redaction import SECRETS
from pipeline.output.copies import Copied
from pipeline.records import Failure, Left, Outcome, Postponed, Result, Unchanged
from pipeline.report.remaining import RemainingFailures
from pipeline.report.stats import RunStats
from pipeline.run.placeholders import PlaceholderWatch
from pipeline.run.process import Finished
from pipeline.run.progress import Progress, ProgressState
from pipeline.run.runner import Runner
from pipeline.values.profiling import ProfileBuilder

if TYPE_CHECKING:
    from pipeline.run.metrics import Metrics

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Display:
    """Sees each outcome and each turn: feeds the numbers, the progress and the metrics."""

    stats: RunStats
    progress: Progress
    started: float
    profile: ProfileBuilder = field(default_factory=lambda: ProfileBuilder(None, random=random.random))
    placeholders: PlaceholderWatch = field(default_factory=lambda: PlaceholderWatch({}))
    metrics: Metrics | None = None
    tokens: list[int] = field(default_factory=lambda: [0, 0])
    last: Failure | None = None
    waits: deque[float] = field(default_factory=lambda: deque(maxlen=20))

    def outcome(self, finished: Finished) -> None:
        """Counts one outcome."""
        outcome = finished.outcome
        _log(finished)
        if self.metrics is not None:
            self.metrics.outcome(finished)
        if isinstance(outcome, Postponed):
            self.stats.asked(finished.attempts, variant=outcome.failure.variant)
        elif not isinstance(outcome, (Unchanged, Left, Copied)):
            self.stats.asked(finished.attempts, variant=outcome.variant)
        if not isinstance(outcome, (Postponed, Left, Copied)):
            self.stats.add(outcome)
        if isinstance(outcome, Failure):
            self.last = outcome
        if isinstance(outcome, Result):
            self.placeholders.add(outcome.variant, outcome.metadata)
            self.profile.add(outcome.output, variant=outcome.variant, fingerprint=outcome.fingerprint)
        self.waits.extend(attempt.queue_s for attempt in finished.attempts if attempt.queue_s is not None)
        if isinstance(outcome, (Result, Failure)):
            self.tokens[0] += outcome.usage.prompt_tokens or 0
            self.tokens[1] += outcome.usage.completion_tokens or 0

    def turn(self, runner: Runner) -> None:
        """Shows how the run stands."""
        if self.metrics is not None:
            self.metrics.turn(runner)
        counts, trouble = runner.counts, runner.plan.client.trouble
        waiting = held = runner.plan.client.held
        if runner.waiting_since is not None and trouble:
            waiting = trouble.message
        waiting = runner.job.output.trouble or waiting
        if not runner.ready:
            waiting = held or "the first look at the providers"
        if runner.end is not None and runner.in_flight:
            waiting = "what is in flight; a second Ctrl-C leaves at once"
        waiting = SECRETS.redact(waiting) if waiting else None
        self.progress.update(
            ProgressState(
                done=counts["done"],
                failed=counts["failed"],
                skipped=counts["skipped"],
                in_flight=runner.in_flight,
                limit=runner.job.limit.value,
                limit_reason=runner.job.limit.reason,
                found=counts["found"],
                total=_total(runner),
                tokens_in=self.tokens[0],
                tokens_out=self.tokens[1],
                queue_s=sum(self.waits) / len(self.waits) if self.waits else None,
                last_reason=self.last.reason if self.last else None,
                last_failed=self.last.id if self.last else None,
                waiting_for=waiting,
                elapsed_s=time.monotonic() - self.started,
            )
        )

    def end(self, runner: Runner, exit_code: int, remaining: RemainingFailures | None) -> None:
        """Publishes the last metrics; `remaining` is None when a run ended before they were counted."""
        if self.metrics is not None:
            self.metrics.end(runner, exit_code, remaining)


def _total(runner: Runner) -> int | None:
    """How many documents there are to go through, all or as many as --limit allows; None: not known yet."""
    found, budget = runner.counts["found"], runner.job.budget
    most = found if budget is None else runner.counts["skipped"] + budget
    return min(found, most) if runner.listed_whole or (budget is not None and found >= most) else None


def _log(finished: Finished) -> None:
    """A line for each document, at debug."""
    if not logger.isEnabledFor(logging.DEBUG):
        return
    outcome: Outcome | Copied | Failure = finished.outcome
    fields: dict[str, object] = {"document": finished.entry.id, "attempts": len(finished.attempts)}
    if finished.attempts:
        fields["provider"] = finished.attempts[-1].model.provider
    if isinstance(outcome, Postponed):
        fields["losses"], outcome = outcome.losses, outcome.failure
    if isinstance(outcome, Failure):
        fields |= {"stage": outcome.stage, "reason": outcome.reason, "error": outcome.error}
    if isinstance(outcome, Result):
        fields["latency_s"] = outcome.latency_s
    logger.debug("document %s", type(finished.outcome).__name__.lower(), extra=fields)


class Signals:
    """SIGINT and SIGTERM: before the runner is there they stop the waiting, then they interrupt it."""

    def __init__(self, stop: threading.Event) -> None:
        self.number: int | None = None
        self.runner: Runner | None = None
        self._stop = stop
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: object) -> None:  # noqa: ARG002
        again = self.number is not None
        self.number = self.number or number
        if self.runner is not None:
            self.runner.interrupt(number)
        elif again:
            os._exit(128 + number)
        else:
            self._stop.set()
