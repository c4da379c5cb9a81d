"""The text of an e-mail message below its subject, sender and date, without attachments.

It must not fetch anything that a message refers to.
"""

from __future__ import annotations

from email import message_from_bytes

from pipeline.documents.decode import Decoded, decoded_document
from pipeline.documents.foreign import MISHAPS
from pipeline.documents.mail.headers import POLICY, metadata_of, shown_headers
from pipeline.documents.mail.tree import BodyText, read_part
from pipeline.errors import DocumentError

_INVALID = "invalid_bytes:"


def decode_mail(data: bytes, text_field: str) -> Decoded:  # noqa: ARG001 (a message has no fields)
    """Decode a message to its headers and text; metadata: subject, from, to, and date in RFC 3339.

    Notes: `attachments_skipped:3`, and those of the decoding of its parts.
    """
    try:
        message = message_from_bytes(data, policy=POLICY)
        if not message.keys():
            raise DocumentError("document_unreadable", "no message: it does not begin with a header")
        heading = shown_headers(message)
        metadata = metadata_of(message)
        body_text = read_part(message)
    except MISHAPS as cause:
        raise DocumentError("document_unreadable", f"no message: {type(cause).__name__}") from cause
    if not body_text.text:
        raise _empty(body_text)
    text = f"{heading}\n\n{body_text.text}" if heading else body_text.text
    return decoded_document(text, metadata, notes=_notes(body_text))


def _notes(body_text: BodyText) -> tuple[str, ...]:
    """Return each note once; invalid bytes of all parts are summed up."""
    invalid = sum(int(note[len(_INVALID) :]) for note in body_text.notes if note.startswith(_INVALID))
    notes = [note for note in body_text.notes if not note.startswith(_INVALID)]
    notes += [f"{_INVALID}{invalid}"] if invalid else []
    notes += [f"attachments_skipped:{body_text.attachments}"] if body_text.attachments else []
    return tuple(dict.fromkeys(notes))


def _empty(body_text: BodyText) -> DocumentError:
    """Return the problem of a message without text."""
    if body_text.sealed:
        return DocumentError(
            "unsupported_format", f"the text of this message is in {body_text.sealed}, which is not read"
        )
    if body_text.attachments:
        message = f"the message holds no text, only attachments ({body_text.attachments}), which are not read"
        return DocumentError("document_empty", message)
    return DocumentError("document_empty", "the message holds no text")
