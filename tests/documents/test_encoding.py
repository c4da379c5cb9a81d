"""Decoding of bytes: byte order marks, declared encodings, and guesses, which are noted."""

from __future__ import annotations

import random
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.config import InputConfig, InputSource
from pipeline.documents import ListingCounts, decode, load_entries
from pipeline.documents.decode import decode_text
from pipeline.documents.encodings.decoding import to_text
from pipeline.errors import ConfigError, DocumentError

CASES = Path(__file__).parents[1] / "data" / "documents" / "text"

RUSSIAN = "Центральный банк России повысил ключевую ставку до 16 процентов."
JAPANESE = "日本銀行は金融政策決定会合で政策金利を引き上げた。"
POLISH = "Narodowy Bank Polski podwyższył w środę stopy procentowe, a złoty umocnił się wobec euro. " * 3
GERMAN = "Die Gesellschaft kündigt größere Änderungen für Müller an. Der Überschuss stieg um zehn Prozent."


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Zürich – 5 €", "cp1252"),
        ("The company’s “profits” rose", "cp1252"),
        ("Señor Muñoz compró acciones", "cp1252"),
        (RUSSIAN, "cp1251"),
        (RUSSIAN, "koi8-r"),
        (RUSSIAN, "cp866"),
        (RUSSIAN, "iso8859-5"),
        (RUSSIAN, "cp855"),
        (RUSSIAN, "mac-cyrillic"),
        (GERMAN, "cp850"),
        (GERMAN, "mac-roman"),
        (JAPANESE, "cp932"),
        (JAPANESE, "euc_jp"),
        (JAPANESE, "iso2022_jp"),
        (JAPANESE + "\n", "utf-16-le"),
        (RUSSIAN, "utf-16-be"),
        ("ธนาคารแห่งประเทศไทยปรับขึ้นอัตราดอกเบี้ยนโยบาย", "cp874"),
        ("中国人民银行宣布下调存款准备金率\n", "hz"),
        ("한국은행이 기준금리를 동결했다", "iso2022_kr"),
        ("中国人民银行宣布下调存款准备金率", "gb18030"),
        ("台積電公布第三季財報", "big5hkscs"),
        ("한국은행이 기준금리를 동결했다", "cp949"),
        ("Η Τράπεζα της Ελλάδος ανακοίνωσε", "cp1253"),
        (POLISH, "cp1250"),
    ],
)
def test_encoding_is_guessed(text: str, encoding: str) -> None:
    """Text that is not UTF-8 is read in its most likely encoding, which the record notes."""
    assert to_text(text.encode(encoding)) == (text, (f"encoding_guessed:{encoding}",))


def test_a_guess_considers_non_ascii_text_late_in_a_document() -> None:
    """A long text may be plain ASCII in its first megabyte."""
    text = "An ordinary line.\n" * 60_000 + RUSSIAN
    assert to_text(text.encode("cp1251")) == (text, ("encoding_guessed:cp1251",))


def test_declared_encoding_overrides_a_guess() -> None:
    """It is used unless the text is valid UTF-8."""
    assert to_text("Zürich".encode("iso8859_15"), declared="ISO-8859-15") == ("Zürich", ("encoding:iso8859-15",))
    assert to_text("Zürich".encode(), declared="iso-8859-1") == ("Zürich", ())
    assert to_text(b"Z\xfcrich", declared="latin1") == ("Zürich", ("encoding:cp1252",))


NOT_ENCODINGS = ["idna", "punycode", "zlib", "hex", "undefined", "rot13", "utf-7", "x\0"]


@settings(deadline=None)
@given(st.binary(max_size=60), st.sampled_from(NOT_ENCODINGS))
def test_invalid_declaration_is_ignored(data: bytes, declared: str) -> None:
    """It names no text encoding, or an unknown codec."""
    try:
        expected = to_text(data)
    except DocumentError:
        return
    assert to_text(data, declared=declared) == expected


@settings(deadline=None)
@given(st.binary(max_size=400), st.sampled_from(["shift_jis", "iso2022_jp", "gb18030", "mac-roman", "cp1026", None]))
def test_any_bytes_are_decoded_or_refused(data: bytes, declared: str | None) -> None:
    """Arbitrary bytes give a text, or fail as document_unreadable."""
    try:
        text, notes = to_text(data, declared=declared)
    except DocumentError as error:
        assert error.reason == "document_unreadable"
        return
    assert isinstance(text, str)
    assert len(notes) <= 3
    assert ("\ufffd" in text) <= any(note.startswith("invalid_bytes:") for note in notes) or "\ufffd".encode() in data


