"""Bytes as text: marks, declarations, and guesses that are noted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.documents.encoding import to_text
from pipeline.errors import DocumentError

RUSSIAN = "Центральный банк России повысил ключевую ставку до 16 процентов."
JAPANESE = "日本銀行は金融政策決定会合で政策金利を引き上げた。"
POLISH = "Narodowy Bank Polski podwyższył w środę stopy procentowe, a złoty umocnił się wobec euro. " * 3


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Zürich – 5 €", "cp1252"),
        ("The company’s “profits” rose", "cp1252"),
        ("Señor Muñoz compró acciones", "cp1252"),
        (RUSSIAN, "cp1251"),
        (RUSSIAN, "koi8_r"),
        (JAPANESE, "cp932"),
        ("中国人民银行宣布下调存款准备金率", "gb18030"),
        ("台積電公布第三季財報", "big5"),
        ("한국은행이 기준금리를 동결했다", "cp949"),
        ("Η Τράπεζα της Ελλάδος ανακοίνωσε", "cp1253"),
        (POLISH, "cp1250"),
    ],
)
def test_an_encoding_is_guessed(text: str, encoding: str) -> None:
    """What is not UTF-8 is read as what it most likely is, and the record says as what."""
    assert to_text(text.encode(encoding)) == (text, (f"encoding:{encoding}",))


def test_a_guess_looks_where_it_shows() -> None:
    """A long text may be plain ASCII for its first megabyte."""
    text = "An ordinary line.\n" * 60_000 + RUSSIAN
    assert to_text(text.encode("cp1251")) == (text, ("encoding:cp1251",))


def test_a_declaration_beats_a_guess() -> None:
    """What a text says of itself holds, unless it is UTF-8 all the same, or the declaration means no text."""
    assert to_text("Zürich".encode("iso8859_15"), declared="ISO-8859-15") == ("Zürich", ("encoding:iso8859-15",))
    assert to_text("Zürich".encode(), declared="iso-8859-1") == ("Zürich", ())
    assert to_text(b"Z\xfcrich", declared="latin1") == ("Zürich", ("encoding:cp1252",))


NO_TEXTS = ["idna", "punycode", "zlib", "hex", "undefined", "rot13", "utf-7", "x\0"]


@given(st.binary(max_size=60), st.sampled_from(NO_TEXTS))
def test_a_wrong_declaration_does_no_harm(data: bytes, declared: str) -> None:
    """A codec that is no encoding of text, or none at all, is passed over."""
    try:
        expected = to_text(data)
    except DocumentError:
        return
    assert to_text(data, declared=declared) == expected


@given(st.binary(max_size=400), st.sampled_from(["shift_jis", "iso2022_jp", "gb18030", "mac-roman", "cp1026", None]))
def test_any_bytes_are_text_or_are_not(data: bytes, declared: str | None) -> None:
    """There is always a text, or the bytes are refused."""
    try:
        text, notes = to_text(data, declared=declared)
    except DocumentError as error:
        assert error.reason == "document_unreadable"
        return
    assert isinstance(text, str)
    assert len(notes) <= 1
