"""Small documents of every format, written by hand, for tests of decoders."""

from __future__ import annotations

from collections.abc import Sequence

PROFIT = "Acme said on Monday that its profit rose to 12 million euros, more than analysts had expected."
OUTLOOK = "The outlook for the year was confirmed, and the board proposed a dividend of two euros a share."


def pdf(pages: Sequence[str], *, title: str = "") -> bytes:
    """Return a PDF with one of these lines of text per page."""
    kids = " ".join(f"{4 + 2 * at} 0 R" for at in range(len(pages)))
    objects = [
        "<</Type/Catalog/Pages 2 0 R>>",
        f"<</Type/Pages/Kids[{kids}]/Count {len(pages)}>>",
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    for at, text in enumerate(pages):
        content = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET" if text else ""
        where = "/MediaBox[0 0 612 792]/Resources<</Font<</F1 3 0 R>>>>"
        objects.append(f"<</Type/Page/Parent 2 0 R{where}/Contents {5 + 2 * at} 0 R>>")
        objects.append(f"<</Length {len(content)}>>stream\n{content}\nendstream")
    objects.append(f"<</Title({title})/Author()/CreationDate(D:20240506070809Z)>>")
    return _assembled(objects)


def _assembled(objects: Sequence[str]) -> bytes:
    """Return the PDF file of these objects, numbered from 1; the last one describes the document."""
    data, places = b"%PDF-1.4\n", []
    for number, item in enumerate(objects, 1):
        places.append(len(data))
        data += f"{number} 0 obj{item}endobj\n".encode("latin-1")
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    size = len(objects) + 1
    trailer = f"trailer<</Size {size}/Root 1 0 R/Info {size - 1} 0 R>>\nstartxref\n{len(data)}\n%%EOF\n"
    return data + f"xref\n0 {size}\n0000000000 65535 f \n{table}{trailer}".encode("latin-1")


def page(title: str, *paragraphs: str) -> str:
    """Return a newspaper's web page, with a menu and a footer around the article."""
    body = "".join(f"<p>{text}</p>" for text in paragraphs)
    return (
        f'<html><head><title>{title} | The Daily</title><meta property="og:site_name" content="The Daily">'
        '<meta property="article:published_time" content="2024-05-06T07:08:09Z"></head><body>'
        f"<nav><a href=/>Home</a> <a href=/m>Markets</a></nav><article><h1>{title}</h1>{body}</article>"
        "<footer>Imprint and cookies</footer></body></html>"
    )


def mail(*parts: tuple[str, str], headers: str = "") -> bytes:
    """Return a message of parts, each with a type (and further header text) and a content."""
    inner = "".join(f"--b\r\nContent-Type: {kind}\r\n\r\n{text}\r\n" for kind, text in parts)
    first = headers or "Subject: =?utf-8?q?Z=C3=BCrich?= news\r\nFrom: A B <a@example.org>\r\n"
    more = "Date: Mon, 06 May 2024 07:08:09 +0200\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b"
    return f"{first}{more}\r\n\r\n{inner}--b--\r\n".encode()
