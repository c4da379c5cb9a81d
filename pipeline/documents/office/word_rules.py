"""Rules for WordprocessingML only: tracked changes, fields, form fields, symbols, references to notes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from pipeline.documents.office.flow import Flow
from pipeline.documents.office.text_reader import Rules, TextReader, integer_or
from pipeline.documents.office.xml_events import is_on

_WINGDINGS = {0x6C: "●", 0x6E: "■", 0x6F: "□", 0x71: "❑", 0x9F: "•", 0xA7: "▪", 0xA8: "◻", 0xD8: "➢", 0xE0: "→"}
_WINGDINGS |= {0xFB: "✗", 0xFC: "✓", 0xFD: "☒", 0xFE: "☑"}
_GREEK = dict(zip(range(0x61, 0x7B), "αβχδεφγηιϕκλμνοπθρστυϖωξψζ", strict=True))
_GREEK |= dict(zip(range(0x41, 0x5B), "ΑΒΧΔΕΦΓΗΙϑΚΛΜΝΟΠΘΡΣΤΥςΩΞΨΖ", strict=True))
_SYMBOL = _GREEK | {0xA3: "≤", 0xA5: "∞", 0xAE: "→", 0xB0: "°", 0xB1: "±", 0xB3: "≥", 0xB4: "×", 0xB7: "•", 0xB9: "≠"}
_UNKNOWN = "\ufffd"


class WordRules:
    """The rules of one document; they apply to its body, and then to each part beside it.

    `references` holds the ids of notes in the order of their marks, `sections` the headers and footers as (element,
    type, relation), `notes` the notes of the record with their counts. `label` returns the number of a paragraph in
    a list.
    """

    def __init__(self, flow: Flow, notes: Counter[str], label: Callable[[str, int, int | None], str]) -> None:
        self.references: dict[str, list[str]] = {"footnote": [], "endnote": []}
        self.sections: list[tuple[str, str, str]] = []
        self.has_title_page = False
        self.chunks: list[str] = []
        self.reader: TextReader | None = None
        self._flow = flow
        self._notes = notes
        self._label = label
        self._joins: list[bool] = []
        self._fields: list[bool] = []
        self._in_properties = 0
        self._style = ""
        self._level: int | None = None
        self._list: int | None = None
        self._box: dict[str, int] = {}
        self._entries: list[str] = []
        self._ruby = ""

    def rules(self) -> Rules:
        """Return the functions of these rules."""
        return Rules(
            start={
                "w:p": self._begin_paragraph,
                "w:pPr": self._begin_properties,
                "w:pStyle": self._set_style,
                "w:numId": self._set_list,
                "w:ilvl": self._set_level,
                "w:del": self._deleted,
                "w:moveFrom": self._deleted,
                "w:ins": self._inserted,
                "w:moveTo": self._inserted,
                "w:vanish": self._note_hidden,
                "w:fldChar": self._field,
                "w:sym": self._symbol,
                "w:checkBox": self._begin_control,
                "w:ddList": self._begin_control,
                "w:default": self._control_value("default"),
                "w:checked": self._control_value("checked"),
                "w:result": self._control_value("result"),
                "w:listEntry": lambda attributes: self._entries.append(attributes.get("w:val", "")),
                "w:rt": lambda _: self._flow.begin_box(),
                "w:footnoteReference": lambda attributes: self._refer("footnote", attributes),
                "w:endnoteReference": lambda attributes: self._refer("endnote", attributes),
                "w:headerReference": lambda attributes: self._section("header", attributes),
                "w:footerReference": lambda attributes: self._section("footer", attributes),
                "w:titlePg": self._title_page,
                "w:altChunk": lambda attributes: self.chunks.append(attributes.get("r:id", "")),
            },
            end={
                "w:p": self._end_paragraph,
                "w:pPr": self._end_properties,
                "w:checkBox": self._end_check_box,
                "w:ddList": self._end_list,
                "w:rt": self._end_ruby_text,
                "w:ruby": self._end_ruby,
            },
        )

    def _begin_paragraph(self, _: Mapping[str, str]) -> None:
        self._joins.append(False)
        self._flow.begin_paragraph()

    def _end_paragraph(self) -> None:
        self._fields = [False for _ in self._fields]  # the code of a field ends with its paragraph at the latest
        self._mute()
        self._flow.end_paragraph(joins=self._joins.pop())

    def _begin_properties(self, _: Mapping[str, str]) -> None:
        self._in_properties += 1
        self._style = ""
        self._list = self._level = None

    def _end_properties(self) -> None:
        self._in_properties -= 1
        if self._joins and not self._joins[-1]:
            label = self._label(self._style, -1 if self._list is None else self._list, self._level)
            if label:
                self._flow.add(label + " ")

    def _set_style(self, attributes: Mapping[str, str]) -> None:
        self._style = attributes.get("w:val", "")

    def _set_list(self, attributes: Mapping[str, str]) -> None:
        self._list = integer_or(attributes.get("w:val"), 0)

    def _set_level(self, attributes: Mapping[str, str]) -> None:
        self._level = integer_or(attributes.get("w:val"), 0)

    def _deleted(self, _: Mapping[str, str]) -> bool:
        """Leave out deleted text; a deleted end of a paragraph joins it with the next one."""
        self._notes["tracked_changes"] += 1
        if self._in_properties and self._joins:
            self._joins[-1] = True
        return True

    def _inserted(self, _: Mapping[str, str]) -> None:
        self._notes["tracked_changes"] += 1

    def _note_hidden(self, attributes: Mapping[str, str]) -> None:
        if not self._in_properties and is_on(attributes.get("w:val")):
            self._notes["hidden_text"] += 1

    def _field(self, attributes: Mapping[str, str]) -> None:
        """Process a part of a field: its result is text, but the results of fields within its code are not."""
        kind = attributes.get("w:fldCharType")
        if kind == "begin":
            self._fields.append(True)
        elif self._fields and kind == "separate":
            self._fields[-1] = False
        elif self._fields and kind == "end":
            self._fields.pop()
        self._mute()

    def _mute(self) -> None:
        if self.reader is not None:
            self.reader.muted = any(self._fields[:-1])

    def _symbol(self, attributes: Mapping[str, str]) -> None:
        try:
            code = int(attributes.get("w:char", ""), 16)
        except ValueError:
            return
        font = attributes.get("w:font", "").lower()
        if code < 0x100 or 0xF000 <= code <= 0xF0FF:
            char = _symbols_of(font).get(code & 0xFF)
            self._notes["symbols_unknown"] += char is None
            self._flow.add(char or _UNKNOWN)
        elif code < 0x110000:
            self._flow.add(chr(code))

    def _begin_control(self, _: Mapping[str, str]) -> None:
        self._box = {}
        self._entries = []

    def _control_value(self, name: str) -> Callable[[Mapping[str, str]], None]:
        def keep(attributes: Mapping[str, str]) -> None:
            value = attributes.get("w:val")
            self._box[name] = integer_or(value, int(is_on(value)))

        return keep

    def _end_check_box(self) -> None:
        self._flow.add("☒" if self._box.get("checked", self._box.get("default", 0)) else "☐")

    def _end_list(self) -> None:
        chosen = self._box.get("result", self._box.get("default", 0))
        if 0 <= chosen < len(self._entries):
            self._flow.add(self._entries[chosen])

    def _end_ruby_text(self) -> None:
        self._ruby = " ".join(self._flow.take_box())

    def _end_ruby(self) -> None:
        self._flow.add(f"({self._ruby})" if self._ruby else "")
        self._ruby = ""

    def _refer(self, kind: str, attributes: Mapping[str, str]) -> None:
        ids = self.references[kind]
        ids.append(attributes.get("w:id", ""))
        self._flow.add(note_mark(kind, len(ids)))

    def _section(self, kind: str, attributes: Mapping[str, str]) -> None:
        self.sections.append((kind, attributes.get("w:type", "default"), attributes.get("r:id", "")))

    def _title_page(self, attributes: Mapping[str, str]) -> None:
        self.has_title_page = self.has_title_page or is_on(attributes.get("w:val"))


def note_mark(kind: str, number: int) -> str:
    """Return the mark of a footnote or an endnote in the text, and before the note."""
    return f"[{number}]" if kind == "footnote" else f"[e{number}]"


def _symbols_of(font: str) -> dict[int, str]:
    """Return the characters of a font whose codes are no Unicode."""
    if font == "symbol":
        return _SYMBOL
    return _WINGDINGS if font.startswith("wingdings") else {}
