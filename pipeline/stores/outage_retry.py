"""Reading that survives an outage of a store, a file system or this machine.

    RetryingFile ──read──▶ Source.attempt ──▶ the file        outage: wait, renew the credentials, retry
                                                              other files are readable: an error of this file

A read that fails with an outage error (trouble.py) is retried with back-off. After `max_retries` retries another
file of the same source is read as a test: the last one that was readable.
If the test succeeds before and after one more failure of this file, the error belongs to this file and is raised.
Otherwise the read waits for the source for up to `max_outage_s`, and then the run ends. Successful
reads of other readers do not count: they may have begun before the outage. A listing always waits: no document is its
cause.

It starts no thread: each reader waits in its own, and `stop` ends all waiting.
"""

from __future__ import annotations

import errno
import io
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal, TypeVar, cast

from pipeline.errors import ConfigError, PipelineError, TryLaterError
from pipeline.stores.seekable import SeekableRaw
from pipeline.stores.trouble import MissingBucketError, OwnTroubleError, StoreRefusedError, is_shortage, is_trouble

_log = logging.getLogger(__name__)

BASE_DELAY_S = 0.5
MAX_DELAY_S = 15.0
T = TypeVar("T")
Opener = Callable[[], BinaryIO]
Role = Literal["file", "listing", "start"]
"""The role of a read: one file, a listing, or the first page of a listing at the start of a run."""


class ReadingStoppedError(Exception):
    """The run ends while a read waits; the next run reads the file."""


@dataclass(slots=True)
class OutageRetry:
    """The waits of reads, for all sources of a run.

    `max_retries`: how often one file is read again before the error may be its own. `resumed`: the output has records
    of this fingerprint, so the credentials worked before, and a refusal is waited for from the start. `troubled`: a
    read failed with an outage error in this run.
    """

    max_outage_s: float
    stop: threading.Event
    clock: Callable[[], float]
    max_retries: int = 3
    resumed: bool = False
    troubled: bool = False


@dataclass(slots=True)
class _Failing:
    """A read during an outage: start time, attempts, and the numbers of reads that succeeded before it.

    `others_readable`: another file could be read after the last failure.
    """

    since: float
    reads: int
    own: int
    tries: int = 0
    others_readable: bool = False


