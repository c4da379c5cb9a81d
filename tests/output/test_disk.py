"""Disk trouble: an output that is read-only, full, slow, or loses its last second."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from conftest import Place, line_with, write_whole
from fake_llm import FakeLLM, ReceivedRequest
from test_output import ids, opened, result
from timing import Gate, until

from pipeline.errors import OutputError, TryLaterError
from pipeline.output.line_file import LineFile
from pipeline.output.lock import acquire
from pipeline.shards import WHOLE

PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1
needs_rights = pytest.mark.skipif(
    os.geteuid() == 0 and sys.platform != "linux", reason="root may write anywhere, and only Linux can take that away"
)


def obey_rights() -> None:
    """Drop root's right to ignore file permissions, in a child that is being started."""
    if os.geteuid() == 0:
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Make the folder and its files read-only within the block."""
    everything = [folder, *folder.rglob("*")]
    modes = {path: path.stat().st_mode for path in everything}
    for path in everything:
        path.chmod(modes[path] & 0o555)
    try:
        yield
    finally:
        for path in everything:
            path.chmod(modes[path])


@needs_rights
def test_output_read_only_at_the_start_is_exit_3(place: Place) -> None:
    """No request is sent, no file changes, and the message names the folder."""
    place.documents(3)
    place.run("--limit", "1")
    place.sent_documents()
    before = place.lines("results.jsonl")
    with read_only(place.folder / "out"):
        ran = place.call("run", limits=obey_rights)
    assert ran.code == 3, ran.err
    assert "out" in ran.err and "Permission denied" in ran.err and "Traceback" not in ran.err
    assert (place.sent_documents(), place.lines("results.jsonl")) == ([], before)


@needs_rights
def test_output_that_becomes_read_only_is_exit_3(place: Place, server: FakeLLM) -> None:
    """Every sent document has a record, and the next run does only the rest."""
    names = place.documents(20)
    server.faults = gate = Gate(after=6)
    child = place.start("run", limits=obey_rights)
    place.wait_for_results(4)
    with read_only(place.folder / "out"):
        gate.open()
        ran = child.end()
    assert ran.code == 3, ran.err
    assert "Permission denied" in ran.err and "Traceback" not in ran.err
    sent, done = place.sent_documents(), place.done()
    assert set(sent) == set(done)
    place.run()
    assert place.done() == dict.fromkeys(names, 1)
    assert set(place.sent_documents()) == set(names) - set(done)


@contextmanager
def small_disk(folder: Path) -> Iterator[Callable[[], None]]:
    """Mount a filesystem of 40 KiB at the folder; yield a function that enlarges it."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "none", str(folder)], check=True)
    try:
        yield lambda: subprocess.run(["mount", "-o", "remount,size=8m", str(folder)], check=True)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def no_larger_files() -> None:
    """Limit files to 60,000 bytes in a child that is being started; a small index fits."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))


def can_mount() -> bool:
    """Return whether this process may mount a filesystem."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory() as folder:
        command = ["mount", "-t", "tmpfs", "none", folder]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return False
        subprocess.run(["umount", folder], check=True)
    return True


@pytest.mark.parametrize("how", ["limit", "disk"])
def test_full_disk_loses_only_documents_in_flight(place: Place, how: str) -> None:
    """The run exits with 3 and leaves whole lines; with more space the next run does the rest."""
    if how == "disk" and not can_mount():
        pytest.skip("needs root on Linux to mount a small filesystem")
    names, out = place.documents(100), place.folder / "out"
    with small_disk(out) if how == "disk" else nullcontext(lambda: None) as give_room:
        ran = place.call("run", limits=no_larger_files if how == "limit" else None)
        assert ran.code == 3, ran.err
        assert "out/results.jsonl: a line of" in ran.err and "Traceback" not in ran.err
        sent, done = place.sent_documents(), place.done()
        assert 10 < len(done) < 100
        assert len(set(sent) - set(done)) <= 4
        assert "STOPPED BEFORE THE END" in ran.out
        give_room()
        place.run()
        assert place.done() == dict.fromkeys(names, 1)
        assert set(place.sent_documents()) == set(names) - set(done)


