"""When a run has seen enough, and what its end is called: the guards against a bad run, and the exit code."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from pipeline.config import RunnerConfig
from pipeline.errors import EXIT_FAILURES, EXIT_OK, EXIT_SIGINT, EXIT_SIGTERM, PipelineError
from pipeline.records import Failure, Result

ABORT_WINDOW = 500


@dataclass(frozen=True, slots=True)
class End:
    """Why a run ended before its input did. `message` is for people; `exit_code` None leaves it to the counts."""

    message: str
    exit_code: int | None = None

    @classmethod
    def of_signal(cls, number: int) -> End:
        """Interrupted by SIGINT or SIGTERM."""
        interrupt = number == 2
        return cls(
            "interrupted by " + ("SIGINT" if interrupt else "SIGTERM"), EXIT_SIGINT if interrupt else EXIT_SIGTERM
        )

    @classmethod
    def of_error(cls, error: PipelineError) -> End:
        """Ended by an error that no document is to blame for."""
        return cls(str(error), error.exit_code)


class Guard:
    """Stops a run whose documents fail too often; only documents that were asked count."""

    def __init__(self, config: RunnerConfig) -> None:
        self._config = config
        self._first: list[str] = []
        self._settled = config.fail_fast == 0
        self._recent: deque[bool] = deque(maxlen=ABORT_WINDOW)

    def add(self, outcome: Result | Failure) -> End | None:
        """The end of the run, when this outcome is one too many."""
        if not outcome.attempts:
            return None
        reason = outcome.reason if isinstance(outcome, Failure) else ""
        self._recent.append(bool(reason))
        return self._fail_fast(reason) or self._abort()

    def _fail_fast(self, reason: str) -> End | None:
        if self._settled:
            return None
        self._first.append(reason)
        self._settled = not reason or reason != self._first[0]
        if self._settled or len(self._first) < self._config.fail_fast:
            return None
        told = f"the first {len(self._first)} documents that were asked all failed: {reason}"
        return End(f"{told} (runner.fail_fast)", EXIT_FAILURES)

    def _abort(self) -> End | None:
        failed = sum(self._recent)
        if len(self._recent) < ABORT_WINDOW or failed < self._config.abort_error_rate * ABORT_WINDOW:
            return None
        told = f"{failed} of the last {ABORT_WINDOW} documents that were asked failed"
        return End(f"{told} (runner.abort_error_rate {self._config.abort_error_rate:g})", EXIT_FAILURES)


def exit_code(
    end: End | None,
    *,
    done: int,
    failed: int,
    skipped: int,
    listed: int | None,
    config: RunnerConfig,
    min_documents: int,
) -> tuple[int, str]:
    """The exit code (contract, section 8) and the sentence that explains it; "" when nothing needs explaining.

    `listed`: documents in the whole input; None when its listing did not come to the end.
    """
    if end is not None and end.exit_code is not None:
        return end.exit_code, end.message
    counted = done + failed + skipped
    if counted and failed / counted > config.max_error_rate:
        told = f"{failed} of {counted} documents failed: more than runner.max_error_rate {config.max_error_rate:g}"
        return EXIT_FAILURES, told
    if listed is not None and listed < min_documents:
        return EXIT_FAILURES, f"found {listed} documents, need at least {min_documents} (input.min_documents)"
    return EXIT_OK, end.message if end else ""
