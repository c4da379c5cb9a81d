"""`concat`: the items of all windows in order, without repetitions from the text that two windows share.

Two equal rows of a table may be two facts, so equal items at different places are all kept. Items with quotes
have a place: equal items whose quotes are at the same place become one. Items without quotes are compared as lists
(list_overlap.py). An item whose
quotes are before its window is from the lead, the beginning of the document that precedes each later window.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence

from pipeline.long.choosing import Candidate
from pipeline.long.item_keys import ItemKeys
from pipeline.long.list_overlap import ListItems, shared_size
from pipeline.long.merge_rules import Rule
from pipeline.long.windows import Span


def concatenated(
    rule: Rule, lists: Mapping[int, Sequence[Candidate]], *, keys: ItemKeys, spans: Sequence[Span], text: str
) -> list[Candidate]:
    """Return the items of all windows, in document order, each once. `lists`: the items of each window that has any."""
    result: list[Candidate] = []
    known_items = _KeptItems(rule, keys)
    for part in sorted(lists):
        items = lists[part]
        repeated = {at for at, item in enumerate(items) if part and known_items.is_of_lead(item, spans[part], result)}
        before = lists.get(part - 1, ())
        if before and spans[part].start < spans[part - 1].end:
            pair = (spans[part - 1], spans[part])
            repeated.update(_repeated(rule, before, items, keys=keys, spans=pair, text=text))
        result += [item for at, item in enumerate(items) if at not in repeated]
    return result


class _KeptItems:
    """The kept items by key; an item from the lead may repeat one of them."""

    def __init__(self, rule: Rule, keys: ItemKeys) -> None:
        self._rule = rule
        self._keys = keys
        self._count = 0
        self._places: dict[Hashable, list[dict[str, Span]]] = {}

    def is_of_lead(self, item: Candidate, window: Span, result: Sequence[Candidate]) -> bool:
        """Return True for an item that another window has, and whose quotes are all before its own window."""
        quotes = self._keys.quotes(item)
        if not quotes or any(place.end > window.start for place in quotes.values()):
            return False
        for earlier in result[self._count :]:
            key = self._keys.of(self._rule, earlier)
            self._places.setdefault(key, []).append(self._keys.quotes(earlier))
        self._count = len(result)
        candidates = self._places.get(self._keys.of(self._rule, item), ())
        return any(_at_same_places(quotes, places) for places in candidates)


def _repeated(
    rule: Rule,
    before: Sequence[Candidate],
    items: Sequence[Candidate],
    *,
    keys: ItemKeys,
    spans: tuple[Span, Span],
    text: str,
) -> Iterator[int]:
    """Yield the numbers of the items that the previous window has as well. `spans`: of the two windows."""
    shared = Span(spans[1].start, spans[0].end)
    placed_before, bare_before = _by_quotes(before, keys)
    placed, bare = _by_quotes(items, keys)
    unpaired: dict[Hashable, list[dict[str, Span]]] = {}
    for number, quotes in placed_before:
        if any(place.end > shared.start for place in quotes.values()):
            unpaired.setdefault(keys.of(rule, before[number]), []).append(quotes)
    for number, quotes in placed:
        if all(shared.start <= place.start and place.end <= shared.end for place in quotes.values()):
            candidates = unpaired.get(keys.of(rule, items[number]), [])
            pair = next((at for at, places in enumerate(candidates) if _at_same_places(quotes, places)), None)
            if pair is not None:
                del candidates[pair]
                yield number
    size = shared_size(
        ListItems([keys.of(rule, before[number]) for number in bare_before], [before[n].value for n in bare_before]),
        ListItems([keys.of(rule, items[number]) for number in bare], [items[number].value for number in bare]),
        spans=spans,
        text=text,
    )
    yield from bare[:size]


def _by_quotes(items: Sequence[Candidate], keys: ItemKeys) -> tuple[list[tuple[int, dict[str, Span]]], list[int]]:
    """Return the numbers of the items whose quotes have places, with these places, and those of the other items."""
    quotes = [keys.quotes(item) for item in items]
    placed = [(number, places) for number, places in enumerate(quotes) if places]
    return placed, [number for number, places in enumerate(quotes) if not places]


def _at_same_places(first: Mapping[str, Span], second: Mapping[str, Span]) -> bool:
    """Return True when two items have quotes in common that overlap: one more full stop is not another place."""
    common = first.keys() & second.keys()
    overlap = (first[path].start < second[path].end and second[path].start < first[path].end for path in common)
    return bool(common) and all(overlap)