SICK = """
import errno, os, time
_real = {name: getattr(os, name) for name in ("fsync", "write", "pwrite")}
_state, _name = os.environ["SICK_STATE"], os.environ.get("SICK_NAME", "results.jsonl")
def _may(fd):
    try:
        word = open(_state).read()
    except FileNotFoundError:
        return
    if word and os.path.basename(os.readlink(f"/proc/self/fd/{fd}")) == _name:
        if word.startswith("once"):
            os.unlink(_state)
        number = getattr(errno, word.split()[-1])
        raise OSError(number, os.strerror(number))
def fsync(fd):
    _may(fd)
    _real["fsync"](fd)
def write(fd, data):
    _may(fd)
    return _real["write"](fd, data)
def pwrite(fd, data, offset):
    _may(fd)
    return _real["pwrite"](fd, data, offset)
os.fsync = fsync
if os.environ.get("SICK_WRITES"):
    os.write = write
    os.pwrite = pwrite
"""
"""A child with this as its sitecustomize has a disk that fails while a file holds the name of an errno, or once."""


class Disk:
    """The disk of a place's output, as a child with SICK sees it.

    With `writes` it refuses lines and not only fsyncs.
    """

    def __init__(self, place: Place, *, writes: bool) -> None:
        self._state = place.folder / "sick"
        (place.folder / "sitecustomize.py").write_text(SICK)
        path, state = str(place.folder), str(self._state)
        self.env = {"PYTHONPATH": path, "SICK_STATE": state, "SICK_WRITES": "1" if writes else ""}

    def fails(self, word: str) -> None:
        """Fail with this errno from now on; `once …`: for one call."""
        write_whole(self._state, word)

    def is_back(self) -> None:
        """Work again."""
        self._state.unlink(missing_ok=True)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to name a descriptor")
@pytest.mark.parametrize(("word", "writes"), [("once EIO", False), ("EIO", False), ("ESTALE", True), ("EDQUOT", True)])
def test_run_waits_for_a_failing_disk(place: Place, server: FakeLLM, word: str, writes: bool) -> None:
    """Lines wait in memory, few more requests are sent, and the run ends with each line once."""
    names = place.documents(40)
    server.faults = gate = Gate(after=6)
    server.latency_s = 0.05
    disk = Disk(place, writes=writes)
    child = place.start("run", env=disk.env)
    place.wait_for_results(6)
    disk.fails(word)
    gate.open()
    if word.startswith("once"):
        place.wait_for(lambda: not (place.folder / "sick").exists(), "the failure")
    else:
        line_with(child, "The output is not available; retrying for up to 3600 s")
        assert not writes or len(place.sent_documents()) < 40  # a failed fsync is detected after half a second
    disk.is_back()
    ran = child.end()
    assert ran.code == 0, ran.err
    assert place.done() == dict.fromkeys(names, 1)
    assert place.report()["run"]["counts"]["done"] == 40


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to name a descriptor")
def test_lasting_disk_failure_exits_with_3(place: Place, server: FakeLLM) -> None:
    """After `max_outage_s` the written records count, and the next run does the rest."""
    names = place.documents(40)
    server.faults = gate = Gate(after=6)
    disk = Disk(place, writes=True)
    child = place.start("run", "--set", "runner.max_outage_s=1", env=disk.env)
    place.wait_for_results(6)
    disk.fails("EIO")
    gate.open()
    ran = child.end()
    assert ran.code == 3, ran.err
    assert "runner.max_outage_s" in ran.err and "Input/output error" in ran.err and "Traceback" not in ran.err
    done = place.done()
    assert 6 <= len(done) < 40
    counts = place.report()["run"]["counts"]
    assert counts["done"] <= len(done)
    assert (counts["left"], counts["failed"]) == (40 - counts["done"], 0)
    disk.is_back()
    place.run()
    assert place.done() == dict.fromkeys(names, 1)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to name a descriptor")
def test_signal_ends_the_wait_for_a_disk(place: Place, server: FakeLLM) -> None:
    """The run ends within `grace_s`, with the signal's exit code."""
    place.documents(40)
    server.faults = gate = Gate(after=6)
    disk = Disk(place, writes=True)
    child = place.start("run", "--set", "runner.grace_s=1", env=disk.env)
    place.wait_for_results(6)
    disk.fails("EIO")
    gate.open()
    line_with(child, "The output is not available")
    ran = child.end(15)
    assert ran.code == 143, ran.err
    assert "Traceback" not in ran.err


