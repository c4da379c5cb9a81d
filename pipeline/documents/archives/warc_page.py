"""The text of an archived response: a page, XML or plain text, in the character set of the response."""

from __future__ import annotations

import re

from pipeline.documents.archives.warc import split_archive
from pipeline.documents.containers import Format
from pipeline.documents.decode import Decoded, decoded_document
from pipeline.documents.described import description_of
from pipeline.documents.encodings.decoding import to_text
from pipeline.documents.html.page import declared_charset, read_page
from pipeline.documents.xml.file import declared_encoding, read_xml

_CHARSET = re.compile(r"""charset\s{0,9}=\s{0,9}["']?\s{0,9}([A-Za-z0-9_.:-]{2,40})""", re.IGNORECASE)


def decode_response(data: bytes, text_field: str) -> Decoded:  # noqa: ARG001 (a page has no fields)
    """Decode a response; metadata: that of a page, its address, and the time of archiving."""
    metadata, body = description_of(data)
    media_type = metadata.get("content_type", "").partition(";")[0].strip().lower()
    match = _CHARSET.search(metadata.get("content_type", ""))
    charset = match[1] if match else None
    if media_type.endswith("xml") and "html" not in media_type:
        text, notes = to_text(body, declared=charset or declared_encoding(body))
        decoded = read_xml(text, notes)
        return decoded_document(decoded.text, {**decoded.metadata, **metadata}, notes=decoded.notes)
    if not media_type or "html" in media_type:
        page, notes = to_text(body, declared=charset or declared_charset(body))
        text, own = read_page(page)
        return decoded_document(text, {**own, **metadata}, notes=notes)
    text, notes = to_text(body, declared=charset)
    return decoded_document(text, metadata, notes=notes)


WARC = Format(
    "warc", decode_response, split=split_archive, extra="warc", decoder_extra="html", heavy=True, mark=b"WARC/"
)
