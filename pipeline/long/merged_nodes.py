"""The result of merging at each place of an answer, and the value, evidence and conflicts that follow from it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pipeline.evidence import Evidence, json_pointer
from pipeline.long.choosing import Candidate
from pipeline.long.windows import Span

MOST_CONFLICTS = 50
MOST_OTHERS = 3
MOST_CHARS = 200


@dataclass(frozen=True, slots=True)
class ChosenValue:
    """The value of one window. `others`: the first of each different value, which `rule` passed over."""

    candidate: Candidate
    rule: str = ""
    others: Sequence[Candidate] = ()


@dataclass(frozen=True, slots=True)
class MergedValue:
    """A value built from several windows' values. `full_length`: the length of a text before it was cut."""

    value: Any
    full_length: int | None = None


@dataclass(frozen=True, slots=True)
class Fields:
    """An object whose properties were merged one by one."""

    nodes: Mapping[str, Node]


@dataclass(frozen=True, slots=True)
class Items:
    """A list of merged items. `full_length`: how many items it had before it was cut."""

    nodes: Sequence[Node]
    full_length: int | None = None


Node = ChosenValue | MergedValue | Fields | Items


class AnsweredWindow(Protocol):
    """A window with its answer's evidence."""

    @property
    def start(self) -> int:
        """The start of the window in the text."""

    @property
    def end(self) -> int:
        """The end of the window in the text."""

    @property
    def evidence(self) -> Sequence[Evidence]:
        """The places of its answer's quotes."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two different values for one place: (window, value) of the chosen one, and of up to 3 others."""

    path: str
    rule: str
    taken: tuple[int, Any]
    others: tuple[tuple[int, Any], ...]


@dataclass(frozen=True, slots=True)
class DroppedItems:
    """A list or a joined text that was cut: its number of items or characters before and after."""

    path: str
    given: int
    kept: int


@dataclass(slots=True)
class Merged:
    """A merged answer. `windows`: the spans by number, of which the first is 1.

    `origins`: from the place of each value that was taken whole to (window, place in that window's answer), as JSON
    Pointers. `evidence`: the quotes in `value`. `absorbed`: items that were the same as others; `unkeyed`: items
    without the key of their list.
    """

    value: dict[str, Any]
    windows: tuple[Span, ...]
    origins: dict[str, tuple[int, str]] = field(default_factory=dict)
    evidence: tuple[Evidence, ...] = ()
    conflicts: list[Conflict] = field(default_factory=list)
    conflicts_total: int = 0
    dropped: list[DroppedItems] = field(default_factory=list)
    absorbed: int = 0
    unkeyed: int = 0

    def record(self) -> dict[str, Any]:
        """Return the value of the key `merge` of the document's record."""
        return {
            "conflicts": [
                {
                    "path": conflict.path,
                    "rule": conflict.rule,
                    "taken": _conflict_json(conflict.taken),
                    "others": [_conflict_json(value) for value in conflict.others],
                }
                for conflict in self.conflicts
            ],
            "conflicts_total": self.conflicts_total,
            "dropped": [{"path": item.path, "given": item.given, "kept": item.kept} for item in self.dropped],
            "absorbed": self.absorbed,
            "unkeyed": self.unkeyed,
        }


def merged_from(root: Node, parts: Sequence[AnsweredWindow], *, absorbed: int, unkeyed: int) -> Merged:
    """Return the merged answer of the root node."""
    merged = Merged({}, tuple(Span(part.start, part.end) for part in parts), absorbed=absorbed, unkeyed=unkeyed)
    merged.value = _value(root, "", merged)
    merged.evidence = _evidence(merged, parts)
    return merged


def _value(node: Node, pointer: str, merged: Merged) -> Any:
    """Return the value of a node, and add its origins, conflicts and cuts to `merged`."""
    if isinstance(node, ChosenValue):
        merged.origins[pointer] = (node.candidate.part + 1, json_pointer(node.candidate.place))
        if node.others:
            _add_conflict(node, pointer, merged)
        return node.candidate.value
    if isinstance(node, MergedValue):
        if node.full_length is not None:
            merged.dropped.append(DroppedItems(pointer, node.full_length, len(node.value)))
        return node.value
    if isinstance(node, Fields):
        return {name: _value(inner, pointer + json_pointer([name]), merged) for name, inner in node.nodes.items()}
    if node.full_length is not None:
        merged.dropped.append(DroppedItems(pointer, node.full_length, len(node.nodes)))
    return [_value(inner, f"{pointer}/{number}", merged) for number, inner in enumerate(node.nodes)]


def _add_conflict(node: ChosenValue, pointer: str, merged: Merged) -> None:
    merged.conflicts_total += 1
    if len(merged.conflicts) < MOST_CONFLICTS:
        other_values = tuple((candidate.part + 1, candidate.value) for candidate in node.others[:MOST_OTHERS])
        merged.conflicts.append(
            Conflict(pointer, node.rule, (node.candidate.part + 1, node.candidate.value), other_values)
        )


def _evidence(merged: Merged, parts: Sequence[AnsweredWindow]) -> tuple[Evidence, ...]:
    """Return the evidence of the quotes that remain in the merged value, in its order."""
    targets = {origin: (order, pointer) for order, (pointer, origin) in enumerate(merged.origins.items())}
    quotes: list[tuple[int, Evidence]] = []
    for window, part in enumerate(parts, 1):
        for quote in part.evidence:
            prefix = quote["path"]
            while prefix and (window, prefix) not in targets:
                prefix = prefix.rpartition("/")[0]
            if (window, prefix) in targets:
                order, pointer = targets[window, prefix]
                placed_quote = Evidence(**{**quote, "path": pointer + quote["path"][len(prefix) :], "window": window})
                quotes.append((order, placed_quote))
    return tuple(quote for _, quote in sorted(quotes, key=lambda ordered: ordered[0]))


def _conflict_json(value: tuple[int, Any]) -> dict[str, Any]:
    """Return a window's value as the record shows it; a long one is shortened to a text."""
    window, content = value
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    return {"window": window, "value": content if len(text) <= MOST_CHARS else text[: MOST_CHARS - 1] + "…"}
