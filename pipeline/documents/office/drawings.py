"""The text of drawings in separate parts of the package: charts with their data, and diagrams (SmartArt)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from pipeline.documents.office.flow import Flow
from pipeline.documents.office.package import Package
from pipeline.documents.office.text_reader import Rules, TextReader

_KINDS = frozenset({"chart", "chartEx", "diagramData"})
_VALUES = {"c:cat": "names", "c:xVal": "names", "c:val": "values", "c:yVal": "values", "c:bubbleSize": "sizes"}


class Drawings:
    """The drawings of a part, by their relations; `data`: with the data of charts, which a workbook has in cells."""

    def __init__(self, package: Package, part: str, notes: Counter[str], *, data: bool = True) -> None:
        self._package = package
        self._part = part
        self._notes = notes
        self._data = data

    def __call__(self, relation: str) -> list[str]:
        """Return the lines of a drawing; count a missing drawing, and return no lines for it."""
        target = self._package.relations(self._part).get(relation)
        if target is None or target.kind not in _KINDS or target.part is None or target.part not in self._package:
            self._notes["drawings_skipped"] += 1
            return []
        flow = Flow()
        series = _Series(flow)
        rules = series.rules() if self._data and target.kind != "diagramData" else Rules()
        self._package.read(target.part, series.reading(TextReader(flow, rules, lambda _: [])))
        return flow.take_lines()


class _Series:
    """The series of a chart: its name, and a line for each category and value."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._reader: TextReader | None = None
        self._kind = ""
        self._in_series = False
        self._found: dict[str, list[str]] = {}
        self._value: list[str] | None = None

    def reading(self, reader: TextReader) -> _Series:
        """Set the reader of elements outside of series."""
        self._reader = reader
        return self

    def rules(self) -> Rules:
        """Return the functions that collect the series."""
        return Rules(
            start={
                "c:ser": self._begin,
                "c:tx": lambda _: self._of("name"),
                **{name: lambda _, kind=kind: self._of(kind) for name, kind in _VALUES.items()},  # type: ignore[misc]
                "c:v": self._begin_value,
            },
            end={"c:v": self._end_value, "c:ser": self._end, "c:tx": self._end_kind}
            | dict.fromkeys(_VALUES, self._end_kind),
        )

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        """Begin an element."""
        if self._reader is not None:
            self._reader.start(name, attributes)

    def end(self, name: str) -> None:
        """End an element."""
        if self._reader is not None:
            self._reader.end(name)

    def text(self, data: str) -> None:
        """Add characters to a value, or to the text around the series."""
        if self._value is not None:
            self._value.append(data)
        elif self._reader is not None:
            self._reader.text(data)

    def _begin(self, _: Mapping[str, str]) -> None:
        self._found = {}
        self._in_series = True

    def _of(self, kind: str) -> None:
        self._kind = kind

    def _end_kind(self) -> None:
        self._kind = ""

    def _begin_value(self, _: Mapping[str, str]) -> None:
        self._value = []

    def _end_value(self) -> None:
        text = " ".join("".join(self._value or ()).split())
        self._value = None
        if not self._in_series:
            self._flow.add_box([text] if text else [])
        elif self._kind and text:
            self._found.setdefault(self._kind, []).append(text)

    def _end(self) -> None:
        names = self._found.pop("name", [])
        columns = [self._found[kind] for kind in ("names", "values", "sizes") if kind in self._found]
        rows = max(map(len, columns), default=0)
        lines = ["\t".join(column[at] if at < len(column) else "" for column in columns) for at in range(rows)]
        self._flow.add_box([*names, *lines])
        self._in_series = False
