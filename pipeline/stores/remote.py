"""A bucket, or a prefix of one: objects are listed, read, and written whole and on condition.

It must not wait without a bound, and must not take a write for lost that has arrived: every request ends by the
timeouts of clouds.py, and a refused conditional write is compared with what stands there.
Safe to be used from many threads; the library releases the interpreter lock while it waits.
"""

from __future__ import annotations

import errno
import io
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from pipeline.errors import ConfigError, OutputError
from pipeline.stores.beneath import StaleVersionError
from pipeline.stores.clouds import Address, build, parse_address, said

if TYPE_CHECKING:
    from obstore import UpdateVersion
    from obstore.store import ObjectStore

RANGE_BYTES = 4 << 20
"""What is fetched at once of an object that is read as a stream."""

_LIST_PAGE = 1000
_SMALL_BYTES = 1 << 20
"""What is sent at once, so that an answer must come soon."""


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

    def __init__(self, address: Address, store: ObjectStore, uploads: ObjectStore) -> None:
        """For `open`. `uploads`: the same store, for what takes long to send."""
        self.address = address
        self._store, self._uploads = store, uploads

    @classmethod
    def open(cls, uri: str, *, storage: Mapping[str, Any]) -> RemoteStore:
        """The store of an address; nothing is asked yet. ConfigError: the address or an option is wrong."""
        try:
            import obstore  # noqa: F401
        except ImportError as cause:
            raise ConfigError(f"{uri.split('://', 1)[0]}:// needs PyPI `obstore`, which is not installed") from cause
        address = parse_address(uri)
        return cls(address, build(address, storage), build(address, storage, uploads=True))

    def uri_of(self, key: str) -> str:
        """The whole address of an object."""
        return f"{self.address}/{key}"

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """The objects below a folder of the store, by key, found while they are pulled: a page is in memory at a time.

        OSError (EINVAL) for a key that the library has no name for: one with an empty part, `.`, `..` or a line end.
        """
        import obstore

        with _as_os_errors(self.uri_of(prefix)):
            pages = iter(obstore.list(self._store, prefix or None, chunk_size=_LIST_PAGE))
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
            with _as_os_errors(self.uri_of(key)):
                return _stored(cast("Mapping[str, Any]", obstore.head(self._store, key)))
        except FileNotFoundError:
            return None

    def get(self, key: str) -> bytes:
        """The whole object."""
        import obstore

        with _as_os_errors(self.uri_of(key)):
            return bytes(obstore.get(self._store, key).bytes())

    def get_with_etag(self, key: str) -> tuple[bytes, str | None]:
        """The whole object and the ETag of what was read."""
        import obstore

        with _as_os_errors(self.uri_of(key)):
            answer = obstore.get(self._store, key)
            return bytes(answer.bytes()), answer.meta["e_tag"]

    def open_object(self, found: StoredObject) -> BinaryIO:
        """The object as a seekable stream, RANGE_BYTES in memory; StaleVersionError when it is replaced meanwhile."""
        return io.BufferedReader(_Ranges(self._store, found, self.uri_of(found.key)), buffer_size=RANGE_BYTES)

    def put(self, key: str, data: bytes | Iterable[bytes]) -> str | None:
        """The new ETag; whatever stood there is replaced, as a whole. OutputError: no room here for the pieces."""
        import obstore

        with _spooled(data) as body, _as_os_errors(self.uri_of(key)):
            return obstore.put(self._for(body), key, body, mode="overwrite")["e_tag"]

    def create(self, key: str, data: bytes) -> str | None:
        """The ETag of a new object; FileExistsError when another stands there (of the same bytes: it is ours).

        A retried request can find what its first try has written: hence the comparison.
        """
        import obstore

        try:
            with _as_os_errors(self.uri_of(key)):
                return obstore.put(self._for(data), key, data, mode="create", use_multipart=False)["e_tag"]
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
            with _as_os_errors(self.uri_of(key)):
                return obstore.put(self._store, key, data, mode=version, use_multipart=False)["e_tag"]
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
                with _as_os_errors(self.uri_of(key)):
                    obstore.delete(self._store, key)
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

    def __init__(self, store: ObjectStore, found: StoredObject, uri: str) -> None:
        self._store, self._found, self._uri = store, found, uri
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
        import obstore

        end = min(self._at + len(buffer), self._found.size_bytes)
        if end <= self._at:
            return 0
        options: dict[str, Any] = {"range": (self._at, end)}
        if self._found.etag is not None:
            options["if_match"] = self._found.etag
        with _as_os_errors(self._uri):
            data = obstore.get(self._store, self._found.key, options=cast("Any", options)).bytes()
        view = memoryview(data)
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


@contextmanager
def _as_os_errors(uri: str) -> Iterator[None]:
    """The one boundary where the library's errors become OSErrors, by their class."""
    from obstore import exceptions as theirs

    try:
        yield
    except (theirs.NotFoundError, FileNotFoundError) as cause:  # a stream's is the builtin one
        raise FileNotFoundError(errno.ENOENT, said(cause), uri) from cause
    except (theirs.PermissionDeniedError, theirs.UnauthenticatedError) as cause:
        raise PermissionError(errno.EACCES, said(cause), uri) from cause
    except theirs.AlreadyExistsError as cause:
        raise FileExistsError(errno.EEXIST, said(cause), uri) from cause
    except theirs.PreconditionError as cause:
        raise StaleVersionError(errno.ESTALE, "is no longer the version that was named", uri) from cause
    except (theirs.InvalidPathError, ValueError) as cause:
        raise OSError(errno.EINVAL, said(cause), uri) from cause
    except theirs.BaseError as cause:
        kind, number = _kind_of(str(cause))
        raise kind(number, said(cause), uri) from cause


def _kind_of(text: str) -> tuple[type[OSError], int]:
    """What an error without a class of its own is: a listing's refusals come so, with the status in the text alone.

    Seen with obstore 0.12: `… Server returned non-2xx status code: 404 Not Found: …`, `Received redirect without …`.
    """
    found = re.search(r"status code: (\d{3})\b", text)
    status = int(found[1]) if found else 301 if "Received redirect without" in text else 0
    if status == 404:
        return FileNotFoundError, errno.ENOENT
    if status in (401, 403):
        return PermissionError, errno.EACCES
    refused = 300 <= status < 500 and status not in (408, 429)
    return (OSError, errno.EPROTO) if refused else (ConnectionError, errno.EIO)
