"""The lock of an output in a folder: one run at a time for each output and shard.

How it works:

1. The lock is the kernel's `flock` on an open lock file, which every end of the process releases. The content
   of the file only names the holder for messages.
2. A run locks `.lock`, or `.lock-00003-of-00016` with `--shard 3/16`. Shards of one count, and chunks of the plan,
   may run together; a run without shards, or with another count, conflicts with them.
3. Checking the conflicting locks and taking its own is one step under a second lock, the gate (`.lock-gate`), so that
   two conflicting runs cannot both see a free folder.
4. Lock files are never removed: otherwise two runs could hold two different files of one name.
5. A network file system may drop a lock in an outage. `Lock.check` then takes it again, and learns from the content
   of the file whether another run held it in between.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import OutputError, TryLaterError
from pipeline.output.lock_wait import LockWait
from pipeline.output.shared_files import names_in
from pipeline.records import utc_now
from pipeline.shards import SUFFIX, Shard, shard_of_suffix
from pipeline.stores.local import FILE_MODE

_LOCK_NAME = re.compile(rf"\.lock({SUFFIX})?")
_GATE = ".lock-gate"
_HELD_ERRORS = (errno.EWOULDBLOCK, errno.EACCES)
"""The errors of `flock` when another process holds the lock."""

_POLL_S = 0.2
"""A waiting run starts within 0.2 s of the other's end; a poll costs a few system calls."""

_GATE_POLL_S = 0.02
"""The gate is held for milliseconds, while lock files are checked."""

_GATE_WAIT_S = 10.0
"""A holder of the gate for longer than this is suspended (SIGSTOP, a frozen NFS mount), not merely slow."""


@dataclass(frozen=True, slots=True)
class Busy:
    """A conflicting lock: the name of the locked file and the data its holder wrote into it."""

    name: str
    holder: Mapping[str, object]

    def __str__(self) -> str:
        """Return a description for a message; the holder may not have written its data yet."""
        description = ", ".join(
            f"{key} {self.holder[key]}" for key in ("pid", "host", "run_id", "since") if key in self.holder
        )
        return f"{description or 'an unidentified run'} ({self.name})"


