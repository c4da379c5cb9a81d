"""The text of RTF, also of a page that Outlook keeps within RTF (`\\fromhtml`), the only body of some messages.

    bytes ─▶ control words, groups and characters ─▶ text        \\fromhtml: ─▶ HTML ─▶ its visible text

Format: RTF 1.9.1, [MS-OXRTFEX] for pages. Linear in time. It must not read embedded objects.
"""

from __future__ import annotations

import codecs
import html
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from pipeline.documents.html.visible import visible_text, without_blank_lines

_TOKEN = re.compile(
    rb"\\([a-zA-Z]{1,32})(-?\d{1,10})? ?|\\'([0-9a-fA-F]{2})|\\([^a-zA-Z])|([{}])|([^\\{}\r\n]+)|[\r\n]+|\\"
)
_FONT = re.compile(rb"\\f(\d{1,5})[^{};]{0,200}?\\fcharset(\d{1,3})")
_CODE_PAGE = re.compile(rb"\\ansicpg(\d{1,5})")

_CHARS: Mapping[bytes, str] = {
    b"par": "\n",
    b"line": "\n",
    b"sect": "\n",
    b"page": "\n",
    b"row": "\n",
    b"tab": "\t",
    b"cell": "\t",
    b"nestcell": "\t",
    b"nestrow": "\n",
    b"emdash": "\u2014",
    b"endash": "\u2013",
    b"emspace": " ",
    b"enspace": " ",
    b"bullet": "\u2022",
    b"lquote": "\u2018",
    b"rquote": "\u2019",
    b"ldblquote": "\u201c",
    b"rdblquote": "\u201d",
}
_SYMBOLS: Mapping[bytes, str] = {b"~": " ", b"_": "-", b"{": "{", b"}": "}", b"\\": "\\", b"\n": "\n", b"\r": "\n"}
_UNREAD = frozenset(
    b"fonttbl colortbl stylesheet listtable listoverridetable info pict object themedata colorschememapping"
    b" datastore latentstyles rsidtbl generator xmlnstbl filetbl revtbl fldinst bkmkstart bkmkend template".split()
)
"""Destinations without text; others are read unless they are marked as ignorable."""
_READ = frozenset({b"shptxt", b"fldrslt", b"footnote", b"annotation"})
"""Ignorable destinations that hold text."""
_CHARSETS: Mapping[int, str] = {
    77: "mac-roman",
    128: "cp932",
    129: "cp949",
    134: "gb18030",
    136: "cp950",
    161: "cp1253",
    162: "cp1254",
    163: "cp1258",
    177: "cp1255",
    178: "cp1256",
    186: "cp1257",
    204: "cp1251",
    222: "cp874",
    238: "cp1250",
}
"""Code pages of the fonts that are not in the code page of the document."""


@dataclass(frozen=True, slots=True)
class _State:
    """The state within a group. `is_tag`: it contains HTML. `for_rtf`: it is only for readers of RTF."""

    is_skipped: bool = False
    is_tag: bool = False
    for_rtf: bool = False
    font: str = ""
    fallback: int = 1


class _Reader:
    """The text of one file, as its tokens come."""

    def __init__(self, data: bytes) -> None:
        code_page = _CODE_PAGE.search(data[:4096])
        self._page = f"cp{int(code_page[1])}" if code_page else "cp1252"
        self._page = self._page if _is_codec(self._page) else "cp1252"
        self._fonts = {match[1].decode(): _CHARSETS.get(int(match[2]), "") for match in _FONT.finditer(data)}
        self._is_page = b"\\fromhtml" in data[:4096]
        self._state = _State()
        self._groups: list[_State] = []
        self._bytes = bytearray()
        self._pieces: list[str] = []
        self._left = 0

    def read(self, data: bytes) -> str:
        at = 0
        while (match := _TOKEN.match(data, at)) is not None:
            at = match.end()
            word, number, code, symbol, brace, chars = match.groups()
            if word == b"bin" and number and at + int(number) <= len(data):  # a wrong length must not end the text
                at += max(0, int(number))
            if code or chars:
                self._add_bytes(bytes.fromhex(code.decode()) if code else chars)
                continue
            self._flush()
            if brace:
                self._group(opens=brace == b"{")
            elif symbol == b"*":
                self._state = replace(self._state, is_skipped=True)
            elif symbol:
                self._add(_SYMBOLS.get(symbol, ""))
            elif word:
                self._word(word, int(number) if number else None)
        self._flush()
        return visible_text("".join(self._pieces)) if self._is_page else without_blank_lines("".join(self._pieces))

    def _group(self, *, opens: bool) -> None:
        if opens:
            self._groups.append(self._state)
        elif self._groups:
            self._state = self._groups.pop()
        self._left = 0

    def _word(self, word: bytes, number: int | None) -> None:
        state = self._state
        if word == b"htmltag":
            self._state = replace(state, is_skipped=False, is_tag=True)
        elif word == b"htmlrtf":
            self._state = replace(state, for_rtf=number != 0)
        elif word in _UNREAD:
            self._state = replace(state, is_skipped=True)
        elif word in _READ:
            self._state = replace(state, is_skipped=False)
        elif word == b"f" and number is not None:
            self._state = replace(state, font=self._fonts.get(str(number), ""))
        elif word == b"plain":
            self._state = replace(state, font="")
        elif word == b"uc" and number is not None:
            self._state = replace(state, fallback=min(max(number, 0), 100))
        elif word == b"u" and number is not None:
            self._add(chr(number & 0xFFFF))
            self._left = state.fallback
        elif word in _CHARS:
            self._add(_CHARS[word])

    def _add_bytes(self, data: bytes) -> None:
        """Add characters in the code page of the font, without the replacement characters of the previous one."""
        skipped = min(self._left, len(data))
        self._left -= skipped
        self._bytes += data[skipped:]

    def _flush(self) -> None:
        if self._bytes:
            data = bytes(self._bytes)
            self._bytes.clear()
            self._add(data.decode(self._state.font or self._page, "replace"))

    def _add(self, text: str) -> None:
        state = self._state
        if state.is_skipped or (state.for_rtf and self._is_page):
            return
        self._pieces.append(html.escape(text, quote=False) if self._is_page and not state.is_tag else text)


def _is_codec(name: str) -> bool:
    with suppress(LookupError):
        codecs.lookup(name)
        return True
    return False


def rtf_text(data: bytes) -> str:
    """Return the text of an RTF file."""
    text = _Reader(data).read(data)
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
