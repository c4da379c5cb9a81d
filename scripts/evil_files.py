"""Small documents that cost much CPU or memory: mailboxes, packed files, PDF pages, XML, web archives, filings."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
from itertools import pairwise

FULL = 9_000_000
"""Bytes of a document just below the size limit."""


def mailbox_of_headers(messages: int = 2, chars: int = 200_000) -> bytes:
    """A mailbox whose messages have a parameter that is parsed in quadratic time."""
    message = b'From a@b Thu Jan  1 00:00:00 1970\nContent-Type: text/plain; a="' + b";" * chars + b'"\n\nx\n\n'
    return message * messages


def mailbox_of_one_line(chars: int = FULL) -> bytes:
    """A mailbox that is one line without an end."""
    return b"From a@b Thu Jan  1 00:00:00 1970" + b" From " * (chars // 6)


def forwarded_mail(depth: int = 20_000) -> bytes:
    """A message within a message, and so on."""
    return b"Content-Type: message/rfc822\n\n" * depth + b"Subject: x\n\nx\n"


def looping_msg(sectors: int = 20_000) -> bytes:
    """An Outlook file whose sectors form a circle, in its table and in its directory."""
    chains = struct.pack("<I", 1) * 128
    head = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16) + struct.pack("<HHHHH", 0x3E, 3, 0xFFFE, 9, 6) + bytes(6)
    head += struct.pack("<IIIIIIIII", 0, 109, 1, 0, 4096, 1, 1, 1, 1) + struct.pack("<I", 0) * 109
    entry = "Root Entry".encode("utf-16-le").ljust(64, b"\0") + struct.pack("<HBB", 22, 5, 1)
    entry += struct.pack("<III", 1, 1, 1) + bytes(36) + struct.pack("<IQ", 1, 1 << 40)
    return head + chains + entry.ljust(512, b"\0") * sectors


def quoted_table(quotes: int = FULL) -> bytes:
    """A CSV file that is one cell of quotes, which never ends."""
    return b'text,title\n"' + b'a"b,' * (quotes // 4)


def records_in_json(depth: int = 4_000_000) -> bytes:
    """A JSON file whose list of documents begins with lists in lists."""
    return b'{"data":[{"text":"x","a":' + b"[" * depth


def digits_in_json(digits: int = 5_000_000) -> bytes:
    """A JSON file with a document whose number is parsed in quadratic time."""
    return b'{"data":[{"text":"x","a":' + b"9" * digits + b"}]}"


def bzip2_of_zeros(unpacked_bytes: int = 500_000_000) -> bytes:
    """A bzip2 file of one letter, over and over."""
    block = bz2.compress(b"a" * 20_000_000)
    return block * (unpacked_bytes // 20_000_000)


def xz_members(members: int = 200_000) -> bytes:
    """An xz file of very many empty members."""
    return lzma.compress(b"") * members


def xz_of_zeros(unpacked_bytes: int = 1_000_000_000) -> bytes:
    """An xz file of one letter, over and over."""
    return lzma.compress(b"a" * 50_000_000, preset=1) * (unpacked_bytes // 50_000_000)


def xz_of_a_huge_dictionary() -> bytes:
    """An .xz file that needs 1.5 GB for its dictionary, as its header says."""
    return lzma.compress(b"x" * 100, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1_500_000_000, "mf": lzma.MF_HC3}])


def gzip_members(members: int = 400_000) -> bytes:
    """A gzip file of very many empty members."""
    return gzip.compress(b"", mtime=0) * members


def pdf_of_forms(levels: int = 30, uses: int = 10) -> bytes:
    """A PDF whose page shows a form ten times, which shows another one ten times, and so on."""
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Count 1 /Kids [3 0 R] >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Resources << /XObject << /X 5 0 R >> >> /Contents 4 0 R >>",
        _stream(b"/X Do " * uses),
    ]
    for level in range(levels):
        inner = f"/Resources << /XObject << /X {min(level + 6, levels + 4)} 0 R >> >>"
        objects.append(_stream(b"/X Do " * uses, f"/Type /XObject /Subtype /Form /BBox [0 0 9 9] {inner}"))
    return _pdf(objects)


def pdf_of_a_circle(kids: int = 2000) -> bytes:
    """A PDF whose page tree leads back to itself, many times."""
    tree = b"<< /Type /Pages /Count 1000000000 /Parent 2 0 R /Kids [" + b"2 0 R " * kids + b"] >>"
    return _pdf([b"<< /Type /Catalog /Pages 2 0 R >>", tree])


def _stream(content: bytes, more: str = "") -> bytes:
    return f"<< {more} /Length {len(content)} >>\nstream\n".encode() + content + b"\nendstream"


def _pdf(objects: list[bytes]) -> bytes:
    out = b"%PDF-1.4\n"
    places = []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n" % number + body + b"\nendobj\n"
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    head = b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    return (
        out
        + head
        + table
        + b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n"
        % (
            len(objects) + 1,
            len(out),
        )
    )


def xml_of_entities() -> bytes:
    """An XML file whose entities stand for ten others each."""
    names = "abcdefghij"
    inner = "".join(f'<!ENTITY {new} "{f"&{old};" * 10}">' for old, new in pairwise(names))
    return f'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">{inner}]><x><p>&j;</p></x>'.encode()


def xml_of_references(references: int = 100_000, chars: int = 80_000) -> bytes:
    """An XML file that refers to one long entity over and over."""
    return f'<!DOCTYPE x [<!ENTITY a "{"a" * chars}">]><x>'.encode() + b"&a;" * references + b"</x>"


def xml_nested(depth: int = 1_000_000) -> bytes:
    """An XML file of elements in elements, which is not well-formed: a lenient parser reads it, too."""
    return b"<x>" + b"<a>" * depth + b"x & y" + b"</a>" * depth + b"</x>"


def xml_of_attributes(attributes: int = 600_000) -> bytes:
    """An XML file with one tag that has very many attributes."""
    return b"<x><p " + b" ".join(b'a%d="1"' % n for n in range(attributes)) + b">x</p></x>"


def feed_of_open_tags(tags: int = 500_000) -> bytes:
    """A feed with an item that opens tags, and marks of comments that never end."""
    return b'<rss version="2.0"><channel><item><title>x</title><description>' + b"<!-<" * tags


def archive_that_lies(records: int = 5000) -> bytes:
    """A web archive whose records say that they are longer than any file, or negative, or of thousands of digits."""
    lengths = [b"9" * 30, b"-5", b"9" * 4500, b"1", b"18446744073709551616"]
    head = b"WARC/1.1\r\nWARC-Type: response\r\nWARC-Target-URI: http://a/\r\nContent-Type: application/http\r\n"
    page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 99999999999\r\n\r\n<p>x</p>\r\n\r\n"
    return b"".join(head + b"Content-Length: " + lengths[n % 5] + b"\r\n\r\n" + page for n in range(records))


def archive_of_a_bomb(unpacked_bytes: int = 500_000_000) -> bytes:
    """A web archive with a page that is packed twice."""
    inner = gzip.compress(b"<p>a</p>" * 1_000_000, 1) * (unpacked_bytes // 8_000_000)
    page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: gzip, gzip\r\n\r\n" + gzip.compress(
        inner, 1
    )
    head = b"WARC/1.1\r\nWARC-Type: response\r\nWARC-Target-URI: http://a/\r\nContent-Type: application/http\r\n"
    return head + b"Content-Length: %d\r\n\r\n" % len(page) + page + b"\r\n\r\n"


def archive_of_headers(headers: int = 400_000) -> bytes:
    """A web archive with a record of very many headers, and a response of very many chunks."""
    head = b"WARC/1.1\r\nWARC-Type: response\r\nContent-Type: application/http\r\n" + b"X-A: a\r\n" * headers
    page = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/html\r\n\r\n" + b"1;a\r\nx\r\n" * headers
    )
    return head + b"Content-Length: %d\r\n\r\n" % len(page) + page + b"\r\n\r\n"


_SUBMISSION = b"<SEC-DOCUMENT>0000000000-26-000001.txt : 20260101\n<SEC-HEADER>\nFORM TYPE: 8-K\n"


def filing_of_tags(tags: int = 700_000) -> bytes:
    """A filing to EDGAR with millions of tags in its header, and an unclosed document full of them."""
    head = _SUBMISSION + b"<A>x\n" * tags + b"</SEC-HEADER>\n"
    return head + b"<DOCUMENT>\n<TYPE>8-K\n<SEQUENCE>1\n<TEXT>\n" + b"<TEXT>\n" * tags


def filing_of_documents(documents: int = 300) -> bytes:
    """A filing whose documents are pages of very many attributes, each within what a document may cost."""
    page = b"<html><body><p " + b" ".join(b"a%d=1" % n for n in range(2000)) + b">x</p></body></html>"
    document = b"<DOCUMENT>\n<TYPE>EX-1\n<FILENAME>a.htm\n<TEXT>\n" + page + b"\n</TEXT>\n</DOCUMENT>\n"
    return _SUBMISSION + b"</SEC-HEADER>\n" + document * documents


def filing_of_pictures(lines: int = 140_000) -> bytes:
    """A filing whose text begins uuencoded parts and ends none."""
    part = b"begin 644 a.jpg\n" + b"M" + b"#" * 60 + b"\n"
    return _SUBMISSION + b"</SEC-HEADER>\n<DOCUMENT>\n<TYPE>GRAPHIC\n<TEXT>\n" + part * (lines // 2) + b"x\n"
