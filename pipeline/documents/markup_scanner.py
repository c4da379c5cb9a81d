"""The tags of a stream of markup, and all bytes between them, in order and in parts of bounded size.

A comment, a CDATA section, an instruction or a DOCTYPE is not a tag. It must not decode text or build a tree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

_CHUNK_BYTES = 1 << 16
_MAX_TAG_BYTES = 1 << 16
"""The longest tag; a longer one is text."""

_TAG = re.compile(rb"<(/?)([A-Za-z_:\x80-\xff][A-Za-z0-9_:.\-\x80-\xff]*)(?=[\s/>])(?:[^<>\"']|\"[^\"<]*\"|'[^'<]*')*>")
_LOOSE_TAG = re.compile(rb"<(/?)([A-Za-z_:\x80-\xff][A-Za-z0-9_:.\-\x80-\xff]*)(?=[\s/>])[^<>]*>")
_CLOSINGS = {b"<!--": b"-->", b"<![CDATA[": b"]]>", b"<?": b"?>"}
_LONGEST_OPENING = 9
_DOCTYPE = re.compile(rb"<!DOCTYPE[^<>\[]*(?:\[.*?\]\s*)?>", re.DOTALL)


class Tag(NamedTuple):
    """The source of a tag, its name, and whether it is an end tag."""

    data: bytes
    name: bytes
    closes: bool


class Scanner:
    """A window on the stream, which moves forward."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._data = b""
        self._at = 0
        self._ended = False

    def parts(self) -> Iterator[Tag | bytes]:
        """Yield the tags of the stream and the bytes between them."""
        while True:
            start = self._data.find(b"<", self._at)
            end = start if start >= 0 else len(self._data)
            if end > self._at:
                yield self._data[self._at : end]
                self._at = end
            if start < 0:
                if not self._read_more():
                    return
                continue
            yield from self._markup()

    def _read_more(self) -> bool:
        """Read the next bytes; return False at the end of the stream."""
        chunk = b"" if self._ended else self._stream.read(_CHUNK_BYTES)
        self._ended = not chunk
        self._data = self._data[self._at :] + chunk
        self._at = 0
        return bool(chunk)

    def _markup(self) -> Iterator[Tag | bytes]:
        """Yield the tag, comment or section that begins with the `<` at the current place."""
        while len(self._data) - self._at < _LONGEST_OPENING and self._read_more():
            pass
        opening = next((prefix for prefix in _CLOSINGS if self._data.startswith(prefix, self._at)), None)
        if opening is not None:
            yield from self._up_to(_CLOSINGS[opening], len(opening))
            return
        while True:
            doctype = _DOCTYPE.match(self._data, self._at)
            if doctype is not None:
                self._at = doctype.end()
                yield doctype[0]
                return
            match = _TAG.match(self._data, self._at) or _LOOSE_TAG.match(self._data, self._at)
            if match is not None:
                self._at = match.end()
                yield Tag(match[0], match[2], bool(match[1]))
                return
            waiting = len(self._data) - self._at
            is_doctype = self._data.startswith(b"<!DOCTYPE", self._at)
            is_over = self._data.find(b"<", self._at + 1) >= 0 and not is_doctype
            if is_over or waiting > _MAX_TAG_BYTES or not self._read_more():
                yield b"<"
                self._at += 1
                return

    def _up_to(self, closing: bytes, opening_bytes: int) -> Iterator[bytes]:
        """Yield all bytes up to a closing mark, and the mark."""
        whole_from = self._at + opening_bytes
        while (end := self._data.find(closing, whole_from)) < 0:
            safe = max(self._at, len(self._data) - len(closing) + 1)
            if safe > self._at:
                yield self._data[self._at : safe]
                self._at = safe
            if not self._read_more():
                yield self._data[self._at :]
                self._at = len(self._data)
                return
            whole_from = self._at
        yield self._data[self._at : end + len(closing)]
        self._at = end + len(closing)
