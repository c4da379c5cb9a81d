"""Decoding of each format: pages, PDFs, messages and tables."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from document_files import OUTLOOK, PROFIT, mail, page, pdf
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pypdf import PdfReader, PdfWriter

from pipeline.config import InputConfig, InputSource
from pipeline.documents import ListingCounts, decode, load_entries
from pipeline.documents.extras import MissingExtraError
from pipeline.documents.html.page import read_page
from pipeline.documents.pdf.text_quality import implausible_share
from pipeline.errors import DocumentError
from pipeline.records import Document, Entry

CASES = Path(__file__).parents[1] / "data" / "documents"


def document(form: str, data: bytes) -> Document:
    return decode(Entry("id", "uri", None, len(data), form, lambda: data), data, text_field="text")


def problem(form: str, data: bytes) -> tuple[str, str]:
    with pytest.raises(DocumentError) as error:
        document(form, data)
    return error.value.reason, str(error.value)


def records(folder: Path, data: bytes, **more: object) -> list[Entry]:
    """Return the entries of a CSV file."""
    (folder / "a.csv").write_bytes(data)
    config = InputConfig(uri=(InputSource(str(folder / "a.csv")),), **more)  # type: ignore[arg-type]
    return list(load_entries(config, output=None, counts=ListingCounts()))


def read(entries: list[Entry]) -> list[tuple[str, object]]:
    """Return id and cells of each entry, or the reason why it has none."""
    collected: list[tuple[str, object]] = []
    for entry in entries:
        try:
            collected.append((entry.id, json.loads(entry.read())))
        except DocumentError as error:
            collected.append((entry.id, error.reason))
    return collected


# pages


def test_html_page_gives_its_article() -> None:
    """The main text has no menu or footer; title, date and site are metadata."""
    decoded = document("html", page("Acme rises", PROFIT, OUTLOOK).encode())
    assert PROFIT in decoded.text
    assert OUTLOOK in decoded.text
    assert "Imprint" not in decoded.text
    assert "Markets" not in decoded.text
    assert decoded.metadata == {"title": "Acme rises", "date": "2024-05-06", "site": "The Daily"}
    assert decoded.notes == ()


def test_html_page_without_an_article_gives_its_visible_text() -> None:
    """Each block is a line, without scripts, styles, comments and head; entities are resolved."""
    text = "<title>T &amp; U</title><style>p{}</style><script>if(a<b)x()</script>"
    text += "<p>a &lt; <b>b</b></p><!-- <p>c --><p>d"
    assert read_page(text) == ("a < b\nd", {"title": "T & U"})
    assert read_page("<p>a<p>b<script>never closed<p>c") == ("a\nb", {})
    assert read_page("<p>p < 0.05 and q > 0.1") == ("p < 0.05 and q > 0.1", {})
    assert problem("html", b"<html><body><img src=x></body></html>")[0] == "document_empty"


def test_html_page_declares_its_encoding() -> None:
    """It applies if the page is not UTF-8."""
    text = page("Türkiye", "Merkez Bankası faizi artırdı ve piyasalar olumlu tepki gösterdi. " * 3)
    data = text.replace("<head>", '<head><meta charset="iso-8859-9">').encode("iso-8859-9")
    decoded = document("html", data)
    assert "Bankası faizi artırdı" in decoded.text
    assert decoded.notes == ("encoding:cp1254",)


@pytest.mark.parametrize(
    ("name", "text", "notes"),
    [
        ("03_charset_after_2048_bytes_gbk.html", "中国经济增长放缓，公司宣布新总裁任命", ("encoding:gb18030",)),
        ("04_meta_gb2312_but_gbk.html", "朱镕基总理访问堃公司", ("encoding:gb18030",)),
        ("06_utf16le_no_bom.html", "Die Gesellschaft kündigt größere Änderungen", ("encoding_guessed:utf-16-le",)),
        ("13_sec_style_div_font.html", "Item 1. The registrant discloses matter number 1 in", ()),
    ],
)
def test_archived_html_pages_are_decoded(name: str, text: str, notes: tuple[str, ...]) -> None:
    """Cases are late or wrong declarations, UTF-16 without a mark, and a filing that is no article."""
    decoded = document("html", (CASES / "html" / name).read_bytes())
    assert text in decoded.text
    assert decoded.notes == notes
    if name.startswith("13"):
        assert all(f"matter number {number} " in decoded.text for number in range(1, 30))


@pytest.mark.parametrize(
    "piece", ["<", "<!--", "<script>", "<div>", "</", "&", "<a <", "-->", pytest.param("<p>x", marks=pytest.mark.slow)]
)
def test_hostile_html_takes_linear_time(piece: str) -> None:
    """A million characters of unclosed elements are processed quickly."""
    read_page(piece * (1_000_000 // len(piece)))


# PDFs


def test_pdf_gives_the_text_of_its_pages() -> None:
    """They are in order, and the file's properties are metadata."""
    decoded = document("pdf", pdf([PROFIT, OUTLOOK], title="Acme"))
    assert decoded.text == f"{PROFIT}\n\n{OUTLOOK}"
    assert decoded.metadata == {"pages": 2, "title": "Acme", "date": "2024-05-06T07:08:09+00:00"}


