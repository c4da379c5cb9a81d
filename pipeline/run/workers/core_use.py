"""Detection of a fully used core, for `runner.processes: auto`. It starts nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

WINDOW_S = 5.0
FULL_CORE_SHARE = 0.85
"""The share of a core that counts as a full core: Python uses one core, and its threads lose about a tenth of it while
they wait for each other."""
WINDOWS = 2
"""Consecutive windows of time with a full core in use: a few heavy documents are no reason for more processes."""
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


class CoreWatch:
    """The CPU time of this process over time; used by one thread."""

    def __init__(self, cpu: Callable[[], float] = time.process_time, cores: Callable[[], int] | None = None) -> None:
        self._cpu = cpu
        self._cores = cores or available_cores
        self._window_start: tuple[float, float] | None = None
        self._full_windows = 0
        self._is_decided = False

    def processes_to_start(self, now: float) -> int:
        """Return the number of worker processes to start; 0 while one core suffices, without another core, or later."""
        if self._is_decided:
            return 0
        if self._window_start is None:
            self._window_start = (now, self._cpu())
        began, used = self._window_start
        if now - began < WINDOW_S:
            return 0
        share = (self._cpu() - used) / (now - began)
        self._window_start = (now, self._cpu())
        self._full_windows = self._full_windows + 1 if share >= FULL_CORE_SHARE else 0
        if self._full_windows < WINDOWS:
            return 0
        self._is_decided = True
        cores = self._cores()
        return cores if cores > 1 else 0


def available_cores() -> int:
    """Return the number of cores that this process may use by its affinity and its container's quota, rounded down."""
    affinity = getattr(os, "sched_getaffinity", None)  # macOS has none
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        quota, period = _QUOTA.read_text(encoding="ascii").split()
        cores = min(cores, int(quota) // int(period))  # "max" is not a number, and means no quota
    return max(1, cores)
