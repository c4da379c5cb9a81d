"""A bucket, or a prefix of one: listing, reading, and atomic and conditional writing of objects.

It must not wait without a bound: every request ends by the timeouts of clouds.py. It must not report a completed write
as failed: after a refused conditional write, the stored object is compared with the data.
Thread-safe; the library releases the interpreter lock while it waits.
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
from pipeline.stores.local import temporary_folder
from pipeline.stores.seekable import SeekableRaw
from pipeline.stores.trouble import MissingBucketError, StoreRefusedError

if TYPE_CHECKING:
    from obstore import UpdateVersion
    from obstore.store import ObjectStore

RANGE_BYTES = 4 << 20
"""Size of one request for an object that is read as a stream."""

RENEW_EVERY_S = 2.0
"""Minimum time between two renewals of the credentials: many readers are refused at the same time."""

_LIST_PAGE = 1000
_SMALL_BYTES = 1 << 20
"""Up to this size an upload is short, and the read timeout applies."""

_log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object of a listing: its key below the store's prefix, its size, its ETag, and its modification time.

    `etag` is None when the store sent none; `modified_s`: seconds since the epoch, by the store's clock.
    """

    key: str
    size_bytes: int
    etag: str | None
    modified_s: float


class RemoteStore:
    """A prefix of a bucket. Keys are relative to it, with `/` between their parts.

    Every method raises OSError for an error of the store: FileNotFoundError (no such object; of a listing: no such
    bucket), PermissionError, EPROTO (a refused request, for example in another region), and ConnectionError when the
    store fails or is unreachable until the retries end.
    """

    def __init__(self, address: Address, storage: Mapping[str, Any]) -> None:
        """Use `open`."""
        self.address = address
        self._storage = storage
        self._renewing = threading.Lock()
        self._renewed_at = time.monotonic()
        self._store, self._uploads = self._build()

    def _build(self) -> tuple[ObjectStore, ObjectStore]:
        """Build the store, and its variant for long uploads; this reads the credentials."""
        return build(self.address, self._storage), build(self.address, self._storage, uploads=True)

    def renew(self) -> bool:
        """Read the credentials again, from the environment, files and services; False when that was done just now."""
        with self._renewing:
            if time.monotonic() - self._renewed_at < RENEW_EVERY_S:
                return False
            self._renewed_at = time.monotonic()
            try:
                self._store, self._uploads = self._build()
            except ConfigError as cause:  # a credentials file may be half written
                _log.info("Cannot reload the credentials yet", extra={"why": str(cause)})
                return False
            return True

    def _do(self, key: str, request: Callable[[], T]) -> T:
        """Return the result of the request; when the credentials are refused, reload them and send it once more."""
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
        """Return the store of an address without sending a request; ConfigError for an invalid address or option."""
        try:
            import obstore  # noqa: F401
        except ImportError as cause:
            raise ConfigError(f"{uri.split('://', 1)[0]}:// needs PyPI `obstore`, which is not installed") from cause
        return cls(parse_address(uri), storage)

    def without_retries(self) -> RemoteStore:
        """Return the same store without retries."""
        return RemoteStore(self.address, {**self._storage, "retry_for_s": 0})

    def uri_of(self, key: str) -> str:
        """Return the full address of an object."""
        return f"{self.address}/{key}"

    def list(self, prefix: str = "", *, after: str | None = None) -> Iterator[StoredObject]:
        """Yield the objects below a prefix, sorted by key; one page is in memory at a time.

        `after`: only objects with keys after this one.

        OSError (EINVAL) for a key that the library cannot represent: with an empty part, `.`, `..` or a line end.
        """
        import obstore

        with _as_os_errors(self.uri_of(prefix)):
            pages = iter(obstore.list(self._store, prefix or None, offset=after, chunk_size=_LIST_PAGE))
        while True:
            with _as_os_errors(self.uri_of(prefix)):
                page = next(pages, None)
            if page is None:
                return
            for meta in page:
                yield _stored(cast("Mapping[str, Any]", meta))

    def find(self, key: str) -> StoredObject | None:
        """Return the object with this key, or None."""
        import obstore

        try:
            return _stored(cast("Mapping[str, Any]", self._do(key, lambda: obstore.head(self._store, key))))
        except MissingBucketError:
            raise
        except FileNotFoundError:
            return None

    def get(self, key: str) -> bytes:
        """Return the whole object."""
        import obstore

        return self._do(key, lambda: bytes(obstore.get(self._store, key).bytes()))

    def get_with_etag(self, key: str) -> tuple[bytes, str | None]:
        """Return the whole object and its ETag."""
        import obstore

        def read() -> tuple[bytes, str | None]:
            answer = obstore.get(self._store, key)
            return bytes(answer.bytes()), answer.meta["e_tag"]

        return self._do(key, read)

    def get_range(self, key: str, options: Mapping[str, Any]) -> Any:
        """Return a range of an object under conditions; `options` are the library's. For `open_object`."""
        import obstore

        return self._do(key, lambda: obstore.get(self._store, key, options=cast("Any", options)).bytes())

    def open_object(self, stored: StoredObject) -> BinaryIO:
        """Open the object as a seekable stream with RANGE_BYTES in memory; StaleVersionError when it is replaced."""
        return io.BufferedReader(_Ranges(self, stored), buffer_size=RANGE_BYTES)

    def put(self, key: str, data: bytes | Iterable[bytes]) -> str | None:
        """Write or replace an object atomically; return its ETag. OutputError: no local disk space for the pieces."""
        import obstore

        with _spooled(data) as body:

            def send() -> str | None:
                if not isinstance(body, bytes):
                    body.seek(0)
                return obstore.put(self._for(body), key, body, mode="overwrite")["e_tag"]

            return self._do(key, send)

    def create(self, key: str, data: bytes) -> str | None:
        """Create an object and return its ETag; FileExistsError when the key exists with other bytes.

        An object with the same bytes counts as created: a retried request may find the object of its first attempt.
        """
        import obstore

        try:
            return self._do(
                key, lambda: obstore.put(self._for(data), key, data, mode="create", use_multipart=False)["e_tag"]
            )
        except FileExistsError:
            stored, etag = self.get_with_etag(key)
            if stored != data:
                raise
            return etag

    def replace(self, key: str, data: bytes, *, etag: str) -> str | None:
        """Replace the version `etag`, return the new ETag; StaleVersionError for another version with other bytes."""
        import obstore

        version: UpdateVersion = {"e_tag": etag}
        try:
            return self._do(
                key, lambda: obstore.put(self._store, key, data, mode=version, use_multipart=False)["e_tag"]
            )
        except (StaleVersionError, FileNotFoundError) as cause:
            stored, next_data = self._get_if_there(key)
            if stored != data:
                raise StaleVersionError(errno.ESTALE, "is no longer the version to replace", key) from cause
            return next_data

    def delete(self, *keys: str) -> None:
        """Delete objects; ignore missing ones."""
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


