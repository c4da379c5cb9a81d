"""An article of a journal in JATS: title, abstract, sections, tables, captions, notes and appendices in order.

References are counted, not read. A formula is its TeX source if it has one, else the characters of its MathML. Authors,
journal, dates and keywords are metadata; the rest of the front matter (affiliations, permissions, history) is left out.
Vocabulary: JATS 1.3 (ANSI/NISO Z39.96), and the NLM DTDs before it.
"""

from __future__ import annotations

import re
from typing import Any

from pipeline.documents.decode import Decoded, decoded_document
from pipeline.documents.xml.text import TextRules, line_of, text_of
from pipeline.documents.xml.tree import Element

_INLINE = frozenset({
    "abbrev", "abbrev-journal-title", "bold", "chem-struct", "ext-link", "fixed-case", "fn-id", "given-names",
    "inline-formula", "inline-graphic", "inline-supplementary-material", "institution", "italic", "label",
    "mml:math", "monospace", "named-content", "overline", "private-char", "roman", "sans-serif", "sc",
    "strike", "styled-content", "sub", "sup", "surname", "tex-math", "underline", "uri", "xref", "math",
    "email", "year", "month", "day", "country",
})  # fmt: skip
_LEFT_OUT = frozenset(
    {"ref-list", "object-id", "graphic", "media", "processing-meta", "permissions", "copyright-statement"}
)
_MATHS = ("mml:math", "math")
_TEX_BEGINS = r"\begin{document}"
_TEX_ENDS = r"\end{document}"
_PREAMBLE = re.compile(r"\\(?:documentclass|usepackage|setlength|oddsidemargin)[^\n]*")
_DATES = ("epub", "ppub", "collection", "pub", "epub-ppub", "")
_MONTHS = {
    name: at
    for at, name in enumerate(["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"], 1)
}


def decode_article(root: Element, notes: tuple[str, ...]) -> Decoded:
    """Decode an article; an `article` of another vocabulary is read as any XML."""
    front = root.first("front") or root.first("front-stub")
    meta = front.first("article-meta") if front is not None else None
    if front is None:
        title = line_of(root.first("title"))
        return decoded_document(text_of(root), {"title": title} if title else {}, notes=notes)
    meta = meta or front
    parts = _front_texts(meta)
    for element in root.elements():
        if element is not front:
            parts.append(
                _sub_article(element) if element.name in ("sub-article", "response") else text_of(element, _RULES)
            )
    references = sum(1 for _ in root.every("ref"))
    notes += (f"references_skipped:{references}",) if references else ()
    return decoded_document("\n\n".join(part for part in parts if part), _metadata(front, meta), notes=notes)


def _front_texts(meta: Element) -> list[str]:
    """Return the title and the abstracts."""
    titles = meta.first("title-group")
    title = text_of(titles, _RULES) if titles is not None else line_of(meta.first("article-title"), _RULES)
    abstracts = [text_of(abstract, _RULES) for abstract in meta.every("abstract", "trans-abstract")]
    return [title, *abstracts]


def _sub_article(element: Element) -> str:
    """Return the text of an article within the article, such as a review, below its title."""
    stub = element.first("front-stub") or element.first("front")
    heads = _front_texts(stub) if stub is not None else []
    bodies = [text_of(body, _RULES) for body in element.elements() if body is not stub]
    return "\n\n".join(part for part in (*heads, *bodies) if part)


def _formula(element: Element) -> str | None:
    """Return the text of a formula, or of a choice of forms; None for an element that is read in order."""
    if element.name in _MATHS:
        return " ".join("".join(element.texts()).split())
    if element.name == "tex-math":
        return _tex(element)
    if element.name not in ("alternatives", "disp-formula", "inline-formula"):
        return None
    forms = list(element.elements())
    preferred = next((form for form in forms if form.name == "tex-math"), None)
    if element.name == "alternatives":
        preferred = preferred or next((form for form in forms if form.name in _MATHS), None)
        return text_of(preferred or next((form for form in forms if text_of(form, _RULES)), None), _RULES)
    if preferred is None:
        return None
    plain_children = [child for child in element.children if isinstance(child, str) or child.name not in _MATHS]
    return text_of(Element("", children=plain_children), _RULES)


def _tex(element: Element) -> str:
    """Return TeX source without the preamble that some publishers put around each formula."""
    source = "".join(child for child in element.children if isinstance(child, str))
    _, begins, source_tail = source.partition(_TEX_BEGINS)
    formula = source_tail.partition(_TEX_ENDS)[0] if begins else source
    return " ".join(_PREAMBLE.sub("", formula).split())


_RULES = TextRules(inline=_INLINE, skipped=_LEFT_OUT, verbatim=frozenset({"preformat", "code"}), special=_formula)


def _metadata(front: Element, meta: Element) -> dict[str, Any]:
    journal = front.first("journal-meta") or Element("")
    ids = {article_id.attributes.get("pub-id-type", ""): line_of(article_id) for article_id in meta.every("article-id")}
    source = line_of(journal.first("journal-title")) or line_of(journal.first("journal-id"))
    metadata = {
        "title": line_of(meta.first("article-title"), _RULES),
        "author": ", ".join(_authors(meta)),
        "source": source,
        "published_at": _published(meta),
        "doi": ids.get("doi"),
        "pmid": ids.get("pmid"),
        "pmcid": ids.get("pmc") or ids.get("pmcid"),
        "tags": list(dict.fromkeys(word for keyword in meta.every("kwd") if (word := line_of(keyword, _RULES)))),
    }
    return {name: value for name, value in metadata.items() if value}


def _authors(meta: Element) -> list[str]:
    authors = []
    for group in meta.every("contrib-group"):
        for contributor in group.every("contrib"):
            if contributor.attributes.get("contrib-type", "author") == "author":
                name = contributor.first("name") or Element("")
                parts = [line_of(name.first(part)) for part in ("given-names", "surname", "suffix")]
                full_name = " ".join(part for part in parts if part)
                authors.append(
                    full_name or line_of(contributor.first("collab")) or line_of(contributor.first("string-name"))
                )
    return list(dict.fromkeys(name for name in authors if name))


def _published(meta: Element) -> str:
    """Return the date of publication as YYYY-MM-DD, or as much of it as is known."""
    dates = {
        date.attributes.get("pub-type") or date.attributes.get("date-type", ""): date for date in meta.every("pub-date")
    }
    chosen = next((dates[kind] for kind in _DATES if kind in dates), next(iter(dates.values()), None))
    if chosen is None:
        return ""
    parts = [line_of(chosen.first(name)) for name in ("year", "month", "day")]
    month = _MONTHS.get(parts[1][:3].lower()) or (int(parts[1]) if parts[1].isdecimal() else 0)
    if not month:
        return parts[0]
    return f"{parts[0]}-{month:02}" + (f"-{int(parts[2]):02}" if parts[2].isdecimal() else "")
