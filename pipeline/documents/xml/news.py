"""News in NITF and NewsML-G2: headline, byline, dateline and body in order; descriptive elements become metadata.

Vocabularies: NITF 3.6 and NewsML-G2 2.33 of the IPTC. It must not fetch pictures or other remote content.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from pipeline.documents.decode import Decoded, decoded_document
from pipeline.documents.html.visible import visible_text
from pipeline.documents.repeats import headed, without_repeats
from pipeline.documents.xml.feed import markup, shown
from pipeline.documents.xml.text import TextRules, line_of, text_of
from pipeline.documents.xml.tree import Element

_INLINE = frozenset({
    "a", "alt-code", "b", "bdo", "chron", "city", "classifier", "copyrite", "copyrite.holder",
    "copyrite.year", "country", "currency", "denom", "em", "event", "frac", "frac-sep", "function", "i",
    "location", "money", "num", "numer", "object.title", "org", "person", "postaddr", "q", "region", "state",
    "strong", "sub", "sublocation", "sup", "span", "u", "virtloc",
})  # fmt: skip
_RULES = TextRules(
    inline=_INLINE,
    skipped=frozenset({"media-metadata", "media-reference", "media-object", "nitf-table-metadata", "script", "style"}),
    verbatim=frozenset({"pre"}),
)
_COMPACT_DATE = re.compile(r"(\d{4})(\d\d)(\d\d)(?:T(\d\d)(\d\d)(\d\d)?([+-]\d{4}|Z)?)?")


def decode_nitf(root: Element, notes: tuple[str, ...]) -> Decoded:
    """Decode a NITF document to the text of its body."""
    metadata = _nitf_metadata(root)
    text = nitf_text(root)
    title = metadata.get("title", "")
    return decoded_document(text if root.first("hedline") else headed([title], text), metadata, notes=notes)


def nitf_text(root: Element) -> str:
    """Return the text of the body; a lead paragraph that the full text repeats is read once."""
    body = root.first("body") or root
    blocks = list(body.every("block"))
    leads = [block for block in blocks if block.attributes.get("class") == "lead_paragraph"]
    texts = [text_of(block, _RULES) for block in blocks if block not in leads]
    repeated = {
        id(lead) for lead in leads if without_repeats([text_of(lead, _RULES)], texts) == without_repeats([], texts)
    }
    rules = TextRules(
        _RULES.inline, _RULES.skipped, _RULES.verbatim, lambda block: "" if id(block) in repeated else None
    )
    return text_of(body, rules)


def _nitf_metadata(root: Element) -> dict[str, Any]:
    head = root.first("head") or Element("")
    title = line_of(root.first("hl1"), _RULES) or line_of(root.first("hedline"), _RULES) or line_of(head.first("title"))
    issued = head.first("date.issue") or Element("")
    published = head.first("pubdata") or Element("")
    metadata = {
        "title": title,
        "author": _without_by(line_of(root.first("byline"), _RULES)),
        "dateline": line_of(root.first("dateline"), _RULES),
        "published_at": rfc3339(issued.attributes.get("norm") or published.attributes.get("date.publication") or ""),
        "source": line_of(root.first("distributor"), _RULES)
        or published.attributes.get("name")
        or line_of(head.first("doc.copyright"))
        or (head.first("doc.copyright") or Element("")).attributes.get("holder"),
        "url": published.attributes.get("ex-ref"),
        "guid": (head.first("doc-id") or Element("")).attributes.get("id-string"),
        "tags": _keywords(head),
    }
    return {name: value for name, value in metadata.items() if value}


def _keywords(head: Element) -> list[str]:
    """Return the words of key lists and classifiers, each once."""
    keywords = (keyword.attributes.get("key", "") or line_of(keyword) for keyword in head.every("keyword"))
    classified = (
        classifier.attributes.get("value", "") or line_of(classifier)
        for classifier in head.every("classifier", "org", "person", "location")
    )
    subjects = (subject.attributes.get("tobject.subject.type", "") for subject in head.every("tobject.subject"))
    return list(dict.fromkeys(word.strip() for word in (*keywords, *classified, *subjects) if word.strip()))


def _without_by(byline: str) -> str:
    return re.sub(r"^by\s+", "", byline, flags=re.IGNORECASE)


def rfc3339(text: str) -> str:
    """Return a date in the compact form of ISO 8601 (`20261128T101500Z`) as RFC 3339; any other date unchanged."""
    match = _COMPACT_DATE.fullmatch(text.strip())
    if match is None:
        return text.strip()
    year, month, day, hour, minute, second, zone = match.groups()
    if hour is None:
        return f"{year}-{month}-{day}"
    zone = zone or ""
    zone = f"{zone[:3]}:{zone[3:]}" if len(zone) == 5 else zone
    return f"{year}-{month}-{day}T{hour}:{minute}:{second or '00'}{zone}"


# NewsML-G2


def decode_news_item(item: Element, notes: tuple[str, ...]) -> Decoded:
    """Decode a news item: headline, byline, dateline and descriptions above its content."""
    content = item.first("contentSet") or Element("")
    described = item.first("contentMeta") or Element("")
    bodies: list[str] = []
    skipped = sum(1 for _ in content.every("remoteContent"))
    for element in content.every("inlineXML", "inlineData"):
        if element.attributes.get("encoding"):
            skipped += 1
            continue
        bodies.append(_content(element))
    heads = [text_of(element, _RULES) for element in _top(described, "headline", "by", "dateline", "description")]
    notes += (f"attachments_skipped:{skipped}",) if skipped else ()
    lines = [line for line in without_repeats(heads, bodies).split("\n\n") if line]
    return decoded_document("\n\n".join(lines), _item_metadata(item, described), notes=notes)


def _top(described: Element, *names: str) -> Iterable[Element]:
    """Yield elements in the order of their names."""
    return (element for name in names for element in described.elements() if element.name == name)


def _content(element: Element) -> str:
    """Return the text of the item's own content: NITF, a page, plain text or any other XML."""
    nitf = element.first("nitf")
    if nitf is not None:
        return nitf_text(nitf)
    page = element.first("html")
    if page is not None:
        return visible_text(markup(page))
    return text_of(element) if any(element.elements()) else shown(element)


