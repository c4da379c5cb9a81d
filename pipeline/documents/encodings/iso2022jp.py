"""ISO-2022-JP as mail programs write it: with the NEC and IBM rows of Windows, and half-width katakana.

Python's codec knows only the standard, and replaces ① and ㈱.
"""

from __future__ import annotations

import re

MARK = re.compile(rb"\x1b(?:\$[@B]|\(J|\(I|\$\(D)")
"""Escape sequences that only this encoding has."""

_PIECE = re.compile(rb"\x1b(\([BJIH]|\$[@B]|\$\(D)([^\x1b]*)")
_LINE_END = re.compile(rb"([\r\n]+)")


def decode_iso2022_jp(data: bytes) -> str:
    """Return the text; U+FFFD for each invalid pair."""
    first = data.partition(b"\x1b")[0]
    pieces = [first.decode("ascii", "replace")]
    pieces += [_decoded(match[1], match[2]) for match in _PIECE.finditer(data, len(first))]
    return "".join(pieces)


def _decoded(charset: bytes, data: bytes) -> str:
    if charset in (b"(B", b"(J", b"(H"):
        return data.decode("ascii", "replace")
    if charset == b"(I":
        return bytes(byte | 0x80 if 0x21 <= byte <= 0x5F else byte for byte in data).decode("cp932", "replace")
    parts = enumerate(_LINE_END.split(data))  # a line end is one byte also between pairs
    return "".join(part.decode() if at % 2 else _pairs(charset, part) for at, part in parts)


def _pairs(charset: bytes, data: bytes) -> str:
    if charset == b"$(D":
        raised = b"".join(b"\x8f" + bytes(byte | 0x80 for byte in data[at : at + 2]) for at in range(0, len(data), 2))
        return raised.decode("euc_jp", "replace")
    return b"".join(_shifted(data[at : at + 2]) for at in range(0, len(data), 2)).decode("cp932", "replace")


def _shifted(pair: bytes) -> bytes:
    """Return the pair of JIS X 0208 as Shift JIS."""
    if len(pair) < 2 or not (0x21 <= pair[0] <= 0x7E and 0x21 <= pair[1] <= 0x7E):
        return b"\xff"
    row, cell = pair
    lead = ((row + 1) >> 1) + (0x70 if row <= 0x5E else 0xB0)
    if row % 2:
        return bytes((lead, cell + (0x1F if cell <= 0x5F else 0x20)))
    return bytes((lead, cell + 0x7E))
