"""A parser of XML that is not well-formed, such as many feeds; it keeps all text.

An invalid tag is text, an end tag closes the open elements within its element, and an `&` without a known entity is
kept. Linear in time. It must not read another file, or expand an entity that contains another one.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple, NoReturn

from pipeline.documents.tables.json_fields import raise_unreadable
from pipeline.documents.xml.tree import TreeBuilder

_NAME = r"[^\W\d][\w:.\-]*"
_TAG = re.compile(rf"<(/?)({_NAME})(?=[\s/>])((?:[^<>\"']|\"[^\"<]*\"|'[^'<]*')*)>")
_LOOSE_TAG = re.compile(rf"<(/?)({_NAME})(?=[\s/>])([^<>]*)>")
_ATTRIBUTE = re.compile(rf"(?<![\w:.\-])({_NAME})\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'>]+))")
_REFERENCE = re.compile(r"&(#?\w{1,40});")
_INVALID = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")
_ENTITY = re.compile(rf"<!ENTITY\s+({_NAME})\s+(?:\"((?:[^\"&<%]|&#)*)\"|'((?:[^'&<%]|&#)*)')\s*>")
_EXTERNAL_ENTITY = re.compile(rf"<!ENTITY\s+({_NAME})\s+(?:SYSTEM|PUBLIC)\s(?![^<>]*\sNDATA\s)")

_CLOSINGS = {"<!--": "-->", "<![CDATA[": "]]>", "<?": "?>"}
_VOID = frozenset({"area", "br", "col", "embed", "hr", "img", "input", "wbr"})
"""Elements of HTML that have no end tag."""


class Token(NamedTuple):
    """A part of a document: a text, or a tag (`name` is not empty); `rest`: the source of the attributes."""

    text: str
    name: str = ""
    closes: bool = False
    rest: str = ""


def tokens(text: str) -> Iterator[Token]:
    """Yield the texts and tags of a document; those of a comment, an instruction or a DOCTYPE are skipped."""
    at = 0
    ends = dict.fromkeys(_CLOSINGS, 0)
    doctype = text.find("<!DOCTYPE")
    while (start := text.find("<", at)) >= 0:
        if start > at:
            yield Token(text[at:start])
        opening = next((closing for closing in _CLOSINGS if text.startswith(closing, start)), None)
        if opening is not None and ends[opening] >= 0:
            end = ends[opening] = text.find(_CLOSINGS[opening], start + len(opening))
            if end >= 0:
                if opening == "<![CDATA[":
                    yield Token(text[start + len(opening) : end], rest=opening)
                at = end + len(_CLOSINGS[opening])
                continue
        if start == doctype and (end := doctype_end(text, start)) >= 0:
            at = end
            continue
        match = _TAG.match(text, start) or _LOOSE_TAG.match(text, start)
        if match is None:
            yield Token("<")
            at = start + 1
        else:
            yield Token("", match[2], bool(match[1]), match[3])
            at = match.end()
    yield Token(text[at:])


def doctype_end(text: str, start: int) -> int:
    """Return the end of the document type declaration that begins at `start`; -1 when it has no end."""
    end = text.find(">", start)
    subset = text.find("[", start, end if end >= 0 else len(text))
    if subset < 0:
        return end + 1 if end >= 0 else -1
    close = re.compile(r"\]\s*>").search(text, subset)
    return close.end() if close else -1


def entities_of(text: str) -> dict[str, str | None]:
    """Return the entities that a document declares as plain text, and those that are in another file as None."""
    start = text.find("<!DOCTYPE")
    end = doctype_end(text, start) if start >= 0 else -1
    if end < 0:
        return {}
    declared = text[start:end]
    external = dict.fromkeys(match[1] for match in _EXTERNAL_ENTITY.finditer(declared))
    plain = {match[1]: html.unescape(match[2] or match[3] or "") for match in _ENTITY.finditer(declared)}
    return {**external, **plain}


def resolved(text: str, entities: Mapping[str, str | None]) -> str:
    """Return a text with its entities and character references replaced; unknown ones are kept.

    DocumentError for one that is in another file.
    """
    if "&" not in text:
        return text
    return _REFERENCE.sub(lambda match: _replacement(match, entities), text)


def _replacement(match: re.Match[str], entities: Mapping[str, str | None]) -> str:
    value = entities.get(match[1], "")
    if value is None:
        refuse_external()
    return value or html.unescape(match[0])


def refuse_external() -> NoReturn:
    """Raise the problem of a document that needs another file."""
    raise_unreadable("it refers to an external entity, which is not read")


def parse_lenient(text: str, builder: TreeBuilder) -> None:
    """Parse a document that is not well-formed; the builder's root stays open when it ends too early."""
    text = _INVALID.sub("", text)
    entities = entities_of(text)
    begun = False
    for token in tokens(text):
        if not token.name:
            if builder.is_open:
                builder.data(token.text if token.rest else resolved(token.text, entities))
        elif token.closes:
            builder.end(token.name)
        elif builder.is_open or not begun:
            begun = True
            matches = _ATTRIBUTE.finditer(token.rest)
            attributes = {match[1]: resolved(match[2] or match[3] or match[4] or "", entities) for match in matches}
            builder.start(token.name, attributes)
            if token.rest.endswith("/") or token.name.lower() in _VOID:
                builder.end(token.name)
