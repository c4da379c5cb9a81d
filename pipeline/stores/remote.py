"""A bucket, or a prefix of one: objects are listed, read, and written whole and on condition.

It must not wait without a bound, and must not take a write for lost that has arrived: every request ends by the
timeouts of clouds.py, and a refused conditional write is compared with what stands there.
Safe to be used from many threads; the library releases the interpreter lock while it waits.
"""

from __future__ import annotations

import errno
import io
import logging
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

from pipeline.errors import ConfigError, OutputError
from pipeline.stores.beneath import StaleVersionError
from pipeline.stores.clouds import Address, build, parse_address
from pipeline.stores.foreign import as_os_errors as _as_os_errors
from pipeline.stores.trouble import MissingBucketError, StoreRefusedError

if TYPE_CHECKING:
    from obstore import UpdateVersion
    from obstore.store import ObjectStore

RANGE_BYTES = 4 << 20
"""What is fetched at once of an object that is read as a stream."""

RENEW_EVERY_S = 2.0
"""Credentials are read again no more often than this: many readers are refused at once."""

_LIST_PAGE = 1000
_SMALL_BYTES = 1 << 20
"""What is sent at once, so that an answer must come soon."""

_log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object of a listing: its key below the store's prefix, its size, its ETag, and when it was written.

    `etag` is None when the store gave none; `modified_s`: seconds since the epoch, by the store's clock.
    """

    key: str
    size_bytes: int
    etag: str | None
    modified_s: float


class RemoteStore:
    """A prefix of a bucket. Keys are relative to it, with `/` between their parts.

    Every method raises OSError for what the store answers: FileNotFoundError (no such object; of a listing: no such
    bucket), PermissionError, EPROTO (it refuses the request, as for another region), and ConnectionError when it could
    not be reached, or failed, for as long as it is tried.
    """

    def __init__(self, address: Address, storage: Mapping[str, Any]) -> None:
        """For `open`."""
        self.address, self._storage = address, storage
        self._renewing = threading.Lock()
        self._renewed_at = time.monotonic()
        self._store, self._uploads = self._build()

    def _build(self) -> tuple[ObjectStore, ObjectStore]:
        """The store, and the same for what takes long to send; the credentials are read here."""
        return build(self.address, self._storage), build(self.address, self._storage, uploads=True)

    def renew(self) -> bool:
        """Read the credentials again, from the environment, files and services; False when that was just done."""
        with self._renewing:
            if time.monotonic() - self._renewed_at < RENEW_EVERY_S:
                return False
            self._renewed_at = time.monotonic()
            try:
                self._store, self._uploads = self._build()
            except ConfigError as cause:  # a file that is being written
                _log.info("the credentials cannot be read again yet", extra={"why": str(cause)})
                return False
            return True

    def _do(self, key: str, request: Callable[[], T]) -> T:
        """What the request returns; sent once more with credentials read again when they are refused."""
        try:
            with _as_os_errors(self.uri_of(key)):
                return request()
        except StoreRefusedError:
            if not self.renew():
                raise
        with _as_os_errors(self.uri_of(key)):
            return request()

    @classmethod
    def open(cls, uri: str, *, storage: Mapping[str, Any]) -> RemoteStore:
        """The store of an address; nothing is asked yet. ConfigError: the address or an option is wrong."""
        try:
            import obstore  # noqa: F401
        except ImportError as cause:
            raise ConfigError(f"{uri.split('://', 1)[0]}:// needs PyPI `obstore`, which is not installed") from cause
        return cls(parse_address(uri), storage)

    def without_retries(self) -> RemoteStore:
        """The same store, whose requests are sent once."""
        return RemoteStore(self.address, {**self._storage, "retry_for_s": 0})

    def uri_of(self, key: str) -> str:
        """The whole address of an object."""
        return f"{self.address}/{key}"

    def list(self, prefix: str = "", *, after: str | None = None) -> Iterator[StoredObject]:
        """The objects below a folder of the store, by key, found while they are pulled: a page is in memory at a time.

        `after`: only those whose keys come after this one.

        OSError (EINVAL) for a key that the library has no name for: one with an empty part, `.`, `..` or a line end.
        """
        import obstore

        with _as_os_errors(self.uri_of(prefix)):
            pages = iter(obstore.list(self._store, prefix or None, offset=after, chunk_size=_LIST_PAGE))
        while True:
            with _as_os_errors(self.uri_of(prefix)):
                page = next(pages, None)
            if page is None:
                return
            for found in page:
                yield _stored(cast("Mapping[str, Any]", found))

    def find(self, key: str) -> StoredObject | None:
        """The object of this key, or None."""
        import obstore

        try:
            return _stored(cast("Mapping[str, Any]", self._do(key, lambda: obstore.head(self._store, key))))
        except MissingBucketError:
            raise
        except FileNotFoundError:
            return None

    def get(self, key: str) -> bytes:
        """The whole object."""
        import obstore

        return self._do(key, lambda: bytes(obstore.get(self._store, key).bytes()))

    def get_with_etag(self, key: str) -> tuple[bytes, str | None]:
        """The whole object and the ETag of what was read."""
        import obstore

        def read() -> tuple[bytes, str | None]:
            answer = obstore.get(self._store, key)
            return bytes(answer.bytes()), answer.meta["e_tag"]

        return self._do(key, read)

    def get_range(self, key: str, options: Mapping[str, Any]) -> Any:
        """A part of an object, on conditions, both by the library's own names; for `open_object`."""
        import obstore

        return self._do(key, lambda: obstore.get(self._store, key, options=cast("Any", options)).bytes())

    def open_object(self, found: StoredObject) -> BinaryIO:
        """The object as a seekable stream, RANGE_BYTES in memory; StaleVersionError when it is replaced meanwhile."""
        return io.BufferedReader(_Ranges(self, found), buffer_size=RANGE_BYTES)

    def put(self, key: str, data: bytes | Iterable[bytes]) -> str | None:
        """The new ETag; whatever stood there is replaced, as a whole. OutputError: no room here for the pieces."""
        import obstore

        with _spooled(data) as body:

            def send() -> str | None:
                if not isinstance(body, bytes):
                    body.seek(0)
                return obstore.put(self._for(body), key, body, mode="overwrite")["e_tag"]

            return self._do(key, send)

    def create(self, key: str, data: bytes) -> str | None:
        """The ETag of a new object; FileExistsError when another stands there (of the same bytes: it is ours).

        A retried request can find what its first try has written: hence the comparison.
        """
        import obstore

        try:
            return self._do(
                key, lambda: obstore.put(self._for(data), key, data, mode="create", use_multipart=False)["e_tag"]
            )
        except FileExistsError:
            there, etag = self.get_with_etag(key)
            if there != data:
                raise
            return etag

    def replace(self, key: str, data: bytes, *, etag: str) -> str | None:
        """The new ETag; StaleVersionError when what stands there is not the version named, nor of the same bytes."""
        import obstore

        version: UpdateVersion = {"e_tag": etag}
        try:
            return self._do(
                key, lambda: obstore.put(self._store, key, data, mode=version, use_multipart=False)["e_tag"]
            )
        except (StaleVersionError, FileNotFoundError) as cause:
            there, new = self._get_if_there(key)
            if there != data:
                raise StaleVersionError(errno.ESTALE, "is not the version that was to be replaced", key) from cause
            return new

    def delete(self, *keys: str) -> None:
        """Nothing; the objects are gone. One that is not there is no error."""
        import obstore

        for key in keys:
            try:
                self._do(key, lambda key=key: obstore.delete(self._store, key))  # type: ignore[misc]
            except FileNotFoundError:
                continue

    def _for(self, data: bytes | BinaryIO) -> ObjectStore:
        return self._store if isinstance(data, bytes) and len(data) <= _SMALL_BYTES else self._uploads

    def _get_if_there(self, key: str) -> tuple[bytes | None, str | None]:
        try:
            return self.get_with_etag(key)
        except FileNotFoundError:
            return None, None