def test_unsynced_lines_are_rewritten_after_an_outage(tmp_path: Path) -> None:
    """They follow the durable lines, and lines of another writer are not cut off."""
    path = tmp_path / "results.jsonl"
    locked = []
    file = LineFile(path, check_lock=lambda: locked.append(path))
    file.append(b'{"n": 1}\n')
    file.sync()
    file.append(b'{"n": 2}\n')
    away = tmp_path / "away"
    path.rename(away)
    os.close(file._fd)  # like a file system that was unmounted
    file._fd = os.open(tmp_path, os.O_RDONLY)
    file.is_failing = True
    file.append(b'{"n": 3}\n')
    assert file.unwritten == 2
    with pytest.raises(OutputError, match="is the file system mounted"):
        file.sync()
    away.rename(path)
    file.sync()
    assert path.read_bytes() == b'{"n": 1}\n{"n": 2}\n{"n": 3}\n'
    assert (file.unwritten, len(locked)) == (0, 2)
    path.write_bytes(b"")
    file.is_failing = True
    file.append(b'{"n": 4}\n')
    with pytest.raises(OutputError, match="of 27 that were durable"):
        file.sync()


def test_lock_broken_by_an_outage_is_retaken_or_lost(tmp_path: Path) -> None:
    """The content of the lock file shows whether another run has held it meanwhile."""
    clock = {"lock_wait_s": 0.0, "wait": lambda _: True, "clock": lambda: 0.0}
    mine = acquire(tmp_path, "mine", shard=WHOLE, **clock)
    mine.check()
    os.close(mine._fd)  # the kernel drops the lock, as a restarted file server does
    mine.check()
    os.close(mine._fd)
    other_lock = acquire(tmp_path, "theirs", shard=WHOLE, **clock)
    with pytest.raises(TryLaterError, match="lost to another run"):
        mine.check()
    other_lock.release()
    with pytest.raises(TryLaterError, match="lost to another run"):
        mine.check()


WATCHED = """
import json, os, time
_write, _fsync = os.write, os.fsync
_log = _write, os.open(os.environ["FSYNC_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def _note(kind, fd):
    name = os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))
    if name == "results.jsonl":
        _log[0](_log[1], json.dumps([kind, time.monotonic(), os.fstat(fd).st_size]).encode() + b"\\n")
def write(fd, data):
    written = _write(fd, data)
    _note("write", fd)
    return written
def fsync(fd):
    _fsync(fd)
    _note("fsync", fd)
os.write, os.fsync = write, fsync
"""
"""A child with this as its sitecustomize tells of each write and fsync, after the real one."""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to name a descriptor")
def test_record_is_synced_within_a_second(place: Place, server: FakeLLM) -> None:
    """An fsync covers every byte of the results soon after its write, and again at the end."""
    place.documents(5)
    (place.folder / "sitecustomize.py").write_text(WATCHED)
    log = place.folder / "fsyncs"
    sent_ids: list[str] = []

    def events() -> list[tuple[str, float, int]]:
        lines = log.read_text().splitlines(keepends=True) if log.exists() else []
        return [tuple(json.loads(line)) for line in lines if line.endswith("\n")]

    def each_after_the_last(request: ReceivedRequest, _n: int) -> None:
        """Answer a document only when the previous record is durable."""
        if request.document.endswith(".txt"):
            until(lambda: [kind for kind, *_ in events()].count("write") >= len(sent_ids), "a write")
            until(lambda: not sent_ids or waits_for_fsync(events())[-1] is not None, "an fsync")
            sent_ids.append(request.document)

    server.faults = each_after_the_last
    place.run("--concurrency", "1", env={"PYTHONPATH": str(place.folder), "FSYNC_LOG": str(log)})
    waits = waits_for_fsync(events())
    assert len(waits) == 5
    assert None not in waits, "the end of the run came before an fsync"
    # a busy machine adds to the second, though hardly each time
    assert min(wait for wait in waits[:-1] if wait is not None) < 2.0


