"""The text of a part in WordprocessingML or DrawingML: paragraphs, boxes, tables, and drawings of other parts.

`Rules` add functions for the start and the end of elements that only one kind of part has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pipeline.documents.office.flow import Flow

Start = Callable[[Mapping[str, str]], "bool | None"]
End = Callable[[], None]

_TEXT = frozenset({"w:t", "a:t", "m:t"})
_SKIPPED = frozenset({"w:instrText", "w:delText", "w:delInstrText", "w:tabs", "w:numberingChange"})
"""Elements whose content does not belong to the text: codes of fields, deleted text, definitions."""
_BREAKS = {"w:br": "\n", "w:cr": "\n", "a:br": "\n", "w:tab": "\t", "w:ptab": "\t", "w:noBreakHyphen": "-"}


@dataclass(frozen=True, slots=True)
class Rules:
    """Functions by the names of elements; when `start` returns True, the element is omitted with its content."""

    start: Mapping[str, Start] = field(default_factory=dict)
    end: Mapping[str, End] = field(default_factory=dict)


class TextReader:
    """Reader of one part into a flow; `drawing` returns the lines of a chart or diagram by its relation."""

    def __init__(self, flow: Flow, rules: Rules, drawing: Callable[[str], list[str]]) -> None:
        self.muted = False
        self._flow = flow
        self._drawing = drawing
        self._depth_skipped = 0
        self._in_text = False
        self._choices: list[bool] = []
        self._spans: list[int] = []
        self._start: dict[str, Start] = {
            **dict.fromkeys(_TEXT, self._begin_text),
            **dict.fromkeys(("w:p", "a:p"), self._begin_paragraph),
            **dict.fromkeys(("w:txbxContent", "a:txBody", "p:txBody", "?:txBody"), self._begin_box),
            **dict.fromkeys(("w:tc", "a:tc"), self._begin_cell),
            **dict.fromkeys(("c:chart", "cx:chart", "dgm:relIds"), self._related),
            "w:gridSpan": self._span,
            "v:textpath": self._word_art,
            "mc:AlternateContent": lambda _: self._choices.append(False),
            "mc:Choice": self._choose,
            "mc:Fallback": self._choose,
            **rules.start,
        }
        self._end: dict[str, End] = {
            **dict.fromkeys(_TEXT, self._end_text),
            **dict.fromkeys(("w:p", "a:p"), flow.end_paragraph),
            **dict.fromkeys(("w:txbxContent", "a:txBody", "p:txBody", "?:txBody"), flow.end_box),
            **dict.fromkeys(("w:tc", "a:tc"), self._end_cell),
            **dict.fromkeys(("w:tr", "a:tr"), flow.end_row),
            "mc:AlternateContent": self._end_choices,
            **rules.end,
        }

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        """Begin an element."""
        if self._depth_skipped:
            self._depth_skipped += 1
            return
        if name in _SKIPPED or (name.startswith("w:") and name.endswith("PrChange")):
            self._depth_skipped = 1
            return
        if name in _BREAKS and not self.muted:
            self._flow.add(_BREAKS[name])
        action = self._start.get(name)
        if action is not None and action(attributes):
            self._depth_skipped = 1

    def end(self, name: str) -> None:
        """End an element."""
        if self._depth_skipped:
            self._depth_skipped -= 1
            return
        action = self._end.get(name)
        if action is not None:
            action()

    def text(self, data: str) -> None:
        """Add characters, if they are text of the document."""
        if self._in_text and not self.muted and not self._depth_skipped:
            self._flow.add(data)

    def _begin_text(self, _: Mapping[str, str]) -> None:
        self._in_text = True

    def _end_text(self) -> None:
        self._in_text = False

    def _begin_paragraph(self, _: Mapping[str, str]) -> None:
        self._flow.begin_paragraph()

    def _begin_box(self, _: Mapping[str, str]) -> None:
        self._flow.begin_box()

    def _begin_cell(self, _: Mapping[str, str]) -> None:
        self._spans.append(1)
        self._flow.begin_cell()

    def _span(self, attributes: Mapping[str, str]) -> None:
        if self._spans:
            self._spans[-1] = integer_or(attributes.get("w:val"), 1)

    def _end_cell(self) -> None:
        self._flow.end_cell(self._spans.pop())

    def _related(self, attributes: Mapping[str, str]) -> None:
        relation = attributes.get("r:id") or attributes.get("r:dm")
        if relation:
            self._flow.add_box(self._drawing(relation))

    def _word_art(self, attributes: Mapping[str, str]) -> None:
        if attributes.get("string"):
            self._flow.add_box([attributes["string"]])

    def _choose(self, _: Mapping[str, str]) -> bool:
        """Take the first of several versions of the same content."""
        is_taken = bool(self._choices) and self._choices[-1]
        if self._choices:
            self._choices[-1] = True
        return is_taken

    def _end_choices(self) -> None:
        self._choices.pop()


def integer_or(text: str | None, default: int) -> int:
    """Return the number, or the default when there is none."""
    try:
        return int(text or "")
    except ValueError:
        return default
