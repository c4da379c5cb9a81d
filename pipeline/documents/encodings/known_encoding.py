"""The encoding that the configuration names (`input.encoding`) for files whose encoding cannot be guessed.

Bytes in such an encoding become UTF-8 before their format is decoded. It must not guess.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, BinaryIO

from pipeline.documents.encodings.decoding import read_as
from pipeline.documents.patterns import PathFilter, select

AUTO = "auto"

_TEXTS = frozenset({"text", "html", "json", "csv", "tsv", "xml"})
"""Formats whose bytes are text; others declare their encoding."""
_CHARS = 1 << 16


def encoding_of(relative: str, setting: str | Mapping[str, str], *, form: str) -> str | None:
    """Return Python's name of the encoding set for a file, by the first glob that matches; None to detect it."""
    if setting == AUTO or form not in _TEXTS:
        return None
    if isinstance(setting, str):
        return _codec(setting)
    return next((_codec(name) for glob, name in setting.items() if _pattern(glob).excludes(relative)), None)


def to_utf8(data: bytes, encoding: str) -> tuple[bytes, tuple[str, ...]]:
    """Return the bytes in UTF-8, and notes."""
    text, notes = read_as(data, encoding)
    return text.encode("utf-8", "surrogatepass"), notes


def utf8_stream(stream: BinaryIO, encoding: str) -> BinaryIO:
    """Return a stream of the same text in UTF-8; the other one stays open."""
    return io.BufferedReader(_Recoded(stream, encoding))


class _Recoded(io.RawIOBase):
    def __init__(self, stream: BinaryIO, encoding: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)("replace")
        self._ready = b""
        self._done = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while not self._ready and not self._done:
            data = self._stream.read(_CHARS)
            self._done = not data
            self._ready = self._decoder.decode(data, self._done).encode("utf-8", "surrogatepass")
        part = self._ready[: len(buffer)]
        self._ready = self._ready[len(part) :]
        buffer[: len(part)] = part
        return len(part)


def _codec(name: str) -> str | None:
    return None if name == AUTO else codecs.lookup(name).name


@lru_cache(maxsize=256)
def _pattern(glob: str) -> PathFilter:
    return select((), (glob,))
