"""The elements of a JSON array, one after the other: the file's own, or one in the file's object.

    text ─▶ window ─▶ raw_decode ─▶ element      the window grows until an element fits in it
                        └─ error ─▶ the next place that looks like an element; the text before it is one failed element

It must not hold more than one element, and about the same amount of the text after it.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from pipeline.documents.containers import Container, Piece, too_large
from pipeline.documents.encodings.decoding import marked
from pipeline.documents.tables.json_fields import raise_unreadable
from pipeline.documents.tables.json_text import drop_trailing_commas

_WINDOW_CHARS = 1 << 16
_MAX_TRIES = 1000
"""Limit of the places in one file that are tried as the beginning of an element after a broken one."""

_SPACE = re.compile(r"[\s,]*")
_KEY = r"\{\s*\"(?:[^\"\\]|\\.)*\"?"
_FIRST_KEY = re.compile(_KEY)
_NEXT = re.compile(r"[}\],]\s*(?:,\s*)?(" + _KEY + ")")
_DECODER = json.JSONDecoder(parse_int=len)  # an int of more than 4,300 digits would be an error


class Window:
    """A part of a text, which moves forward. `at`: the current place in it."""

    def __init__(self, text: io.TextIOWrapper, limit: int) -> None:
        self._text = text
        self._limit = limit
        self.chars = ""
        self.at = 0
        self._ended = False
        self._is_tidy = False

    def read_more(self) -> bool:
        """Double the window; return False at the end, or when it is already larger than a document."""
        waiting = len(self.chars) - self.at
        if self._ended or waiting > self._limit:
            return False
        chars = self._text.read(max(_WINDOW_CHARS, min(waiting, self._limit)))
        self._ended = not chars
        self.chars = self.chars[self.at :] + chars
        self.at = 0
        self._is_tidy = False
        return bool(chars)

    def next(self) -> str:
        """Return the next character that is neither white space nor a comma; empty at the end."""
        while True:
            self.at = cast(re.Match[str], _SPACE.match(self.chars, self.at)).end()
            if self.at < len(self.chars):
                return self.chars[self.at]
            if not self.read_more():
                return ""

    def value_end(self) -> int | None:
        """Return the end of the value that begins here; None when it is broken or too large."""
        while True:
            at = self.at
            try:
                end = _DECODER.raw_decode(self.chars, at)[1]
            except json.JSONDecodeError as cause:
                if _may_be_cut(cause, self.chars) and self.read_more():
                    continue
                if not self._is_tidy and _is_trailing_comma(cause, self.chars):
                    self.chars = self.chars[: self.at] + drop_trailing_commas(self.chars[self.at :])
                    self._is_tidy = True
                    continue
                return None
            except (RecursionError, ValueError):
                return None
            if end < len(self.chars) or not self.read_more():  # a number may continue after the window
                return end - at + self.at


def _may_be_cut(cause: json.JSONDecodeError, chars: str) -> bool:
    """Return whether the value may be broken only because the window ends."""
    return cause.msg.startswith("Unterminated") or cause.pos >= len(chars) - 16


def _is_trailing_comma(cause: json.JSONDecodeError, chars: str) -> bool:
    """Return whether a comma before a closing bracket is the error: its place is that of the comma or the bracket."""
    place = chars[cause.pos : cause.pos + 1]
    if place == ",":
        return chars[cause.pos + 1 : cause.pos + 1000].lstrip()[:1] in ("}", "]")
    return place in ("}", "]") and chars[max(0, cause.pos - 1000) : cause.pos].rstrip().endswith(",")


@contextmanager
def opened_window(stream: BinaryIO, limit: int) -> Iterator[Window]:
    """Yield a window on the text of a stream; bytes that are not UTF-8 are kept."""
    encoding = marked(cast(io.BufferedReader, stream).peek()) or "utf-8"
    errors = "surrogateescape" if encoding.startswith("utf-8") else "replace"
    text = io.TextIOWrapper(stream, encoding, errors, newline="")
    try:
        yield Window(text, limit)
    finally:
        text.detach()


def split_array(stream: BinaryIO, container: Container) -> Iterator[Piece]:
    """Yield each element of the file's array, or of the array at `records_field` in the file's object.

    Numbered from 1. A broken element fails alone; DocumentError when there is no array, when it is not closed, or when
    its first element is not an object.
    """
    with opened_window(stream, container.limit_bytes) as window:
        if window.next() != "[":
            _enter(window, container.records_field or "")
        if window.next() != "[":
            raise_unreadable(f"field {container.records_field!r} is not a list (input.records_field)")
        window.at += 1
        yield from _elements(window, container.limit_bytes)


def _enter(window: Window, path: str) -> None:
    """Move to the value at a dotted path."""
    remaining_path = path
    while remaining_path:
        if window.next() != "{":
            raise_unreadable(f"field {path!r} is missing, need a list (input.records_field)")
        window.at += 1
        while True:
            name = _name(window, path)
            if name == remaining_path or remaining_path.startswith(name + "."):
                remaining_path = remaining_path[len(name) + 1 :]
                break
            end = window.value_end()
            if end is None:
                raise_unreadable(f"a value before the field {path!r} is broken or too large")
            window.at = end


def _name(window: Window, path: str) -> str:
    """Return the next name of an object, and move to its value."""
    end = window.value_end() if window.next() == '"' else None
    if end is None:
        raise_unreadable(f"field {path!r} is missing, need a list (input.records_field)")
    name: str = _DECODER.decode(window.chars[window.at : end])
    window.at = end
    if window.next() != ":":
        raise_unreadable("not JSON: a name without a value")
    window.at += 1
    window.next()
    return name


def _elements(window: Window, limit: int) -> Iterator[Piece]:
    number = 0
    tries = _MAX_TRIES
    key = ""
    while (first := window.next()) != "]":
        if not first:
            raise_unreadable("its array is not closed")
        number += 1
        if number == 1:
            key = _key_of(window)
        end = window.value_end()
        if end is not None:
            data = _bytes(window.chars[window.at : end])
            window.at = end
            yield _piece(number, len(data), data, limit)
            continue
        size, data, tries = _skip_broken(window, key, tries, limit)
        yield _piece(number, size, data, limit)
        if not tries:
            raise_unreadable("too many of its elements are broken")
        if not window.next():
            return  # the last element was broken, and has failed


def _key_of(window: Window) -> str:
    """Return the beginning of the first element up to its first name."""
    while not (match := _FIRST_KEY.match(window.chars, window.at)) and len(window.chars) - window.at < _WINDOW_CHARS:
        if not window.read_more():
            break
    if window.chars[window.at] != "{":
        raise_unreadable("its array does not hold objects")
    return "".join(match[0].split()) if match else ""


def _skip_broken(window: Window, key: str, tries: int, limit: int) -> tuple[int, bytes, int]:
    """Move to the next element after a broken one; return the size and bytes of the broken one, and remaining tries.

    An element may contain other objects: only one that begins with the same name as the first element counts.
    """
    skipped_value = _SkippedValue(limit)
    start = window.at
    while True:
        matches = (match for match in _NEXT.finditer(window.chars, start) if "".join(match[1].split()) == key)
        match = next(matches, None) if tries else None
        if match is None:
            skipped_value.take(window, max(window.at, len(window.chars) - _WINDOW_CHARS))
            start = window.at
            if window.read_more():
                start = window.at
                continue
            skipped_value.take(window, len(window.chars))
            return skipped_value.size, skipped_value.data(), tries
        tries -= 1
        skipped_value.take(window, match.start(1))
        if window.value_end() is not None:
            return skipped_value.size, skipped_value.data(), tries
        start = window.at + 1


class _SkippedValue:
    """The text of a broken element, kept while it is not too large."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[str] = []
        self.size = 0

    def take(self, window: Window, end: int) -> None:
        """Take the text up to a place in the window."""
        if self.size <= self._limit:
            self._parts.append(window.chars[window.at : end])
        self.size += end - window.at
        window.at = end

    def data(self) -> bytes:
        return _bytes("".join(self._parts).rstrip(", \t\r\n"))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape" if not text.isascii() else "strict")


def _piece(number: int, size: int, data: bytes, limit: int) -> Piece:
    if size > limit:
        return Piece(number, size, problem=too_large(size, limit))
    return Piece(number, size, data)
