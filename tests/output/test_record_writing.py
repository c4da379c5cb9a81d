"""Several outcomes written together: what is yielded is in the file and in the index, and nothing else is."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from test_output import failure, ids, opened, result

from pipeline.errors import InternalError, OutputError
from pipeline.output import Output
from pipeline.records import Failure, Result

TEXT = {"text": "x" * 1000}


def written(output: Output, outcomes: list[Result | Failure]) -> list[str]:
    """Return the ids of the outcomes that were written, and the class of the error that ended them."""
    written_ids = []
    try:
        for key in output.write_all(outcomes):
            written_ids.append(key.id)
    except (OutputError, InternalError) as error:
        written_ids.append(type(error).__name__)
    return written_ids


@contextmanager
def room_for(path: Path, more_bytes: int) -> Iterator[None]:
    """Let no file of this process grow beyond the present size of this one and some more bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + more_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_results_are_written_in_one_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their lines are in order, and each is indexed."""
    calls = []
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: calls.append(len(data)) or write(fd, data))
    with opened(tmp_path) as output:
        assert written(output, [result(name) for name in "abc"]) == ["a", "b", "c"]
        assert len(calls) == 1
        assert output.index.counts()["done"] == 3
    assert ids(tmp_path / "results.jsonl") == ["a", "b", "c"]


def test_failures_among_results_go_to_their_own_file(tmp_path: Path) -> None:
    """The keys are yielded in the order of the outcomes, whichever file holds their lines."""
    with opened(tmp_path) as output:
        assert written(output, [result("a"), failure("b"), result("c")]) == ["a", "b", "c"]
    assert ids(tmp_path / "results.jsonl") == ["a", "c"]
    assert ids(tmp_path / "errors.jsonl") == ["b"]


def test_record_that_is_no_json_ends_the_writing(tmp_path: Path) -> None:
    """The records before it are written; it and the records after it are not."""
    outcomes: list[Result | Failure] = [result("a"), result("b", output={"x": float("nan")}), result("c")]
    with opened(tmp_path) as output:
        assert written(output, outcomes) == ["a", "InternalError"]
        assert output.index.counts()["done"] == 1
    assert ids(tmp_path / "results.jsonl") == ["a"]


def test_full_disk_keeps_the_lines_that_fit(tmp_path: Path) -> None:
    """No part of a line remains, and exactly the records in the file are yielded."""
    path = tmp_path / "results.jsonl"
    with opened(tmp_path) as output:
        output.write(result("first", output=TEXT))
        size = path.stat().st_size
        with room_for(path, 2 * size + size // 2):
            ids_written = written(output, [result(f"{number}", output=TEXT) for number in range(5)])
        assert ids_written[-1] == "OutputError"
        assert output.index.counts()["done"] == len(ids_written)
    assert ids(path) == ["first", *ids_written[:-1]]
    assert path.read_bytes().endswith(b"}\n")
    assert 1 < len(ids_written) < 5
