"""When a run has seen or waited enough, and why it ends: the guards and the patience."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass

from pipeline.config import RunnerConfig
from pipeline.errors import EXIT_FAILURES, EXIT_SIGINT, EXIT_SIGTERM, PipelineError, TryLaterError
from pipeline.llm.failover import Trouble
from pipeline.records import Failure, Result

logger = logging.getLogger(__name__)

ABORT_WINDOW = 500


@dataclass(frozen=True, slots=True)
class StopReason:
    """Why a run ended before its input did. `message` is for people; `exit_code` None leaves it to the counts."""

    message: str
    exit_code: int | None = None

    @classmethod
    def of_signal(cls, number: int) -> StopReason:
        """Interrupted by SIGINT or SIGTERM."""
        interrupt = number == 2
        return cls(
            "interrupted by " + ("SIGINT" if interrupt else "SIGTERM"), EXIT_SIGINT if interrupt else EXIT_SIGTERM
        )

    @classmethod
    def of_error(cls, error: PipelineError) -> StopReason:
        """Ended by an error that no document is to blame for."""
        return cls(str(error), error.exit_code)


class FailureGuard:
    """Stops a run whose documents fail too often; only documents that were asked count."""

    def __init__(self, config: RunnerConfig) -> None:
        self._config = config
        self._first: list[str] = []
        self._settled = config.fail_fast == 0
        self._recent: deque[bool] = deque(maxlen=ABORT_WINDOW)

    def add(self, outcome: Result | Failure) -> StopReason | None:
        """The end of the run, when this outcome is one too many."""
        if not outcome.attempts:
            return None
        reason = outcome.reason if isinstance(outcome, Failure) else ""
        self._recent.append(bool(reason))
        return self._fail_fast(reason) or self._abort()

    def _fail_fast(self, reason: str) -> StopReason | None:
        if self._settled:
            return None
        self._first.append(reason)
        self._settled = not reason or reason != self._first[0]
        if self._settled or len(self._first) < self._config.fail_fast:
            return None
        told = f"the first {len(self._first)} documents that were asked all failed: {reason}"
        return StopReason(f"{told} (runner.fail_fast)", EXIT_FAILURES)

    def _abort(self) -> StopReason | None:
        failed = sum(self._recent)
        enough = max(1.0, self._config.abort_error_rate * ABORT_WINDOW)
        if len(self._recent) < ABORT_WINDOW or failed < enough:
            return None
        told = f"{failed} of the last {ABORT_WINDOW} documents that were asked failed"
        return StopReason(f"{told} (runner.abort_error_rate {self._config.abort_error_rate:g})", EXIT_FAILURES)


class OutageTimer:
    """How long a run waits while no provider can be asked: an outage and a dead end have a bound each.

    `since`: when the wait began; None while somebody can be asked.
    """

    def __init__(self, config: RunnerConfig) -> None:
        self.since: float | None = None
        self._refused_since: float | None = None
        self._config = config

    def watch(self, trouble: Trouble | None, now: float) -> StopReason | None:
        """The end of the run, when it has waited for too long; says when the wait begins and when it is over."""
        if trouble is None:
            if self.since is not None:
                logger.info("going on", extra={"waited_s": round(now - self.since, 1)})
            self.since = self._refused_since = None
            return None
        patience_s = self._config.config_grace_s if trouble.dead_end else self._config.max_outage_s
        if self.since is None:
            self.since = now
            logger.warning("no provider can be asked, waiting up to %g s: %s", patience_s, trouble.message)
        begun = self.since
        if trouble.dead_end:
            # a dead end that an outage turned into has its whole grace: an ingress says 404 until its server is back
            begun = self._refused_since = now if self._refused_since is None else self._refused_since
        else:
            self._refused_since = None
        if now - begun <= patience_s:
            return None
        return StopReason.of_error(TryLaterError(f"no provider could be asked for {patience_s:g} s: {trouble.message}"))
