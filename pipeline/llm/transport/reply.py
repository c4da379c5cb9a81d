"""Parse one HTTP/1.1 reply from a stream of bytes: skip interim responses, parse the head, unframe the body.

It must not open or keep connections. It is stricter than http.client wherever two readers could disagree about where a
reply ends (RFC 9112, section 6): such a reply is refused, since the next one on the connection would be misread.
"""

from __future__ import annotations

import http.client
import re
from collections.abc import Callable
from dataclasses import dataclass

MAX_HEAD_BYTES = 65536
MAX_HEADERS = 100
MAX_INTERIM_RESPONSES = 1000
"""Above the number that a gateway sends with one progress report a second during `load_timeout` (900 s)."""
MAX_INTERIM_BYTES = 65536

_STATUS_LINE = re.compile(rb"HTTP/1\.([0-9])[ \t]+([1-9][0-9]{2})(?:[ \t].*)?")
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEAD_END = re.compile(rb"\n\r?\n")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")


class Headers(dict[str, str]):
    """Header fields by case-insensitive name; repeated fields are joined by commas."""

    def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
        return super().get(name.lower(), default)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and super().__contains__(name.lower())

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.lower())


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a final reply. `length`: bytes of the body; None when chunks or the connection's end delimit it."""

    status: int
    headers: Headers
    length: int | None
    chunked: bool
    keeps: bool


class Incoming:
    """The bytes received from a connection; `receive` returns more, empty at its end. `begun`: any have arrived."""

    __slots__ = ("_at", "_data", "_receive", "begun")

    def __init__(self, receive: Callable[[], bytes]) -> None:
        self._receive = receive
        self._data = b""
        self._at = 0
        self.begun = False

    @property
    def unread(self) -> bytes:
        """The received bytes that have not been read."""
        return self._data[self._at :]

    def receive_by(self, receive: Callable[[], bytes]) -> None:
        """Use this function for receiving from now on."""
        self._receive = receive

    def fill(self) -> bool:
        """Receive more bytes; return False at the end of the connection."""
        received = self._receive()
        self.begun = self.begun or bool(received)
        # Only unread bytes are copied: otherwise many small chunks in one segment would take quadratic time.
        self._data = self.unread + received if self._at < len(self._data) else received
        self._at = 0
        return bool(received)

    def line(self) -> bytes:
        """Return the next line without its end."""
        while (end := self._data.find(b"\n", self._at)) < 0:
            if len(self._data) - self._at > MAX_HEAD_BYTES:
                raise http.client.LineTooLong("line")
            if not self.fill():
                raise http.client.IncompleteRead(b"")
        line = self._data[self._at : end]
        self._at = end + 1
        return line.removesuffix(b"\r")

    def read_some(self, max_bytes: int) -> bytes:
        """Return between one byte and `max_bytes`."""
        if self._at == len(self._data) and not self.fill():
            raise http.client.IncompleteRead(b"")
        piece = self._data[self._at : self._at + max_bytes]
        self._at += len(piece)
        return piece

    def head(self) -> bytes:
        """Return the next head without its empty line; RemoteDisconnected when the connection ends before it does."""
        while (end := _HEAD_END.search(self._data, self._at)) is None:
            if len(self._data) - self._at > MAX_HEAD_BYTES:
                raise http.client.LineTooLong("head")
            if not self.fill():
                raise http.client.RemoteDisconnected("Remote end closed connection without response")
        head = self._data[self._at : end.start()]
        self._at = end.end()
        if len(head) > MAX_HEAD_BYTES:
            raise http.client.LineTooLong("head")
        return head


def read_head(incoming: Incoming) -> Head:
    """Return the head of the final reply; HTTPException for invalid HTTP or ambiguous framing."""
    size = 0
    for _ in range(MAX_INTERIM_RESPONSES + 1):
        raw = incoming.head()
        head = parse_head(raw)
        if head.status >= 200:
            return head
        if head.status == 101:
            raise http.client.HTTPException("101: the server switched to a protocol that was not requested")
        size += len(raw)
        if size > MAX_INTERIM_BYTES:
            raise http.client.HTTPException("the interim responses are too long")
    raise http.client.HTTPException("too many interim responses")


