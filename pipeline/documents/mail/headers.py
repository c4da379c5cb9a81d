"""The headers of a message as text: encoded words, raw bytes in any encoding, and dates.

It must not interpret addresses: a header may hold thousands of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from email._policybase import Compat32
from email.header import decode_header
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import Any

from pipeline.documents.encodings.decoding import to_text
from pipeline.documents.foreign import MISHAPS
from pipeline.errors import DocumentError

SHOWN = ("Subject", "From", "Date")
"""The headers above the text of a message."""


class HeaderPolicy(Compat32):
    """Headers as unfolded text, with the library's simple parser of parameters.

    `email.policy.default` gives the same types, boundaries, charsets and file names, but its parser takes 40 times as
    long and fails on some damaged headers.
    """

    def header_source_parse(self, sourcelines: Sequence[str]) -> tuple[str, str]:
        """Return the name and the value of a header; line ends within it are removed, by RFC 5322."""
        name, _, value = "".join(line.rstrip("\r\n") for line in sourcelines).partition(":")
        return name, value.strip(" \t")

    def header_fetch_parse(self, name: str, value: str) -> str:  # noqa: ARG002 (all headers are read alike)
        """Return the value with U+FFFD for bytes that are not UTF-8."""
        return value if value.isascii() else value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


POLICY = HeaderPolicy()

_KEPT = ("subject", "from", "to", "date")
_SPACE = re.compile(r"\s+")


def metadata_of(message: Message) -> dict[str, Any]:
    """Return subject, from, to, and date (RFC 3339 if it is valid), if the message has them."""
    headers = {name: header(message, name) for name in _KEPT}
    with suppress(*MISHAPS):
        headers["date"] = parsedate_to_datetime(headers["date"]).isoformat()
    return {name: value for name, value in headers.items() if value}


def shown_headers(message: Message) -> str:
    """Return the lines of subject, sender and date, if the message has them."""
    values = [(name, header(message, name)) for name in SHOWN]
    return "\n".join(f"{name}: {value}" for name, value in values if value)


def header(message: Message, name: str) -> str:
    """Return the decoded text of a header on one line; empty if there is none."""
    raw = next((str(value) for key, value in message.raw_items() if key.lower() == name.lower()), "")
    return _SPACE.sub(" ", _decoded(_from_bytes(raw))).strip()


def _from_bytes(raw: str) -> str:
    """Decode the raw bytes of a header, which the parser returns as surrogates."""
    if raw.isascii():
        return raw
    return _text(raw.encode("utf-8", "surrogateescape"), None)


def _decoded(value: str) -> str:
    """Return the header with its encoded words as text; adjacent ones may share a character."""
    try:
        pieces = decode_header(value) if "=?" in value else []
    except MISHAPS:
        pieces = []
    if not pieces:
        return value
    return "".join(_piece(piece, charset) for piece, charset in pieces)


def _piece(piece: bytes | str, charset: str | None) -> str:
    if isinstance(piece, str):
        return piece
    # no charset: the plain words between encoded ones, which the library escapes
    return _text(piece, charset) if charset else piece.decode("raw-unicode-escape")


def _text(data: bytes, charset: str | None) -> str:
    try:
        return to_text(data, declared=charset)[0]
    except DocumentError:
        return data.decode("ascii", "replace")
