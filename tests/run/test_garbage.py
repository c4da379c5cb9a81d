"""Garbage collection during a run is rare, and is as before when the run has ended."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from pipeline.run.garbage import YOUNG_OBJECTS, rare_collections


class Node:
    """An object that refers to itself."""

    def __init__(self) -> None:
        self.own = self


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    """Restore the collector of the test process."""
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()


def test_collector_is_as_before_afterwards() -> None:
    """Its thresholds are restored, and no object stays frozen, also after an error."""
    gc.unfreeze()
    gc.set_threshold(700, 10, 5)
    with pytest.raises(ZeroDivisionError), rare_collections():
        assert gc.get_threshold() == (YOUNG_OBJECTS, 10, 5)
        assert gc.get_freeze_count() > 0
        _ = 1 / 0
    assert gc.get_threshold() == (700, 10, 5)
    assert gc.get_freeze_count() == 0


def test_collector_that_a_program_has_switched_off_stays_off() -> None:
    """A threshold of 0 means that, and objects that the program has frozen stay frozen."""
    gc.set_threshold(0)
    gc.freeze()
    with rare_collections():
        assert gc.get_threshold()[0] == 0
    assert gc.get_freeze_count() > 0


def test_cycles_of_a_run_are_still_collected() -> None:
    """Memory does not grow with the archive, whatever refers to itself."""
    with rare_collections():
        first = weakref.ref(Node())
        for _ in range(YOUNG_OBJECTS + 1):
            Node()
        assert first() is None
