"""The text of a tree of message parts, in order: only `multipart/alternative` is a choice.

    mixed ─┬─ alternative ─┬─ plain   ◀─ chosen, unless it is only a notice or the other part holds more
           │               └─ html
           ├─ html                    ◀─ read
           ├─ message/rfc822          ◀─ read, with its subject, sender and date
           └─ application/pdf         ◀─ counted

It must not fetch anything that a message refers to.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from itertools import chain

from pipeline.documents.encodings.decoding import to_text
from pipeline.documents.foreign import MISHAPS
from pipeline.documents.html.visible import visible_text
from pipeline.documents.mail.flowed import join_flowed
from pipeline.documents.mail.headers import POLICY, shown_headers
from pipeline.errors import DocumentError

MAX_DEPTH = 100
"""The deepest nesting of parts; real messages stay below ten."""

_SEALED: Mapping[str, str] = {
    "application/ms-tnef": "winmail.dat (TNEF)",
    "application/vnd.ms-tnef": "winmail.dat (TNEF)",
    "application/pkcs7-mime": "an opaque S/MIME part (smime.p7m)",
    "application/x-pkcs7-mime": "an opaque S/MIME part (smime.p7m)",
    "application/pgp-encrypted": "an encrypted OpenPGP part",
}
"""Parts that contain the text of a message in a form that is not supported, and their names in messages."""
_SEALED_NAMES = {"winmail.dat": "application/ms-tnef", "smime.p7m": "application/pkcs7-mime"}

_SIGNATURES = {"application/pgp-signature", "application/pkcs7-signature", "application/x-pkcs7-signature"}
_UNREADABLE_TEXTS = {"text/rtf", "text/css", "text/javascript"}
_MARKED_UP = {"text/html", "text/x-amp-html", "text/enriched", "text/richtext"}
_ENCODED = {"base64", "quoted-printable"}

_URL = re.compile(r"https?://\S+")
_WORD = re.compile(r"\w")
_NOTICE_CHARS = 500
_BOUNDARY = re.compile(rb"(?m)^--([^\r\n]{1,200}?)[ \t]*\r?\n(?=[Cc]ontent-|\r?\n)")


@dataclass(slots=True)
class BodyText:
    """The content of a part and those below it: texts in order, and the number of parts that are not read."""

    texts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    attachments: int = 0
    messages: int = 0
    sealed: str | None = None
    kind: str = ""

    def add(self, body_text: BodyText) -> None:
        """Append what another part holds."""
        self.texts += body_text.texts
        self.notes += body_text.notes
        self.messages += body_text.messages
        self.skip(body_text)

    def skip(self, body_text: BodyText) -> None:
        """Add the unread parts of another part to the counts."""
        self.attachments += body_text.attachments
        self.sealed = self.sealed or body_text.sealed

    @property
    def text(self) -> str:
        """The texts, separated by blank lines."""
        return "\n\n".join(text for text in self.texts if text.strip())


def read_part(part: Message, depth: int = 0) -> BodyText:
    """Return the text of a part and of all parts below it."""
    if depth > MAX_DEPTH:
        raise DocumentError("document_unreadable", f"the parts of the message are nested deeper than {MAX_DEPTH}")
    kind = part.get_content_type()
    if part.get_content_maintype() == "message":
        return _message(part, kind, depth)
    if part.get_content_maintype() == "multipart":
        children = _children(part)
        if children is None:
            return _text(part, "text/plain")
        readings = [read_part(child, depth + 1) for child in children]
        return choose(readings) if kind == "multipart/alternative" else _join(readings)
    return _leaf(part, kind)


def _join(readings: Iterable[BodyText]) -> BodyText:
    body = BodyText(kind="multipart")
    for body_text in readings:
        body.add(body_text)
    return body


def choose(readings: list[BodyText]) -> BodyText:
    """Return the alternative to read: the plain text, unless another one has content that it lacks."""
    filled = [body_text for body_text in readings if body_text.text]
    plain = next((body_text for body_text in filled if body_text.kind == "text/plain"), None)
    candidates = [body_text for body_text in filled if body_text.kind in ("text/html", "multipart")] or filled
    best = candidates[-1] if candidates else BodyText()
    chosen = plain if plain is not None and not _is_incomplete(plain, best) else best
    body = _join([chosen])
    for body_text in readings:
        if body_text is not chosen:
            body.skip(body_text)
    return body


def _is_incomplete(plain: BodyText, html: BodyText) -> bool:
    """Return True for a plain text that is only a notice, or holds less than half of another alternative."""
    if html is plain:
        return False
    short = plain.text.lower()
    if len(short) <= _NOTICE_CHARS and "html" in short and "html" not in html.text.lower():
        return True
    return html.messages > plain.messages or 2 * _size(plain.text) < _size(html.text)


def _size(text: str) -> int:
    """Return the number of letters and digits outside of addresses."""
    return len(_WORD.findall(_URL.sub("", text)))


def _children(part: Message) -> list[Message] | None:
    """Return the parts of a multipart, also without a valid boundary parameter; None if it has no parts."""
    inner = part.get_payload()
    if isinstance(inner, list):
        return [child for child in inner if isinstance(child, Message)]
    data = _bytes(part)
    boundary = next((match[1] for match in _BOUNDARY.finditer(data)), None)
    if boundary is None:
        return None
    quoted = boundary.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    head = b'Content-Type: %s; boundary="%s"\n\n' % (part.get_content_type().encode("ascii", "replace"), quoted)
    inner = message_from_bytes(head + data, policy=POLICY).get_payload()
    return [child for child in inner if isinstance(child, Message)] if isinstance(inner, list) else None


def _message(part: Message, kind: str, depth: int) -> BodyText:
    """Return the text of a message within the message, below its subject, sender and date."""
    inner = part.get_payload()
    messages = (
        [inner_message for inner_message in inner if isinstance(inner_message, Message)]
        if isinstance(inner, list)
        else []
    )
    if kind == "message/delivery-status":
        lines = chain.from_iterable(inner_message.items() for inner_message in messages)
        return BodyText(["\n".join(f"{name}: {value}" for name, value in lines)], kind=kind)
    if not messages:
        return BodyText(attachments=1, kind=kind)
    message = messages[0]
    if part.get("content-transfer-encoding", "").strip().lower() in _ENCODED and not message.keys():
        message["Content-Transfer-Encoding"] = part["content-transfer-encoding"]
        message = message_from_bytes(_bytes(message), policy=POLICY)
    body_text = read_part(message, depth + 1)
    heading = shown_headers(message)
    return BodyText(
        [text for text in (heading, body_text.text) if text],
        body_text.notes,
        body_text.attachments,
        body_text.messages + 1,
        body_text.sealed,
        kind,
    )


def _leaf(part: Message, kind: str) -> BodyText:
    """Return the text of a part without parts, or count it."""
    if kind in _SIGNATURES:
        return BodyText(kind=kind)
    sealed = _SEALED.get(_SEALED_NAMES.get((part.get_filename() or "").lower(), kind))
    if sealed is not None:
        return BodyText(attachments=1, sealed=sealed, kind=kind)
    is_text = part.get_content_maintype() == "text" and kind not in _UNREADABLE_TEXTS
    if is_text and part.get_content_disposition() != "attachment":
        return _text(part, kind)
    if part.get_content_maintype() == "image" and part.get("content-id") is not None:
        return BodyText(kind=kind)  # a picture within the text
    return BodyText(attachments=1, kind=kind)


def _text(part: Message, kind: str) -> BodyText:
    """Return the part as text; its declared character set applies when its bytes are not UTF-8."""
    try:
        text, notes = to_text(_bytes(part), declared=part.get_content_charset(), mail=True)
    except DocumentError:  # binary data
        return BodyText(attachments=1, kind=kind)
    text = text.replace("\r\n", "\n")
    if kind in _MARKED_UP:
        text = visible_text(text)
    elif _parameter(part, "format") == "flowed":
        text = join_flowed(text, delete_space=_parameter(part, "delsp") == "yes")
    return BodyText([text] if text.strip() else [], list(notes), kind=kind)


def _parameter(part: Message, name: str) -> str:
    value = part.get_param(name, "")
    return value.strip().lower() if isinstance(value, str) else ""


def _bytes(part: Message) -> bytes:
    """Return the decoded bytes of a part."""
    try:
        data = part.get_payload(decode=True)
    except MISHAPS as cause:
        raise DocumentError("document_unreadable", f"a part of the message: {type(cause).__name__}") from cause
    return data if isinstance(data, bytes) else b""
