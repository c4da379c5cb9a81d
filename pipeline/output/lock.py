"""One run at a time for each output and shard: `flock` on an open descriptor, which the dead don't keep.

It must not believe what a lock file says: only the kernel's lock counts, the text in it merely names the holder.

A run takes `.lock`, or `.lock-00003-of-00016` with `--shard 3/16`. Looking at the others and taking one's own is one
step under `.lock-gate`, so that two runs that exclude each other cannot both see a free folder. Lock files stay where
they are: removing one would let two runs hold two files of one name.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import OutputError, TryLaterError
from pipeline.output.shared_files import names_in
from pipeline.records import utc_now
from pipeline.shards import Shard
from pipeline.stores.local import FILE_MODE

_log = logging.getLogger(__name__)
_LOCK_NAME = re.compile(r"\.lock(?:-\d+-of-(\d+))?")
_GATE = ".lock-gate"
_POLL_S = 0.2
_GATE_POLL_S = 0.02
_GATE_WAIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Busy:
    """Who is in the way: the file that is locked and what its holder wrote into it."""

    name: str
    holder: Mapping[str, object]

    def __str__(self) -> str:
        """One clause for a message; a holder that has not yet said who it is stays unknown."""
        said = ", ".join(
            f"{key} {self.holder[key]}" for key in ("pid", "host", "run_id", "since") if key in self.holder
        )
        return f"{said or 'a holder that has not said who it is'} ({self.name})"


class Lock:
    """A lock that is held until `release`, or until this process ends in whatever way."""

    def __init__(self, fd: int) -> None:
        """Takes over a descriptor that is locked already; `acquire` makes these."""
        self._fd = fd

    def release(self) -> None:
        """Lets the next one in; a second call does nothing."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            _unlock(fd)


def acquire(
    folder: Path,
    run_id: str,
    *,
    shard: Shard,
    lock_wait_s: float,
    wait: Callable[[float], bool],
    clock: Callable[[], float],
) -> Lock:
    """The lock of an output; waits `lock_wait_s` for another holder, then TryLaterError that names it.

    `wait(seconds)` is True when the run is to stop, which ends the waiting as well. OutputError when the folder
    takes no lock file.
    """
    start, said = clock(), False
    while True:
        gate = _wait_gate(folder, lock_wait_s=lock_wait_s, wait=wait, clock=clock)
        try:
            taken = _take(folder, shard, run_id)
        finally:
            gate.release()
        if isinstance(taken, Lock):
            return taken
        if clock() - start >= lock_wait_s:
            raise TryLaterError(f"{folder}: another run holds the output: {taken}; waited {lock_wait_s:g} s")
        if not said:
            said = True
            _log.info("waiting for the output", extra={"holder": str(taken), "lock_wait_s": lock_wait_s})
        if wait(_POLL_S):
            raise TryLaterError(f"{folder}: interrupted while waiting for the output, held by {taken}")


def try_gate(folder: Path) -> Lock | None:
    """The gate, or None when another run is in it: nobody takes a lock on the output until it is released."""
    fd = _try_flock(folder / _GATE)
    return None if fd is None else Lock(fd)


def _wait_gate(folder: Path, *, lock_wait_s: float, wait: Callable[[float], bool], clock: Callable[[], float]) -> Lock:
    """The gate. It is held for milliseconds as a rule, so that it is waited for even when `lock_wait_s` is 0."""
    start, bound_s = clock(), max(lock_wait_s, _GATE_WAIT_S)
    while (gate := try_gate(folder)) is None:
        if clock() - start >= bound_s:
            raise TryLaterError(f"{folder / _GATE}: held for {bound_s:g} s; is a run on this output suspended?")
        if wait(_GATE_POLL_S):
            raise TryLaterError(f"{folder}: interrupted while waiting for {_GATE}")
    return gate


def _take(folder: Path, shard: Shard, run_id: str) -> Lock | Busy:
    """The lock, or who is in the way. To be called inside the gate."""
    own = f".lock{shard.suffix}"
    for name in sorted(_conflicting(folder, own=own, count=shard.count)):
        fd = _try_flock(folder / name)
        if fd is None:
            return Busy(name, _read_holder(folder / name))
        _unlock(fd)
    fd = _try_flock(folder / own)
    if fd is None:
        return Busy(own, _read_holder(folder / own))
    _write_holder(fd, folder / own, run_id=run_id)
    return Lock(fd)


def _conflicting(folder: Path, *, own: str, count: int) -> Iterator[str]:
    """The other lock files that may not be held while ours is: all but the shards of the same count."""
    for name in names_in(folder):
        match = _LOCK_NAME.fullmatch(name)
        if match is None or name == own:
            continue
        if int(match[1] or 0) != count:
            yield name


def _try_flock(path: Path) -> int | None:
    """An open, locked descriptor (not inherited by children), or None when someone else holds the lock."""
    fd = -1
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, FILE_MODE)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        if fd >= 0:
            os.close(fd)
            if exc.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return None
        raise OutputError(f"{path}: cannot be locked: {exc.strerror or exc}") from exc
    return fd


def _unlock(fd: int) -> None:
    """Gives the lock back at once: closing alone would leave it to a child that is just being started."""
    try:
        fcntl.flock(fd, fcntl.LOCK_UN)
    finally:
        os.close(fd)


def _write_holder(fd: int, path: Path, *, run_id: str) -> None:
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "run_id": run_id, "since": utc_now()}
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps(holder).encode() + b"\n", 0)
    except OSError as exc:
        os.close(fd)
        raise OutputError(f"{path}: cannot be written: {exc.strerror or exc}") from exc


def _read_holder(path: Path) -> Mapping[str, object]:
    """What the holder wrote; empty when it has not written yet."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