def test_pdf_without_a_text_layer_is_empty() -> None:
    """The message says that it needs OCR."""
    needed = (
        "the PDF has no text layer on its 2 pages: add a text layer by OCR, for example with `ocrmypdf in.pdf out.pdf`"
    )
    assert problem("pdf", pdf(["", ""])) == ("document_empty", needed)


@pytest.mark.parametrize(
    ("name", "text", "notes"),
    [
        ("01_one_text_page_then_scanned_pages.pdf", "takimata sanctus est Lorem ipsum", ("pages_without_text:2",)),
        ("02_filled_form_field.pdf", "new officer:\nname: Jane Doe, Chief Executive", ("form_fields_added",)),
        ("03_freetext_annotation.pdf", "new officer:\nJane Doe, Chief Executive", ("annotations_added",)),
        ("05_hyphenated_line_end.pdf", "chief finan-\ncial officer", ()),
    ],
)
def test_pdf_text_includes_forms_and_annotations(name: str, text: str, notes: tuple[str, ...]) -> None:
    """Values of form fields and free-text annotations are read; pages without text are counted."""
    decoded = document("pdf", (CASES / "pdf" / name).read_bytes())
    assert text in decoded.text
    assert decoded.notes == notes


def test_pdf_with_unmapped_fonts_is_noted_or_unreadable() -> None:
    """The text would be garbage: control characters, or letters of many scripts."""
    some = "The company \\001\\002\\003\\004\\005\\006 said so"
    assert document("pdf", pdf([some])).notes == ("low_text_quality",)
    reason, message = problem("pdf", pdf(["\\001\\002\\003 \\004\\005\\006 a"]))
    assert (reason, "--force-ocr" in message) == ("document_unreadable", True)
    assert implausible_share("ɹং Θͱݱ ၊ఆΕͨ༗ ػྲྀి౯ͷͻͱ ৺εένͰ") > 0.1
    for text in (PROFIT, "日本銀行は金融政策を", "нефть и газ BP", "ราคาหุ้น", "कंपनी ने कहा", "µ-Meson 10 kΩ größer"):
        assert implausible_share(text) == 0


@pytest.mark.parametrize("algorithm", ["RC4-128", "AES-256"])
def test_encrypted_pdf_needs_its_password(algorithm: str) -> None:
    """One that opens without a password is read; the message for others says why they fail."""
    for password in ("", "secret"):
        writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf([PROFIT]))))
        writer.encrypt(password, owner_password="owner", algorithm=algorithm)
        out = io.BytesIO()
        writer.write(out)
        if password:
            assert problem("pdf", out.getvalue())[1] == "the PDF is encrypted and needs a password"
        else:
            assert document("pdf", out.getvalue()).text == PROFIT


@pytest.mark.parametrize("data", [b"", b"no pdf", b"%PDF-1.4\n", pdf([PROFIT])[:300]])
def test_broken_pdf_is_unreadable(data: bytes) -> None:
    """It is one failed document, whatever error the library raises."""
    reason, message = problem("pdf", data)
    assert reason == "document_unreadable"
    assert "Acme" not in message


# tables


def test_csv_record_is_a_document(tmp_path: Path) -> None:
    """Records are numbered from 1 without the header; cells may have quotes, commas and line ends."""
    data = b'title,text\r\na,"x, ""y""\r\nz"\r\n\r\nb,w\r\n'
    rows = records(tmp_path, data)
    assert [(entry.id, entry.format) for entry in rows] == [("a.csv#1", "csv"), ("a.csv#2", "csv")]
    assert read(rows) == [
        ("a.csv#1", {"title": "a", "text": 'x, "y"\r\nz'}),
        ("a.csv#2", {"title": "b", "text": "w"}),
    ]
    assert rows[0].read() == b'{"text":"x, \\"y\\"\\r\\nz","title":"a"}'
    decoded = decode(rows[0], rows[0].read(), text_field="text")
    assert (decoded.text, decoded.metadata) == ('x, "y"\r\nz', {"title": "a"})


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_csv_separator_is_detected_by_the_text_field(tmp_path: Path, separator: str) -> None:
    """If a comma gives no text field, the separator that gives one is used."""
    data = f'id{separator}"text"\n1{separator}a, b\n'.encode()
    assert read(records(tmp_path, data)) == [("a.csv#1", {"id": "1", "text": "a, b"})]


