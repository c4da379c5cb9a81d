"""Limits of the unpacked size of one file, relative to its size and absolute.

A file of 10 kB can unpack to gigabytes. The unpacked bytes are counted here; beyond a limit the file fails, and the
documents read before are kept.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, BinaryIO

from pipeline.config.limits import FREE_UNPACKED_BYTES, InputLimits
from pipeline.errors import DocumentError

CHARS_A_COLUMN = 100
"""Limit of the mean length of the columns' names, as every record repeats all names."""


class UnpackedBudget:
    """The limits of one file, with its unpacked bytes and members so far."""

    def __init__(self, packed_bytes: int, limits: InputLimits, *, of_table: bool = False) -> None:
        self._limits = limits
        self._setting = "table_ratio" if of_table else "ratio"
        self._ratio: float = getattr(limits, self._setting)
        self._members = 0
        self._bytes = 0
        self._by_ratio = FREE_UNPACKED_BYTES + int(self._ratio * packed_bytes)

    def add(self, size_bytes: int) -> None:
        """Count unpacked bytes; DocumentError when they are too many."""
        self._bytes += size_bytes
        if self._bytes > self._by_ratio:
            raise _too_expensive(f"its content is more than {self._ratio:g} times its size", self._setting)
        if self._bytes > self._limits.unpacked_bytes:
            raise _too_expensive(f"it unpacks to more than {self._limits.unpacked_bytes} bytes", "unpacked_bytes")

    def allow(self, packed_bytes: int) -> None:
        """Count packed bytes that were not known before."""
        self._by_ratio += int(self._ratio * packed_bytes)

    def add_member(self, size_bytes: int) -> None:
        """Count a member of an archive before it is unpacked."""
        self._members += 1
        if self._members > self._limits.members:
            raise _too_expensive(f"it has more than {self._limits.members} members", "members")
        self.add(size_bytes)


def check_columns(header: Sequence[str], limits: InputLimits) -> None:
    """Raise DocumentError when a table has too many columns, or names so long that each record would be huge."""
    if len(header) > limits.columns:
        raise _too_expensive(f"the header has {len(header)} columns, more than {limits.columns}", "columns")
    size = sum(map(len, header))
    if size > CHARS_A_COLUMN * limits.columns:
        limit_text = f"more than {CHARS_A_COLUMN} for each of {limits.columns} columns"
        raise _too_expensive(f"the header has {size} characters, {limit_text}", "columns")


def _too_expensive(message: str, setting: str) -> DocumentError:
    return DocumentError("document_too_expensive", f"{message} (input.limits.{setting})")


class _CountedStream(io.RawIOBase):
    """A stream whose bytes are counted as they are read."""

    def __init__(self, stream: BinaryIO, budget: UnpackedBudget) -> None:
        self._stream: Any = stream
        self._budget = budget

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        size: int = self._stream.readinto1(buffer)
        self._budget.add(size)
        return size


def counted_stream(stream: BinaryIO, budget: UnpackedBudget) -> BinaryIO:
    """Return a buffered stream; reading it raises DocumentError when the budget is exceeded."""
    return io.BufferedReader(_CountedStream(stream, budget), 1 << 18)
