"""One run at a time per output and shard; dead processes hold no lock."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_output import CHILD_ENV

from pipeline.errors import OutputError, TryLaterError
from pipeline.output.lock import Lock, acquire
from pipeline.shards import WHOLE, Shard

HOLD = """
import sys
from pathlib import Path
from pipeline.output.lock import acquire
from pipeline.shards import Shard
lock = acquire(Path(sys.argv[1]), "holder-run", shard=Shard(int(sys.argv[2]), int(sys.argv[3])), lock_wait_s=0,
               wait=lambda _: True, clock=float)
print("held", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def holder(folder: Path, shard: Shard) -> Iterator[subprocess.Popen[str]]:
    """Yield a child process that holds the lock until its stdin is closed or it is killed."""
    command = [sys.executable, "-c", HOLD, str(folder), str(shard.index), str(shard.count)]
    with subprocess.Popen(command, env=CHILD_ENV, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        yield child
        if child.stdin is not None:
            child.stdin.close()


def take(folder: Path, shard: Shard = WHOLE, *, lock_wait_s: float = 0) -> Lock:
    """Take the lock by a clock that advances one second per call."""
    ticks = itertools.count()
    return acquire(
        folder, "r", shard=shard, lock_wait_s=lock_wait_s, wait=lambda _: False, clock=lambda: float(next(ticks))
    )


@pytest.mark.parametrize(
    ("holder_shard", "other_shard"),
    [
        (WHOLE, WHOLE),
        (WHOLE, Shard(0, 2)),
        (Shard(0, 2), WHOLE),
        (Shard(0, 2), Shard(0, 2)),
        (Shard(0, 2), Shard(1, 3)),
        (Shard(0, 1), WHOLE),
    ],
)
def test_conflicting_shards_exclude_each_other(tmp_path: Path, holder_shard: Shard, other_shard: Shard) -> None:
    """The whole excludes all, another count excludes, a shard excludes itself; the error names the holder."""
    with holder(tmp_path, holder_shard) as child, pytest.raises(TryLaterError) as caught:
        take(tmp_path, other_shard)
    message = str(caught.value)
    assert f"pid {child.pid}" in message
    assert "holder-run" in message
    assert "host" in message
    assert "since" in message


def test_different_shards_of_one_count_run_side_by_side(tmp_path: Path) -> None:
    """All shards of a job can hold their locks at once."""
    with holder(tmp_path, Shard(0, 3)), holder(tmp_path, Shard(1, 3)):
        take(tmp_path, Shard(2, 3)).release()


def test_killed_holder_releases_the_lock(tmp_path: Path) -> None:
    """After kill -9 the lock is free at once, though the file still has the dead holder's name."""
    with holder(tmp_path, WHOLE) as child:
        child.kill()
        child.wait()
        assert json.loads((tmp_path / ".lock").read_bytes())["pid"] == child.pid
        take(tmp_path, Shard(0, 2)).release()
        take(tmp_path).release()


def test_waiting_run_takes_the_lock_when_it_is_free(tmp_path: Path) -> None:
    """It polls until then."""
    waits: list[float] = []
    with holder(tmp_path, WHOLE) as child:

        def wait(seconds: float) -> bool:
            waits.append(seconds)
            if len(waits) == 3:
                child.kill()
                child.wait()
            return False

        acquire(tmp_path, "r", shard=WHOLE, lock_wait_s=9, wait=wait, clock=lambda: 0.0).release()
    assert waits == [0.2] * 3


def test_wait_ends_after_lock_wait_s(tmp_path: Path) -> None:
    """The clock decides, not the number of polls."""
    with holder(tmp_path, WHOLE), pytest.raises(TryLaterError, match="waited 5 s"):
        take(tmp_path, lock_wait_s=5)


def test_stop_ends_the_wait_for_the_lock(tmp_path: Path) -> None:
    """A shutdown does not wait for another run."""
    with holder(tmp_path, WHOLE), pytest.raises(TryLaterError, match="interrupted"):
        acquire(tmp_path, "r", shard=WHOLE, lock_wait_s=99, wait=lambda _: True, clock=lambda: 0.0)


def test_blocked_gate_is_not_awaited_for_ever(tmp_path: Path) -> None:
    """If a suspended run is inside the gate, other runs try again later."""
    fd = os.open(tmp_path / ".lock-gate", os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        with pytest.raises(TryLaterError, match=r"\.lock-gate.*suspended"):
            take(tmp_path)
    finally:
        os.close(fd)


HOLD_AND_START = HOLD.replace(
    'print("held", flush=True)',
    """import subprocess
subprocess.Popen([sys.executable, "-c", "print('held', flush=True); input()"], close_fds=False)""",
)


def test_a_child_of_a_dead_holder_does_not_keep_the_lock(tmp_path: Path) -> None:
    """A program started by a killed run does not keep the output locked."""
    command = [sys.executable, "-c", HOLD_AND_START, str(tmp_path), "0", "0"]
    with subprocess.Popen(
        command, env=CHILD_ENV, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(TryLaterError):
            take(tmp_path)
        child.kill()
        child.wait()
        take(tmp_path).release()


def test_released_lock_is_free_despite_an_open_copy_of_its_descriptor(tmp_path: Path) -> None:
    """A child that is just being started has such a copy."""
    lock = take(tmp_path)
    copy = os.dup(lock._fd)
    lock.release()
    take(tmp_path).release()
    os.close(copy)


def test_lock_file_with_garbage_still_blocks(tmp_path: Path) -> None:
    """The message calls the holder an unidentified run."""
    with holder(tmp_path, WHOLE):
        (tmp_path / ".lock").write_bytes(b"[\xff")
        with pytest.raises(TryLaterError, match="an unidentified run"):
            take(tmp_path)


def test_uncreatable_lock_file_is_an_output_error(tmp_path: Path) -> None:
    """The error names the file."""
    (tmp_path / ".lock-gate").mkdir()
    with pytest.raises(OutputError, match=r"\.lock-gate"):
        take(tmp_path)


def test_one_of_many_simultaneous_runs_gets_the_lock(tmp_path: Path) -> None:
    """Eight processes request conflicting locks: one holds, seven are refused."""
    shards = [WHOLE, *(Shard(0, count) for count in range(2, 9))]
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    children = [
        subprocess.Popen(
            [*command, str(shard.index), str(shard.count)],
            env=CHILD_ENV, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        for shard in shards
    ]  # fmt: skip
    lines = [child.stdout.readline() for child in children if child.stdout]
    for child in children:
        child.communicate()
    assert lines.count("held\n") == 1


def test_long_wait_logs_the_holder_every_minute(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Five hours of waiting are 300 log lines; the wait ends as configured."""
    caplog.set_level("INFO", logger="pipeline")
    now = [0.0]

    def wait(seconds: float) -> bool:
        now[0] += max(seconds, 10.0)  # ten seconds a poll, so that the test takes none
        return False

    hours = 5 * 3600.0
    with holder(tmp_path, WHOLE), pytest.raises(TryLaterError, match=r"holder-run.*waited 18000 s"):
        acquire(tmp_path, "r", shard=WHOLE, lock_wait_s=hours, wait=wait, clock=lambda: now[0])
    assert hours <= now[0] < hours + 20
    records = [record for record in caplog.records if record.getMessage() == "Waiting for the output"]
    assert 299 <= len(records) <= 301
    assert all("holder-run" in vars(record)["holder"] for record in records)
    assert [vars(record)["waited_s"] for record in records[:3]] == [0, 60, 120]
