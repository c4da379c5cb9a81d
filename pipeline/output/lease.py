"""One run at a time for each prefix and shard: an object that its holder renews by conditional writes.

It must never compare clocks of two machines: who waits sees by its own whether the holder still changes the object.

A run takes `.lock/all`, or `.lock/00003-of-00016` with `--shard 3/16`, and then looks at the others: of two that
exclude each other at least one sees the other, and steps back. A lock object stays where it is and says when it is
free. What a holder that has lost its lease still writes does no harm: its parts carry its own run's number.
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
from pipeline.output.store_errors import as_output_errors
from pipeline.records import utc_now
from pipeline.shards import Shard
from pipeline.stores import RemoteStore, StaleVersionError

_log = logging.getLogger(__name__)

LEASE_S = 20.0
"""Who waits takes a lease over that was not renewed for so long."""

RENEW_S = 5.0
_POLL_S = 0.5
_FOLDER = ".lock"


class Lease:
    """A lock that is held until `release`, or until somebody has found it abandoned. Safe to use from two threads."""

    def __init__(
        self, store: RemoteStore, key: str, *, says: Mapping[str, object], etag: str, clock: Callable[[], float]
    ) -> None:
        """Takes over an object that says who holds it; `acquire` makes these."""
        self._store, self._key, self._says, self._etag, self._clock = store, key, says, etag, clock
        self._renewed_at = clock()
        self._renewals = 0
        self._mutex = threading.Lock()
        self._failed: TryLaterError | None = None
        self._released = False

    def check(self) -> None:
        """Nothing, with the lease renewed when that is due; TryLaterError once it is lost: nothing may be written."""
        with self._mutex:
            if self._failed is not None:
                raise self._failed
            if not self._released and self._clock() - self._renewed_at >= RENEW_S:
                self._renew()

    def release(self) -> None:
        """Lets the next run in; a second call does nothing. Where that fails the next one waits for LEASE_S."""
        with self._mutex:
            if self._released or self._failed is not None:
                return
            self._released = True
            try:
                self._store.replace(self._key, _FREE, etag=self._etag)
            except OSError as exc:
                _log.warning("the lock on the output was not given back: %s", exc)

    def _renew(self) -> None:
        self._renewals += 1
        now = self._clock()
        try:
            with as_output_errors(self._store.uri_of(self._key)):
                etag = self._store.replace(
                    self._key, _bytes({**self._says, "renewals": self._renewals}), etag=self._etag
                )
        except StaleVersionError as exc:
            self._failed = TryLaterError(
                f"{self._store.address}: the lock on the output was lost to another run; nothing more is written"
            )
            raise self._failed from exc
        except TryLaterError as exc:
            self._failed = exc
            raise
        self._etag, self._renewed_at = _known(etag, self._store), now


def acquire(
    store: RemoteStore,
    run_id: str,
    *,
    shard: Shard,
    lock_wait_s: float,
    wait: Callable[[float], bool],
    clock: Callable[[], float],
) -> Lease:
    """The lease of an output; waits `lock_wait_s` for another holder, then TryLaterError that names it.

    `wait(seconds)` is True when the run is to stop, which ends the waiting as well.
    """
    check_conditions(store)
    claim = _Claim(store, run_id, shard=shard, clock=clock)
    start, said = clock(), False
    while True:
        taken = claim.take()
        if isinstance(taken, Lease):
            return taken
        if clock() - start >= lock_wait_s:
            raise TryLaterError(f"{store.address}: another run holds the output: {taken}; waited {lock_wait_s:g} s")
        if not said:
            said = True
            _log.info("waiting for the output", extra={"holder": taken, "lock_wait_s": lock_wait_s})
        # two that step back for each other must not meet again at once
        if wait(_POLL_S * (1 + secrets.randbelow(100) / 100)):
            raise TryLaterError(f"{store.address}: interrupted while waiting for the output, held by {taken}")


class _Claim:
    """One run's tries to get its lease, and what it has seen of the others' meanwhile."""

    def __init__(self, store: RemoteStore, run_id: str, *, shard: Shard, clock: Callable[[], float]) -> None:
        self._store, self._shard, self._clock = store, shard, clock
        self._own = _key_of(shard)
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "run_id": run_id, "since": utc_now()}
        self._says: Mapping[str, object] = {**holder, "token": secrets.token_hex(16)}
        self._seen: dict[str, tuple[str, float]] = {}

    def take(self) -> Lease | str:
        """The lease, or who is in the way."""
        with as_output_errors(str(self._store.address), opening=True):
            try:
                if (busy := self._others()) is not None:
                    return busy
                lease = self._take_own()
                if isinstance(lease, Lease) and (busy := self._others()) is not None:
                    lease.release()
                    return busy
                return lease
            except StaleVersionError:
                return "a holder that came first"

    def _take_own(self) -> Lease | str:
        data = _bytes(self._says)
        try:
            etag = self._store.create(self._own, data)
        except FileExistsError:
            there, old = self._store.get_with_etag(self._own)
            if (busy := self._busy(self._own, there, old)) is not None:
                return busy
            etag = self._store.replace(self._own, data, etag=_known(old, self._store))
        return Lease(self._store, self._own, says=self._says, etag=_known(etag, self._store), clock=self._clock)

    def _others(self) -> str | None:
        """Who holds what may not be held beside ours: anything but the shards of the same count."""
        for key in self._conflicting():
            try:
                there, etag = self._store.get_with_etag(key)
            except FileNotFoundError:  # somebody has cleaned up
                continue
            if (busy := self._busy(key, there, etag)) is not None:
                return busy
            if there != _FREE:  # its holder is dead, or asleep: it must notice when it wakes
                self._store.replace(key, _FREE, etag=_known(etag, self._store))
        return None

    def _conflicting(self) -> Iterator[str]:
        suffix = f"-of-{self._shard.count:05d}"
        for found in self._store.list(_FOLDER):
            if found.key != self._own and not (self._shard.count and found.key.endswith(suffix)):
                yield found.key

    def _busy(self, key: str, there: bytes, etag: str | None) -> str | None:
        """Who holds this object; None when it is free, or has not changed for as long as a lease lasts."""
        if there == _FREE:
            return None
        known = _known(etag, self._store)
        if self._seen.get(key, ("", 0.0))[0] != known:
            self._seen[key] = (known, self._clock())
        if self._clock() - self._seen[key][1] >= LEASE_S:
            return None
        return _holder(there, key)


def _key_of(shard: Shard) -> str:
    return f"{_FOLDER}/{shard.suffix.lstrip('-') or 'all'}"


def _known(etag: str | None, store: RemoteStore) -> str:
    """The ETag; without ETags nothing can be written on condition."""
    if etag is None:
        raise OutputError(f"{store.address}: this store gives no ETag, so that an output in it cannot be locked")
    return etag


def _holder(there: bytes, key: str) -> str:
    """One clause for a message."""
    try:
        value: Any = json.loads(there)
    except ValueError:
        value = None
    known = value if isinstance(value, dict) else {}
    said = ", ".join(f"{name} {known[name]}" for name in ("pid", "host", "run_id", "since") if name in known)
    return f"{said or 'a holder that has not said who it is'} ({key})"


def _bytes(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


_FREE = _bytes({"free": True})
