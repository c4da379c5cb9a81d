"""Small office and Parquet files that cost much CPU or memory: bombs, entities, repeated strings, absurd numbers."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Mapping
from itertools import chain, pairwise, repeat

_DOCX = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_XLSX = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_PPTX = "http://schemas.openxmlformats.org/presentationml/2006/main"
_DRAWING = "http://schemas.openxmlformats.org/drawingml/2006/main"
_RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"


def _office(main: str, parts: Mapping[str, Iterable[bytes]]) -> bytes:
    """An office file of these parts, each in pieces."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, pieces in {"_rels/.rels": [_relations([("officeDocument", main)])], **parts}.items():
            with archive.open(name, "w") as file:
                for piece in pieces:
                    file.write(piece)
    return out.getvalue()


def _relations(targets: list[tuple[str, str]]) -> bytes:
    paragraph = "".join(
        f'<Relationship Id="rId{number}" Type="{_RELATIONS}/{kind}" Target="{target}"/>'
        for number, (kind, target) in enumerate(targets, 1)
    )
    return f'<Relationships xmlns="{_PACKAGE}">{paragraph}</Relationships>'.encode()


def _word(body: Iterable[bytes], prologue: bytes = b"") -> bytes:
    root = prologue + f'<w:document xmlns:w="{_DOCX}"><w:body>'.encode()
    return _office("word/document.xml", {"word/document.xml": chain([root], body, [b"</w:body></w:document>"])})


_PARAGRAPH = b"<w:p><w:r><w:t>a</w:t></w:r></w:p>"


