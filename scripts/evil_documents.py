"""Small documents that cost much CPU or memory to read, generated when needed; used by attacks.py and tests."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
import zlib


def overlapping_zip(members: int = 2000, unpacked_bytes: int = 10_000_000) -> bytes:
    """A zip whose members all share one compressed stream of a few kilobytes."""
    data = b"a" * unpacked_bytes
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(data) + packer.flush()
    crc = zlib.crc32(data)
    sizes = (crc, len(packed), len(data))
    body = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 8, 0, 0x21, *sizes, 6, 0) + b"00.txt" + packed
    directory = b"".join(
        struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", 20, 3, 20, 0, 0, 8, 0, 0x21, *sizes, len(name), 0, 0, 0, 0, 0, 0)
        + name
        for name in (b"%d.txt" % number for number in range(members))
    )
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, members & 0xFFFF, members & 0xFFFF, len(directory), len(body), 0)
    return body + directory + end


def long_names_zip(members: int = 20, name_chars: int = 30_000) -> bytes:
    """A zip with member names for which a backtracking glob with several stars takes exponential time."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number in range(members):
            archive.writestr("a" * name_chars + f"{number}.txt", b"x")
    return out.getvalue()


def wide_table(columns: int, rows: int = 20, name_chars: int = 6) -> bytes:
    """A CSV file with very many columns, and rows that fill hardly any of them."""
    names = ",".join(f"c{number:0{name_chars}}" for number in range(columns - 1))
    return f"text,{names}\n".encode() + b"".join(b"row %d,1\n" % number for number in range(rows))


def gzip_of_zeros(unpacked_bytes: int) -> bytes:
    """A gzip file of NUL bytes, which is a thousandth of its content."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", mtime=0) as file:
        for _ in range(unpacked_bytes >> 20):
            file.write(bytes(1 << 20))
    return out.getvalue()


def tar_of_empty_members(members: int) -> bytes:
    """A tar.gz of members that consist of their headers only."""
    info = tarfile.TarInfo("0.txt")
    header = info.tobuf(tarfile.USTAR_FORMAT)
    return gzip.compress(header * members + bytes(1024), 9, mtime=0)


def attributes_page(attributes: int = 100_000) -> bytes:
    """A page with one tag that has very many attributes."""
    return b"<html><body><p " + b" ".join(b"a%d=1" % n for n in range(attributes)) + b">x</p></body></html>"


def nested_page(depth: int = 300_000) -> bytes:
    """A page whose elements are nested very deeply."""
    return b"<html><body>" + b"<div>" * depth + b"x" + b"</div>" * depth + b"</body></html>"


def large_page(paragraphs: int = 600_000) -> bytes:
    """A page of ordinary elements, as large as a document may be."""
    return b"<html><body>" + b"<p>a b c d</p>" * paragraphs + b"</body></html>"


def parameters_mail(chars: int = 800_000) -> bytes:
    """A message whose content type has a parameter that is parsed in quadratic time."""
    return b'Content-Type: text/plain; a="' + b";" * chars + b'"\n\nx\n'


def nested_mail(depth: int = 300, empty_lines: int = 200_000) -> bytes:
    """A message of multiparts in multiparts, followed by empty lines that each of them reads."""
    parts = b"".join(b'Content-Type: multipart/mixed; boundary="b%d"\n\n--b%d\n' % (n, n) for n in range(depth))
    return b"Subject: x\n" + parts + b"\n" * empty_lines


def encoded_words_mail(words: int = 200_000) -> bytes:
    """A message whose subject consists of very many encoded words."""
    return b"Subject: " + b"\n ".join([b"=?utf-8?q?a=20b?="] * words) + b"\n\nx\n"


def shared_pdf(pages: int = 3000, stream_bytes: int = 3_000_000) -> bytes:
    """A PDF whose pages all show one large stream."""
    content = zlib.compress(b"BT /F 9 Tf (a) Tj ET\n" * (stream_bytes // 21))
    kids = " ".join(f"{number} 0 R" for number in range(4, 4 + pages))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Count {pages} /Kids [{kids}] >>".encode(),
        b"<< /Filter /FlateDecode /Length %d >>\nstream\n" % len(content) + content + b"\nendstream",
        *[b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Resources << >> /Contents 3 0 R >>"] * pages,
    ]
    out = b"%PDF-1.4\n"
    places = []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n" % number + body + b"\nendobj\n"
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    head = b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    tail = b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, len(out))
    return out + head + table + tail


def exploding_pdf(unpacked_bytes: int = 400_000_000) -> bytes:
    """A PDF with a page whose stream unpacks to hundreds of megabytes."""
    return shared_pdf(1, unpacked_bytes)