def test_csv_record_of_the_wrong_length(tmp_path: Path) -> None:
    """Missing cells are empty, blank extra ones are ignored, other extra ones fail the record."""
    rows = records(tmp_path, b"text,b\nx\ny,1,,\nz,1,2\n")
    assert read(rows) == [
        ("a.csv#1", {"b": "", "text": "x"}),
        ("a.csv#2", {"b": "1", "text": "y"}),
        ("a.csv#3", "document_unreadable"),
    ]


def test_csv_record_may_have_an_id(tmp_path: Path) -> None:
    """It is in the column of `id_field`; without a value the record has its positional id."""
    assert [entry.id for entry in records(tmp_path, b"text,key\nx,k\ny,\n", id_field="key")] == ["k", "a.csv#2"]


def test_csv_without_the_text_field_is_unreadable(tmp_path: Path) -> None:
    """The message names the setting and the existing columns."""
    (entry,) = records(tmp_path, b"a,b\n1,2\n")
    with pytest.raises(DocumentError, match=r"'text' is missing: set `input.text_field` .* has the columns a, b$"):
        decode(entry, entry.read(), text_field="text")


def test_json_object_without_the_text_field_is_unreadable() -> None:
    """The message names the setting and at most 20 keys, each cut to 40 characters."""
    many = {f"key{number}": number for number in range(25)}
    data = json.dumps({"x" * 50: 1, **many}).encode()
    with pytest.raises(DocumentError, match=rf"has the keys {'x' * 40}…, key0, .*key18 and 6 more$"):
        document("json", data)
    with pytest.raises(DocumentError, match="has no keys"):
        document("json", b"{}")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
def test_csv_encoding_is_detected(tmp_path: Path, encoding: str) -> None:
    """A mark or the first bytes decide, and a guess is noted."""
    (entry,) = records(tmp_path, "text,ort\nGrüße,Zürich\n".encode(encoding))
    decoded = decode(entry, entry.read(), text_field="text")
    assert (decoded.text, decoded.metadata) == ("Grüße", {"ort": "Zürich"})
    assert decoded.notes == (("encoding_guessed:cp1252",) if encoding == "cp1252" else ())


def test_csv_may_change_its_encoding(tmp_path: Path) -> None:
    """A record that is invalid in the file's encoding is guessed by itself."""
    plain = b"text\n" + b"An ordinary line.\n" * 100_000
    rows = records(tmp_path, plain + b"Z\xfcrich\n")
    last = decode(rows[-1], rows[-1].read(), text_field="text")
    assert (last.id, last.text, last.notes) == ("a.csv#100001", "Zürich", ("encoding_guessed:cp1252",))


def test_too_long_csv_record_fails_alone(tmp_path: Path) -> None:
    """No more than the limit is held in memory, and the next record is read."""
    long = "x" * 300_000
    data = f'text\n{long}\na\n"{long}\n""{long}"\nb\n'.encode()
    assert read(records(tmp_path, data, max_document_bytes=1000)) == [
        ("a.csv#1", "document_too_large"),
        ("a.csv#2", {"text": "a"}),
        ("a.csv#3", "document_too_large"),
        ("a.csv#4", {"text": "b"}),
    ]
    assert read(records(tmp_path, f"text\n{long}\n".encode())) == [("a.csv#1", {"text": long})]


@pytest.mark.parametrize("data", [b"", b"\n\n", b"text\n", b"text"])
def test_csv_without_records_has_no_documents(tmp_path: Path, data: bytes) -> None:
    """It is no failure."""
    assert records(tmp_path, data) == []


def test_binary_data_as_csv_is_one_failed_document(tmp_path: Path) -> None:
    """It has the suffix of a table."""
    assert read(records(tmp_path, bytes(range(256)) * 50)) == [("a.csv", "document_unreadable")]


# missing libraries


@pytest.mark.parametrize(
    ("name", "library", "extra"),
    [("a.html", "trafilatura", "html"), ("a.pdf", "pypdfium2", "pdf"), ("a.msg", "oxmsg", "mail")],
)
def test_a_missing_extra_fails_the_documents_that_need_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, library: str, extra: str
) -> None:
    """The others are read; the message names the install command and an alternative."""
    for number in range(5):
        (tmp_path / f"a{number}.txt").write_text("x")
    (tmp_path / name).write_bytes(b"x")
    monkeypatch.setitem(sys.modules, library, None)
    config = InputConfig(uri=(InputSource(str(tmp_path)),))
    listing = {entry.id: entry for entry in load_entries(config, output=None, counts=ListingCounts())}
    assert len(listing) == 6
    command = rf"pip install 'extraction-pipeline\[{extra}\]', or input.exclude: \['\*\.{name[2:]}'\]"
    with pytest.raises(DocumentError, match=command) as error:
        listing[name].read()
    assert error.value.reason == "unsupported_format"


