"""The attacks of attacks.py: the evil document or reply of each, and the allowed ends of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import evil_documents as evil
import evil_files as files
import evil_office as office
import evil_ollama
from evil_servers import COMPLETIONS, MARK, PAGES, Reply

EXPENSIVE = "document_too_expensive"


@dataclass(frozen=True, slots=True)
class Attack:
    """An evil document, or a server's evil reply to one, and the allowed ends.

    `reasons`: allowed reasons of the evil document (None: it may also be done). `reply`: the evil reply to requests for
    `page`, or else for this document, in this `dialect`. `settings`: further settings of `input`.
    """

    name: str
    file: str
    data: Callable[[], bytes]
    reasons: tuple[str | None, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    codes: tuple[int, ...] = (0, 1)
    reply: Reply | None = None
    page: str | None = None
    pattern: str | None = None
    streams: bool = False
    dialect: str = "vllm"


def _attack(name: str, file: str, data: Callable[[], bytes], *reasons: str | None, **settings: Any) -> Attack:
    return Attack(name, file, data, reasons, settings)


UNREADABLE = (EXPENSIVE, "document_unreadable", "document_empty", "document_too_large")
_FILING = "0000000000-26-000001.txt"
_DATA = {"records_field": "data"}
_FILES = (
    _attack("mbox_headers", "evil.mbox", files.mailbox_of_headers, EXPENSIVE),
    _attack("mbox_one_line", "evil.mbox", files.mailbox_of_one_line, *UNREADABLE),
    _attack("mail_forwarded", "evil.eml", files.forwarded_mail, *UNREADABLE),
    _attack("msg_circle", "evil.msg", files.looping_msg, *UNREADABLE),
    _attack("csv_quotes", "evil.csv", files.quoted_table, *UNREADABLE),
    _attack("json_records_nested", "evil.json", files.records_in_json, "document_unreadable", **_DATA),
    _attack("json_records_digits", "evil.json", files.digits_in_json, "document_unreadable", **_DATA),
    _attack("bzip2_bomb", "evil.txt.bz2", files.bzip2_of_zeros, *UNREADABLE),
    _attack("xz_bomb", "evil.txt.xz", files.xz_of_zeros, *UNREADABLE),
    _attack("xz_members", "evil.jsonl.xz", files.xz_members, *UNREADABLE, None),
    _attack("xz_dictionary", "evil.txt.xz", files.xz_of_a_huge_dictionary, *UNREADABLE, None),
    _attack("gzip_members", "evil.jsonl.gz", files.gzip_members, *UNREADABLE, None),
    _attack("pdf_forms", "evil.pdf", files.pdf_of_forms, *UNREADABLE),
    _attack("pdf_circle", "evil.pdf", files.pdf_of_a_circle, *UNREADABLE),
    _attack("docx_bomb", "evil.docx", office.word_bomb, *UNREADABLE),
    _attack("docx_paragraphs", "evil.docx", office.word_of_paragraphs, *UNREADABLE, None),
    _attack("docx_entities", "evil.docx", office.word_of_entities, *UNREADABLE),
    _attack("docx_nested", "evil.docx", office.word_nested, *UNREADABLE),
    _attack("xlsx_strings", "evil.xlsx", office.workbook_of_strings, *UNREADABLE, None),
    _attack("xlsx_one_string", "evil.xlsx", office.workbook_of_one_string, *UNREADABLE),
    _attack("xlsx_empty_rows", "evil.xlsx", office.workbook_of_empty_rows, *UNREADABLE, None),
    _attack("xlsx_columns", "evil.xlsx", office.workbook_of_columns, *UNREADABLE, None),
    _attack("pptx_one_slide", "evil.pptx", office.slides_of_one_part, *UNREADABLE),
    _attack("parquet_dictionary", "evil.parquet", office.parquet_of_a_dictionary, *UNREADABLE),
    _attack(
        "parquet_equal_rows",
        "evil.parquet",
        office.parquet_of_equal_rows,
        EXPENSIVE,
        limits={"cpu_s": 2, "unpacked_bytes": 3_000_000},  # the default would only make it longer
    ),
    _attack("parquet_page", "evil.parquet", office.parquet_of_a_page, *UNREADABLE),
    _attack("xml_entities", "evil.xml", files.xml_of_entities, *UNREADABLE),
    _attack("xml_references", "evil.xml", files.xml_of_references, *UNREADABLE),
    _attack("xml_nested", "evil.xml", files.xml_nested, *UNREADABLE, None),
    _attack("xml_attributes", "evil.xml", files.xml_of_attributes, *UNREADABLE, None),
    _attack("feed_open_tags", "evil.rss", files.feed_of_open_tags, *UNREADABLE, None),
    _attack("warc_lies", "evil.warc", files.archive_that_lies, *UNREADABLE, None),
    _attack("warc_bomb", "evil.warc", files.archive_of_a_bomb, *UNREADABLE, None),
    _attack("warc_headers", "evil.warc", files.archive_of_headers, *UNREADABLE, None),
    _attack("edgar_tags", _FILING, files.filing_of_tags, *UNREADABLE, None),
    _attack("edgar_documents", _FILING, files.filing_of_documents, *UNREADABLE, None),
    _attack("edgar_pictures", _FILING, files.filing_of_pictures, *UNREADABLE, None),
    _attack("parquet_lies", "evil.parquet", office.parquet_that_lies, *UNREADABLE, None),
)
DOCUMENTS = (
    _attack("html_attributes", "evil.html", evil.attributes_page, EXPENSIVE, None),
    _attack("html_nested", "evil.html", evil.nested_page, EXPENSIVE, "document_empty", None),
    _attack("html_large", "evil.html", evil.large_page, EXPENSIVE, None),
    _attack("mail_parameters", "evil.eml", evil.parameters_mail, EXPENSIVE, None),
    _attack("mail_nested", "evil.eml", evil.nested_mail, EXPENSIVE, "document_empty", "document_unreadable"),
    _attack("mail_encoded_words", "evil.eml", evil.encoded_words_mail, EXPENSIVE, None),
    _attack(
        "pdf_shared_stream",
        "evil.pdf",
        evil.shared_pdf,
        EXPENSIVE,
        "document_empty",
        "document_too_large",
        "document_unreadable",
    ),
    _attack("pdf_exploding", "evil.pdf", evil.exploding_pdf, EXPENSIVE, "document_unreadable", "document_empty"),
    _attack("csv_columns", "evil.csv", lambda: evil.wide_table(1_000_000), EXPENSIVE),
    _attack("csv_header", "evil.csv", lambda: evil.wide_table(9000, 400, 1000), EXPENSIVE),
    _attack(
        "csv_records",
        "evil.csv",
        lambda: evil.wide_table(9000, 90, 1000),
        EXPENSIVE,
        limits={"cpu_s": 4, "table_ratio": 10},  # the default of 50 would only make it longer
    ),
    _attack("zip_overlap", "evil.zip", evil.overlapping_zip, "document_unreadable", "context_length"),
    _attack(
        "zip_long_names", "evil.zip", evil.long_names_zip, "document_unreadable", include=["**", "*a*a*a*a*a*a*.txt"]
    ),
    _attack("gzip_bomb", "evil.jsonl.gz", lambda: evil.gzip_of_zeros(1 << 30), EXPENSIVE),
    _attack(
        "tar_members",
        "evil.tar.gz",
        lambda: evil.tar_of_empty_members(400_000),
        EXPENSIVE,
        include=["good.txt", "*.md"],
    ),
    *_FILES,
    _attack("json_nested", "evil.json", lambda: b'{"text":' + b"[" * 5_000_000, "document_unreadable"),
)

LOST = ("timeout", "connection_error", "bad_response", "response_too_large", "empty_model_response")
ANSWERS = ("invalid_json", "schema_invalid", "generation_loop", "output_truncated")
ANY = (*LOST, *ANSWERS, "server_error", "rejected", "context_length", "unauthorized", "not_found", None)


def _of_completion(name: str, reply: Reply, *, dialect: str = "vllm") -> Attack:
    return Attack(
        f"reply_{name}" if dialect == "vllm" else f"{dialect}_{name}",
        "evil.txt",
        lambda: f"{MARK} document.".encode(),
        ANY,
        reply=reply,
        pattern="^(a+)+$" if name == "pattern" else None,
        streams="stream" in name,
        dialect=dialect,
    )


def _of_page(name: str, page: str, reply: Reply, *, dialect: str = "vllm") -> Attack:
    return Attack(
        name if dialect == "vllm" else f"{dialect}_{name}",
        "evil.txt",
        lambda: b"A document.",
        (None,),
        codes=(0, 2, 3),
        reply=reply,
        page=page,
        dialect=dialect,
    )


SERVERS = (
    *(_of_completion(name, reply) for name, reply in COMPLETIONS.items()),
    *(_of_page(name, page, reply) for name, (page, reply) in PAGES.items()),
    *(_of_completion(name, reply, dialect="ollama") for name, reply in evil_ollama.CHATS.items()),
    *(_of_page(name, page, reply, dialect="ollama") for name, (page, reply) in evil_ollama.PAGES.items()),
)
ATTACKS = (*DOCUMENTS, *SERVERS)
