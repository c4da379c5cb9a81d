"""Detection of a fully used core, for `runner.processes: auto`. It starts nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

WINDOW_S = 5.0
USED_UP = 0.85
"""The share of a core that counts as a whole one: Python uses one core, of which its threads lose about a tenth while
they wait for each other."""
WINDOWS = 2
"""Consecutive windows with a whole core in use: a burst of heavy documents is no reason for more processes."""
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


class CoreWatch:
    """Watches the CPU time of this process; belongs to one thread."""

    def __init__(self, cpu: Callable[[], float] = time.process_time, cores: Callable[[], int] | None = None) -> None:
        self._cpu = cpu
        self._cores = cores or available_cores
        self._since: tuple[float, float] | None = None
        self._full = 0
        self._is_decided = False

    def wanted(self, now: float) -> int:
        """Return how many worker processes to start now, once; 0 while one core suffices or there is no other."""
        if self._is_decided:
            return 0
        if self._since is None:
            self._since = (now, self._cpu())
        began, used = self._since
        if now - began < WINDOW_S:
            return 0
        share = (self._cpu() - used) / (now - began)
        self._since = (now, self._cpu())
        self._full = self._full + 1 if share >= USED_UP else 0
        if self._full < WINDOWS:
            return 0
        self._is_decided = True
        cores = self._cores()
        return cores if cores > 1 else 0


def available_cores() -> int:
    """Return how many cores this process may use: by its affinity and its container's quota, rounded down."""
    affinity = getattr(os, "sched_getaffinity", None)  # macOS has none
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        quota, period = _QUOTA.read_text(encoding="ascii").split()
        cores = min(cores, int(quota) // int(period))  # "max" is no number: no quota
    return max(1, cores)