def parse_head(raw: bytes) -> Head:
    """Parse a head, given without its empty line."""
    first, *lines = raw.split(b"\n")
    line = _STATUS_LINE.fullmatch(first.removesuffix(b"\r"))
    if line is None:
        raise http.client.BadStatusLine("not a status line of HTTP/1")
    status = int(line[2])
    headers = _headers(lines)
    coding = headers.get("transfer-encoding", "identity")
    chunked = str(coding).lower() == "chunked"
    if not chunked and str(coding).lower() != "identity":
        raise http.client.HTTPException("the transfer coding is unknown")
    length = _length(headers)
    # RFC 9112, 6.1: no chunks in HTTP/1.0, and no length beside a transfer coding
    ambiguous = (chunked and line[1] == b"0") or ("transfer-encoding" in headers and length is not None)
    if status < 200 or status in (204, 304):
        length = 0
        chunked = False
    elif chunked:
        length = None
    options = str(headers.get("connection", "")).lower()
    is_persistent = "keep-alive" in options if line[1] == b"0" else "close" not in options
    # A gateway may pass on a late answer behind its own error, so only a 200 keeps its connection.
    keeps = is_persistent and status == 200 and not ambiguous and (chunked or length is not None)
    return Head(status, headers, length, chunked, keeps)


def _headers(lines: list[bytes]) -> Headers:
    headers = Headers()
    name = ""
    if len(lines) > MAX_HEADERS:
        raise http.client.HTTPException(f"got more than {MAX_HEADERS} headers")
    for line in lines:
        text = line.removesuffix(b"\r")
        if b"\r" in text:
            raise http.client.HTTPException("a header line holds a carriage return")
        if text[:1] in (b" ", b"\t") and name:
            dict.__setitem__(headers, name, f"{headers[name]} {text.strip().decode('latin-1')}")
            continue
        raw, colon, value = text.partition(b":")
        if not colon or _NAME.fullmatch(raw) is None:
            raise http.client.HTTPException("a header line has no name")
        name = raw.decode("ascii").lower()
        content = value.strip(b" \t").decode("latin-1")
        headers[name] = f"{headers[name]}, {content}" if name in headers else content
    return headers


def _length(headers: Headers) -> int | None:
    header = headers.get("content-length")
    if header is None:
        return None
    lengths = {part.strip() for part in header.split(",")}
    length = lengths.pop()
    if lengths or not (length.isascii() and length.isdigit() and len(length) <= 18):
        raise http.client.HTTPException("Content-Length is not one number")
    return int(length)


class Body:
    """The body of one reply, read in pieces; `ended` when all of it has been read."""

    __slots__ = ("_chunked", "_incoming", "ended", "left")

    def __init__(self, head: Head, incoming: Incoming) -> None:
        self._incoming = incoming
        self._chunked = head.chunked
        self.left: int | None = 0 if head.chunked else head.length
        self.ended = head.length == 0

    def read(self, max_bytes: int) -> bytes:
        """Return the next bytes of the body, at most `max_bytes`; empty at its end."""
        if self.ended:
            return b""
        if self.left is None:
            self.ended = not self._incoming.unread and not self._incoming.fill()
            return b"" if self.ended else self._incoming.read_some(max_bytes)
        if self._chunked and self.left == 0:
            self.left = self._chunk_size()
            if self.left == 0:
                self._skip_trailers()
                return b""
        piece = self._incoming.read_some(min(max_bytes, self.left))
        self.left -= len(piece)
        if self.left == 0 and self._chunked and self._incoming.line() != b"":
            raise http.client.HTTPException("a chunk is longer than its size")
        self.ended = self.left == 0 and not self._chunked
        return piece

    def _chunk_size(self) -> int:
        size = _CHUNK_SIZE.fullmatch(self._incoming.line())
        if size is None:
            raise http.client.HTTPException("a chunk has no size")
        return int(size[1], 16)

    def _skip_trailers(self) -> None:
        size = 0
        while line := self._incoming.line():
            size += len(line)
            if size > MAX_HEAD_BYTES:
                raise http.client.LineTooLong("trailer")
        self.ended = True
