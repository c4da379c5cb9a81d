"""The elements of an XML part as a stream of events, with short names: `w:p` instead of a namespace's address.

It must not expand entities: a valid office file declares none, and a file that declares one is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, BinaryIO, NoReturn, Protocol
from xml.parsers import expat

from pipeline.errors import DocumentError

_CHUNK_BYTES = 1 << 16
_SCHEMAS = "http://schemas.openxmlformats.org/"
_STRICT = "http://purl.oclc.org/ooxml/"
_MICROSOFT = "http://schemas.microsoft.com/office/"

_NAMESPACES: Mapping[str, str] = {
    _SCHEMAS + "wordprocessingml/2006/main": "w",
    _STRICT + "wordprocessingml/main": "w",
    _SCHEMAS + "presentationml/2006/main": "p",
    _STRICT + "presentationml/main": "p",
    _SCHEMAS + "spreadsheetml/2006/main": "x",
    _STRICT + "spreadsheetml/main": "x",
    _SCHEMAS + "drawingml/2006/main": "a",
    _STRICT + "drawingml/main": "a",
    _SCHEMAS + "drawingml/2006/chart": "c",
    _STRICT + "drawingml/chart": "c",
    _SCHEMAS + "drawingml/2006/diagram": "dgm",
    _STRICT + "drawingml/diagram": "dgm",
    _SCHEMAS + "officeDocument/2006/math": "m",
    _STRICT + "officeDocument/math": "m",
    _SCHEMAS + "officeDocument/2006/relationships": "r",
    _STRICT + "officeDocument/relationships": "r",
    _SCHEMAS + "package/2006/relationships": "rel",
    _SCHEMAS + "package/2006/metadata/core-properties": "cp",
    _SCHEMAS + "markup-compatibility/2006": "mc",
    "http://purl.org/dc/elements/1.1/": "dc",
    "http://purl.org/dc/terms/": "dcterms",
    "urn:schemas-microsoft-com:vml": "v",
    _MICROSOFT + "spreadsheetml/2018/threadedcomments": "tc",
    _MICROSOFT + "powerpoint/2018/8/main": "pc",
    _MICROSOFT + "drawing/2014/chartex": "cx",
    _MICROSOFT + "excel/2006/main": "xm",
}


class Reader(Protocol):
    """Receiver of the events of a part."""

    def start(self, name: str, attributes: Mapping[str, str]) -> None: ...
    def end(self, name: str) -> None: ...
    def text(self, data: str) -> None: ...


class _ShortNames(dict[str, str]):
    """The short names of elements and attributes, found once each; other namespaces have the prefix `?`."""

    def __missing__(self, full: str) -> str:
        address, space, local = full.rpartition(" ")
        short = f"{_NAMESPACES.get(address, '?')}:{local}" if space else local
        if len(self) < 10_000:
            self[full] = short
        return short


def read_events(stream: BinaryIO, reader: Reader) -> None:
    """Send each element of the stream to the reader; DocumentError when it is no XML, or declares entities."""
    names = _ShortNames()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True

    def start(name: str, attributes: dict[str, str]) -> None:
        reader.start(names[name], {names[key]: value for key, value in attributes.items()} if attributes else {})

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda name: reader.end(names[name])
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = _refuse_entities
    try:
        while chunk := stream.read(_CHUNK_BYTES):
            parser.Parse(chunk, False)
        parser.Parse(b"", True)
    except expat.ExpatError as cause:
        if cause.code == expat.errors.codes[expat.errors.XML_ERROR_NO_MEMORY]:
            raise MemoryError from cause
        problem = f"the office file is broken: a part is not XML ({expat.errors.messages[cause.code]})"
        raise DocumentError("document_unreadable", problem) from cause


def _refuse_entities(*_: Any) -> NoReturn:
    raise DocumentError("document_unreadable", "the office file declares a document type, which none may")


def is_on(value: str | None) -> bool:
    """Return True for a switch that is on; a switch without a value is on."""
    return value is None or value.lower() in ("1", "true", "on")