@pytest.mark.parametrize(
    ("name", "beginning", "notes"),
    [
        ("02_iso2022jp.txt", "東京電力の社長が辞任を発表した。", ("encoding_guessed:iso2022_jp",)),
        ("04_cp866_russian.txt", "Компания объявила о назначении нового директора.", ("encoding_guessed:cp866",)),
        ("06_cp850_german.txt", "Die Gesellschaft kündigt größere Änderungen für Müller", ("encoding_guessed:cp850",)),
        ("09_cp1250_hungarian.txt", "A cég bejelentette, hogy új vezérigazgatót nevez", ("encoding_guessed:cp1250",)),
        ("10_one_nul_byte.txt", "Acme appoints Jane Doe as chief executive.\nShe starts", ("invalid_bytes:1",)),
        ("12_utf8_cut_last_byte.txt", "Größe und Übernahme der Müller AG für 5 \ufffd", ("invalid_bytes:2",)),
        ("18_euc_jp_short.txt", "東京電力の社長が辞任。", ("encoding_guessed:euc_jp",)),
        ("40_utf8_japanese_one_byte_lost.txt", "東京電力の社長が辞任を発表した。", ("invalid_bytes:2",)),
        ("41_utf8_german_cut_in_last_character.txt", "Die Gesellschaft kündigt größere Änder", ("invalid_bytes:2",)),
    ],
)
def test_files_that_an_earlier_version_garbled(name: str, beginning: str, notes: tuple[str, ...]) -> None:
    """Each is decoded correctly."""
    decoded = decode_text((CASES / name).read_bytes(), "text")
    assert decoded.text.startswith(beginning)
    assert decoded.notes == notes


def test_zero_width_characters_are_no_content() -> None:
    """A file of zero-width spaces is empty."""
    with pytest.raises(DocumentError) as error:
        decode_text((CASES / "34_only_zero_width.txt").read_bytes(), "text")
    assert error.value.reason == "document_empty"


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from([RUSSIAN, JAPANESE, POLISH, GERMAN, "한국은행이 기준금리를 동결했다. 원화는 강세였다."]),
    st.integers(0, 2**32),
    st.sampled_from(["lose", "change"]),
)
def test_invalid_byte_does_not_change_the_rest_of_utf8(text: str, seed: int, damage: str) -> None:
    """Invalid bytes become U+FFFD, and their number is noted."""
    data = bytearray((text * 2).encode())
    rng = random.Random(seed)
    at = rng.choice([at for at, byte in enumerate(data) if byte >= 0x80])
    if damage == "lose":
        del data[at]
    else:
        data[at] = rng.choice([0xFF, 0xC0, 0xF8])
    result, notes = to_text(bytes(data))
    assert [note.partition(":")[0] for note in notes] == ["invalid_bytes"]
    assert result == data.decode("utf-8", "replace")


@pytest.mark.parametrize(
    ("label", "data", "text", "encoding"),
    [
        ("gb2312", "朱镕基總理".encode("gb18030"), "朱镕基總理", "gb18030"),
        ("GB2312", "价格€10".encode("gb18030"), "价格€10", "gb18030"),
        ("shift_jis", "①㈱髙島屋".encode("cp932"), "①㈱髙島屋", "cp932"),
        ("x-sjis", "①㈱髙島屋".encode("cp932"), "①㈱髙島屋", "cp932"),
        ("euc-kr", "똠방각하".encode("cp949"), "똠방각하", "cp949"),
        ("ks_c_5601-1987", "똠방각하".encode("cp949"), "똠방각하", "cp949"),
        ("iso-2022-jp", b"\x1b$B-!-j\x1b(B ok", "①㈱ ok", "iso2022_jp"),
        ("iso-2022-jp", b"\x1b(I1\x1b(B\r\n\x1b$BF|\r\nK\\\x1b(B!", "ｱ\r\n日\r\n本!", "iso2022_jp"),
        ("latin1", "“5 €”".encode("cp1252"), "“5 €”", "cp1252"),
        ("iso-8859-9", "Bankası €".encode("cp1254"), "Bankası €", "cp1254"),
        ("tis-620", "ธนาคาร…".encode("cp874"), "ธนาคาร…", "cp874"),
        ("windows-874", "ธนาคาร…".encode("cp874"), "ธนาคาร…", "cp874"),
        ("macintosh", "Größe".encode("mac-roman"), "Größe", "mac-roman"),
        ("utf-16", "日本".encode("utf-16-le"), "日本", "utf-16-le"),
        ("utf-16le", "Zürich".encode("utf-16-le"), "Zürich", "utf-16-le"),
    ],
)
def test_encoding_label_means_its_superset(label: str, data: bytes, text: str, encoding: str) -> None:
    """Labels are interpreted as browsers do."""
    assert to_text(data, declared=label) == (text, (f"encoding:{encoding}",))


