"""Web archives: text responses become documents, other records are counted, damage costs only its own record."""

from __future__ import annotations

import gzip
import sys
import tracemalloc
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import brotli
import pytest
import zstandard
from document_files import OUTLOOK, PROFIT, page
from documents_of import documents_of
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.documents import ListingCounts
from pipeline.records import Document

PAGE = page("Acme rises", PROFIT, OUTLOOK).encode()
URL = "https://daily.example/1"


def record(body: bytes, kind: str = "response", *, url: str = URL, length: int | None = None, **headers: str) -> bytes:
    """Return a WARC record."""
    fields = {"WARC-Type": kind, "WARC-Target-URI": url, "WARC-Date": "2026-11-28T10:15:00Z"}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    fields["Content-Length"] = str(len(body) if length is None else length)
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"WARC/1.0\r\n{head}\r\n".encode() + body + b"\r\n\r\n"


def response(body: bytes, kind: str = "text/html", *, status: str = "200 OK", **headers: str) -> bytes:
    """Return the block of a response record."""
    fields = {"Content-Type": kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value)
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body


def chunked(body: bytes, size: int = 100) -> bytes:
    chunks = (body[at : at + size] for at in range(0, len(body), size))
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


def archive(folder: Path, *records: bytes, name: str = "a.warc") -> Path:
    """Return an archive; a compressed one has a gzip member for each record, as crawlers write it."""
    packed = [gzip.compress(record) for record in records] if name.endswith(".gz") else records
    (folder / name).write_bytes(b"".join(packed))
    return folder / name


def texts(documents: Sequence[Document | str]) -> list[str]:
    return [document if isinstance(document, str) else document.text for document in documents]


def plain(number: int) -> bytes:
    return record(response(b"Text number %d." % number, "text/plain"))


NAMES = pytest.mark.parametrize("name", ["a.warc", "a.warc.gz"])


@NAMES
def test_each_text_response_is_a_document(tmp_path: Path, name: str) -> None:
    """A page gives its main text with address and date; other records are counted by kind."""
    path = archive(
        tmp_path,
        record(b"software: x\r\n", "warcinfo"),
        record(b"GET / HTTP/1.1\r\n\r\n", "request"),
        record(response(PAGE, "text/html; charset=utf-8")),
        record(response(b"\x89PNG", "image/png")),
        record(response(b"gone", status="404 Not Found")),
        record(response(b"", status="301 Moved", Location="/x")),
        record(response(b"p{}", "text/css")),
        record(response(b"", ""), "revisit"),
        record(b"93.184.216.34", "response", url="dns:daily.example", Content_Type="text/dns"),
        record(response("Grüße".encode("cp1252"), "text/plain; charset=iso-8859-1")),
        record(b"A text extract.", "conversion", Content_Type="text/plain"),
        record(response(b"<feed><title>T</title><entry><title>Item</title></entry></feed>", "application/atom+xml")),
        record(response(b"binary", "")),
        record(response(PAGE, "")),
        name=name,
    )
    counts = ListingCounts()
    decoded = documents_of(path, counts)
    documents = [document for document in decoded if isinstance(document, Document)]
    assert len(documents) == len(decoded) == 5
    assert PROFIT in documents[0].text
    assert "Imprint" not in documents[0].text
    assert documents[0].id == f"{name}#3"
    assert documents[0].metadata == {
        "title": "Acme rises", "date": "2024-05-06", "site": "The Daily", "url": URL,
        "archived_at": "2026-11-28T10:15:00Z", "content_type": "text/html; charset=utf-8",
    }  # fmt: skip
    assert [document.text for document in documents[1:4]] == ["Grüße", "A text extract.", "Item"]
    assert documents[1].notes == ("encoding:cp1252",)
    assert counts.ignored == {
        "(WARC warcinfo)": 1, "(WARC request)": 1, "(WARC image/png)": 1, "(HTTP 404)": 1, "(HTTP 301)": 1,
        "(WARC text/css)": 1, "(WARC revisit)": 1, "(WARC dns)": 1, "(WARC without content type)": 1,
    }  # fmt: skip


@pytest.mark.parametrize("encoding", ["", "gzip", "x-gzip", "deflate", "br", "zstd", "GZIP"])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_warc_body_is_decoded_like_in_a_browser(tmp_path: Path, encoding: str, is_chunked: bool) -> None:
    """Chunks are joined, and compression is undone."""
    text = b"Shares fell by three per cent. " * 50
    packers = {"": bytes, "deflate": zlib.compress, "br": brotli.compress, "zstd": zstandard.compress}
    body = packers.get(encoding, gzip.compress)(text)
    sent = chunked(body) if is_chunked else body
    block = response(sent, "text/plain", Content_Encoding=encoding, Transfer_Encoding="chunked" if is_chunked else "")
    assert texts(documents_of(archive(tmp_path, record(block)))) == [text.decode()]


def test_unknown_content_encoding_fails_alone(tmp_path: Path) -> None:
    """Other records are read; a body that is not compressed despite its header is read as it is."""
    path = archive(
        tmp_path,
        plain(1),
        record(response(b"xx", Content_Encoding="sdch")),
        record(response(b"Text as it stands.", "text/plain", Content_Encoding="gzip")),
        plain(4),
        record(b"no http at all"),
        plain(6),
    )
    contents = texts(documents_of(path))
    assert contents[0] == "Text number 1."
    assert contents[1] == "a.warc#2: document_unreadable"
    assert contents[2:4] == ["Text as it stands.", "Text number 4."]
    assert contents[-1] == "Text number 6."