def test_missing_extra_for_all_documents_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No document could be read, so the installation must change first."""
    (tmp_path / "a.pdf").write_bytes(b"x")
    (tmp_path / "b.pdf.gz").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    config = InputConfig(uri=(InputSource(str(tmp_path)),))
    with pytest.raises(MissingExtraError, match=r"a.pdf: .*extraction-pipeline\[pdf\].*exclude: \['\*\.pdf'\]"):
        load_entries(config, output=None, counts=ListingCounts())
    (tmp_path / "c.tar").write_bytes(b"x")
    assert len(list(load_entries(config, output=None, counts=ListingCounts()))) == 3


# anything


def _joined(pieces: str, most: int) -> st.SearchStrategy[bytes]:
    """Return bytes of these pieces separated by a bar, and of any text, in any order."""
    piece = st.sampled_from(pieces.split("|")) | st.text(max_size=5)
    return st.lists(piece, max_size=most).map(lambda chosen: "".join(chosen).encode("utf-8", "replace"))


_PAGES = _joined("<|>|p|</p>|<div| |a|<script>|<!--|-->|&#0;|&lt|\x00|<table>|<meta |=", 40)
_MAILS = _joined(
    "Subject: |Content-Type: |multipart/mixed; boundary=b|text/plain|text/html|\r\n|\r\n\r\n|--b\r\n|--b--|; charset=|"
    "=?utf-8?b?|?=|Date: |Content-Transfer-Encoding: base64|x|\n ",
    30,
)
_TABLES = _joined('"|,|\n|\r|a|text|;|\x00|\ufeff', 60)


@st.composite
def _damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Return the bytes with pieces overwritten, duplicated or removed."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 30))] = draw(st.binary(max_size=8) | st.just(bytes(data[:40])))
    return bytes(data)


def _check(form: str, data: bytes) -> None:
    """Assert that the bytes give a document that can be written as a record, or a DocumentError."""
    try:
        decoded = document(form, data)
    except DocumentError as error:
        assert error.reason in ("document_unreadable", "document_empty", "document_too_large")
        return
    assert decoded.text.strip()
    json.dumps([decoded.text, decoded.metadata], allow_nan=False, ensure_ascii=False).encode("utf-8")


@settings(deadline=None)
@given(st.binary(max_size=300) | _PAGES | _damaged(page("Acme", PROFIT, OUTLOOK).encode()))
def test_any_bytes_as_an_html_page(data: bytes) -> None:
    """They give a document or a DocumentError."""
    _check("html", data)


@settings(deadline=None)
@given(st.binary(max_size=300) | _damaged(pdf([PROFIT, OUTLOOK], title="Acme")))
def test_any_bytes_as_a_pdf(data: bytes) -> None:
    """They give a document or a DocumentError."""
    _check("pdf", data)


@settings(deadline=None)
@given(st.binary(max_size=300) | _MAILS | _damaged(mail(("text/plain", "a"), ("text/html", page("t", PROFIT)))))
@example(b"Content-Type: text/plain; charset=idna\r\n\r\n\xff")
def test_any_bytes_as_a_message(data: bytes) -> None:
    """They give a document or a DocumentError."""
    _check("mail", data)


@settings(deadline=None)
@given(st.binary(max_size=200) | _TABLES)
def test_any_bytes_as_a_csv_table(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """They give records or failed ones, numbered without a gap, and the listing ends."""
    rows = records(tmp_path_factory.getbasetemp(), data, max_document_bytes=50)
    ids = [entry.id for entry in rows if "#" in entry.id]
    assert ids == [f"a.csv#{number}" for number in range(1, len(ids) + 1)]
    for entry in rows:
        try:
            _check("csv", entry.read())
        except DocumentError as error:
            assert error.reason in ("document_unreadable", "document_too_large")


def test_invalid_byte_in_a_csv_record_does_not_change_the_rest(tmp_path: Path) -> None:
    """The record and the file still count as UTF-8."""
    data = "text,ort\nGrüße aus Köln,Zürich\nÜbernahme für 5 €,Köln\n".encode().replace(b"K\xc3\xb6ln,", b"K\xc3ln,")
    assert [decode(entry, entry.read(), text_field="text").text for entry in records(tmp_path, data)] == [
        "Grüße aus K\ufffdln", "Übernahme für 5 €",
    ]  # fmt: skip
