"""The text of RTF, and of Outlook messages whose only body is RTF."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from compressed_rtf import compress
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.documents.mail.msg import decode_msg
from pipeline.documents.mail.rtf import rtf_text

OUTLOOK = Path(__file__).parents[1] / "data" / "documents" / "mail" / "outlook.msg"
HTML_SIZE = 17
"""Bytes of the HTML body of that message, which stands in a sector of 64."""


def with_rtf_body(packed: bytes) -> bytes:
    """Return the Outlook message with compressed RTF in place of its HTML body."""
    assert len(packed) <= 64
    data = bytearray(OUTLOOK.read_bytes())
    at = data.index(b"This is a message")
    data[at : at + 64] = packed.ljust(64, b"\0")
    name = "__substg1.0_10130102".encode("utf-16-le")
    entry = data.index(name)
    data[entry : entry + len(name)] = "__substg1.0_10090102".encode("utf-16-le")
    data[entry + 120 : entry + 124] = struct.pack("<I", len(packed))
    tag = data.index(bytes.fromhex("02011310"))
    data[tag : tag + 4] = bytes.fromhex("02010910")
    data[tag + 8 : tag + 12] = struct.pack("<I", len(packed))
    return bytes(data)


@pytest.mark.parametrize("compressed", [True, False])
def test_message_with_only_an_rtf_body_is_read(compressed: bool) -> None:
    """The text follows the headers, as in other messages."""
    decoded = decode_msg(
        with_rtf_body(compress(rb"{\rtf1\ansicpg1251 \'cf\'f0\par next}", compressed=compressed)), "text"
    )
    assert decoded.text.endswith("\n\nПр\nnext")
    assert decoded.metadata["subject"] == "This is the subject"


PAGE = rb"""{\rtf1\ansi\ansicpg1252\fromhtml1 \fbidi \deff0{\fonttbl{\f0\fswiss Arial;}}
{\*\htmltag19 <html>}{\*\htmltag34 <head>}{\*\htmltag177 <title>}hidden{\*\htmltag185 </title>}{\*\htmltag41 </head>}
{\*\htmltag50 <body>}{\*\htmltag64 <p>}\htmlrtf \par \htmlrtf0 Hello {\*\htmltag84 <b>}\htmlrtf {\b \htmlrtf0 world
\htmlrtf }
\htmlrtf0 {\*\htmltag92 </b>} caf\'e9 \u8364? 1 < 2{\*\htmltag84 &nbsp;}\htmlrtf \'a0\htmlrtf0 end.{\*\htmltag72 </p>}
{\*\htmltag64 <p>}{\*\htmltag84 <a href="http://x">}\htmlrtf {\field{\*\fldinst{HYPERLINK "http://x"}}{\fldrslt\cf1\ul
\htmlrtf0 link text\htmlrtf }\htmlrtf0 \htmlrtf }\htmlrtf0 {\*\htmltag92 </a>}{\*\htmltag72 </p>}}"""


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (rb"{\rtf1\ansi{\fonttbl{\f0\fcharset204 Arial;}}\f0 \'cf\'f0\'e8\par b \{c\}{\*\hidden d}}", "При\nb {c}"),
        (rb"{\rtf1\ansi\ansicpg932 \'93\'fa\'96\'7b\tab x\cell y\row z}", "日本\tx\ty\nz"),
        (rb"{\rtf1\ansi \u-10179?\u-8704? {\uc2\u8364 xxy}\u8364 zq}", "😀 €y€q"),
        (
            rb'{\rtf1 a {\field{\*\fldinst{HYPERLINK "http://x"}}{\fldrslt click}} b{\pict\wmetafile8 0100}}',
            "a click b",
        ),
        (rb"{\rtf1 a{\footnote  note}\bin3 }}} b}", "a note b"),
        (rb"no rtf at all", "no rtf at all"),
        (PAGE, "Hello world café € 1 < 2 end.\nlink text"),
    ],
)
def test_rtf_gives_its_text(data: bytes, text: str) -> None:
    """Code pages, Unicode with fallbacks, fields, tables and embedded pages are read, without markup."""
    assert rtf_text(data) == text


@pytest.mark.parametrize(
    "data",
    [b"{" * 2_000_000, rb"\'e9" * 500_000, rb"{\field{\*\fldinst{" * 50_000, rb"\f1" * 500_000, rb"\f0\u1" * 200_000,
     rb"\bin9999999 x", rb"\u99999999 ", rb"\ansicpg99999 x"],
)  # fmt: skip
def test_hostile_rtf_takes_linear_time(data: bytes) -> None:
    """Cases are unclosed groups, endless words, and numbers that are too large."""
    rtf_text(data)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["Wort", "ж", "日", "😀", "a b", "{", "}", "\\", "é"]), min_size=1, max_size=20))
def test_each_rtf_character_appears_once(words: list[str]) -> None:
    """Characters are code units with a fallback, each in its own group."""
    units = "".join(
        "".join(
            rf"\u{unit}?" for unit in struct.unpack(f"<{len(word.encode('utf-16-le')) // 2}h", word.encode("utf-16-le"))
        )
        + "{\\par}"
        for word in words
    )
    assert rtf_text(f"{{\\rtf1 {units}}}".encode()).split("\n") == words


def test_wrong_picture_length_does_not_end_the_text() -> None:
    """With a length beyond the file the bytes are read as text; a right length is skipped."""
    assert "after" in rtf_text(rb"{\rtf1\ansi before {\pict\bin99999 xx} after}")
    assert rtf_text(rb"{\rtf1\ansi before {\pict\bin3 }}{} after}").split() == ["before", "after"]


def test_invalid_rtf_bytes_are_noted() -> None:
    """They become U+FFFD and are counted, as in a plain text."""
    decoded = decode_msg(with_rtf_body(compress(rb"{\rtf1\ansicpg1252 a\'81b}", compressed=False)), "text")
    assert decoded.text.endswith("a\ufffdb")
    assert decoded.notes == ("invalid_bytes:1",)
