"""The visible text of a web page: a line for each block, cells of a table separated by tabs.

It reads tags without building a tree, in linear time, even if tags are never closed. It must not follow links.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

_TAG = re.compile(r"(<!--|-->|<[A-Za-z/!?][^<>]*>)")
_NAME = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9:-]*)")
_UNSEEN = frozenset(
    {"script", "style", "template", "noscript", "svg", "head", "title", "iframe", "object", "ix:header"}
)
_AROUND = frozenset({"nav", "aside", "footer"})
_HIDEABLE = frozenset(
    {"div", "span", "section", "article", "table", "ul", "ol", "dl", "form", "figure", "a", "button", "label"}
)
"""Elements whose end tag is mandatory: a hidden one ends where it says."""
_HIDDEN = re.compile(
    r"""style\s*=\s*["'][^"']*display\s*:\s*none|\shidden(?=[\s>/]|=["']?(?:hidden)?["']?[\s>/])""", re.I
)
_INLINE = re.compile("a|abbr|b|bd[io]|cite|code|em|font|i|kbd|mark|q|s|samp|small|span|strong|su[bp]|u|var|wbr|.*:.*")
_CELL = frozenset({"td", "th"})
_ATTRIBUTE = re.compile(r"""\s(type|value)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""", re.I)
_TYPED = frozenset(
    {"text", "email", "tel", "url", "number", "date", "search", "month", "time", "week", "datetime-local"}
)

_SPACE = re.compile(r"[^\S\n\t]+")
_CELLS = re.compile(r" ?\t[ \t]*")  # after _SPACE: a run of other white space is one space
_LINES = re.compile(r"[ \t]?\n\s*")  # after _CELLS: at most one of them comes before a line end


def visible_text(page: str) -> str:
    """Return the visible text of a page."""
    return _tidy("".join(piece for piece, _ in _pieces(page)))


def visible_texts(page: str) -> tuple[str, str]:
    """Return the visible text of a page, and its part outside of menus, sidebars and footers."""
    pieces = list(_pieces(page))
    return _tidy("".join(piece for piece, _ in pieces)), _tidy("".join(piece for piece, around in pieces if not around))


def without_blank_lines(text: str) -> str:
    """Return a text without blank lines, and without white space around line ends and tabs."""
    return _LINES.sub("\n", _CELLS.sub("\t", _SPACE.sub(" ", text))).strip()


def _tidy(text: str) -> str:
    return without_blank_lines(html.unescape(text))


class _Enclosing:
    """The elements around the current place: a comment, one that is not seen, and what surrounds the main text."""

    def __init__(self) -> None:
        self.unseen = ""
        self._depth = 0
        self._around = 0
        self._in_select = False
        self._in_selected = False

    @property
    def around(self) -> bool:
        return self._around > 0

    @property
    def hides(self) -> bool:
        return bool(self.unseen) or (self._in_select and not self._in_selected)

    def pass_tag(self, tag: str, name: str, *, closes: bool) -> None:
        """Follow a tag."""
        if self.unseen == "<!--":
            self.unseen = "" if tag == "-->" else self.unseen
        elif tag == "<!--":
            self.unseen = self.unseen or tag
        elif self.unseen:
            self._depth += (name == self.unseen) * (-1 if closes else self.unseen not in _UNSEEN)
            self.unseen = self.unseen if self._depth > 0 else ""
        elif not closes and not tag.endswith("/>") and (name in _UNSEEN or _is_hidden(tag, name)):
            self.unseen = name
            self._depth = 1
        elif name in _AROUND:
            self._around = max(0, self._around + (-1 if closes else 1))
        elif name == "select":
            self._in_select = not closes
        elif name == "option":
            self._in_selected = not closes and " selected" in tag.lower()


def _pieces(page: str) -> Iterator[tuple[str, bool]]:
    """Yield the visible pieces of a page, and whether each is in a menu, a sidebar or a footer."""
    enclosing = _Enclosing()
    for at, piece in enumerate(_TAG.split(page)):
        if at % 2 == 0:
            if piece and not enclosing.hides:
                yield piece.replace("\t", " "), enclosing.around
            continue
        match = _NAME.match(piece)
        name = match[2].lower() if match else ""
        ends_comment = piece == "-->" and enclosing.unseen == "<!--"
        enclosing.pass_tag(piece, name, closes=bool(match and match[1]))
        if not enclosing.hides and not ends_comment:
            yield _between(piece, name), enclosing.around


def _between(tag: str, name: str) -> str:
    """Return the text in place of a tag: a line end, a tab between cells, or the value of an input field."""
    if tag == "-->":
        return tag
    if name == "input":
        attributes = {match[1].lower(): match[2] or match[3] or match[4] or "" for match in _ATTRIBUTE.finditer(tag)}
        return f" {attributes.get('value', '')} " if attributes.get("type", "text").lower() in _TYPED else ""
    if name in _CELL:
        return "" if tag.startswith("</") else "\t"
    return "" if name and _INLINE.fullmatch(name) else "\n"


def _is_hidden(tag: str, name: str) -> bool:
    return name in _HIDEABLE and ("none" in tag or "hidden" in tag.lower()) and _HIDDEN.search(tag) is not None
