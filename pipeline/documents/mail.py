"""The text of an e-mail message, with its subject, sender and date, without attachments.

It must not fetch anything that a message refers to.
"""

from __future__ import annotations

from collections.abc import Iterator
from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import Any

from pipeline.documents.decode import Decoded, finished
from pipeline.documents.encoding import to_text
from pipeline.documents.extras import require
from pipeline.documents.foreign import MISHAPS
from pipeline.documents.html import read_page
from pipeline.errors import ConfigError, DocumentError

_HEADERS = ("subject", "from", "to", "date")


def decode_mail(data: bytes, text_field: str) -> Decoded:  # noqa: ARG001 (a message has no fields)
    """Decode a message to its plain part, else its HTML part; metadata: subject, from, to, and date in RFC 3339."""
    try:
        message = message_from_bytes(data, policy=policy.compat32)
        metadata = {name: value for name in _HEADERS if (value := _header(message, name))}
        parts = list(_shown(message))
    except MISHAPS as cause:
        raise DocumentError("document_unreadable", f"no message: {type(cause).__name__}") from cause
    if not message.keys():
        raise DocumentError("document_unreadable", "no message: it does not begin with a header")
    text, notes = _body(parts)
    return finished(text, metadata, notes=notes)


def _body(parts: list[Message]) -> tuple[str, tuple[str, ...]]:
    """Return the text of the plain parts, or, if they are empty, of the HTML parts."""
    for kind in ("text/plain", "text/html"):
        read = [_text(part) for part in parts if part.get_content_type() == kind]
        texts = [_words(text, kind) for text, _ in read if text.strip()]
        whole = "\n\n".join(text for text in texts if text.strip())
        if whole:
            return whole, tuple(dict.fromkeys(note for _, notes in read for note in notes))
    return "", ()


def _words(text: str, kind: str) -> str:
    if kind == "text/plain":
        return text
    try:
        require("html", what="a message without a plain part", pattern="*.eml")
    except ConfigError as cause:
        raise DocumentError("document_unreadable", str(cause)) from cause
    return read_page(text)[0]


def _shown(message: Message) -> Iterator[Message]:
    """Yield the text parts that a mail program shows without opening an attachment, in order."""
    waiting = [message]
    while waiting:
        part = waiting.pop()
        if part.get_content_disposition() == "attachment":
            continue
        inner = part.get_payload() if part.is_multipart() else None
        if isinstance(inner, list):
            waiting += [child for child in reversed(inner) if isinstance(child, Message)]
        elif part.get_content_maintype() == "text":
            yield part


def _text(part: Message) -> tuple[str, tuple[str, ...]]:
    """Return the part as text; its declared character set applies when its bytes are not UTF-8."""
    try:
        data = part.get_payload(decode=True)
        declared = part.get_content_charset()
    except MISHAPS as cause:
        raise DocumentError("document_unreadable", f"a part of the message: {type(cause).__name__}") from cause
    text, notes = to_text(data if isinstance(data, bytes) else b"", declared=declared)
    return text.replace("\r\n", "\n"), notes


def _header(message: Message, name: str) -> str:
    """Return the decoded header; a valid date in RFC 3339."""
    value: Any = message.get(name, "")
    try:
        if name == "date":
            return parsedate_to_datetime(str(value)).isoformat()
        return str(make_header(decode_header(value))).strip()
    except MISHAPS:
        return str(value).strip()
