"""A truncated, corrupt, deleted or half-written windows file loses its broken lines and no other answer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_crashes import DYING
from test_output import CHILD_ENV, failure, ids, opened, result
from test_remote_output import Clock
from test_window_lines import answer, answered_spans, begun, lines, write

from pipeline.config import OutputConfig
from pipeline.output import scan
from pipeline.output.window_files import LocalWindows
from pipeline.records import Stamp
from pipeline.shards import Shard
from pipeline.window_answers import to_window_line

SPANS = [(0, 100), (90, 200), (190, 300), (290, 400)]


def four_answers(folder: Path) -> tuple[OutputConfig, bytes]:
    """Write the answers of four windows of a document; return the config and the bytes of their file."""
    config = OutputConfig(str(folder / "out"))
    with begun(config) as output:
        write(output, *(answer(start=start, end=end, output={"text": 'é\\n"x'}) for start, end in SPANS))
    return config, (folder / "out" / "windows.jsonl").read_bytes()


def ends_of(data: bytes) -> list[int]:
    """Return the end positions of the lines."""
    return [at + 1 for at, byte in enumerate(data) if byte == 0x0A]


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_truncation_at_any_byte_loses_only_later_answers(data: st.DataObject) -> None:
    """This includes zeros instead of data after a power cut; lines written afterwards are whole."""
    with tempfile.TemporaryDirectory() as folder:
        config, whole = four_answers(Path(folder))
        cut = data.draw(st.integers(0, len(whole)), label="cut")
        zeros = data.draw(st.sampled_from([0, 1, len(whole) - cut]), label="zeros")
        path = Path(folder) / "out" / "windows.jsonl"
        path.write_bytes(whole[:cut] + b"\0" * zeros)
        # the last LF may be missing: the line is whole without it
        remaining = sum(cut >= end - (zeros == 0) for end in ends_of(whole))
        with begun(config) as output:
            assert answered_spans(output) == SPANS[:remaining]
            write(output, *(answer(start=start, end=end) for start, end in SPANS[remaining:]))
        with begun(config) as output:
            assert answered_spans(output) == SPANS
            assert len(lines(config)) == len(SPANS)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_corrupt_bytes_lose_only_the_answers_they_hit(data: st.DataObject) -> None:
    """They may be anywhere, even in a line's end; the other answers are used, and the file is repaired."""
    with tempfile.TemporaryDirectory() as folder:
        config, whole = four_answers(Path(folder))
        start = data.draw(st.integers(0, len(whole) - 1), label="start")
        size = data.draw(st.integers(1, min(300, len(whole) - start)), label="size")
        broken = bytes([data.draw(st.sampled_from([0x00, 0x01, 0xFF]), label="byte")]) * size
        path = Path(folder) / "out" / "windows.jsonl"
        path.write_bytes(whole[:start] + broken + whole[start + size :])
        ends = ends_of(whole)
        begins = [0, *ends[:-1]]
        hit = [begin < start + size and start < end for begin, end in zip(begins, ends, strict=True)]
        with begun(config) as output:
            outcome = answered_spans(output)
            whole_lines = [span for span, is_hit in zip(SPANS, hit, strict=True) if not is_hit]
            # a lost LF joins two lines, and both are lost; the last line does not need its LF
            assert set(outcome) <= set(SPANS)
            joined = {n for n, end in enumerate(ends) if start < end <= start + size and start <= end - 1}
            lost_with = {SPANS[n + 1] for n in joined if n + 1 < len(SPANS)}
            assert set(whole_lines) - lost_with <= set(outcome)
            output.write(result("other"))
            output.finish()
        assert len(lines(config)) == len(outcome)


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"")])
def test_deleted_or_emptied_file_loses_only_its_answers(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    """The run starts, and the next answer recreates the file."""
    config, _ = four_answers(tmp_path)
    path = tmp_path / "out" / "windows.jsonl"
    damage(path)
    with begun(config) as output:
        assert answered_spans(output) == []
        write(output, answer())
    assert path.read_bytes().count(b"\n") == 1
    # deleted while the command runs: later answers are on no disk, but nothing fails
    with begun(config) as output:
        write(output, answer(start=90, end=200))
        path.unlink()
        write(output, answer(start=190, end=300))
        assert answered_spans(output) == [(0, 100), (90, 200), (190, 300)]
        output.write(result("a.pdf"))
        output.finish()
    assert lines(config) == []


def test_answer_is_synced_within_a_second(tmp_path: Path) -> None:
    """It is synced like a record; a second call has no unsynced line."""
    clock = Clock()
    files = LocalWindows(tmp_path, None, shard=Shard(), clock=clock, under_gate=lambda _change, _path: None)
    files.append(to_window_line(answer(), Stamp(1, "r")))
    file = files._file
    assert file is not None
    assert file.unsynced_since == clock()
    files.sync_due(clock() + 0.3)
    assert file.unsynced_since is not None
    files.sync_due(clock() + 0.4)
    assert file.unsynced_since is None
    files.append(to_window_line(answer(start=90, end=200), Stamp(1, "r")))
    files.sync()
    assert file.unsynced_since is None


def a_run(out: Path, acknowledge: Callable[[str], object]) -> None:
    """Answer the missing windows of two documents, finish one document and fail the other."""
    with begun(OutputConfig(str(out)), run_id="new") as output:
        for name, outcome in (("done", result("done")), ("failed", failure("failed"))):
            last = output.index.latest(name)
            if last is not None and last.failed == (name == "failed"):
                continue
            for start, end in SPANS:
                if (start, end) not in answered_spans(output, name):
                    write(output, answer(name, start, end))
                    acknowledge(f"{name}:{start}")
            output.write(outcome)
            acknowledge(name)
        output.finish()
        output.write_run({"stats": {}})


DEEDS = {"windows": a_run}


def wreck(out: Path) -> None:
    """Leave the files of killed runs: an outdated answer, a broken line and half of a rewritten file."""
    with opened(out, run_id="first") as output:
        output.write(result("older"))
    with begun(OutputConfig(str(out)), run_id="second") as output:
        write(output, answer("failed", *SPANS[0]))
    with begun(OutputConfig(str(out)), windows=False) as output:
        output.write(result("older"))
    with (out / "windows.jsonl").open("ab") as file:
        file.write(to_window_line(answer("older"), Stamp(1, "first")) + b'{"v":1,"id":"failed","sha')
    (out / ".windows.jsonl.0123456789ab.tmp").write_bytes(b"half")


@pytest.mark.slow
def test_kill_after_any_step_loses_no_answered_window(tmp_path: Path) -> None:
    """The next run knows each acknowledged answer, or its document is done."""
    template = tmp_path / "template"
    wreck(template / "out")
    command = [sys.executable, "-c", DYING.replace("test_crashes", "test_window_faults"), template, "windows"]
    environment = {**CHILD_ENV, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(command, env=environment, timeout=120, check=False)
    assert ran.returncode == 0
    folders = sorted(tmp_path.glob("step-*"))
    assert len(folders) > 20
    for folder in folders:
        out = folder / "out"
        acknowledged = set((folder / "acks").read_text().split())
        with closing(scan(OutputConfig(str(out)))) as index:
            finished = {name for name in ("done", "failed") if index.latest(name) is not None}
        assert finished >= acknowledged & {"done", "failed"}, folder.name
        requests: list[str] = []
        a_run(out, requests.append)
        answered = acknowledged | {"failed:0"}
        assert not set(requests) & answered, folder.name
        assert all(request.partition(":")[0] not in finished for request in requests), folder.name
        assert {"done", "older"} == {*ids(out / "results.jsonl")}, folder.name
        assert ids(out / "errors.jsonl") == ["failed"], folder.name
        assert [line["start"] for line in lines(OutputConfig(str(out))) if line["id"] == "failed"] == [
            start for start, _ in SPANS
        ], folder.name
        assert {line["id"] for line in lines(OutputConfig(str(out)))} == {"failed"}, folder.name
        assert list(out.rglob("*.tmp")) == [], folder.name
        shutil.rmtree(folder)
