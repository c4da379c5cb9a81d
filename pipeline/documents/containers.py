"""Files that hold many documents: the entries of their pieces, and the formats that say how a file is cut.

Read as streams, in the reader's thread; nothing here holds more than one piece, or waits for a second pass.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, NamedTuple, NoReturn

from pipeline.config.limits import InputLimits
from pipeline.documents.budget import UnpackedBudget, counted
from pipeline.documents.compression import PLAIN, Compression
from pipeline.documents.decode import Decoded, read_json, scrub
from pipeline.errors import DocumentError, TryLaterError
from pipeline.records import Entry
from pipeline.stores import is_remote, is_trouble


@dataclass(frozen=True, slots=True)
class Container:
    """A file that holds documents: its own id and uri, how it is opened and unpacked, and what is asked of it.

    `damage`: what reading it may raise.
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
    id_prefix: str = ""
    limits: InputLimits = field(default_factory=InputLimits)


class Piece(NamedTuple):
    """A document in a file: its number from 1, its bytes and what was done to get them, or what is wrong with it."""

    number: int
    size_bytes: int
    data: bytes = b""
    notes: tuple[str, ...] = ()
    problem: DocumentError | None = None


Split = Callable[[BinaryIO, Container], Iterator[Piece]]


@dataclass(frozen=True, slots=True)
class Format:
    """A row of the table of formats: what the bytes of one document mean.

    `split`: how a file of many is cut; None: the file is one document. `extra`: what must be installed for it.
    `heavy`: it is decoded by a helper process, since hostile bytes may take hours or gigabytes.
    """

    name: str
    decode: Callable[[bytes, str], Decoded]
    split: Split | None = None
    extra: str | None = None
    heavy: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    """A document that was read with its container: calling it gives the bytes; `position` is its positional id."""

    data: bytes
    position: str
    notes: tuple[str, ...] = ()

    def __call__(self) -> bytes:
        return self.data


def held_sha256(entry: Entry) -> str | None:
    """The hash of a document whose bytes came with its container; None where they must be read first."""
    return sha256(entry.read.data).hexdigest() if isinstance(entry.read, Held) else None


def held_bytes(entry: Entry) -> int:
    """The bytes that an entry keeps in memory: those of a document that was read with its container."""
    return len(entry.read.data) if isinstance(entry.read, Held) else 0


def fail(problem: DocumentError) -> NoReturn:
    """Nothing: the `read` of an entry that is known to be no document, with its problem bound."""
    raise DocumentError(problem.reason, str(problem)) from problem


def too_large(size_bytes: int | None, limit_bytes: int) -> DocumentError:
    """The problem of what is larger than a document may be; its size is None where it was not counted."""
    counted = "it is larger" if size_bytes is None else f"it has {size_bytes} bytes, more"
    told = f"{counted} than input.max_document_bytes ({limit_bytes})"
    return DocumentError("document_too_large", told)


def piece_entries(container: Container, split: Split) -> Iterator[Entry]:
    """An entry for each piece; a damaged file ends in a failed entry under its own id."""
    try:
        with container.open() as raw, container.compression.open(raw) as stream:
            for piece in split(_counted(stream, container), container):
                yield _entry(container, piece)
    except DocumentError as cause:
        yield damaged(container, cause)
    except container.damage as cause:
        yield damaged(container, cause)


def _counted(stream: BinaryIO, container: Container) -> BinaryIO:
    """The stream; of a compressed file no more than it may unpack to."""
    if container.compression is PLAIN:
        return stream
    return counted(stream, UnpackedBudget(container.size_bytes, container.limits))


def _entry(container: Container, piece: Piece) -> Entry:
    position, uri = f"{container.id}#{piece.number}", f"{container.uri}#{piece.number}"
    if piece.problem is not None:
        problem = partial(fail, piece.problem)
        return Entry(position, uri, container.version, piece.size_bytes, container.format, problem)
    read = Held(piece.data, position, piece.notes)
    own = _own_id(piece.data, container.id_field) if container.id_field else None
    if own is None:
        return Entry(position, uri, container.version, piece.size_bytes, container.format, read)
    # another file may have the same version: an id that is not the place says nothing of where it was
    version = f"{container.version}@{position}" if container.version else None
    return Entry(container.id_prefix + own, uri, version, piece.size_bytes, container.format, read)


def _own_id(data: bytes, id_field: str) -> str | None:
    """The id the document gives itself: a string that is not empty, or an integer; else None."""
    try:
        value, _ = read_json(data)
    except DocumentError:
        return None
    found = value.get(id_field) if isinstance(value, dict) else None
    if isinstance(found, bool) or not isinstance(found, (str, int)):
        return None
    return scrub(str(found)) or None


def damaged(container: Container, cause: Exception) -> Entry:
    """The entry that stands for what could not be read of a container; TryLaterError when its store is away."""
    if is_trouble(cause):
        raise TryLaterError(f"the listing broke off: {container.uri}: {describe(cause)}") from cause
    reason = cause.reason if isinstance(cause, DocumentError) else "document_unreadable"
    problem = DocumentError(reason, f"cannot be read to its end: {describe(cause)}")
    return Entry(container.id, container.uri, None, container.size_bytes, container.format, partial(fail, problem))


def is_damaged(entry: Entry) -> bool:
    """True for an entry that stands for what could not be read of a container."""
    return entry.version is None and isinstance(entry.read, partial) and entry.read.func is fail


def describe(cause: Exception) -> str:
    """What went wrong with a file, in a few words, none of which is the file's."""
    if isinstance(cause, gzip.BadGzipFile):
        return "it is not a gzip file, or a damaged one"
    return (cause.strerror if isinstance(cause, OSError) else None) or str(cause) or type(cause).__name__


def fallback_id(entry: Entry) -> str:
    """The id for an entry whose own is taken: its positional id if it has another one, else its whole URI."""
    position = entry.read.position if isinstance(entry.read, Held) else entry.id
    if position != entry.id:
        return position
    return entry.uri if is_remote(entry.uri) else f"file://{Path(entry.uri).absolute()}"
