"""Files with many documents: the entries of their pieces, and the formats that define how to split a file.

They are read as streams, in the reader's thread; it must not hold more than one piece or read a file twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn

from pipeline.config.limits import InputLimits
from pipeline.documents.archives.compression import PLAIN, Compression, trailing_bytes
from pipeline.documents.budget import UnpackedBudget, counted_stream
from pipeline.documents.decode import Decoded, scrub
from pipeline.documents.divided import Divider
from pipeline.documents.encodings.known_encoding import utf8_stream
from pipeline.documents.tables.json_fields import field_at
from pipeline.documents.tables.json_text import read_json
from pipeline.errors import DocumentError, TryLaterError
from pipeline.records import Entry
from pipeline.stores import is_remote, is_trouble


@dataclass(frozen=True, slots=True)
class Container:
    """A file that contains documents: its id and uri, how to open and unpack it, and the settings that apply.

    `damage`: the exceptions that reading it may raise. `encoding`: its encoding if the configuration names it.
    `ignore` is called with the kind of each part that is skipped.
    """

    id: str
    uri: str
    format: str
    open: Callable[[], BinaryIO]
    compression: Compression
    damage: tuple[type[Exception], ...]
    size_bytes: int
    limit_bytes: int
    version: str | None = None
    text_field: str = "text"
    id_field: str | None = None
    records_field: str | None = None
    csv: Mapping[str, Any] = field(default_factory=dict)
    id_prefix: str = ""
    limits: InputLimits = field(default_factory=InputLimits)
    ignore: Callable[[str], None] = lambda _: None
    encoding: str | None = None


class Piece(NamedTuple):
    """A document in a file: its number from 1, its bytes with notes on their decoding, or its problem.

    `part`: its place among the documents that share its number, from 1. `key`: its identifier in the file, which
    stays the same when documents before it come and go, and takes the place of the number in its id.
    """

    number: int
    size_bytes: int
    data: bytes = b""
    notes: tuple[str, ...] = ()
    problem: DocumentError | None = None
    part: int = 1
    key: str = ""


Look = Callable[[BinaryIO, Container], "Format | None"]
SplitFunction = Callable[[BinaryIO, Container], Iterator[Piece]]


@dataclass(frozen=True, slots=True)
class Format:
    """A row of the table of formats: how to decode one document.

    `split`: how to split a file of many documents; None: the file is one document. `look` returns the format that the
    beginning of a file shows, for a suffix that has several; None for this one. `extra`: the extra it needs.
    `decoder_extra`: another one whose library its decoder imports.
    `heavy`: decode it in a helper process, since hostile bytes may take hours or gigabytes. `hint`: where opening a
    file costs a request, `look` is only called for such names. `mark`: how each document begins that is a gzip member
    of its own, so that a damaged one does not end the file. `divide`: how a large file is divided into parts.
    """

    name: str
    decode: Callable[[bytes, str], Decoded]
    split: SplitFunction | None = None
    extra: str | None = None
    decoder_extra: str | None = None
    heavy: bool = False
    look: Look | None = None
    hint: re.Pattern[str] | None = None
    mark: bytes | None = None
    divide: Divider | None = None


@dataclass(frozen=True, slots=True)
class BytesInContainer:
    """A document that was read with its container; calling it returns the bytes. `position` is its positional id."""

    data: bytes
    position: str
    notes: tuple[str, ...] = ()

    def __call__(self) -> bytes:
        return self.data


@dataclass(frozen=True, slots=True)
class PeekedBytes:
    """A document that was read when its format was detected; calling it returns the bytes."""

    data: bytes

    def __call__(self) -> bytes:
        return self.data


def held_sha256(entry: Entry) -> str | None:
    """Return the hash of a document that was read with its container; None when it must be read first."""
    return sha256(entry.read.data).hexdigest() if isinstance(entry.read, BytesInContainer) else None


def held_bytes(entry: Entry) -> int:
    """Return the number of bytes that an entry keeps in memory: those of a document that was read with the listing."""
    return len(entry.read.data) if isinstance(entry.read, (BytesInContainer, PeekedBytes)) else 0


def fail(problem: DocumentError) -> NoReturn:
    """Raise the problem; bound to it, the `read` of an entry that is known not to be a document."""
    raise DocumentError(problem.reason, str(problem)) from problem


def too_large(size_bytes: int | None, limit_bytes: int) -> DocumentError:
    """Return the problem of a document over the size limit; `size_bytes` is None when it was not counted."""
    size_text = "it is larger" if size_bytes is None else f"it has {size_bytes} bytes, more"
    message = f"{size_text} than input.max_document_bytes ({limit_bytes})"
    return DocumentError("document_too_large", message)


def piece_entries(container: Container, split: SplitFunction) -> Iterator[Entry]:
    """Yield an entry for each piece; a damaged file ends with a failed entry under its own id."""
    try:
        with container.open() as raw, container.compression.open(raw) as stream:
            for piece in split(_readable(stream, container), container):
                yield piece_entry(container, piece)
            if trailing_bytes(stream):
                container.ignore("(trailing bytes)")
    except DocumentError as cause:
        yield damaged(container, cause)
    except container.damage as cause:
        yield damaged(container, cause)


def _readable(stream: BinaryIO, container: Container) -> BinaryIO:
    """Return the stream in an encoding that can be split; that of a compressed file is limited by its budget."""
    if container.compression is not PLAIN:
        stream = counted_stream(stream, UnpackedBudget(container.size_bytes, container.limits))
    return utf8_stream(stream, container.encoding) if container.encoding else stream


def piece_entry(container: Container, piece: Piece) -> Entry:
    """Return the entry of a document in a file."""
    number = f"{piece.number}.{piece.part}" if piece.part > 1 else f"{piece.number}"
    position = f"{container.id}#{number}"
    uri = f"{container.uri}#{number}"
    keyed = f"{container.id}#{piece.key}" if piece.key else position
    if piece.problem is not None:
        problem = partial(fail, piece.problem)
        return Entry(keyed, uri, container.version, piece.size_bytes, container.format, problem)
    encoded = (f"encoding:{container.encoding}",) if container.encoding else ()
    content = BytesInContainer(piece.data, position, (*encoded, *piece.notes))
    own = _own_id(piece.data, container.id_field) if container.id_field else None
    if own is None and not piece.key:
        return Entry(position, uri, container.version, piece.size_bytes, container.format, content)
    # another file may have the same version, and an id from the document does not identify the file
    version = f"{container.version}@{position}" if container.version else None
    id = keyed if own is None else container.id_prefix + own
    return Entry(id, uri, version, piece.size_bytes, container.format, content)


def _own_id(data: bytes, id_field: str) -> str | None:
    """Return the id in the document: a string that is not empty, or an integer; else None."""
    try:
        value, _ = read_json(data)
    except DocumentError:
        return None
    own = next(field_at(value, id_field), None)
    if isinstance(own, bool) or not isinstance(own, (str, int)):
        return None
    return scrub(str(own)) or None


def damaged(container: Container, cause: Exception) -> Entry:
    """Return the entry for the unreadable rest of a container; TryLaterError when its store is unavailable."""
    if is_trouble(cause):
        raise TryLaterError(f"the listing was interrupted: {container.uri}: {describe(cause)}") from cause
    reason = cause.reason if isinstance(cause, DocumentError) else "document_unreadable"
    problem = DocumentError(reason, f"cannot be read to its end: {describe(cause)}")
    return Entry(container.id, container.uri, None, container.size_bytes, container.format, partial(fail, problem))


def is_damaged(entry: Entry) -> bool:
    """Return True for an entry of the unreadable rest of a container."""
    return entry.version is None and isinstance(entry.read, partial) and entry.read.func is fail


def describe(cause: Exception) -> str:
    """Return a short description of an error, without text of the file."""
    return (cause.strerror if isinstance(cause, OSError) else None) or str(cause) or type(cause).__name__


def fallback_id(entry: Entry) -> str:
    """Return the id for an entry whose id is taken: its positional id if that differs, else its whole URI."""
    position = entry.read.position if isinstance(entry.read, BytesInContainer) else entry.id
    if position != entry.id:
        return position
    return entry.uri if is_remote(entry.uri) else f"file://{Path(entry.uri).absolute()}"
