"""The lines of a text, without the files that are uuencoded within it.

It must not decode such a file, or keep a text that is too large.
"""

from __future__ import annotations

import re

_BEGIN = re.compile(rb"begin(?:-base64)? [0-7]{3,4} [^\r\n]{1,200}\r?\n?$")
_ALPHABET = bytes(range(0x20, 0x61))
_TAG = re.compile(rb"(?:</?[A-Z]{1,10}>)?")


class TextLines:
    """The lines of one text. `encoded`: files in it; `size`: bytes of its text, which is kept up to a limit."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._lines: list[bytes] = []
        self._begun: bytes | None = None
        self._within = False
        self._has_text = False
        self.encoded = 0
        self.size = 0

    def add(self, line: bytes) -> None:
        """Add a line, with its line end."""
        if self._within:
            self._within = line.strip() not in (b"end", b"====")
            return
        if self._begun is not None:
            begun = self._begun
            self._begun = None
            if _is_encoded(line):
                self.encoded += 1
                self._within = line.strip() != b"end"
                return
            self._keep(begun)
        if line.startswith(b"begin") and _BEGIN.match(line):
            self._begun = line
        else:
            self._keep(line)

    def end(self) -> None:
        """Add the line that was held back, at the end of the text."""
        if self._begun is not None:
            self._keep(self._begun)
            self._begun = None

    def _keep(self, line: bytes) -> None:
        self._has_text = self._has_text or _TAG.fullmatch(line.strip()) is None
        self.size += len(line)
        if self.size <= self._limit:
            self._lines.append(line)
        else:
            self._lines.clear()

    @property
    def is_encoded_only(self) -> bool:
        """Return whether a text consists of encoded files and tags only."""
        return bool(self.encoded) and not self._has_text

    def data(self) -> bytes:
        """Return the text."""
        return b"".join(self._lines)


def _is_encoded(line: bytes) -> bool:
    """Return True for a line of uuencoded data: its first character is a size, and spaces at its end may be cut."""
    data = line.rstrip(b"\r\n")
    if not data or data == b"end":
        return bool(data)
    size = (data[0] - 32) & 63
    return not data.translate(None, _ALPHABET) and len(data) - 1 <= (size + 2) // 3 * 4 + 2
