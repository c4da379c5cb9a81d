"""Failed reads: telling a fault of one file from an outage of all files."""

from __future__ import annotations

import errno
import io
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import TryLaterError
from pipeline.stores import OutageRetry, Source
from pipeline.stores.trouble import OwnTroubleError


@dataclass
class Clock(threading.Event):
    """A clock that advances only while a reader waits; `at` schedules events, each once."""

    now: float = 0.0
    at: list[tuple[float, Callable[[], object]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def wait(self, timeout: float | None = None) -> bool:
        """Advance the clock and perform the events that are due."""
        self.now += timeout or 0.0
        for due in [item for item in self.at if item[0] <= self.now]:
            self.at.remove(due)
            due[1]()
        return False


@dataclass
class Store:
    """Files that can be read except during outages; those in `own` always fail."""

    clock: Clock
    outages: list[tuple[float, float]]
    own: str = ""

    def read(self, name: str) -> bytes:
        """Return the bytes of a file, or raise an error that does not reveal its cause."""
        if name == self.own or any(start <= self.clock.now < end for start, end in self.outages):
            raise OSError(errno.EIO, "Input/output error")
        return b"bytes"

    def opener(self, name: str) -> Callable[[], BinaryIO]:
        """A function that opens a file."""
        return lambda: io.BytesIO(self.read(name))


def source_of(store: Store, *, max_outage_s: float = 60.0) -> Source:
    """Return a source whose reads wait by the clock of the store."""
    return Source("inbox", OutageRetry(max_outage_s, store.clock, lambda: store.clock.now))


def test_read_started_before_the_outage_is_no_proof() -> None:
    """It was in progress when the store failed, and succeeded after the first failure of another file."""
    clock = Clock()
    store = Store(clock, [(0.0, 1e9)])
    source = source_of(store)
    source.succeeded("before.txt", store.opener("before.txt"))
    clock.at = [(0.2, lambda: source.succeeded("in-flight.txt", store.opener("in-flight.txt")))]
    with pytest.raises(TryLaterError):
        source.read(lambda: store.read("a.txt"), store.opener("a.txt"), key="a.txt")


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.floats(0.1, 20), st.floats(0.1, 5)), min_size=1, max_size=3),
    st.lists(st.floats(0.1, 20), max_size=6),
    st.booleans(),
)
def test_only_faulty_files_fail(lengths: list[tuple[float, float]], reads: list[float], is_own: bool) -> None:
    """This holds for any outages, and for reads of other files that began before them."""
    clock = Clock()
    outages: list[tuple[float, float]] = []
    start = 0.0
    for length, pause in lengths:
        outages.append((start, start + length))
        start += length + pause
    store = Store(clock, outages, own="a.txt" if is_own else "")
    source = source_of(store, max_outage_s=1e6)
    source.succeeded("before.txt", store.opener("before.txt"))
    clock.at = [(at, lambda: source.succeeded("other.txt", store.opener("other.txt"))) for at in reads]
    if is_own:
        with pytest.raises(OwnTroubleError):
            source.read(lambda: store.read("a.txt"), store.opener("a.txt"), key="a.txt")
        return
    assert source.read(lambda: store.read("a.txt"), store.opener("a.txt"), key="a.txt") == b"bytes"


@pytest.mark.parametrize(
    "not_found", [FileNotFoundError(errno.ENOENT, "No such file"), OSError(errno.EACCES, "denied")]
)
def test_not_found_of_another_file_proves_a_working_store(not_found: OSError) -> None:
    """The file needed as a proof was removed meanwhile, and the store reports that."""
    clock = Clock()
    store = Store(clock, [], own="a.txt")
    source = source_of(store)

    def opener() -> BinaryIO:
        raise not_found

    source.succeeded("removed.txt", opener)
    with pytest.raises(OwnTroubleError):
        source.read(lambda: store.read("a.txt"), store.opener("a.txt"), key="a.txt")