def test_truncated_warc_record_is_noted(tmp_path: Path) -> None:
    """The crawler or the compression shows the truncation."""
    packed = response(gzip.compress(b"A text. " * 500)[:-9], "text/plain", Content_Encoding="gzip")
    named = record(response(b"A text.", "text/plain"), WARC_Truncated="length")
    read = documents_of(archive(tmp_path, named, record(packed)))
    result = [document.notes for document in read if isinstance(document, Document)]
    assert result == [("truncated:length",), ("truncated:content",)]


def test_warc_without_its_extra_fails_with_the_install_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the archive fails, not the run."""
    monkeypatch.setitem(sys.modules, "warcio", None)
    archive(tmp_path, plain(1))
    (tmp_path / "b.txt").write_text("A text.")
    assert texts(documents_of(tmp_path)) == ["a.warc: unsupported_format", "A text."]


# damage


@pytest.mark.parametrize("at", [0, 3, 12, 40, -6, -2])
def test_damaged_gzip_member_fails_alone(tmp_path: Path, at: int) -> None:
    """Its header, data or checksum is damaged, and later members are read."""
    members = [bytearray(gzip.compress(plain(n))) for n in range(1, 6)]
    members[2][at] ^= 0xFF
    (tmp_path / "a.warc.gz").write_bytes(b"".join(members))
    contents = texts(documents_of(tmp_path / "a.warc.gz"))
    whole_texts = [text for text in contents if text.startswith("Text")]
    failed = [text for text in contents if "document_unreadable" in text]
    assert {f"Text number {n}." for n in (1, 2, 4, 5)} <= set(whole_texts)
    assert len(failed) == 1 or (at == 3 and not failed)  # one bit of the flags has no effect
    assert len(contents) == 5


@pytest.mark.parametrize("length", [5, 500, -3])
def test_record_with_a_wrong_length_fails_alone(tmp_path: Path, length: int) -> None:
    """Reading continues at the next record."""
    broken = record(response(b"Text of the wrong length.", "text/plain"), length=length)
    contents = texts(documents_of(archive(tmp_path, plain(1), broken, *[plain(n) for n in range(3, 9)])))
    assert contents[0] == "Text number 1."
    assert sum("document_unreadable" in text for text in contents) == 1
    assert contents[-1] == "Text number 8."


@NAMES
def test_truncated_warc_fails_after_its_records(tmp_path: Path, name: str) -> None:
    """An interrupted crawl leaves such a file."""
    path = archive(tmp_path, plain(1), plain(2), plain(3), name=name)
    path.write_bytes(path.read_bytes()[:-40])
    assert texts(documents_of(path)) == ["Text number 1.", "Text number 2.", f"{name}: document_unreadable"]


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(["a.warc", "a.warc.gz"]))
def test_any_damage_gives_documents_or_failures(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, name: str
) -> None:
    """No other exception is raised, and records well before the damage are read."""
    path = archive(tmp_path_factory.mktemp("warc"), *[plain(n) for n in range(1, 5)], name=name)
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(len(content) // 2, len(content) - 1))
    content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=6))
    path.write_bytes(content)
    assert texts(documents_of(path))[0] == "Text number 1."


# hostile archives


@pytest.mark.parametrize(
    "packer", [lambda data: gzip.compress(data), lambda data: brotli.compress(data, quality=1)], ids=["gzip", "br"]
)
def test_warc_decompression_bomb_fails_alone(tmp_path: Path, packer: Any) -> None:
    """No more than the limit is unpacked."""
    name = "gzip" if packer(b"x").startswith(b"\x1f\x8b") else "br"
    block = response(packer(bytes(50_000_000)), "text/plain", Content_Encoding=name)
    path = archive(tmp_path, record(block), plain(2))
    tracemalloc.start()
    contents = texts(documents_of(path, max_document_bytes=1_000_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert contents == ["a.warc#1: document_too_large", "Text number 2."]
    assert peak < 30_000_000


def test_too_long_record_is_skipped(tmp_path: Path) -> None:
    """It is not held in memory: a video is counted, a long text fails alone."""
    video = record(response(bytes(8_000_000), "video/mp4"))
    text = record(response(b"x" * 8_000_000, "text/plain"))
    path = archive(tmp_path, video, text, plain(3))
    counts = ListingCounts()
    tracemalloc.start()
    contents = texts(documents_of(path, counts, max_document_bytes=1_000_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert contents[-1] == "Text number 3."
    assert "a.warc#2: document_too_large" in contents
    assert peak < 3_000_000


@pytest.mark.parametrize(
    "data",
    [b"WARC/1.0\r\n" + b"a" * 3_000_000, b"WARC/1.0\r\nContent-Length: 99999999999999999999\r\n\r\n",
     b"WARC/1.0\r\n\r\n" * 5_000, b"x" * 3_000_000, b"", b"WARC/"],
)  # fmt: skip
def test_hostile_warc_fails(tmp_path: Path, data: bytes) -> None:
    """Cases are endless headers, lengths without content, and files that are no archive."""
    (tmp_path / "a.warc").write_bytes(data)
    assert all("document_unreadable" in text for text in texts(documents_of(tmp_path / "a.warc")))
