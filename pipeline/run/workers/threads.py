"""The worker threads of a run; one more is started when all are busy, as far as the machine allows."""

from __future__ import annotations

import logging
from collections.abc import Callable

from pipeline.errors import TryLaterError

logger = logging.getLogger(__name__)


class Workers:
    """The number of worker threads; `start(name)` starts one, which lives until the end of the run."""

    def __init__(self, start: Callable[[str], None]) -> None:
        self._start = start
        self.count = 0
        self._is_short = False

    def limit_to_threads(self, limit: int) -> int:
        """Return how many documents may be in flight: `limit`, or fewer on a machine that cannot start more threads."""
        return min(limit, self.count) if self._is_short else limit

    def ensure(self, in_flight: int) -> None:
        """Start one more worker if there are fewer than documents in flight; TryLaterError if there is none at all."""
        if in_flight <= self.count or self._is_short:
            return
        try:
            self._start(f"worker-{self.count + 1}")
        except (RuntimeError, MemoryError) as cause:
            self._is_short = True
            logger.warning("this machine starts no more than %d workers: %s", self.count, cause)
            if not self.count:
                raise TryLaterError(f"no worker can be started: {cause}") from cause
        else:
            self.count += 1
