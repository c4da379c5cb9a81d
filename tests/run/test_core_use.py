"""`runner.processes: auto`: when a run needs more than one core."""

from __future__ import annotations

import pytest

from pipeline.run.workers.core_use import WINDOW_S, CoreWatch, available_cores


def limits_of(shares: list[float], *, cores: int = 4) -> list[int]:
    """Return the number of processes after windows with these shares of a core."""
    used = [0.0]
    watch = CoreWatch(cpu=lambda: used[0], cores=lambda: cores)
    answers = [watch.processes_to_start(0.0)]
    for number, share in enumerate(shares, 1):
        used[0] += share * WINDOW_S
        answers.append(watch.processes_to_start(number * WINDOW_S))
    return answers[1:]


def test_two_busy_windows_start_one_process_per_core() -> None:
    """Later windows start no further processes."""
    assert limits_of([0.95, 0.95, 0.95]) == [0, 4, 0]


@pytest.mark.parametrize("shares", [[0.5] * 6, [0.95, 0.5] * 3])
def test_one_sufficient_core_starts_no_processes(shares: list[float]) -> None:
    """Neither low use nor a single busy window starts one."""
    assert set(limits_of(shares)) == {0}


def test_machine_with_one_core_starts_no_processes() -> None:
    """The same applies to a container with a quota of one core."""
    assert limits_of([1.0] * 3, cores=1) == [0, 0, 0]


def test_window_is_not_evaluated_before_its_end() -> None:
    """Checks within a window return 0, however busy the core is."""
    watch = CoreWatch(cpu=lambda: 100.0, cores=lambda: 4)
    assert [watch.processes_to_start(number / 10) for number in range(40)] == [0] * 40


def test_usable_cores_is_positive() -> None:
    """The count follows CPU affinity and quota."""
    assert available_cores() >= 1
