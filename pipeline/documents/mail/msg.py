"""The text of an Outlook message (.msg) below its subject, sender and date, without attachments."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from pipeline.documents.decode import Decoded, decoded_document
from pipeline.documents.encodings.decoding import to_text
from pipeline.documents.foreign import MISHAPS
from pipeline.documents.html.visible import visible_text
from pipeline.documents.mail.rtf import rtf_text
from pipeline.documents.mail.tree import BodyText, choose
from pipeline.errors import DocumentError

_HTML_PROPERTY = 0x1013
_RTF_PROPERTY = 0x1009
_NO_DATE = 1601
"""The year that a time of zero means."""


def decode_msg(data: bytes, text_field: str) -> Decoded:  # noqa: ARG001 (a message has no fields)
    """Decode a message to its headers and text; metadata: subject, from, and date in RFC 3339."""
    from oxmsg import Message

    try:
        message: Any = Message.load(data)
        text, notes = _body(message)
        rtf = message.properties.binary_prop_value(_RTF_PROPERTY)
        if not text.strip() and rtf:
            text = _rtf_text(rtf)
            invalid_chars = text.count("\ufffd")
            notes += (f"invalid_bytes:{invalid_chars}",) if invalid_chars else ()
        sent_at = message.sent_date
        date = sent_at.isoformat() if sent_at and sent_at.year > _NO_DATE else None
        headers = {"subject": message.subject, "from": message.sender, "date": date}
        attachments = message.attachment_count
    except MISHAPS as cause:
        raise DocumentError("document_unreadable", f"no Outlook message: {type(cause).__name__}") from cause
    metadata = {name: str(value).strip() for name, value in headers.items() if value and str(value).strip()}
    if not text.strip():
        raise DocumentError("document_empty", "the message holds no text")
    heading = "\n".join(f"{name.title()}: {value}" for name, value in metadata.items())
    notes += (f"attachments_skipped:{attachments}",) if attachments else ()
    return decoded_document(f"{heading}\n\n{text}" if heading else text, metadata, notes=notes)


def _rtf_text(data: bytes) -> str:
    """Return the text of compressed RTF, the body of messages that were written in RTF."""
    from compressed_rtf import decompress

    unpacked: bytes = decompress(data)
    return rtf_text(unpacked)


def _body(message: Any) -> tuple[str, tuple[str, ...]]:
    """Return the better of the plain text and the page of a message, and notes."""
    plain = (message.body or "").replace("\r\n", "\n")
    page = ""
    notes = tuple[str, ...]()
    data = message.properties.binary_prop_value(_HTML_PROPERTY)
    if isinstance(data, bytes) and data:
        declared = None
        with suppress(*MISHAPS):
            declared = message.properties.body_encoding
        page, notes = to_text(data, declared=declared)
    readings = [
        BodyText([text], list(text_notes), kind=kind)
        for text, text_notes, kind in ((plain, (), "text/plain"), (visible_text(page), notes, "text/html"))
        if text.strip()
    ]
    chosen = choose(readings)
    return chosen.text, tuple(chosen.notes)