def waits_for_fsync(events: list[tuple[str, float, int]]) -> list[float | None]:
    """Return the seconds from each write to the fsync that covered it, or None for never."""
    waits = []
    for at, (kind, when, size) in enumerate(events):
        if kind == "write":
            synced = (then for event, then, covers in events[at:] if event == "fsync" and covers >= size)
            waits.append(next((then - when for then in synced), None))
    return waits


TOLD = """
import json, os
_fsync, _replace, _mkdir, _open = os.fsync, os.replace, os.mkdir, os.open
_log = os.open(os.environ["STEPS_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def _tell(kind, *paths):
    os.write(_log, json.dumps([kind, *map(os.path.abspath, paths)]).encode() + b"\\n")
def fsync(fd):
    _fsync(fd)
    _tell("fsync", os.readlink(f"/proc/self/fd/{fd}"))
def replace(old, new):
    _replace(old, new)
    _tell("replace", old, new)
def mkdir(path, *arguments):
    _mkdir(path, *arguments)
    _tell("make", path)
def open(path, flags, *arguments, **named):
    is_new = flags & os.O_CREAT and not os.path.exists(path)
    fd = _open(path, flags, *arguments, **named)
    if is_new:
        _tell("make", path)
    return fd
os.fsync, os.replace, os.mkdir, os.open = fsync, replace, mkdir, open
"""
"""A child with this as its sitecustomize tells of each fsync and of each name that is made or replaced."""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to name a descriptor")
def test_file_is_synced_before_its_name(place: Place) -> None:
    """A folder is synced after a name in it changed, and a file before it replaces another."""
    place.documents({"a.txt": "[[fault:http_400]]", "b.txt": "text"})
    (place.folder / "sitecustomize.py").write_text(TOLD)
    log, out = place.folder / "steps", place.folder / "out"
    environment = {"PYTHONPATH": str(place.folder), "STEPS_LOG": str(log)}
    place.run("--set", "runner.max_error_rate=1", env=environment)
    place.change("a.txt", "a mended text")
    place.run(env=environment)
    events = [json.loads(line) for line in log.read_text().splitlines()]
    named = []
    for at, (kind, *paths) in enumerate(events):
        path = Path(paths[-1])
        if kind == "fsync" or not path.is_relative_to(out) or path.name.startswith(".lock") or path.suffix == ".tmp":
            continue
        after = events[at:]
        own = after.index(["fsync", str(path)]) if ["fsync", str(path)] in after else len(after)
        assert ["fsync", str(path.parent)] in after[:own], f"the folder of {path} was not synced after {kind}"
        if kind == "replace":
            assert ["fsync", paths[0]] in events[:at], f"{path} was replaced by what was not synced"
        named.append(path.name if path.parent == out else "runs" if path != out else "")
    assert {*named} == {"", "results.jsonl", "errors.jsonl", "report.json", "report.html", "runs", ".runs"}
    assert any(kind == "replace" and paths[-1].endswith("errors.jsonl") for kind, *paths in events)


def test_truncation_at_any_byte_loses_only_later_records(tmp_path: Path) -> None:
    """This includes zeros instead of data, as a power cut leaves them."""
    with opened(tmp_path) as output:
        for name in "abc":
            output.write(result(name, output={"text": f"{name}\u00e9 \\ud83d"}))
    path = tmp_path / "results.jsonl"
    whole = path.read_bytes()
    ends = [at + 1 for at, byte in enumerate(whole) if byte == 0x0A]
    around_ends = {end + by for end in ends[1:] for by in range(-6, 6) if end + by <= len(whole)}
    for cut in {*range(ends[0], len(whole), 29)} | around_ends:
        for rest in (b"", b"\0" * (len(whole) - cut)):
            path.write_bytes(whole[:cut] + rest)
            remaining = 1 + sum(cut >= end - (rest == b"") for end in ends[1:])
            with opened(tmp_path) as output:
                assert output.index.counts()["done"] == remaining, (cut, len(rest))
            assert path.read_bytes() == whole[: ends[remaining - 1]], (cut, len(rest))
            assert ids(path) == list("abc"[:remaining])