def _item_metadata(item: Element, described: Element) -> dict[str, Any]:
    meta = item.first("itemMeta") or Element("")
    subjects = [line_of(subject.first("name")) or line_of(subject) for subject in _top(described, "subject", "keyword")]
    language = (described.first("language") or Element("")).attributes.get("tag")
    metadata = {
        "title": line_of(described.first("headline")) or line_of(meta.first("title")),
        "author": _without_by(line_of(described.first("by"))) or ", ".join(_named(described, "creator")),
        "dateline": line_of(described.first("dateline")),
        "published_at": line_of(meta.first("firstCreated")) or line_of(meta.first("versionCreated")),
        "updated_at": line_of(meta.first("versionCreated")),
        "source": next(iter(_named(meta, "provider") or _named(described, "infoSource")), ""),
        "guid": item.attributes.get("guid"),
        "language": language,
        "tags": list(dict.fromkeys(subject for subject in subjects if subject)),
        "slug": line_of(described.first("slugline")),
        "urgency": line_of(described.first("urgency")),
    }
    return {name: value for name, value in metadata.items() if value}


def _named(element: Element, name: str) -> list[str]:
    """Return the name, the text, the literal or the code of each element of this name."""
    names = []
    for child in element.elements():
        if child.name == name:
            code = child.attributes.get("literal") or child.attributes.get("qcode", "").rpartition(":")[2]
            names.append(line_of(child.first("name")) or line_of(child) or code)
    return [value for value in names if value]
