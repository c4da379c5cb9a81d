"""Two results of a document beside each other: which fields agree, which items came and went, and over all documents.

It knows JSON values and counts; it must not read an output, and must not keep more than counts and a few examples.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

MOST_CHANGED = 10
MOST_CHANGES = 10
KINDS_OF_CHANGE = 2000
"""Different changes of a field that are counted one by one; more are counted together."""

IDENTITIES = ("id", "name", "ticker", "symbol", "code", "key", "title", "label")
"""Fields by which the objects of a list are recognised, the first that all of them have."""

_OTHER = ("(other)", "(other)")


@dataclass(slots=True)
class FieldCounts:
    """How often a field was compared and the same; items of lists that came (`added`) and went (`lost`).

    `moved`: the sum of what numbers grew by, over `numbers` of them.
    """

    compared: int = 0
    same: int = 0
    added: int = 0
    lost: int = 0
    numbers: int = 0
    moved: float = 0.0
    changes: Counter[tuple[str, str]] = field(default_factory=Counter)


class Difference(NamedTuple):
    """One place of a result. `added` and `lost` are set for a list, whose own `same` means that neither is."""

    path: str
    same: bool
    before: Any = None
    after: Any = None
    added: int = 0
    lost: int = 0


class Comparison:
    """Counts over pairs of results. `only`: this field and what is below it; `keys`: list → its identity."""

    def __init__(self, *, only: str | None = None, keys: Mapping[str, str] | None = None) -> None:
        self.fields: dict[str, FieldCounts] = {}
        self.documents = self.identical = 0
        self._only, self._keys = only, keys or {}
        self._most: list[tuple[int, float, str]] = []

    def add(self, document_id: str, before: Any, after: Any) -> None:
        """Counts the pair."""
        found = [each for each in differences(before, after, keys=self._keys) if self._wanted(each.path)]
        for each in found:
            self._count(each)
        changed = sum(_weight(each) for each in found)
        self.documents += 1
        self.identical += not changed
        if changed:
            entry = (changed, changed / max(len(found), changed), document_id)
            (heapq.heappushpop if len(self._most) == MOST_CHANGED else heapq.heappush)(self._most, entry)

    def most_changed(self) -> list[dict[str, Any]]:
        """The documents that changed most, with how many of their values did."""
        most = sorted(self._most, reverse=True)
        return [{"id": id, "changed": changed, "share": round(share, 3)} for changed, share, id in most]

    def _wanted(self, path: str) -> bool:
        return self._only is None or path == self._only or path.startswith(self._only + ".")

    def _count(self, each: Difference) -> None:
        counts = self.fields.setdefault(each.path, FieldCounts())
        counts.compared += 1
        counts.same += each.same
        counts.added += each.added
        counts.lost += each.lost
        if _is_number(each.before) and _is_number(each.after):
            counts.numbers += 1
            counts.moved += each.after - each.before
        if not each.same and self._only is not None and not each.added and not each.lost:
            kind = (_short(each.before), _short(each.after))
            room = kind in counts.changes or len(counts.changes) < KINDS_OF_CHANGE
            counts.changes[kind if room else _OTHER] += 1


def differences(before: Any, after: Any, *, keys: Mapping[str, str], path: str = "") -> Iterator[Difference]:
    """Every place of two values, same or not; the places of a list's items carry the list's name alone."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in dict.fromkeys([*before, *after]):
            inner = f"{path}.{name}" if path else name
            yield from differences(before.get(name), after.get(name), keys=keys, path=inner)
    elif isinstance(before, list) and isinstance(after, list):
        identify = _identity(before + after, keys.get(path))
        old, new = _numbered(before, identify), _numbered(after, identify)
        added, lost = len(new.keys() - old.keys()), len(old.keys() - new.keys())
        yield Difference(path, not added and not lost, before, after, added, lost)
        for name in old.keys() & new.keys():
            if isinstance(old[name], dict) and isinstance(new[name], dict):
                yield from differences(old[name], new[name], keys=keys, path=path)
    else:
        same = before == after and isinstance(before, bool) == isinstance(after, bool)
        yield Difference(path or "$", same, before, after)


def _identity(items: list[Any], chosen: str | None) -> Callable[[Any], str]:
    """What tells one item from another: a field that all of them have, else the whole item."""
    for name in (chosen,) if chosen else IDENTITIES:
        if items and all(isinstance(item, dict) and isinstance(item.get(name), (str, int)) for item in items):
            return lambda item: json.dumps(item[name]).casefold()
    return lambda item: json.dumps(item, sort_keys=True)


def _numbered(items: list[Any], identify: Callable[[Any], str]) -> dict[tuple[str, int], Any]:
    """The items by identity; of equal ones each has a number."""
    seen: Counter[str] = Counter()
    found: dict[tuple[str, int], Any] = {}
    for item in items:
        name = identify(item)
        found[name, seen[name]] = item
        seen[name] += 1
    return found


def _weight(each: Difference) -> int:
    return each.added + each.lost or (0 if each.same else 1)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:59] + "…"
