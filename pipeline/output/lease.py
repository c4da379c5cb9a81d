"""The lock of an output in an object store: one run at a time for each prefix and shard.

How it works:

1. The lock of a run is an object: `.lock/all`, or `.lock/00003-of-00016` with `--shard 3/16`. Its content names the
   holder, or says that it is free. It is never deleted.
2. A run takes the lock with a conditional write (If-None-Match for a new object, If-Match for a free one), which the
   store grants to one writer only. It then reads the lock objects of runs that would conflict. Of two such runs
   at least one sees the other and releases its own lock again.
3. The holder rewrites the object every RENEW_S, which changes its ETag. A renewal that fails its condition means that
   another run has taken the lock; the holder stops writing.
4. A waiting run polls the ETag. When it has not changed for LEASE_S by the waiter's own clock, the holder counts as
   dead and the lock is taken over. Clocks of two machines are never compared.
5. `check` precedes every write. Once a renewal is due it sends one first, and nothing is written until it succeeds.
   So a holder that could not reach the store for any time either still owns the version that it wrote last, or stops.
   A renewal whose reply was lost is repeated with the same bytes, by which the holder recognizes it as its own.

A write that the store has accepted, but completes after its holder lost the lease, does no harm: the names of the parts
contain the run's own number, and the last run of an id counts.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pipeline.errors import OutputError, TryLaterError
from pipeline.output.conditions import check_conditions
from pipeline.output.lock_wait import LockWait
from pipeline.output.outage import is_outage
from pipeline.output.store_errors import as_output_errors
from pipeline.records import utc_now
from pipeline.shards import Shard, shard_of_suffix
from pipeline.stores import RemoteStore, StaleVersionError

_log = logging.getLogger(__name__)

LEASE_S = 20.0
"""A lease that was not renewed for this long may be taken over: it spans four renewals; three may fail or be late."""

RENEW_S = 5.0
"""A renewal every 5 s costs about 17,000 requests a day, and a killed run blocks the next one for 20 s at most."""

_POLL_S = 0.5
"""A waiting run polls after this time plus a random time of the same length; a poll lists the locks and reads one."""

_SHORT_WAIT_S = 60.0
_LATER_POLL_S = 5.0
"""After the first minute they poll every 5 to 10 s: a pod that waits for hours sends some 1,000 requests an hour, not
10,000. A lease that expires is still noticed, as LEASE_S is longer."""

_FOLDER = ".lock"

Attempt = Callable[[str, Callable[[], Any]], Any]


class Lease:
    """A lock that is held until `release`, or until another run takes it over. Thread-safe."""

    def __init__(
        self,
        store: RemoteStore,
        key: str,
        *,
        content: Mapping[str, object],
        etag: str,
        clock: Callable[[], float],
        written_at: float,
    ) -> None:
        """Wrap a lock object that this run wrote at `written_at`, by its clock before the request; use `acquire`."""
        self._store = store
        self._key = key
        self._content = content
        self._etag = etag
        self._clock = clock
        self._renewed_at = written_at
        self._renewals = 0
        self._mutex = threading.Lock()
        self._failure: TryLaterError | None = None
        self._released = False

    def check(self) -> None:
        """Renew the lease if that is due; TryLaterError once it is lost, after which writing is forbidden.

        OutputError while the store does not answer: writing must wait.
        """
        with self._mutex:
            if self._failure is not None:
                raise self._failure
            if not self._released and self._clock() - self._renewed_at >= RENEW_S:
                self._renew()

    def release(self) -> None:
        """Release the lock; a second call does nothing. If the release fails, the next run waits for LEASE_S."""
        with self._mutex:
            if self._released or self._failure is not None:
                return
            self._released = True
            try:
                self._store.replace(self._key, _FREE, etag=self._etag)
            except OSError as exc:
                _log.warning("Cannot release the lock on the output; the next run waits up to %g s: %s", LEASE_S, exc)

    def _renew(self) -> None:
        now = self._clock()
        data = _bytes({**self._content, "renewals": self._renewals + 1})
        try:
            with as_output_errors(self._store.uri_of(self._key)):
                etag = self._store.replace(self._key, data, etag=self._etag)
        except StaleVersionError as exc:
            self._failure = TryLaterError(
                f"{self._store.address}: the lock on the output was lost to another run; stopped writing"
            )
            raise self._failure from exc
        except TryLaterError as exc:
            if not is_outage(exc):
                self._failure = exc
            raise
        self._etag = _required_etag(etag, self._store)
        self._renewals += 1
        self._renewed_at = now


def acquire(
    store: RemoteStore,
    run_id: str,
    *,
    shard: Shard,
    lock_wait_s: float,
    wait: Callable[[float], bool],
    clock: Callable[[], float],
    attempt: Attempt = lambda _, action: action(),
) -> Lease:
    """Acquire the lease of an output; wait `lock_wait_s` for another holder, then raise TryLaterError naming it.

    `wait(seconds)` returns True when the run is to stop, which raises TryLaterError at once. `attempt` repeats a
    request during an outage of the store (Outage.attempt); that time does not count as waiting for the holder.
    """
    attempt("lease", lambda: check_conditions(store))
    claim = _Claim(store, run_id, shard=shard, clock=clock)
    lock_wait: LockWait | None = None
    while True:
        result = attempt("lease", claim.take)
        if isinstance(result, Lease):
            return result
        lock_wait = lock_wait or LockWait(str(store.address), lock_wait_s=lock_wait_s, wait=wait, clock=clock)
        poll_s = _POLL_S if lock_wait.waited_s < _SHORT_WAIT_S else _LATER_POLL_S
        # a random delay, so that two runs that release their locks for each other do not collide again
        lock_wait.pause(result, poll_s * (1 + secrets.randbelow(100) / 100))


def is_held(store: RemoteStore) -> bool:
    """Return True when a lock object is not free, by the sizes in one listing."""
    return any(stored.size_bytes != len(_FREE) for stored in store.list(_FOLDER))


class _Claim:
    """The attempts of one run to acquire its lease, with the ETags of other holders and when each was first seen."""

    def __init__(self, store: RemoteStore, run_id: str, *, shard: Shard, clock: Callable[[], float]) -> None:
        self._store = store
        self._shard = shard
        self._clock = clock
        self._lock_key = _key_of(shard)
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "run_id": run_id, "since": utc_now()}
        self._content: Mapping[str, object] = {**holder, "token": secrets.token_hex(16)}
        self._etags: dict[str, tuple[str, float]] = {}

    def take(self) -> Lease | str:
        """Return the lease, or a description of the run that blocks it."""
        with as_output_errors(str(self._store.address), opening=True):
            try:
                if (busy := self._blocking_holder()) is not None:
                    return busy
                lease = self._take_own()
                if isinstance(lease, Lease) and (busy := self._blocking_holder()) is not None:
                    lease.release()
                    return busy
                return lease
            except StaleVersionError:
                return "a run that came first"

    def _take_own(self) -> Lease | str:
        data = _bytes(self._content)
        now = self._clock()
        try:
            etag = self._store.create(self._lock_key, data)
        except FileExistsError:
            content, former_etag = self._store.get_with_etag(self._lock_key)
            if (busy := self._busy(self._lock_key, content, former_etag)) is not None:
                return busy
            etag = self._store.replace(self._lock_key, data, etag=_required_etag(former_etag, self._store))
        etag = _required_etag(etag, self._store)
        return Lease(self._store, self._lock_key, content=self._content, etag=etag, clock=self._clock, written_at=now)

    def _blocking_holder(self) -> str | None:
        """Return the holder of a conflicting lock, or None; shards of the same count do not conflict."""
        for key in self._conflicting():
            try:
                content, etag = self._store.get_with_etag(key)
            except FileNotFoundError:  # another process has deleted it
                continue
            if (busy := self._busy(key, content, etag)) is not None:
                return busy
            if content != _FREE:  # its holder is dead or suspended; after this write its next renewal fails
                self._store.replace(key, _FREE, etag=_required_etag(etag, self._store))
        return None

    def _conflicting(self) -> Iterator[str]:
        count = self._shard.count
        for stored in self._store.list(_FOLDER):
            shard = shard_of_suffix("-" + stored.key.rpartition("/")[2])
            if stored.key != self._lock_key and not (count and shard.count == count):
                yield stored.key

    def _busy(self, key: str, content: bytes, etag: str | None) -> str | None:
        """Return the holder of this lock; None when it is free, or has not changed for LEASE_S."""
        if content == _FREE:
            return None
        version = _required_etag(etag, self._store)
        if self._etags.get(key, ("", 0.0))[0] != version:
            self._etags[key] = (version, self._clock())
        if self._clock() - self._etags[key][1] >= LEASE_S:
            return None
        return _holder(content, key)


def _key_of(shard: Shard) -> str:
    return f"{_FOLDER}/{shard.suffix.lstrip('-') or 'all'}"


def _required_etag(etag: str | None, store: RemoteStore) -> str:
    """Return the ETag; OutputError without one, as conditional writes need it."""
    if etag is None:
        raise OutputError(f"{store.address}: this store gives no ETag, so that an output in it cannot be locked")
    return etag


def _holder(content: bytes, key: str) -> str:
    """Return a description of the holder for a message."""
    try:
        value: Any = json.loads(content)
    except ValueError:
        value = None
    holder = value if isinstance(value, dict) else {}
    description = ", ".join(f"{name} {holder[name]}" for name in ("pid", "host", "run_id", "since") if name in holder)
    return f"{description or 'an unidentified run'} ({key})"


def _bytes(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


_FREE = _bytes({"free": True})