class Lock:
    """A lock of this process until `release` or the end of the process."""

    def __init__(self, fd: int, path: Path, holder: bytes = b"") -> None:
        """Wrap the locked descriptor of a file that contains `holder`; use `acquire`."""
        self._fd = fd
        self._path = path
        self._holder = holder

    def check(self) -> None:
        """Take the lock again after an outage; TryLaterError when another run has taken it, OSError in an outage."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            content = os.pread(self._fd, len(self._holder) + 1, 0)
        except OSError as exc:
            if exc.errno not in (errno.ESTALE, errno.EBADF):
                if exc.errno in _HELD_ERRORS:
                    raise self._lost_error() from exc
                raise
            content = self._reopen()
        if content != self._holder:
            raise self._lost_error()

    def _reopen(self) -> bytes:
        """Replace a stale descriptor; return the content of the file."""
        fd = os.open(self._path, os.O_RDWR)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            content = os.pread(fd, len(self._holder) + 1, 0)
        except OSError as exc:
            os.close(fd)
            if exc.errno in _HELD_ERRORS:
                raise self._lost_error() from exc
            raise
        with suppress(OSError):
            os.close(self._fd)
        self._fd = fd
        return content

    def _lost_error(self) -> TryLaterError:
        return TryLaterError(f"{self._path}: the lock was lost to another run in an outage; stopped writing")

    def release(self) -> None:
        """Release the lock; a second call does nothing."""
        if self._fd >= 0:
            fd = self._fd
            self._fd = -1
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
    """Acquire the lock of an output; wait `lock_wait_s` for another holder, then raise TryLaterError naming it.

    `wait(seconds)` returns True when the run is to stop, which raises TryLaterError at once. OutputError when a lock
    file cannot be created.
    """
    lock_wait = LockWait(str(folder), lock_wait_s=lock_wait_s, wait=wait, clock=clock)
    while True:
        gate = _wait_gate(folder, lock_wait_s=lock_wait_s, wait=wait, clock=clock)
        try:
            result = _take(folder, shard, run_id)
        finally:
            gate.release()
        if isinstance(result, Lock):
            return result
        lock_wait.pause(str(result), _POLL_S)


def try_gate(folder: Path) -> Lock | None:
    """Take the gate, or return None when another run holds it; no run can lock the output until it is released."""
    fd = _try_flock(folder / _GATE)
    return None if fd is None else Lock(fd, folder / _GATE)


def is_held(folder: Path) -> bool:
    """Return True while a run holds a lock of the output, or is about to take one."""
    gate = try_gate(folder)
    if gate is None:
        return True
    try:
        return any(_is_locked(folder / name) for name in names_in(folder) if _LOCK_NAME.fullmatch(name))
    finally:
        gate.release()


def _is_locked(path: Path) -> bool:
    fd = _try_flock(path)
    if fd is not None:
        _unlock(fd)
    return fd is None


def _wait_gate(folder: Path, *, lock_wait_s: float, wait: Callable[[float], bool], clock: Callable[[], float]) -> Lock:
    """Take the gate. As it is usually held for milliseconds, wait for it even when `lock_wait_s` is 0."""
    start = clock()
    bound_s = max(lock_wait_s, _GATE_WAIT_S)
    while (gate := try_gate(folder)) is None:
        if clock() - start >= bound_s:
            raise TryLaterError(f"{folder / _GATE}: held for {bound_s:g} s; is a run on this output suspended?")
        if wait(_GATE_POLL_S):
            raise TryLaterError(f"{folder}: interrupted while waiting for {_GATE}")
    return gate


def _take(folder: Path, shard: Shard, run_id: str) -> Lock | Busy:
    """Take the lock, or return the conflicting one. The caller holds the gate."""
    own_name = f".lock{shard.suffix}"
    for name in sorted(_conflicting(folder, own_name=own_name, count=shard.count)):
        fd = _try_flock(folder / name)
        if fd is None:
            return Busy(name, _read_holder(folder / name))
        _unlock(fd)
    fd = _try_flock(folder / own_name)
    if fd is None:
        return Busy(own_name, _read_holder(folder / own_name))
    return Lock(fd, folder / own_name, _write_holder(fd, folder / own_name, run_id=run_id))


def _conflicting(folder: Path, *, own_name: str, count: int) -> Iterator[str]:
    """Yield the names of conflicting lock files: those of all shards except shards of the same count."""
    for name in names_in(folder):
        match = _LOCK_NAME.fullmatch(name)
        if match is None or name == own_name:
            continue
        if shard_of_suffix(match[1]).count != count:
            yield name


def _try_flock(path: Path) -> int | None:
    """Return an open, locked descriptor (not inherited by children), or None when another process holds the lock."""
    fd = -1
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, FILE_MODE)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        if fd >= 0:
            os.close(fd)
            if exc.errno in _HELD_ERRORS:
                return None
        raise OutputError(f"{path}: cannot be locked: {exc.strerror or exc}") from exc
    return fd


def _unlock(fd: int) -> None:
    """Unlock before closing: a child process that is just being started may share the descriptor and keep the lock."""
    with suppress(OSError):  # a stale descriptor of a network file system
        fcntl.flock(fd, fcntl.LOCK_UN)
    with suppress(OSError):
        os.close(fd)


def _write_holder(fd: int, path: Path, *, run_id: str) -> bytes:
    """Write the data of this run into the lock file and return it."""
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "run_id": run_id, "since": utc_now()}
    data = json.dumps(holder).encode() + b"\n"
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, data, 0)
    except OSError as exc:
        os.close(fd)
        raise OutputError(f"{path}: cannot be written: {exc.strerror or exc}") from exc
    return data


def _read_holder(path: Path) -> Mapping[str, object]:
    """Return the data of the holder; empty when it has not written any yet."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
