"""A web archive (WARC): each response that is a text is a document; all other records are counted by their kind.

    record header ─▶ HTTP header ─▶ text? ─▶ content without chunks and compression ─▶ document
                                     └─ no ─▶ counted and skipped

A damaged record fails alone. Format: WARC 1.1 (ISO 28500:2017). It must not hold more than one record.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from pipeline.documents.archives.content_encoding import unpacked
from pipeline.documents.archives.recovering import DamagedPartError
from pipeline.documents.containers import Container, Piece, too_large
from pipeline.documents.described import described
from pipeline.documents.foreign import MISHAPS
from pipeline.documents.tables.json_fields import raise_unreadable
from pipeline.errors import DocumentError

MARK = b"WARC/"
"""The beginning of a record."""

_LINE_BYTES = 1 << 16
_HEADER_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 16
_SPARE_BYTES = 1 << 20
"""Limit of the bytes of HTTP headers and chunk sizes, in addition to the limit of the content."""

_READ = ("response", "resource", "conversion")
_NO_TEXTS = frozenset({"text/css", "text/javascript", "text/ecmascript", "text/x-javascript", "text/event-stream"})
_TEXTS = frozenset({"application/xhtml+xml", "application/xml", "application/rss+xml", "application/atom+xml"})
_NO_PAGES = frozenset({"dns", "metadata", "whois"})
"""URL schemes of records with the crawlers' own data."""
_KINDS = 100
"""Characters of a content type in a count."""


class _WrongRecordError(Exception):
    """The bytes where a record should begin are not a record."""


@dataclass(slots=True)
class _Record:
    """A record: its headers (of warcio), and the number of bytes of its content that are left to read."""

    headers: Any
    left: int

    def field(self, name: str) -> str:
        return (self.headers.get_header(name) or "").strip()


def split_archive(stream: BinaryIO, container: Container) -> Iterator[Piece]:
    """Yield the text of each response, numbered by its record from 1.

    DocumentError for a file without records, or one that ends within a record.
    """
    number = 0
    pending: Piece | None = None
    while True:
        try:
            begins = _find_record(stream)
            if pending is not None:
                yield pending
                pending = None
            if not begins:
                break
            number += 1
            pending = _piece(stream, _record(stream), number=number, container=container)
        except (DamagedPartError, _WrongRecordError) as cause:
            if pending is not None and isinstance(cause, DamagedPartError) and not cause.begun:
                yield pending  # the record before the damaged one is whole
                pending = None
                number += 1
            size = pending.size_bytes if pending is not None else 0
            yield Piece(number, size, problem=DocumentError("document_unreadable", f"a damaged record: {cause}"))
            pending = None
            if not _resume(stream):
                break
    if number == 0:
        raise_unreadable("no WARC: it holds no record")


def _resume(stream: BinaryIO) -> bool:
    """Move to the next record after a damaged one; False when there is none."""
    while True:
        try:
            if _peek(stream) == MARK:
                return True
            if not stream.readline(_LINE_BYTES):
                return False
        except DamagedPartError:
            continue


def _find_record(stream: BinaryIO) -> bool:
    """Move to the beginning of the next record; False at the end."""
    while True:
        start = _peek(stream)
        if not start:
            return False
        if start.startswith(MARK[: len(start)]):
            return True
        if start[:1] not in b"\r\n":
            raise _WrongRecordError("no record begins where the one before it ends")
        stream.readline(_LINE_BYTES)


def _peek(stream: BinaryIO) -> bytes:
    return cast(io.BufferedReader, stream).peek(len(MARK))[: len(MARK)]


def _record(stream: BinaryIO) -> _Record:
    """Read the header of the record that begins here."""
    from warcio.statusandheaders import StatusAndHeadersParser

    block = _header_block(stream, _HEADER_BYTES)
    try:
        headers = StatusAndHeadersParser(["WARC/"], verify=False).parse(io.BytesIO(block))
        return _Record(headers, max(0, int(headers.get_header("Content-Length") or "")))
    except MISHAPS as cause:
        raise _WrongRecordError("its header has no length") from cause


def _header_block(stream: BinaryIO, limit: int) -> bytes:
    """Return the lines before the next empty line."""
    lines = []
    size = 0
    while (line := stream.readline(_LINE_BYTES)) not in (b"", b"\r\n", b"\n"):
        lines.append(line)
        size += len(line)
        if size > limit:
            raise _WrongRecordError(f"its header has more than {limit} bytes")
    return b"".join((*lines, line))