@pytest.mark.parametrize("declared", ["us-ascii", "utf-8", "gb2312"])
def test_mismatched_declaration_gives_way_to_a_guess(declared: str) -> None:
    """Text with many bytes invalid in its declared encoding is read in its most likely one."""
    text = RUSSIAN * 4
    assert to_text(text.encode("cp1251"), declared=declared) == (text, ("encoding_guessed:cp1251",))


def test_utf7_is_accepted_only_in_mail() -> None:
    """UTF-7 can hide markup, so a web page may not declare it."""
    data = "Zürich".encode("utf-7")
    assert to_text(data, declared="utf-7", mail=True) == ("Zürich", ("encoding:utf-7",))
    assert to_text(data, declared="utf-7") == (data.decode(), ())


@given(st.text(st.characters(codec="iso2022_jp", exclude_characters="\x1b\0"), max_size=40))
@example("〜‖−")
def test_iso2022_jp_matches_the_python_codec(text: str) -> None:
    """The results differ only in the characters that Windows maps to others."""
    data = text.encode("iso2022_jp")
    windows = str.maketrans("〜‖−¢£¬—\xa5‾", "～∥－￠￡￢―\\~")
    assert to_text(data, declared="iso-2022-jp")[0].translate(windows) == data.decode("iso2022_jp").translate(windows)


def entries(folder: Path, encoding: str | dict[str, str]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return text and notes of each document of a folder, by id."""
    config = InputConfig(uri=(InputSource(str(folder)),), encoding=encoding)
    collected = {}
    for entry in load_entries(config, output=None, counts=ListingCounts()):
        data = entry.read()
        document = decode(entry, data, text_field="text")
        if "#" not in entry.id:
            assert document.sha256 == sha256((folder / entry.id).read_bytes()).hexdigest()
        collected[entry.id] = (document.text, document.notes)
    return collected


def test_encoding_is_configurable(tmp_path: Path) -> None:
    """It applies to all text files or by glob, but mail keeps its declared encoding."""
    word = "Größe"
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "a.txt").write_bytes(word.encode("cp437"))
    (tmp_path / "b.txt").write_bytes(word.encode("mac-roman"))
    (tmp_path / "old" / "c.csv").write_bytes(f"text\n{word}\n".encode("cp437"))
    (tmp_path / "d.jsonl").write_bytes(f'{{"text": "{word}"}}\n'.encode("utf-16-be"))
    (tmp_path / "e.eml").write_bytes(f"Content-Type: text/plain; charset=cp1252\n\n{word}".encode("cp1252"))
    setting = {"old/**": "cp437", "*.jsonl": "utf-16-be", "*.eml": "cp437", "**": "MacRoman"}
    assert entries(tmp_path, setting) == {
        "b.txt": (word, ("encoding:mac-roman",)),
        "d.jsonl#1": (word, ("encoding:utf-16-be",)),
        "e.eml": (word, ("encoding:cp1252",)),
        "old/a.txt": (word, ("encoding:cp437",)),
        "old/c.csv#1": (word, ("encoding:cp437",)),
    }
    assert entries(tmp_path / "old", "cp437") == {
        "a.txt": (word, ("encoding:cp437",)),
        "c.csv#1": (word, ("encoding:cp437",)),
    }


@pytest.mark.parametrize("value", ["latin-9999", "base64", {"*.txt": "rot13"}, ""])
def test_an_unknown_codec_is_a_configuration_error(value: str | dict[str, str]) -> None:
    """The message lists the accepted values."""
    with pytest.raises(ConfigError, match=r"encoding.* need (auto, )?a codec of Python such as cp1250"):
        InputConfig(encoding=value)
