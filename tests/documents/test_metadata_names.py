"""One table lists the metadata of each kind of document; prompts, documentation and decoders follow it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.agents.prompts import PLACEHOLDERS, rendered
from pipeline.documents import decode
from pipeline.documents.formats import BY_NAME
from pipeline.documents.metadata_names import FILLED, METADATA, aliases_of
from pipeline.records import Document, Entry

MESSAGE = b"From: Anna <a@example.org>\nTo: b@example.org\nSubject: S\nDate: Sat, 28 Nov 2026 10:00:00 +0000\n\nText.\n"
PAGE = (
    b"<html><head><title>T</title><meta property='og:site_name' content='Site'>"
    b"<meta name='date' content='2026-01-02'></head><body><article><p>" + b"A long sentence. " * 30 + b"</p></article>"
)
OPEN = {"json", "csv", "tsv", "parquet"}
"""Formats that fill a name for each field or column."""


def test_each_format_is_in_the_metadata_table() -> None:
    """A new format adds its names, or has fields of its own."""
    assert set(BY_NAME) <= set(FILLED) | OPEN


@pytest.mark.parametrize(("form", "data"), [("mail", MESSAGE), ("html", PAGE), ("text", b"x")])
def test_decoder_fills_exactly_the_listed_names(form: str, data: bytes) -> None:
    """A document with all metadata has all names and no others."""
    decoded = decode(Entry("id", "uri", None, len(data), form, lambda: data), data, text_field="text")
    assert set(decoded.metadata) == set(FILLED[form])


def test_prompts_may_use_all_metadata_names() -> None:
    """They need no declaration in `variables`."""
    assert {name for names in FILLED.values() for name in names} <= set(METADATA) <= set(PLACEHOLDERS)


def test_documentation_lists_the_metadata_table() -> None:
    """docs/inputs.md has exactly its names."""
    page = (Path(__file__).parents[2] / "docs" / "inputs.md").read_text("utf-8")
    rows = {tuple(re.findall(r"`(\w+)`", line)) for line in page.split("## Metadata")[1].split("\n##")[0].splitlines()}
    for names in FILLED.values():
        assert names in rows or not names


@pytest.mark.parametrize("name", ["from", "sender", "author"])
def test_sender_names_are_aliases(name: str) -> None:
    """A prompt gets the value of an existing alias; the value of the name itself takes precedence."""
    mail = Document("i", "u", "s", "text", {"from": "Anna", "sender": " "})
    assert rendered(f"${name}: $document", mail) == "Anna: text"
    both = Document("i", "u", "s", "text", {"from": "Anna", name: "Own"})
    assert rendered(f"${name}", both) == "Own"
    assert aliases_of(name)[0] == name
