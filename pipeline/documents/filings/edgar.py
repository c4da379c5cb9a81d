"""A full submission to EDGAR: each `<DOCUMENT>` of a filing is a document, described by the header of the filing.

    header ─▶ company, form, dates      <DOCUMENT> ─▶ type, file name ─▶ <TEXT> ─▶ page, XML or plain text

Uuencoded parts (pictures, spreadsheets, PDF copies) and the XBRL data of a filing are counted, not read. Format: EDGAR
Public Dissemination Service, and the full text files of sec.gov. It must not hold more than one document.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import BinaryIO

from pipeline.documents.containers import Container, Format, Piece, too_large
from pipeline.documents.decode import Decoded, decoded_document
from pipeline.documents.described import described, description_of
from pipeline.documents.encodings.decoding import to_text
from pipeline.documents.filings.edgar_header import header_metadata
from pipeline.documents.html.visible import visible_text
from pipeline.documents.tables.json_fields import raise_unreadable
from pipeline.documents.uuencoded import TextLines
from pipeline.documents.xml.file import read_xml

_LOOKED_AT_BYTES = 1 << 13
_LINE_BYTES = 1 << 16
_HEADER_BYTES = 1 << 18
_START = re.compile(
    rb"(?:-----BEGIN PRIVACY-ENHANCED MESSAGE-----.*?\n)?"
    rb"(?:<(?:SEC-DOCUMENT|IMS-DOCUMENT|SUBMISSION)>|<DOCUMENT>\s*<TYPE>)",
    re.DOTALL,
)
_FIELD = re.compile(rb"<(TYPE|SEQUENCE|FILENAME|DESCRIPTION)>([^\r\n]*)")
_NAMES = {b"TYPE": "type", b"SEQUENCE": "sequence", b"FILENAME": "filename", b"DESCRIPTION": "description"}
_DATA_TYPES = ("EX-101.", "EX-100.")
_RENDERED = "IDEA: XBRL DOCUMENT"
"""The description of pages that EDGAR makes of XBRL data."""

_WRAPPERS = ("XML", "XBRL", "PDF", "JSON")
_PAGE = re.compile(r"<(?:html|body|div|table\s|p\b|font)", re.IGNORECASE)
_SGML_TAG = re.compile(r"</?(?:PAGE|TABLE|CAPTION|S|C|FN|F\d{1,3}|BTB|LEGEND|ARTICLE|MULTIPLIER|R)>", re.IGNORECASE)
_ESCAPES = {"&lt;": "<", "&gt;": ">", "&amp;": "&"}


def is_submission(data: bytes) -> bool:
    """Return True for the beginning of a full submission."""
    return _START.match(data.lstrip()) is not None


def look_at_text(stream: BinaryIO, container: Container) -> Format | None:  # noqa: ARG001 (no setting matters)
    """Return the format of a full submission that is named `.txt`, as EDGAR names it; None for another text."""
    return SUBMISSION if is_submission(stream.read(_LOOKED_AT_BYTES)) else None


def split_submission(stream: BinaryIO, container: Container) -> Iterator[Piece]:
    """Yield each document, numbered by its place from 1; DocumentError when the file ends within one."""
    header = bytearray()
    metadata: Mapping[str, str] | None = None
    number = 0
    while line := stream.readline(_LINE_BYTES):
        if not line.startswith(b"<DOCUMENT>"):
            if metadata is None and len(header) < _HEADER_BYTES:
                header += line
            continue
        if metadata is None:
            metadata = header_metadata(bytes(header).decode("utf-8", "replace"))
        number += 1
        yield from _document(stream, container, number=number, metadata=metadata)
    if number == 0:
        raise_unreadable("the submission holds no <DOCUMENT>")


def _document(stream: BinaryIO, container: Container, *, number: int, metadata: Mapping[str, str]) -> Iterator[Piece]:
    """Yield the document whose first line has been read, unless it is counted only."""
    own: dict[str, str] = {}
    lines = TextLines(container.limit_bytes)
    in_text = False
    while True:
        line = stream.readline(_LINE_BYTES)
        if not line:
            raise_unreadable("the file ends within a <DOCUMENT>")
        if line.startswith(b"</DOCUMENT>"):
            break
        if in_text and not line.startswith(b"</TEXT>"):
            lines.add(line)
        elif line.startswith(b"<TEXT>"):
            in_text = True
            lines.add(line[len(b"<TEXT>") :])
        elif not in_text and (match := _FIELD.match(line)):
            own[_NAMES[match[1]]] = match[2].decode("utf-8", "replace").strip()
    lines.end()
    if own.get("type", "").startswith(_DATA_TYPES) or own.get("description") == _RENDERED:
        container.ignore("(XBRL)")
    elif lines.is_encoded_only:
        container.ignore("(uuencoded)")
    elif lines.size > container.limit_bytes:
        yield Piece(number, lines.size, problem=too_large(lines.size, container.limit_bytes))
    else:
        notes = (f"attachments_skipped:{lines.encoded}",) if lines.encoded else ()
        yield Piece(number, lines.size, described({**metadata, **own}, lines.data()), notes)


def decode_submission(data: bytes, text_field: str) -> Decoded:  # noqa: ARG001 (a filing has no fields)
    """Decode a document of a submission: a page to its visible text, XML and plain text without their tags."""
    metadata, body = description_of(data)
    text, notes = to_text(body)
    text = _unwrapped(text)
    name = metadata.get("filename", "").lower()
    if text.startswith("<?xml") and not name.endswith((".htm", ".html")):
        decoded = read_xml(text, notes)
        return decoded_document(decoded.text, metadata, notes=decoded.notes)
    if name.endswith((".htm", ".html")) or _PAGE.search(text[:_LOOKED_AT_BYTES]):
        return decoded_document(visible_text(text), metadata, notes=notes)
    text = _SGML_TAG.sub("", text)
    for escape, char in _ESCAPES.items():
        text = text.replace(escape, char)
    return decoded_document(text.strip("\r\n"), metadata, notes=notes)


def _unwrapped(text: str) -> str:
    """Return the text within the tags that name the type of a document."""
    start = text.lstrip()
    for name in _WRAPPERS:
        if start.startswith(f"<{name}>"):
            return start.removeprefix(f"<{name}>").rstrip().removesuffix(f"</{name}>").strip()
    return text


SUBMISSION = Format("edgar", decode_submission, split=split_submission, heavy=True)
