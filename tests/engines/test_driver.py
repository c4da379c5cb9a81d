"""The driver of an engine: slots, retries, exit codes, and the flags of `pipeline run --engine`."""

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
    """An engine without machines: each try of a chunk ends with its next exit code, the last one repeated."""

    def __init__(self, codes: Sequence[Sequence[int]]) -> None:
        self.codes = [list(code) for code in codes]
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
    """Drive all chunks."""
    return hand_out(engine, range(len(engine.codes)), slots=slots, is_stopped=lambda: stopped)


@settings(max_examples=50)
@given(st.lists(st.sampled_from((0, 1, 3, 70, 137, 143)), min_size=1, max_size=12), st.integers(1, 5))
def test_each_chunk_finishes_once(codes: list[int], slots: int) -> None:
    """Failed chunks are retried up to the limit, none stops the others, and no slot runs two."""
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
def test_driver_exit_code_is_the_worst_of_its_chunks(codes: tuple[int, ...], code: int) -> None:
    """A killed chunk can be resumed, as after exit code 3."""
    assert run(Codes([[chunk_code] for chunk_code in codes])).exit_code == code


def test_chunk_that_ends_early_is_run_again() -> None:
    """Its last result counts."""
    engine = Codes([[0], [3, 137, 0]])
    state = run(engine)
    assert (engine.tries, state.exit_code) == ([1, 3], 0)


def test_configuration_error_cancels_all_chunks() -> None:
    """A retry would not help: running chunks are cancelled, and the others are left."""
    engine = Codes([[2], [0], [0], [0]])
    state = run(engine)
    assert (state.exit_code, engine.tries, sorted(state.left)) == (2, [1, 1, 0, 0], [1, 2, 3])


def test_stop_cancels_running_chunks() -> None:
    """No further chunk is started."""
    engine = Codes([[0]] * 4)
    state = run(engine, stopped=True)
    assert engine.is_cancelled
    assert (sorted(state.ended), sorted(state.left), state.is_whole) == ([0], [1, 2, 3], False)


def test_node_without_the_shared_output_is_reported(place: Place) -> None:
    """Its chunks find no plan, and the message is that of `pipeline run --chunk`."""
    result = run_chunk(place.folder / "pipeline.yaml", str(place.folder / "elsewhere"), 0, write=[].append)
    assert lacks_plan(HandOut(deque(), ended={0: ChunkResult(0, 0), 1: result}))
    assert not lacks_plan(HandOut(deque(), ended={0: ChunkResult(0, 2, message="agent: unknown")}))


def test_missing_engine_extra_names_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message is one line."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"--engine ray: needs a library: .*extraction-pipeline\[ray\]"):
        check_ray(None)


@pytest.mark.parametrize("address", ["nonsense", "ray://head:10001", "http://127.0.0.1:8265", ":6379", "head:"])
def test_invalid_ray_address_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """This covers RAY_ADDRESS, in which `ray job submit` expects another kind of address."""
    monkeypatch.setitem(sys.modules, "ray", ModuleType("ray"))
    with pytest.raises(ConfigError, match="need HOST:PORT of the head"):
        check_ray(address)


def test_unreachable_ray_address_is_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is reported before the input is planned."""
    monkeypatch.setitem(sys.modules, "ray", ModuleType("ray"))
    with socket.socket() as silent:  # bound, but it does not listen
        silent.bind(("127.0.0.1", 0))
        with pytest.raises(TryLaterError, match=r"no cluster answers at 127\.0\.0\.1:\d+: .*refused"):
            check_ray(f"127.0.0.1:{silent.getsockname()[1]}")


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
def test_invalid_engine_flags_are_exit_2(place: Place, flags: tuple[str, ...], message: str) -> None:
    """The message names the flag."""
    ran = place.call("run", *flags)
    assert ran.code == 2
    assert message in ran.err
