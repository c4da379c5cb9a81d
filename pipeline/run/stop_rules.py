"""Rules that end a run early: too many failures, and providers unavailable for too long."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from pipeline.config import RunnerConfig
from pipeline.errors import EXIT_FAILURES, EXIT_SIGINT, EXIT_SIGTERM, PipelineError, TryLaterError
from pipeline.llm.failover import Trouble
from pipeline.records import Failure, Result

logger = logging.getLogger(__name__)

ABORT_WINDOW = 500
REPEAT_S = 30.0
"""Seconds until another cause of one outage is logged: its first requests and probes fail with different texts."""


@dataclass(frozen=True, slots=True)
class StopReason:
    """The reason of a run's early end. `exit_code` None: the counts decide it."""

    message: str
    exit_code: int | None = None

    @classmethod
    def of_signal(cls, number: int) -> StopReason:
        """Return the reason for the end by SIGINT or SIGTERM."""
        interrupt = number == 2
        return cls(
            "interrupted by " + ("SIGINT" if interrupt else "SIGTERM"), EXIT_SIGINT if interrupt else EXIT_SIGTERM
        )

    @property
    def is_signal(self) -> bool:
        """True after a signal, whose sender waits for the process to end."""
        return self.exit_code in (EXIT_SIGINT, EXIT_SIGTERM)

    def with_error(self, error_text: str) -> StopReason:
        """Return the reason with a further error, unless its message has it already."""
        return self if error_text in self.message else replace(self, message=f"{self.message}; {error_text}")

    @classmethod
    def of_error(cls, error: PipelineError) -> StopReason:
        """Return the reason for the end by an error that no document caused."""
        return cls(str(error), error.exit_code)


def end_of(step: Callable[[], object]) -> StopReason | None:
    """Call the step; return the reason to end the run when it failed, else None."""
    try:
        step()
    except PipelineError as error:
        return StopReason.of_error(error)
    return None


class FailureGuard:
    """The rules that stop a run whose documents fail too often.

    All documents that were tried are counted together, and those that were sent to a model also by themselves: so
    unreadable files between them cannot hide a server that fails each request.
    """

    def __init__(self, config: RunnerConfig) -> None:
        self._tried_documents = _FailureCounter(config, "tried")
        self._sent_documents = _FailureCounter(config, "that were sent")

    def add(self, outcome: Result | Failure) -> StopReason | None:
        """Return the reason to stop when this outcome is one failure too many."""
        reason = outcome.reason if isinstance(outcome, Failure) else ""
        if not outcome.attempts:
            return self._tried_documents.add(reason) if reason else None
        stop = self._sent_documents.add(reason)
        stop_tried = self._tried_documents.add(reason)
        return stop or stop_tried


class _FailureCounter:
    """Counts of the failures among one kind of documents; messages name that kind."""

    def __init__(self, config: RunnerConfig, documents_kind: str) -> None:
        self._config = config
        self._documents_kind = documents_kind
        self._first_reasons: list[str] = []
        self._is_fail_fast_over = config.fail_fast == 0
        self._recent: deque[str] = deque(maxlen=ABORT_WINDOW)
        self._failed_count = 0
        """Number of failures in `_recent`: counting them for each document would take 2 µs."""

    def add(self, reason: str) -> StopReason | None:
        """Return the reason to stop when this failure is one too many; `reason` is "" for a result."""
        if len(self._recent) == ABORT_WINDOW:
            self._failed_count -= self._recent[0] != ""
        self._recent.append(reason)
        self._failed_count += reason != ""
        return self._fail_fast(reason) or self._abort()

    def _fail_fast(self, reason: str) -> StopReason | None:
        if self._is_fail_fast_over:
            return None
        self._first_reasons.append(reason)
        self._is_fail_fast_over = not reason or reason != self._first_reasons[0]
        if self._is_fail_fast_over or len(self._first_reasons) < self._config.fail_fast:
            return None
        message = f"the first {len(self._first_reasons)} documents {self._documents_kind} all failed: {reason}"
        return StopReason(f"{message} (runner.fail_fast)", EXIT_FAILURES)

    def _abort(self) -> StopReason | None:
        failed = self._failed_count
        threshold = max(1.0, self._config.abort_error_rate * ABORT_WINDOW)
        if len(self._recent) < ABORT_WINDOW or failed < threshold:
            return None
        reasons = Counter(reason for reason in self._recent if reason)
        frequent_reasons = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common(3))
        message = f"{failed} of the last {ABORT_WINDOW} documents {self._documents_kind} failed"
        message += f" (runner.abort_error_rate {self._config.abort_error_rate:g}): {frequent_reasons}"
        return StopReason(message, EXIT_FAILURES)


LogWait = Callable[[str, str | None], None]
"""Logs the wait for a provider at the start: the reason, and the name of the fallback that is tried next, if any."""


class OutageTimer:
    """The time limits while no provider is available: one for outages, one for configuration errors.

    `since`: when the outage began; None while a provider is available. The wait at the start of a run is part of it,
    from the first document on: a run without documents to send needs no provider.
    """

    def __init__(self, config: RunnerConfig) -> None:
        self.since: float | None = None
        self._waiting_since: float | None = None
        self._refused_since: float | None = None
        self._logged: tuple[float, str, float] | None = None
        self._config = config

    def begin(self, now: float) -> float:
        """Begin to wait, unless a document waits already; return the time since which one waits."""
        self._waiting_since = now if self._waiting_since is None else self._waiting_since
        return self._waiting_since

    def log_start(self, message: str, fallback: str | None) -> None:
        """Log the wait for a first provider, with the time until its fallback is tried, else until the run ends."""
        if self._waiting_since is None:
            return
        if fallback is None:
            self._log(self._config.max_outage_s, message, self._waiting_since)
        else:
            message = f"{message}; the fallback {fallback} is tried next"
            self._log(self._config.startup_wait_s, message, self._waiting_since)

    def watch(self, trouble: Trouble | None, now: float, *, examined: bool = True) -> StopReason | None:
        """Return the reason to stop when the run has waited for too long; log the wait's beginning, causes and end.

        `examined`: the preflights at the start are over. Call it only while a document waits, or without trouble.
        """
        if trouble is None:
            if self.since is not None:
                logger.info("resuming", extra={"waited_s": round(now - self.since, 1)})
            self.since = self._waiting_since = self._refused_since = self._logged = None
            return None
        wait_began = self.begin(now)
        if not examined:
            return None
        patience_s = self._config.config_grace_s if trouble.dead_end else self._config.max_outage_s
        self.since = wait_began
        self._log(patience_s, trouble.message, now)
        if trouble.dead_end:
            # an outage can turn into a dead end (an ingress answers 404 meanwhile): the grace starts now
            wait_began = self._refused_since = now if self._refused_since is None else self._refused_since
        else:
            self._refused_since = None
        if now - wait_began <= patience_s:
            return None
        return StopReason.of_error(TryLaterError(f"no provider was available for {patience_s:g} s: {trouble.message}"))

    def _log(self, patience_s: float, message: str, now: float) -> None:
        """Log the cause of waiting and the time limit when the limit changes; another cause once in 30 s."""
        if self._logged is not None:
            logged_patience_s, logged_message, logged_at = self._logged
            is_recent = now - logged_at < REPEAT_S
            if patience_s == logged_patience_s and (is_recent or message == logged_message):
                return
        now_again = "" if self._logged is None else "now "
        logger.warning("no provider is available, %swaiting up to %g s: %s", now_again, patience_s, message)
        self._logged = (patience_s, message, now)
