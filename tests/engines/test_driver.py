"""The driver of an engine: slots, tries, exit codes; and the flags of `pipeline run --engine`."""

from __future__ import annotations

import socket
import sys
from collections import deque
from collections.abc import Sequence
from types import ModuleType

import pytest
from conftest import Place
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engines import ChunkResult, run_chunk
from pipeline.engines.driver import MOST_TRIES, HandOut, hand_out
from pipeline.engines.ray import check_ray
from pipeline.engines.whole_run import lacks_plan
from pipeline.errors import ConfigError, TryLaterError


class Codes:
    """An engine without machines: each try of a chunk ends with the next of its codes, the last one again and again."""

    def __init__(self, codes: Sequence[Sequence[int]]) -> None:
        self.codes = [list(each) for each in codes]
        self.running: list[int] = []
        self.most = 0
        self.tries = [0] * len(codes)
        self.is_cancelled = False

    def submit(self, index: int) -> None:
        """Start a chunk."""
        assert not self.is_cancelled
        self.running.append(index)
        self.tries[index] += 1
        self.most = max(self.most, len(self.running))

    def ended(self) -> list[tuple[int, ChunkResult | None]]:
        """End the oldest chunk."""
        index = self.running.pop(0)
        codes = self.codes[index]
        code = codes.pop(0) if len(codes) > 1 else codes[0]
        return [(index, None if self.is_cancelled else ChunkResult(index, code))]

    def cancel(self) -> None:
        """End what runs without a result."""
        self.is_cancelled = True

    def close(self) -> None:
        """Do nothing."""


def run(engine: Codes, *, slots: int = 2, stopped: bool = False) -> HandOut:
    """Hand out all chunks."""
    return hand_out(engine, range(len(engine.codes)), slots=slots, is_stopped=lambda: stopped)


@settings(max_examples=50)
@given(st.lists(st.sampled_from((0, 1, 3, 70, 137, 143)), min_size=1, max_size=12), st.integers(1, 5))
def test_each_chunk_ends_once_and_no_slot_has_two(codes: list[int], slots: int) -> None:
    """Finished chunks run once, others as often as allowed; none stops the others."""
    engine = Codes([[code] for code in codes])
    state = run(engine, slots=slots)
    assert {index: result.exit_code for index, result in state.ended.items()} == dict(enumerate(codes))
    assert engine.tries == [1 if code in (0, 1) else MOST_TRIES for code in codes]
    assert engine.most <= slots
    assert state.is_whole


@pytest.mark.parametrize(
    ("codes", "code"),
    [((0, 0), 0), ((0, 1), 1), ((3, 0), 3), ((3, 1), 1), ((70, 1), 70), ((137, 0), 3), ((143, 0), 3), ((), 0)],
)
def test_the_exit_code_is_the_worst(codes: tuple[int, ...], code: int) -> None:
    """A chunk that was killed can go on, as after exit code 3."""
    assert run(Codes([[each] for each in codes])).exit_code == code


def test_a_chunk_that_ends_early_is_run_again() -> None:
    """Its last result counts."""
    engine = Codes([[0], [3, 137, 0]])
    state = run(engine)
    assert (engine.tries, state.exit_code) == ([1, 3], 0)


def test_a_configuration_error_ends_all() -> None:
    """Trying again changes nothing: what runs is cancelled, and the rest is left."""
    engine = Codes([[2], [0], [0], [0]])
    state = run(engine)
    assert (state.exit_code, engine.tries, sorted(state.left)) == (2, [1, 1, 0, 0], [1, 2, 3])


def test_a_stop_cancels_what_runs() -> None:
    """Nothing more is handed out."""
    engine = Codes([[0]] * 4)
    state = run(engine, stopped=True)
    assert engine.is_cancelled
    assert (sorted(state.ended), sorted(state.left), state.is_whole) == ([0], [1, 2, 3], False)


def test_a_node_that_does_not_share_the_output_is_said(place: Place) -> None:
    """Its chunks find no plan, in the words of `pipeline run --chunk`."""
    result = run_chunk(place.folder / "pipeline.yaml", str(place.folder / "elsewhere"), 0, write=[].append)
    assert lacks_plan(HandOut(deque(), ended={0: ChunkResult(0, 0), 1: result}))
    assert not lacks_plan(HandOut(deque(), ended={0: ChunkResult(0, 2, message="agent: unknown")}))


def test_without_the_extra_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, with the extra's name."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"--engine ray: needs a library: .*extraction-pipeline\[ray\]"):
        check_ray(None)


@pytest.mark.parametrize("address", ["nonsense", "ray://head:10001", "http://127.0.0.1:8265", ":6379", "head:"])
def test_what_is_no_address_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in RAY_ADDRESS, where `ray job submit` has another kind of address."""
    monkeypatch.setitem(sys.modules, "ray", ModuleType("ray"))
    with pytest.raises(ConfigError, match="need HOST:PORT of the head"):
        check_ray(address)


def test_an_address_where_nothing_answers_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the input is planned."""
    monkeypatch.setitem(sys.modules, "ray", ModuleType("ray"))
    with socket.socket() as taken:  # bound, but it does not listen
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(TryLaterError, match=r"no cluster answers at 127\.0\.0\.1:\d+: .*refused"):
            check_ray(f"127.0.0.1:{taken.getsockname()[1]}")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--engine", "ray", "--slots", "0"), "--slots: got '0', need a whole number of 1 or more"),
        (("--slots", "2"), "--slots: got 2 without --engine"),
        (("--engine", "ray", "--chunk", "0"), "--chunk: cannot be combined with --engine"),
        (("--engine", "dask"), "dask"),
        (("--engine", "ray", "--set", "runner.concurency=3"), "the nearest is runner.concurrency"),
    ],
)
def test_flags_that_cannot_be(place: Place, flags: tuple[str, ...], message: str) -> None:
    """Exit code 2, and the flag."""
    ran = place.call("run", *flags)
    assert ran.code == 2
    assert message in ran.err
