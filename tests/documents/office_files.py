"""Office files built from the XML of their parts, for content that no library writes."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_SPACES = {
    "w": W,
    "r": OFFICE,
    "a": "http://schemas.openxmlformats.org/drawingml/2006/main",
    "p": "http://schemas.openxmlformats.org/presentationml/2006/main",
    "c": "http://schemas.openxmlformats.org/drawingml/2006/chart",
    "dgm": "http://schemas.openxmlformats.org/drawingml/2006/diagram",
    "m": "http://schemas.openxmlformats.org/officeDocument/2006/math",
    "mc": "http://schemas.openxmlformats.org/markup-compatibility/2006",
    "v": "urn:schemas-microsoft-com:vml",
    "wps": "http://schemas.microsoft.com/office/word/2010/wordprocessingShape",
    "x": "http://schemas.openxmlformats.org/spreadsheetml/2006/main",
    "xdr": "http://schemas.openxmlformats.org/drawingml/2006/spreadsheetDrawing",
    "pc": "http://schemas.microsoft.com/office/powerpoint/2018/8/main",
    "tc": "http://schemas.microsoft.com/office/spreadsheetml/2018/threadedcomments",
}
_DECLARED = " ".join(f'xmlns:{prefix}="{address}"' for prefix, address in _SPACES.items())


def part(element: str, content: str = "", attributes: str = "") -> str:
    """Return a part with this root element, in which all usual prefixes are declared."""
    return f'<?xml version="1.0" encoding="UTF-8"?><{element} {_DECLARED} {attributes}>{content}</{element}>'


def relations(targets: Mapping[str, tuple[str, str]]) -> str:
    """Return a relations part: id → (last word of the type, target)."""
    space = "http://schemas.openxmlformats.org/package/2006/relationships"
    elements = "".join(
        f'<Relationship Id="{id}" Type="{OFFICE}/{kind}" Target="{target}"/>' for id, (kind, target) in targets.items()
    )
    return f'<Relationships xmlns="{space}">{elements}</Relationships>'


def office(parts: Mapping[str, str | bytes], main: str) -> bytes:
    """Return an office file of these parts."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("_rels/.rels", relations({"rId1": ("officeDocument", main)}))
        for name, content in parts.items():
            archive.writestr(name, content)
    return out.getvalue()


def word(body: str, beside: Mapping[str, tuple[str, str]] | None = None, **more: str | bytes) -> bytes:
    """A document with this body; `beside`: a part's file name → (kind, content); `more`: parts without a relation."""
    beside = beside or {}
    parts: dict[str, str | bytes] = {"word/document.xml": part("w:document", f"<w:body>{body}</w:body>")}
    parts["word/_rels/document.xml.rels"] = relations(
        {name.partition(".")[0]: (kind, name) for name, (kind, _) in beside.items()}
    )
    parts |= {f"word/{name}": content for name, (_, content) in beside.items()}
    parts |= {name.replace("__", "/").replace("_dot_", "."): content for name, content in more.items()}
    return office(parts, "word/document.xml")


def p(*runs: str, properties: str = "") -> str:
    """Return a WordprocessingML paragraph; content that does not begin with `<` is the text of a run."""
    return f"<w:p>{properties and f'<w:pPr>{properties}</w:pPr>'}{''.join(map(run, runs))}</w:p>"


def run(text: str) -> str:
    """Return a run with this text, or with literal XML."""
    return text if text.startswith("<") else f'<w:r><w:t xml:space="preserve">{text}</w:t></w:r>'


def workbook(rows: str, *, styles: str = "", shared: str = "", sheet: str = "", name: str = "One") -> bytes:
    """A workbook of one sheet with these rows; `sheet`: what stands before the rows."""
    parts: dict[str, str | bytes] = {
        "xl/workbook.xml": part("x:workbook", f'<x:sheets><x:sheet name="{name}" sheetId="1" r:id="s"/></x:sheets>'),
        "xl/_rels/workbook.xml.rels": relations(
            {"s": ("worksheet", "s.xml"), "t": ("styles", "t.xml"), "u": ("sharedStrings", "u.xml")}
        ),
        "xl/s.xml": part("x:worksheet", f"{sheet}<x:sheetData>{rows}</x:sheetData>"),
        "xl/t.xml": part("x:styleSheet", styles),
        "xl/u.xml": part("x:sst", shared),
    }
    return office(parts, "xl/workbook.xml")
