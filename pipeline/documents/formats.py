"""The table of formats: suffixes, and the functions that decode and split their files.

Data only: each format is decoded by a module of its own. A suffix may be followed by that of a compression.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import BinaryIO

from pipeline.documents.archives.warc_page import WARC
from pipeline.documents.containers import Container, Format
from pipeline.documents.decode import decode_json, decode_row, decode_text
from pipeline.documents.file_kinds import suffix_of
from pipeline.documents.filings.edgar import SUBMISSION, look_at_text
from pipeline.documents.helpers.split import ROW_GROUPS, split_by_helper
from pipeline.documents.html.page import decode_html
from pipeline.documents.mail.mbox import is_mailbox, split_mailbox
from pipeline.documents.mail.message import decode_mail
from pipeline.documents.mail.msg import decode_msg
from pipeline.documents.office import decode_office
from pipeline.documents.pdf.text_layer import decode_pdf
from pipeline.documents.tables.csv import RECORDS, TABBED_RECORDS, split_records, split_tabbed_records
from pipeline.documents.tables.json_file import JSON_LINES, look_at_json
from pipeline.documents.xml.file import decode_xml
from pipeline.documents.xml.items import look_at_xml

_SUBMISSIONS = re.compile(r"(?:\d{10}-?\d{2}-?\d{6}|submission)[^/]*$")
"""Names of full submissions to EDGAR: their accession number, or that of the common download tool."""

_TEXT = Format("text", decode_text)
_TXT = Format("text", decode_text, look=look_at_text, hint=_SUBMISSIONS)
_MAILBOX = Format("mail", decode_mail, split=split_mailbox, heavy=True)
_XML = Format("xml", decode_xml, heavy=True, look=look_at_xml)
_HTML = Format("html", decode_html, extra="html", heavy=True)
_WORD = Format("docx", decode_office, heavy=True)
_SLIDES = Format("pptx", decode_office, heavy=True)
_WORKBOOK = Format("xlsx", decode_office, heavy=True)


def _look_at_mail(stream: BinaryIO, container: Container) -> Format | None:  # noqa: ARG001 (a mailbox needs no setting)
    """Return the format of a mailbox that is named like a message; None for a message."""
    return _MAILBOX if is_mailbox(stream) else None


FORMATS: Mapping[str, Format] = {
    ".txt": _TXT,
    ".text": _TEXT,
    ".md": _TEXT,
    ".markdown": _TEXT,
    ".log": _TEXT,
    ".html": _HTML,
    ".htm": _HTML,
    ".xhtml": _HTML,
    ".json": Format("json", decode_json, look=look_at_json),
    ".jsonl": JSON_LINES,
    ".ndjson": JSON_LINES,
    ".csv": Format("csv", decode_row, split=split_records, divide=RECORDS),
    ".tsv": Format("tsv", decode_row, split=split_tabbed_records, divide=TABBED_RECORDS),
    ".xml": _XML,
    ".warc": WARC,
    ".wet": WARC,
    ".nxml": _XML,
    ".rss": _XML,
    ".atom": _XML,
    ".pdf": Format("pdf", decode_pdf, extra="pdf", heavy=True),
    ".eml": Format("mail", decode_mail, heavy=True, look=_look_at_mail),
    ".mbox": _MAILBOX,
    ".msg": Format("msg", decode_msg, extra="mail", heavy=True),
    ".parquet": Format("parquet", decode_row, split=split_by_helper, extra="parquet", divide=ROW_GROUPS),
    ".docx": _WORD,
    ".docm": _WORD,
    ".pptx": _SLIDES,
    ".pptm": _SLIDES,
    ".ppsx": _SLIDES,
    ".ppsm": _SLIDES,
    ".xlsx": _WORKBOOK,
    ".xlsm": _WORKBOOK,
}
"""Formats by lower-case suffix, without the suffix of a compression."""

BY_NAME: Mapping[str, Format] = {form.name: form for form in (*FORMATS.values(), SUBMISSION)}
"""Formats by name; those that share a name are decoded alike."""


def format_of(name: str) -> Format | None:
    """Return the format for a file name without the suffix of a compression; None for an unknown format."""
    return FORMATS.get(suffix_of(name))
