"""Reading that outlives the trouble of a store, a file system or this machine.

    PatientFile ──read──▶ Source.attempt ──▶ the file          trouble: wait, renew, try again
                                                               others can be read meanwhile: it is this file's own

A read that meets trouble (trouble.py) is retried with back-off. After MAX_RETRIES retries one question decides: has
another file of the same source been read since the first failure? If none was, the last file that could be read is
read once more, as a proof. With proof the error is the file's own and is raised. Without, the read waits until the
source is back, for `max_outage_s`, and then the run ends.

It starts no thread: each reader waits in its own, and `stop` ends all waiting.
"""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO, TypeVar, cast

from pipeline.errors import ConfigError, PipelineError, TryLaterError
from pipeline.stores.trouble import MissingBucketError, OwnTroubleError, StoreRefusedError, is_shortage, is_trouble

_log = logging.getLogger(__name__)

MAX_RETRIES = 3
BASE_DELAY_S, MAX_DELAY_S = 0.5, 15.0
T = TypeVar("T")
Opener = Callable[[], BinaryIO]


class ReadingStoppedError(Exception):
    """The run ends; what was to be read is left for the next one."""


@dataclass(slots=True)
class Patience:
    """How long reads wait, for all sources of a run.

    `resumed`: the output holds records of this question, so that refused credentials are waited for from the start.
    `troubled`: a read has met trouble in this run.
    """

    max_outage_s: float
    stop: threading.Event
    clock: Callable[[], float]
    resumed: bool = False
    troubled: bool = False


@dataclass(slots=True)
class _Failing:
    """One read that meets trouble: since when, how often, and how many reads had succeeded before it."""

    since: float
    reads: int
    own: int
    tries: int = 0


@dataclass(slots=True)
class Source:
    """A store or a folder as its readers share it; safe for many threads. `renew` reads its credentials again."""

    where: str
    patience: Patience
    renew: Callable[[], object] = lambda: None
    _reads: int = 0
    _proofs: tuple[tuple[str, Opener], ...] = ()
    _warned: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def open(self, opener: Opener, *, key: str, buffer_bytes: int) -> BinaryIO:
        """Return the file as a stream that survives trouble; OSError when the trouble is the file's own."""
        return cast("BinaryIO", io.BufferedReader(PatientFile(self, opener, key), buffer_bytes))

    def attempt(self, action: Callable[[], T], *, key: str = "", own: int = 0) -> T:
        """Return what `action` returns, tried for as long as trouble may pass.

        `own`: how many reads of the same file had succeeded before. Raises the OSError when it is not trouble or the
        file's own, TryLaterError (ConfigError before anything was read) when it lasts, ReadingStoppedError.
        """
        failing: _Failing | None = None
        while True:
            try:
                value = action()
            except OSError as cause:
                if not is_trouble(cause):
                    raise
                failing = failing or _Failing(self.patience.clock(), self._reads, own)
                self._wait_after(failing, cause, key=key)
                continue
            if failing is not None or self._warned:
                self._came_back()
            return value

    def succeeded(self, key: str, opener: Opener) -> None:
        """Count a read; the file serves as a proof for others, the one before it for the file itself."""
        with self._lock:
            self._reads += 1
            if not self._proofs or self._proofs[0][0] != key:
                self._proofs = ((key, opener), *self._proofs[:1])

    def _wait_after(self, failing: _Failing, cause: OSError, *, key: str) -> None:
        patience = self.patience
        patience.troubled = True
        failing.tries += 1
        if failing.tries > MAX_RETRIES and not is_shortage(cause):
            if self._reads > failing.reads or self._is_proved(key):
                raise OwnTroubleError(cause.errno, cause.strerror or str(cause)) from cause
            if self._reads == failing.own == 0 and isinstance(cause, (StoreRefusedError, MissingBucketError)):
                self._refuse(cause)
        waited_s = patience.clock() - failing.since
        if waited_s >= patience.max_outage_s:
            raise _lasting(self.where, cause, waited_s)
        if failing.tries > 1 and self._reads == failing.reads:
            self._warn(cause)
        delay_s = min(MAX_DELAY_S, BASE_DELAY_S * 2 ** (failing.tries - 1))
        if patience.stop.wait(min(delay_s, patience.max_outage_s - waited_s)):
            raise ReadingStoppedError(self.where)
        if isinstance(cause, StoreRefusedError):
            self.renew()

    def _is_proved(self, key: str) -> bool:
        """True when the last other file that was read can be read now."""
        opener = next((opener for other, opener in self._proofs if other != key), None)
        if opener is None:
            return False
        try:
            with opener() as stream:
                _raw(stream).read(1)
        except OSError:
            return False
        return True

    def _refuse(self, cause: OSError) -> None:
        """ConfigError on a first start; on an output with records of this question the credentials are waited for."""
        if not self.patience.resumed:
            need = "a bucket that is there, and credentials that may read it (input.storage, or the environment)"
            raise ConfigError(f"input.uri: {self.where} cannot be read: {cause.strerror or cause}; need {need}")

    def _warn(self, cause: OSError) -> None:
        with self._lock:
            if self._warned:
                return
            self._warned = True
        told = "%s cannot be read; retrying for up to %g s: %s"
        _log.warning(told, self.where, self.patience.max_outage_s, cause.strerror or cause)

    def _came_back(self) -> None:
        with self._lock:
            warned, self._warned = self._warned, False
        if warned:
            _log.info("the input can be read again", extra={"input": self.where})


def _lasting(where: str, cause: OSError, waited_s: float) -> PipelineError:
    return TryLaterError(f"{where}: could not be read for {waited_s:.0f} s: {cause.strerror or cause}")


class PatientFile(io.RawIOBase):
    """A file that is opened again after trouble and goes on from where it was."""

    def __init__(self, source: Source, opener: Opener, key: str) -> None:
        """Opens the file; errors as for `Source.attempt`."""
        self._source, self._opener, self._key = source, opener, key
        self._stream: BinaryIO | None = None
        self._at, self._own = 0, 0
        source.attempt(self._reopened, key=key)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if whence == io.SEEK_CUR:
            offset, whence = offset + self._at, io.SEEK_SET
        self._at = self._attempt(lambda raw: raw.seek(offset, whence))
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        count = self._attempt(lambda raw: raw.readinto(buffer))
        self._own += 1
        self._at += count
        self._source.succeeded(self._key, self._opener)
        return count

    def close(self) -> None:
        self._drop()
        super().close()

    def _reopened(self) -> Any:
        if self._stream is None:
            self._stream = self._opener()
            _raw(self._stream).seek(self._at)
        return _raw(self._stream)

    def _attempt(self, action: Callable[[Any], int]) -> int:
        def once() -> int:
            try:
                return action(self._reopened())
            except OSError:
                self._drop()
                raise

        return self._source.attempt(once, key=self._key, own=self._own)

    def _drop(self) -> None:
        if self._stream is not None:
            stream, self._stream = self._stream, None
            stream.close()


def _raw(stream: BinaryIO) -> Any:
    """The stream below the buffer: a second buffer would read more than is wanted."""
    return getattr(stream, "raw", stream)
