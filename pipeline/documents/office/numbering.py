"""The numbers of paragraphs in lists, which a document does not contain as text: `4.2`, `(a)`, `•`.

Counters run through the document in reading order; lists of one definition share them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pipeline.documents.office.text_reader import integer_or
from pipeline.documents.office.xml_events import is_on

_LEVELS = 9
_MAX_BASES = 20
_ROMAN = (
    *((1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc")),
    *((50, "l"), (40, "xl"), (10, "x"), (9, "ix"), (5, "v"), (4, "iv"), (1, "i")),
)


@dataclass(frozen=True, slots=True)
class _Level:
    """A level of a list: the first number, its format, the text with `%1` for the number of the first level."""

    start: int = 1
    form: str = "decimal"
    text: str = ""
    style: str = ""
    legal: bool = False


@dataclass(slots=True)
class _List:
    """A list: its definition, and the levels that are its own."""

    definition: str = ""
    own_levels: dict[int, _Level] = field(default_factory=dict)
    starts: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Style:
    list: int = -1
    level: int | None = None
    base: str = ""


class Definitions:
    """Reader of the parts of numbering and of styles, and returns the label of each paragraph in turn."""

    def __init__(self) -> None:
        self._levels: dict[str, dict[int, _Level]] = {}
        self._links: dict[str, str] = {}
        self._lists: dict[int, _List] = {}
        self._styles: dict[str, _Style] = {}
        self._counts: dict[str, list[int]] = {}
        self._restarted: set[tuple[int, int]] = set()
        self._open: dict[int, _Level] = {}
        self._at = 0
        self._in = ""
        self._name = ""
        self._list = _List()
        self._style = _Style()

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        """Begin an element of one of the two parts."""
        value = attributes.get("w:val", "")
        if name == "w:abstractNum":
            self._in = name
            self._name = attributes.get("w:abstractNumId", "")
            self._open = self._levels.setdefault(self._name, {})
        elif name == "w:num":
            self._in = name
            self._list = self._lists.setdefault(integer_or(attributes.get("w:numId"), -1), _List())
            self._open = self._list.own_levels
        elif name == "w:style":
            self._in = name
            self._style = self._styles.setdefault(attributes.get("w:styleId", ""), _Style())
        elif self._in == "w:style":
            self._start_style(name, value)
        elif self._in:
            self._start_list(name, value, attributes)

    def _start_style(self, name: str, value: str) -> None:
        if name == "w:numId":
            self._style.list = integer_or(value, 0)
        elif name == "w:ilvl":
            self._style.level = integer_or(value, 0)
        elif name == "w:basedOn":
            self._style.base = value

    def _start_list(self, name: str, value: str, attributes: Mapping[str, str]) -> None:
        if name == "w:abstractNumId":
            self._list.definition = value
        elif name == "w:numStyleLink":
            self._links[self._name] = value
        elif name in ("w:lvl", "w:lvlOverride"):
            self._at = integer_or(attributes.get("w:ilvl"), 0)
            if name == "w:lvl":
                self._open[self._at] = _Level()
        elif name == "w:startOverride":
            self._list.starts[self._at] = integer_or(value, 1)
        elif self._at in self._open:
            level = self._open[self._at]
            changes = {
                "w:start": lambda: replace(level, start=integer_or(value, 1)),
                "w:numFmt": lambda: replace(level, form=value),
                "w:lvlText": lambda: replace(level, text=value),
                "w:pStyle": lambda: replace(level, style=value),
                "w:isLgl": lambda: replace(level, legal=is_on(attributes.get("w:val"))),
            }
            if name in changes:
                self._open[self._at] = changes[name]()

    def end(self, name: str) -> None:
        """End an element."""
        if name == self._in:
            self._in = ""

    def text(self, data: str) -> None:
        """Skip text: definitions have none."""

    def label(self, style: str, list_id: int, level: int | None) -> str:
        """Return the label of the next paragraph, by its style and its own list and level; empty without one."""
        if list_id < 0:
            list_id, level = self._of_style(style, level)
        definition = self._lists.get(list_id)
        if definition is None:
            return ""
        levels = self._levels_of(definition)
        if level is None:
            level = next((at for at, candidate in levels.items() if style and candidate.style == style), 0)
        own = levels.get(level)
        if own is None or not 0 <= level < _LEVELS:
            return ""
        counts = self._counted(definition, list_id, level, levels)
        if own.form == "bullet":
            return "•"
        label_text = own.text if own.form != "none" or "%" not in own.text else ""
        for at in range(_LEVELS):
            if f"%{at + 1}" in label_text:
                form = "decimal" if own.legal else levels.get(at, own).form
                label_text = label_text.replace(f"%{at + 1}", in_form(counts[at], form))
        return label_text.strip()

    def _of_style(self, style: str, level: int | None) -> tuple[int, int | None]:
        """Return list and level of a style, or of the first of those it is based on that has a list."""
        for _ in range(_MAX_BASES):
            style_numbering = self._styles.get(style)
            if style_numbering is None:
                break
            level = style_numbering.level if level is None else level
            if style_numbering.list >= 0:
                return style_numbering.list, level
            style = style_numbering.base
        return -1, level

    def _levels_of(self, numbering: _List) -> dict[int, _Level]:
        levels = self._levels.get(numbering.definition, {})
        link = self._links.get(numbering.definition)
        if not levels and link:
            linked = self._lists.get(self._styles.get(link, _Style()).list)
            levels = self._levels.get(linked.definition, {}) if linked else {}
        return {**levels, **numbering.own_levels}

    def _counted(self, numbering: _List, list_id: int, level: int, levels: Mapping[int, _Level]) -> list[int]:
        """Count the paragraph; return the current numbers of all levels."""
        firsts = [levels[at].start if at in levels else 1 for at in range(_LEVELS)]
        counts = self._counts.setdefault(numbering.definition, [first - 1 for first in firsts])
        if level in numbering.starts and (list_id, level) not in self._restarted:
            self._restarted.add((list_id, level))
            counts[level] = numbering.starts[level] - 1
        counts[level] += 1
        for at in range(level):  # a level that is skipped counts as begun
            counts[at] = max(counts[at], firsts[at])
        counts[level + 1 :] = [first - 1 for first in firsts[level + 1 :]]
        return counts


def in_form(number: int, form: str) -> str:
    """Return a number in a format of lists; in digits for a format that is not known."""
    if form in ("lowerLetter", "upperLetter") and number > 0:
        letters = chr(ord("a") + (number - 1) % 26) * min((number - 1) // 26 + 1, 100)
        return letters if form == "lowerLetter" else letters.upper()
    if form in ("lowerRoman", "upperRoman") and 0 < number < 4000:
        roman = ""
        for value, digits in _ROMAN:
            roman += digits * (number // value)
            number %= value
        return roman if form == "lowerRoman" else roman.upper()
    return f"{number:02}" if form == "decimalZero" else str(number)
