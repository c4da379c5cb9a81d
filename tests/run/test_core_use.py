"""`runner.processes: auto`: when one core is not enough."""

from __future__ import annotations

import pytest

from pipeline.run.workers.core_use import WINDOW_S, CoreWatch, available_cores


def wanted(shares: list[float], *, cores: int = 4) -> list[int]:
    """Return the wanted processes after windows that used these shares of a core."""
    used = [0.0]
    watch = CoreWatch(cpu=lambda: used[0], cores=lambda: cores)
    answers = [watch.wanted(0.0)]
    for number, share in enumerate(shares, 1):
        used[0] += share * WINDOW_S
        answers.append(watch.wanted(number * WINDOW_S))
    return answers[1:]


def test_two_full_windows_in_a_row_ask_for_a_process_a_core_once() -> None:
    """Later windows ask for nothing more."""
    assert wanted([0.95, 0.95, 0.95]) == [0, 4, 0]


@pytest.mark.parametrize("shares", [[0.5] * 6, [0.95, 0.5] * 3])
def test_a_core_that_is_enough_asks_for_nothing(shares: list[float]) -> None:
    """A burst of heavy documents is no reason."""
    assert set(wanted(shares)) == {0}


def test_a_machine_with_one_core_has_no_use_for_more() -> None:
    """Neither has a container with the quota of one."""
    assert wanted([1.0] * 3, cores=1) == [0, 0, 0]


def test_a_window_is_not_judged_before_its_end() -> None:
    """The run asks at each turn."""
    watch = CoreWatch(cpu=lambda: 100.0, cores=lambda: 4)
    assert [watch.wanted(number / 10) for number in range(40)] == [0] * 40


def test_this_machine_has_cores() -> None:
    """By affinity and quota."""
    assert available_cores() >= 1
