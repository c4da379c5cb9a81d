"""A file of many documents that a helper process splits, since hostile bytes may take gigabytes or crash the library.

    reader thread ◀── {"read": [offset, size]} ── helper      the helper has no file: it requests its bytes
                  ── bytes ──▶
                  ◀── a piece of the file ──                  until the file ends or fails

It must not use a helper of the decoding pool, as all of these may wait for the reader.
"""

from __future__ import annotations

import io
import json
import signal
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any, BinaryIO

from pipeline.documents.archives.zip_member import read_exactly
from pipeline.documents.budget import UnpackedBudget
from pipeline.documents.containers import Container, Piece, too_large
from pipeline.documents.divided import Divider, Part, Place
from pipeline.documents.helpers.messages import read_message, write_message
from pipeline.documents.helpers.pool import SPLITTERS, crashed, error_of, over_cpu
from pipeline.errors import DocumentError

ROW_BYTES = 512
"""Bytes that are added to the size of each row: a column of equal values may have millions of rows in few kilobytes."""

Rows = Iterator[tuple[bytes, tuple[str, ...]]]


def split_by_helper(stream: BinaryIO, container: Container) -> Iterator[Piece]:
    """Yield the documents of a file; memory holds at most one document and the bytes of one request."""
    return _pieces(stream, container, first=1, request={})


def split_part(stream: BinaryIO, container: Container, part: Part) -> Iterator[Piece]:
    """Yield the documents of a part of the file, numbered as by `split_by_helper`."""
    rows = [part.number - 1, part.number - 1 + part.count]
    return _pieces(stream, container, first=part.number, request={"part": rows})


def places(stream: BinaryIO, container: Container) -> Iterator[Place]:
    """Yield each place where the file may be cut, and its end."""
    for _, data in _messages(stream, container, request={"places": True}):
        yield Place(*json.loads(data))


def _pieces(stream: BinaryIO, container: Container, *, first: int, request: Mapping[str, Any]) -> Iterator[Piece]:
    source = _seekable(stream, container.limit_bytes)
    budget = UnpackedBudget(source.seek(0, io.SEEK_END), container.limits)
    for number, (notes, data) in enumerate(_messages(source, container, request=request), first):
        budget.add(len(data) + ROW_BYTES)
        yield _piece(number, data, notes, limit_bytes=container.limit_bytes)


def _messages(
    source: BinaryIO, container: Container, *, request: Mapping[str, Any]
) -> Iterator[tuple[tuple[str, ...], bytes]]:
    """Yield the notes and bytes that the helper sends; it receives the file's bytes as it requests them."""
    split = {
        "size": source.seek(0, io.SEEK_END),
        "text_field": container.text_field,
        "id_field": container.id_field,
        **request,
    }
    limits = container.limits
    helper = SPLITTERS.take()
    is_alive = False
    try:
        helper.send({"format": container.format, "split": split, "cpu_s": limits.cpu_s, "memory_mb": limits.memory_mb})
        while (message := helper.receive()) is not None:
            header, data = message
            if "read" in header:
                helper.send({}, _bytes_at(source, *header["read"]))
            elif "notes" in header:
                yield tuple(header["notes"]), data
            else:
                is_alive = not header["last"]
                if "end" in header:
                    return
                raise error_of(header, limits)
        status = helper.end()
        raise over_cpu(limits) if status == -signal.SIGPROF else crashed(status)
    finally:
        if not is_alive:
            helper.end()
        SPLITTERS.give_back(helper, is_alive=is_alive)


def _piece(number: int, data: bytes, notes: tuple[str, ...], *, limit_bytes: int) -> Piece:
    if len(data) > limit_bytes:
        return Piece(number, len(data), problem=too_large(len(data), limit_bytes))
    return Piece(number, len(data), data, notes)


def _seekable(stream: BinaryIO, limit_bytes: int) -> BinaryIO:
    """Return the stream, or its content when it can be read only once, as in an archive."""
    if stream.seekable():
        return stream
    data = stream.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        message = "a file of this kind that is compressed or in an archive is held in memory: unpack it, or raise"
        raise DocumentError("document_too_large", f"{message} input.max_document_bytes ({limit_bytes})")
    return io.BytesIO(data)


def _bytes_at(stream: BinaryIO, offset: int, size: int) -> bytes:
    stream.seek(offset)
    return read_exactly(stream, size, at_least=0)


class RequestedFile(io.RawIOBase):
    """The file in the helper process: each read is a request to the main process."""

    def __init__(self, size: int, requests: IO[bytes], replies: IO[bytes]) -> None:
        self._size = size
        self._requests = requests
        self._replies = replies
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        size = max(0, min(len(buffer), self._size - self._at))
        if not size:
            return 0
        write_message(self._replies, {"read": [self._at, size]})
        message = read_message(self._requests)
        if message is None:
            raise EOFError("the run has ended")
        buffer[: len(message[1])] = message[1]
        self._at += len(message[1])
        return len(message[1])


def send_pieces(
    rows: Callable[..., Rows],
    split: dict[str, Any],
    requests: IO[bytes],
    replies: IO[bytes],
    renew: Callable[[], object],
) -> None:
    """Send each document of the requested file; `renew` is called after each, so that the CPU limit is that of one."""
    file = io.BufferedReader(RequestedFile(split["size"], requests, replies), 1 << 18)
    options = {"part": split["part"]} if "part" in split else {}
    for data, notes in rows(file, text_field=split["text_field"], id_field=split["id_field"], **options):
        write_message(replies, {"notes": notes}, data)
        renew()


ROW_GROUPS = Divider(places, split_part, by_bytes=False)
"""Functions that divide a file which lists its own parts."""
