"""Compare two results of each document: equal fields, added and lost list items, and totals over all documents.

It must not read an output, and must not keep more than counts and a few examples.
"""

from __future__ import annotations

import heapq
import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pipeline.report.pairing import paired
from pipeline.values.sketches import Spread

MOST_CHANGED = 10
MOST_CHANGES = 10
KINDS_OF_CHANGE = 2000
"""Different changes of a field that are counted one by one; further ones are counted together."""

_OTHER = ("(other)", "(other)")


def _spread() -> Spread:
    return Spread(random.Random(0).random)


@dataclass(slots=True)
class FieldCounts:
    """Comparisons of one field, and how many were equal; list items that were `added` and `lost`.

    `moved`: the sum of the differences of numbers, over `numbers` of them, of which `up` and `down` changed.
    """

    compared: int = 0
    same: int = 0
    added: int = 0
    lost: int = 0
    numbers: int = 0
    moved: float = 0.0
    up: int = 0
    down: int = 0
    before: Spread = field(default_factory=_spread)
    after: Spread = field(default_factory=_spread)
    changes: Counter[tuple[str, str]] = field(default_factory=Counter)


class Difference(NamedTuple):
    """One place of a result. `added`, `lost`: numbers of list items; a list is `same` when both are 0."""

    path: str
    same: bool
    before: Any = None
    after: Any = None
    added: int = 0
    lost: int = 0


class Comparison:
    """Counts over pairs of results. `only`: a field and its subfields; `keys`: list → identifying fields.

    `names`: all fields that the results have, in their order. `shown`: the number of documents, those that changed
    most, for which the changed places are kept.
    """

    def __init__(
        self, *, only: str | None = None, keys: Mapping[str, Sequence[str]] | None = None, shown: int = 0
    ) -> None:
        self.fields: dict[str, FieldCounts] = {}
        self.names: dict[str, None] = {}
        self.documents = self.identical = 0
        self._only = only
        self._keys = keys or {}
        self._most: list[tuple[int, float, str, list[Difference]]] = []
        self._shown = shown

    def add(self, document_id: str, before: Any, after: Any) -> None:
        """Count one pair of results."""
        all_places = list(differences(before, after, keys=self._keys))
        self.names.update(dict.fromkeys(place.path for place in all_places))
        places = [place for place in all_places if self._is_selected(place.path)]
        for place in places:
            self._count(place)
        changed_count = sum(_weight(place) for place in places)
        self.documents += 1
        self.identical += not changed_count
        if changed_count:
            changed_places = [place for place in places if not place.same] if self._shown else []
            entry = (changed_count, changed_count / max(len(places), changed_count), document_id, changed_places)
            is_full = len(self._most) == max(MOST_CHANGED, self._shown)
            (heapq.heappushpop if is_full else heapq.heappush)(self._most, entry)

    def most_changed(self) -> list[dict[str, Any]]:
        """Return the documents that changed most, with the number and share of changed values."""
        most_changed = sorted(self._most, key=lambda entry: entry[:3], reverse=True)
        rows = [
            {"id": id, "changed": changed_count, "share": round(share, 3)}
            for changed_count, share, id, _ in most_changed
        ]
        return rows[:MOST_CHANGED]

    def shown_documents(self) -> list[dict[str, Any]]:
        """Return the documents to show, with field, value before and value now of each changed place."""
        most_changed = sorted(self._most, key=lambda entry: entry[:3], reverse=True)[: self._shown]
        return [
            {
                "id": id,
                "changes": [{"field": place.path, "before": place.before, "after": place.after} for place in places],
            }
            for _, _, id, places in most_changed
        ]

    def _is_selected(self, path: str) -> bool:
        return self._only is None or path == self._only or path.startswith(self._only + ".")

    def _count(self, place: Difference) -> None:
        counts = self.fields.setdefault(place.path, FieldCounts())
        counts.compared += 1
        counts.same += place.same
        counts.added += place.added
        counts.lost += place.lost
        if _is_number(place.before) and _is_number(place.after):
            counts.numbers += 1
            counts.moved += place.after - place.before
            counts.up += place.after > place.before
            counts.down += place.after < place.before
            counts.before.add(place.before)
            counts.after.add(place.after)
        if not place.same and self._only is not None and not place.added and not place.lost:
            kind = (_shortened(place.before), _shortened(place.after))
            room = kind in counts.changes or len(counts.changes) < KINDS_OF_CHANGE
            counts.changes[kind if room else _OTHER] += 1


def differences(before: Any, after: Any, *, keys: Mapping[str, Sequence[str]], path: str = "") -> Iterator[Difference]:
    """Yield every place of two values, equal or not; items of a list have the path of the list."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in dict.fromkeys([*before, *after]):
            inner = f"{path}.{name}" if path else name
            yield from differences(before.get(name), after.get(name), keys=keys, path=inner)
    elif isinstance(before, list) and isinstance(after, list):
        items = paired(before, after, key=keys.get(path, ()))
        yield Difference(path, not items.added and not items.lost, before, after, items.added, items.lost)
        for old, new in items.pairs:
            if isinstance(old, dict) and isinstance(new, dict):
                yield from differences(old, new, keys=keys, path=path)
    else:
        same = before == after and isinstance(before, bool) == isinstance(after, bool)
        yield Difference(path or "$", same, before, after)


def _weight(place: Difference) -> int:
    return place.added + place.lost or int(not place.same)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _shortened(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:59] + "…"
