"""The lines of a part in reading order: paragraphs, rows of tables, and boxes after the paragraph they are fixed to.

It must not hold more than MAX_CHARS characters.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pipeline.errors import DocumentError

MAX_CHARS = 1 << 26
MAX_SPAN = 1000


@dataclass(slots=True)
class _Frame:
    """A part, a box or a cell: finished lines, the open paragraph, boxes that wait for its end, cells of a row."""

    lines: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    cells: list[str] = field(default_factory=list)
    paragraphs: int = 0

    def end_line(self) -> None:
        line = "".join(self.open).strip()
        self.open.clear()
        if line:
            self.lines.append(line)
        self.lines += self.waiting
        self.waiting.clear()

    def end_row(self) -> None:
        filled = [cell for cell in self.cells if cell]
        if len(filled) > 1:
            self.lines.append("\t".join(" ".join(cell.split()) for cell in self.cells).rstrip("\t"))
        else:
            self.lines += filled
        self.cells.clear()


class Flow:
    """The text of a part, built from its events; each `begin_` has its `end_`."""

    def __init__(self) -> None:
        self._frames = [_Frame()]
        self._chars = 0

    @property
    def _frame(self) -> _Frame:
        return self._frames[-1]

    def add(self, text: str) -> None:
        """Add to the open paragraph; DocumentError when all text is too long."""
        self._chars += len(text)
        if self._chars > MAX_CHARS:
            raise DocumentError("document_too_large", f"the office file holds more than {MAX_CHARS} characters")
        self._frame.open.append(text)

    def begin_paragraph(self) -> None:
        self._frame.paragraphs += 1

    def end_paragraph(self, *, joins: bool = False) -> None:
        """End the paragraph; `joins`: the next one belongs to the same line."""
        frame = self._frame
        frame.paragraphs = max(0, frame.paragraphs - 1)
        if not joins:
            frame.end_line()

    def begin_box(self) -> None:
        self._frames.append(_Frame())

    def end_box(self) -> None:
        """End a box; its lines follow the paragraph that it is in."""
        self.add_box(self.take_box())

    def take_box(self) -> list[str]:
        """End a box and return its lines instead of adding them."""
        frame = self._frames.pop() if len(self._frames) > 1 else self._frame
        frame.end_line()
        frame.end_row()
        return frame.lines

    def add_box(self, lines: Iterable[str]) -> None:
        """Add finished lines after the open paragraph."""
        frame = self._frame
        (frame.waiting if frame.paragraphs else frame.lines).extend(lines)

    def begin_cell(self) -> None:
        self._frames.append(_Frame())

    def end_cell(self, span: int = 1) -> None:
        """End a cell; it covers `span` columns."""
        text = "\n".join(self.take_box())
        self._frame.cells += [text, *[""] * min(span - 1, MAX_SPAN)]

    def end_row(self) -> None:
        self._frame.end_row()

    def take_lines(self) -> list[str]:
        """Return all lines and clear them; their characters still count."""
        while len(self._frames) > 1:
            self.end_box()
        lines = self.take_box()
        self._frames = [_Frame()]
        return lines