def word_bomb(unpacked_bytes: int = 800_000_000) -> bytes:
    """A Word file with one text of hundreds of megabytes."""
    text = repeat(b"a" * 1_000_000, unpacked_bytes // 1_000_000)
    return _word(chain([b"<w:p><w:r><w:t>"], text, [b"</w:t></w:r></w:p>"]))


def word_of_paragraphs(paragraphs: int = 2_000_000) -> bytes:
    """A Word file of very many tiny paragraphs."""
    return _word(repeat(_PARAGRAPH * 1000, paragraphs // 1000))


def word_of_entities() -> bytes:
    """A Word file whose XML declares entities that stand for ten others each."""
    names = "abcdefghij"
    inner = "".join(f'<!ENTITY {new} "{f"&{old};" * 10}">' for old, new in pairwise(names))
    doctype = f'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">{inner}]>'.encode()
    return _word([b"<w:p><w:r><w:t>&j;</w:t></w:r></w:p>"], doctype)


def word_nested(depth: int = 300_000) -> bytes:
    """A Word file of tables in cells of tables."""
    return _word([b"<w:tbl><w:tr><w:tc>" * depth, _PARAGRAPH, b"</w:tc></w:tr></w:tbl>" * depth])


def _workbook(sheet: bytes, strings: bytes = b"") -> bytes:
    book = f'<workbook xmlns="{_XLSX}" xmlns:r="{_RELATIONS}"><sheets><sheet name="A" r:id="rId1"/></sheets></workbook>'
    parts = {
        "xl/workbook.xml": [book.encode()],
        "xl/_rels/workbook.xml.rels": [_relations([("worksheet", "s.xml"), ("sharedStrings", "t.xml")])],
        "xl/s.xml": [f'<worksheet xmlns="{_XLSX}"><sheetData>'.encode(), sheet, b"</sheetData></worksheet>"],
        "xl/t.xml": [f'<sst xmlns="{_XLSX}">'.encode(), strings, b"</sst>"],
    }
    return _office("xl/workbook.xml", parts)


def workbook_of_strings(strings: int = 3_000_000) -> bytes:
    """A workbook with a huge table of shared strings, of which one cell uses the last."""
    cell = b'<row r="1"><c r="A1" t="s"><v>%d</v></c></row>' % (strings - 1)
    return _workbook(cell, b"<si><t>abc</t></si>" * strings)


def workbook_of_one_string(cells: int = 50_000, chars: int = 30_000) -> bytes:
    """A workbook whose cells all show one long string."""
    rows = b"".join(b'<row r="%d"><c r="A%d" t="s"><v>0</v></c></row>' % (n, n) for n in range(1, cells + 1))
    return _workbook(rows, b"<si><t>" + b"a" * chars + b"</t></si>")


def workbook_of_empty_rows(rows: int = 1_000_000) -> bytes:
    """A workbook of a million rows that hold nothing, and of one cell in the last column of the last row."""
    last = b'<row r="1048576"><c r="XFD1048576"><v>1</v></c></row>'
    return _workbook(b"".join(b'<row r="%d"/>' % n for n in range(1, rows + 1)) + last)


def workbook_of_columns(columns: int = 16_384, rows: int = 60) -> bytes:
    """A workbook whose rows have a cell in the first and in the last column, and all styles between."""
    row = b'<row r="%d">' + b"<c/>" * columns + b"<c><v>1</v></c></row>"
    return _workbook(b"".join(row % n for n in range(1, rows + 1)))


def slides_of_one_part(slides: int = 20_000) -> bytes:
    """A presentation that shows one slide over and over."""
    ids = "".join(f'<p:sldId id="{256 + n}" r:id="rId1"/>' for n in range(slides))
    spaces = f'xmlns:p="{_PPTX}" xmlns:r="{_RELATIONS}" xmlns:a="{_DRAWING}"'
    text = "<a:p><a:r><a:t>a</a:t></a:r></a:p>" * 20_000
    slide = f"<p:sld {spaces}><p:cSld><p:spTree><p:sp><p:txBody>{text}</p:txBody></p:sp></p:spTree></p:cSld></p:sld>"
    show = f"<p:presentation {spaces}><p:sldIdLst>{ids}</p:sldIdLst></p:presentation>"
    parts = {
        "ppt/presentation.xml": [show.encode()],
        "ppt/_rels/presentation.xml.rels": [_relations([("slide", "s.xml")])],
        "ppt/s.xml": [slide.encode()],
    }
    return _office("ppt/presentation.xml", parts)


def parquet_of_a_dictionary(rows: int = 100_000, chars: int = 5_000_000) -> bytes:
    """A Parquet file whose rows all hold one long text, which is stored once."""
    import pyarrow

    text = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * rows, pyarrow.int32()), pyarrow.array(["a" * chars]))
    return _parquet(pyarrow.table({"text": text}))


def parquet_of_equal_rows(rows: int = 20_000_000) -> bytes:
    """A Parquet file of some kilobytes that holds millions of rows."""
    import pyarrow

    indices = pyarrow.array(memoryview(bytes(rows)).cast("b"), pyarrow.int8())
    return _parquet(pyarrow.table({"text": pyarrow.DictionaryArray.from_arrays(indices, pyarrow.array(["a"]))}))


def parquet_of_a_page(unpacked_bytes: int = 60_000_000) -> bytes:
    """A Parquet file with one text that is much longer than a document may be."""
    import pyarrow

    return _parquet(pyarrow.table({"text": pyarrow.array(["a" * unpacked_bytes], pyarrow.large_string())}))


def parquet_that_lies() -> bytes:
    """A Parquet file whose numbers of rows and sizes are absurd."""
    import pyarrow

    data = bytearray(_parquet(pyarrow.table({"text": ["a" * 50] * 100, "title": ["b"] * 100})))
    footer = int.from_bytes(data[-8:-4], "little")
    for at in range(len(data) - 8 - footer, len(data) - 9):
        if data[at] in (0xC8, 0xC9):  # 100 as a varint in zigzag, and its neighbours: rows and values
            data[at : at + 2] = b"\xff\x7f"
    return bytes(data)


def _parquet(table: object) -> bytes:
    import pyarrow.parquet

    out = io.BytesIO()
    pyarrow.parquet.write_table(table, out, compression="zstd", store_schema=False)
    return out.getvalue()
