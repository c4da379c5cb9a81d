"""The text of an element: a line for each block, cells of a table separated by tabs, words within a line untouched.

It must not know a vocabulary: rules name the elements of one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.documents.html.visible import without_blank_lines
from pipeline.documents.xml.tree import Element

_SPACE = re.compile(r"\s+")
_CELLS = frozenset({"td", "th", "entry", "cell"})
_BLOCKS = frozenset({"br", "div", "li", "p", "para", "row", "title", "tr"})
"""Elements that are lines of their own in any vocabulary."""


@dataclass(frozen=True, slots=True)
class TextRules:
    """Rules for reading a vocabulary.

    `inline`: elements within a line; None: those in an element that holds text itself. `skipped`: elements that are
    not read. `verbatim`: elements whose line ends count; None: all. `special`: the texts of elements that are not read
    in order, by name.
    """

    inline: frozenset[str] | None = None
    skipped: frozenset[str] = frozenset()
    verbatim: frozenset[str] | None = None
    special: Callable[[Element], str | None] = lambda _: None


ANY = TextRules()
"""The rules for an unknown vocabulary."""


def text_of(element: Element | None, rules: TextRules = ANY) -> str:
    """Return the text of an element; empty for None."""
    if element is None:
        return ""
    pieces: list[str] = []
    own = rules.special(element)
    if own is None:
        _collect(element, rules, pieces, verbatim=rules.verbatim is None)
    return without_blank_lines("".join(pieces)) if own is None else own


def line_of(element: Element | None, rules: TextRules = ANY) -> str:
    """Return the text of an element on one line."""
    return " ".join(text_of(element, rules).split())


def _collect(element: Element, rules: TextRules, pieces: list[str], *, verbatim: bool) -> None:
    is_mixed = rules.inline is None and element.holds_text()
    for child in element.children:
        if isinstance(child, str):
            pieces.append(child.replace("\t", " ") if verbatim else _SPACE.sub(" ", child))
            continue
        if child.name in rules.skipped:
            continue
        is_inline = is_mixed and child.name not in _BLOCKS if rules.inline is None else child.name in rules.inline
        is_cell = child.name in _CELLS
        if is_cell or not is_inline:
            pieces.append("\t" if is_cell else "\n")
        own = rules.special(child)
        if own is None:
            below = verbatim or (rules.verbatim is not None and child.name in rules.verbatim)
            _collect(child, rules, pieces, verbatim=below)
        else:
            pieces.append(own)
        if not is_cell and not is_inline:
            pieces.append("\n")