class _Ranges(io.RawIOBase):
    """An object read range by range, each on condition that the object is still the same."""

    def __init__(self, store: RemoteStore, found: StoredObject) -> None:
        self._store, self._found = store, found
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._found.size_bytes}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        end = min(self._at + len(buffer), self._found.size_bytes)
        if end <= self._at:
            return 0
        options: dict[str, Any] = {"range": (self._at, end)}
        if self._found.etag is not None:
            options["if_match"] = self._found.etag
        data = self._store.get_range(self._found.key, options)
        view = memoryview(data)
        if not len(view):
            raise ConnectionError(errno.EIO, "the store sent nothing of a range that lies inside the object")
        buffer[: len(view)] = view
        self._at += len(view)
        return len(view)


@contextmanager
def _spooled(data: bytes | Iterable[bytes]) -> Iterator[bytes | BinaryIO]:
    """The data; pieces as a temporary file: making them may ask a store, which must not happen while one is sent to."""
    if isinstance(data, bytes):
        yield data
        return
    with tempfile.TemporaryFile() as file:
        for piece in data:
            try:
                file.write(piece)
            except OSError as cause:
                told = f"{tempfile.gettempdir()}: no room for what is to be sent (TMPDIR)"
                raise OutputError(f"{told}: {cause.strerror or cause}") from cause
        file.seek(0)
        yield cast("BinaryIO", file)


def _stored(meta: Mapping[str, Any]) -> StoredObject:
    return StoredObject(meta["path"], meta["size"], meta["e_tag"], meta["last_modified"].timestamp())