def _take(stream: BinaryIO, record: _Record, size: int) -> bytes:
    """Return the next bytes of a record; DocumentError when the file ends before."""
    data = stream.read(min(size, record.left))
    record.left -= len(data)
    if not data and size and record.left:
        raise_unreadable("the file ends within a record")
    return data


def _skip(stream: BinaryIO, record: _Record) -> None:
    while record.left:
        _take(stream, record, _CHUNK_BYTES)


def _piece(stream: BinaryIO, record: _Record, *, number: int, container: Container) -> Piece | None:
    """Return the document in a record; None for a record that is only counted."""
    kind = record.field("WARC-Type").lower()
    size = record.left
    scheme = record.field("WARC-Target-URI").strip("<>").partition(":")[0].lower()
    if kind not in _READ or scheme in _NO_PAGES:
        return _count(stream, record, container, f"WARC {scheme if kind in _READ else kind}")
    if size > container.limit_bytes + _SPARE_BYTES:
        _skip(stream, record)
        return Piece(number, size, problem=too_large(size, container.limit_bytes))
    is_http = kind == "response" and "http" in (record.field("Content-Type") or "http").lower()
    block = b"".join(iter(lambda: _take(stream, record, _CHUNK_BYTES), b""))
    response = _response(block) if is_http else None
    if response is not None and not 200 <= response.status < 300:
        return _count(stream, record, container, f"HTTP {response.status}")
    content_type = response.header("Content-Type") if response is not None else record.field("Content-Type")
    media_type = content_type.partition(";")[0].strip().lower()
    if not _is_text(media_type, response.body if response is not None else block):
        return _count(stream, record, container, f"WARC {media_type or 'without content type'}")
    try:
        data, is_whole = (block, True) if response is None else response.content(container.limit_bytes)
    except DocumentError as problem:
        return Piece(number, size, problem=problem)
    truncated = record.field("WARC-Truncated") or ("" if is_whole else "content")
    metadata = {
        "url": record.field("WARC-Target-URI").strip("<>"),
        "archived_at": record.field("WARC-Date"),
        "content_type": content_type,
    }
    notes = (f"truncated:{truncated[:20]}",) if truncated else ()
    return Piece(number, len(data), described(metadata, data), notes)


def _count(stream: BinaryIO, record: _Record, container: Container, kind: str) -> Piece | None:
    """Skip the rest of a record and count it by its kind."""
    _skip(stream, record)
    container.ignore(f"({kind[:_KINDS]})")
    return None


def _is_text(media_type: str, body: bytes) -> bool:
    if not media_type:
        return body[:_CHUNK_BYTES].lstrip()[:9].lower().startswith((b"<!doctype", b"<html"))
    return media_type in _TEXTS or (media_type.startswith("text/") and media_type not in _NO_TEXTS)


@dataclass(frozen=True, slots=True)
class _Response:
    """An HTTP response: its status, its headers (of warcio), and its raw body."""

    status: int
    headers: Any
    body: bytes

    def header(self, name: str) -> str:
        return (self.headers.get_header(name) or "").strip()

    def content(self, limit_bytes: int) -> tuple[bytes, bool]:
        """Return the body without chunks and compression, and whether it is whole; DocumentError if it is too large."""
        from warcio.bufferedreaders import ChunkedDataReader

        body = self.body
        if self.header("Transfer-Encoding").lower() == "chunked":
            body = b"".join(iter(ChunkedDataReader(io.BytesIO(body)).read, b""))
        decoded = unpacked(body, self.header("Content-Encoding"), limit_bytes)
        if decoded is None:
            raise_unreadable("its content encoding is not known, need gzip, deflate, br or zstd")
        if len(decoded[0]) > limit_bytes:
            raise too_large(None, limit_bytes)
        return decoded


def _response(block: bytes) -> _Response | None:
    """Return the HTTP response in a block; None for a block without HTTP headers."""
    from warcio.statusandheaders import StatusAndHeadersParser

    if not block.startswith(b"HTTP/"):
        return None
    stream = io.BytesIO(block)
    try:
        headers = StatusAndHeadersParser(["HTTP/"], verify=False).parse(stream)
        status = int(headers.get_statuscode())
    except MISHAPS as cause:
        raise _WrongRecordError("its HTTP header is damaged") from cause
    return _Response(status, headers, stream.read())