class _Ranges(SeekableRaw):
    """An object that is read range by range, each on condition that the object is unchanged."""

    def __init__(self, store: RemoteStore, stored: StoredObject) -> None:
        super().__init__()
        self._store = store
        self._stored = stored

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._stored.size_bytes}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        end = min(self._at + len(buffer), self._stored.size_bytes)
        if end <= self._at:
            return 0
        options: dict[str, Any] = {"range": (self._at, end)}
        if self._stored.etag is not None:
            options["if_match"] = self._stored.etag
        data = self._store.get_range(self._stored.key, options)
        view = memoryview(data)
        if not len(view):
            raise ConnectionError(errno.EIO, "the store sent no bytes for a range inside the object")
        buffer[: len(view)] = view
        self._at += len(view)
        return len(view)


@contextmanager
def _spooled(data: bytes | Iterable[bytes]) -> Iterator[bytes | BinaryIO]:
    """Yield the data; pieces are spooled to a temporary file, since producing them may send requests to the store."""
    if isinstance(data, bytes):
        yield data
        return
    with tempfile.TemporaryFile() as file:
        for piece in data:
            try:
                file.write(piece)
            except OSError as cause:
                message = f"{temporary_folder()}: no disk space for the data to upload (TMPDIR)"
                raise OutputError(f"{message}: {cause.strerror or cause}") from cause
        file.seek(0)
        yield cast("BinaryIO", file)


def _stored(meta: Mapping[str, Any]) -> StoredObject:
    return StoredObject(meta["path"], meta["size"], meta["e_tag"], meta["last_modified"].timestamp())