@dataclass(slots=True)
class Source:
    """A store or a folder as shared by its readers; thread-safe. `renew` reads its credentials again."""

    where: str
    outage_retry: OutageRetry
    renew: Callable[[], object] = lambda: None
    _reads: int = 0
    _readable: tuple[tuple[str, Opener], ...] = ()
    _warned: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def open(self, opener: Opener, *, key: str, buffer_bytes: int) -> BinaryIO:
        """Return the file as a stream that survives an outage; OSError when the error is the file's own."""
        return cast("BinaryIO", io.BufferedReader(RetryingFile(self, opener, key), buffer_bytes))

    def attempt(self, action: Callable[[], T], *, key: str = "", own_reads: int = 0, role: Role = "file") -> T:
        """Return the result of `action`, which is retried during an outage.

        `own_reads`: the number of earlier successful reads of the same file. Raise the OSError when it is not an
        outage, is the file's own, or is one at the `start` that a person must fix; TryLaterError (ConfigError before
        anything was read) when it lasts, ReadingStoppedError.
        """
        failing: _Failing | None = None
        while True:
            try:
                value = action()
            except OSError as cause:
                if not is_trouble(cause) or (role == "start" and _is_setting(cause)):
                    raise
                failing = failing or _Failing(self.outage_retry.clock(), self._reads, own_reads)
                self._wait_after(failing, cause, key=key, role=role)
                continue
            if failing is not None or self._warned:
                self._came_back()
            return value

    def read(self, action: Callable[[], T], opener: Opener, *, key: str) -> T:
        """Return the result of reading a whole file, which is read again after an outage; errors as for `attempt`."""
        value = self.attempt(action, key=key)
        self.succeeded(key, opener)
        return value

    def succeeded(self, key: str, opener: Opener) -> None:
        """Count a successful read, and keep the last two files: one of them is a test for other files."""
        with self._lock:
            self._reads += 1
            if not self._readable or self._readable[0][0] != key:
                self._readable = ((key, opener), *self._readable[:1])

    def _wait_after(self, failing: _Failing, cause: OSError, *, key: str, role: Role) -> None:
        outage_retry = self.outage_retry
        outage_retry.troubled = True
        failing.tries += 1
        if role == "file" and failing.tries > outage_retry.max_retries and not is_shortage(cause):
            were_readable = failing.others_readable
            failing.others_readable = self._can_read_others(key)
            if failing.others_readable:
                if were_readable:
                    raise OwnTroubleError(cause.errno, cause.strerror or str(cause)) from cause
                return  # the outage may have ended between the failure and the test
            if self._reads == failing.own == 0 and isinstance(cause, (StoreRefusedError, MissingBucketError)):
                self._refuse(cause)
        waited_s = outage_retry.clock() - failing.since
        if waited_s >= outage_retry.max_outage_s:
            raise _lasting_outage(self.where, cause, waited_s)
        if failing.tries > 1 and (role != "file" or self._reads == failing.reads):
            self._warn(cause)
        delay_s = min(MAX_DELAY_S, BASE_DELAY_S * 2 ** (failing.tries - 1))
        if outage_retry.stop.wait(min(delay_s, outage_retry.max_outage_s - waited_s)):
            raise ReadingStoppedError(self.where)
        if isinstance(cause, StoreRefusedError):
            self.renew()

    def _can_read_others(self, key: str) -> bool:
        """Return True when the last other file is readable now, or fails for another reason than an outage."""
        opener = next((opener for candidate, opener in self._readable if candidate != key), None)
        if opener is None:
            return False
        try:
            with opener() as stream:
                _raw(stream).read(1)
        except OSError as cause:
            return not is_trouble(cause)
        return True

    def _refuse(self, cause: OSError) -> None:
        """Raise ConfigError on a first start; a resumed run waits for valid credentials."""
        if not self.outage_retry.resumed:
            need = "an existing bucket, and credentials that may read it (input.storage, or the environment)"
            raise ConfigError(f"input.uri: {self.where} cannot be read: {cause.strerror or cause}; need {need}")

    def _warn(self, cause: OSError) -> None:
        with self._lock:
            if self._warned:
                return
            self._warned = True
        message = "%s cannot be read; retrying for up to %g s: %s"
        _log.warning(message, self.where, self.outage_retry.max_outage_s, cause.strerror or cause)

    def _came_back(self) -> None:
        with self._lock:
            warned = self._warned
            self._warned = False
        if warned:
            _log.info("The input can be read again", extra={"input": self.where})


def _is_setting(cause: OSError) -> bool:
    """Return True for an error that waiting does not fix: credentials, the bucket's name, its region."""
    return isinstance(cause, (StoreRefusedError, MissingBucketError)) or cause.errno == errno.EPROTO


def _lasting_outage(source: str, cause: OSError, waited_s: float) -> PipelineError:
    return TryLaterError(f"{source}: could not be read for {waited_s:.0f} s: {cause.strerror or cause}")


class RetryingFile(SeekableRaw):
    """A file that is reopened after an outage and continues at its position."""

    def __init__(self, source: Source, opener: Opener, key: str) -> None:
        """Open the file; errors as for `Source.attempt`."""
        super().__init__()
        self._source = source
        self._opener = opener
        self._key = key
        self._stream: BinaryIO | None = None
        self._own = 0
        source.attempt(self._reopened, key=key)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if whence == io.SEEK_CUR:
            offset = offset + self._at
            whence = io.SEEK_SET
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
        def attempt_once() -> int:
            try:
                return action(self._reopened())
            except OSError:
                self._drop()
                raise

        return self._source.attempt(attempt_once, key=self._key, own_reads=self._own)

    def _drop(self) -> None:
        if self._stream is not None:
            stream = self._stream
            self._stream = None
            stream.close()


def _raw(stream: BinaryIO) -> Any:
    """Return the stream below the buffer: a second buffer would read more than requested."""
    return getattr(stream, "raw", stream)
