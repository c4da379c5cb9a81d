"""Pair the items of two lists: those with the same identity, then equal ones, then those that share most values.

    identity: the properties given for the list, else a usual name that all items have, else none
    within one identity: equal items ─▶ similar ones ─▶ with an identity also the remaining ones, in their order

Rows of a table have no identity: a row with one changed cell is paired with its former self, not lost and added.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

from pipeline.long.same_values import is_nothing, value_key

IDENTITIES = ("id", "name", "ticker", "symbol", "code", "key", "title", "label")
"""Properties that identify the objects of a list: the first one that all objects have is used."""
LEAST_SHARED = 0.5
"""The share of values that two objects without an identity must have in common to be one object."""
MOST_COMPARED = 100_000
"""Pairs of items that are compared for shared values: about a tenth of a second; longer lists are paired in order."""

Identify = Callable[[Any], Hashable]


class Paired(NamedTuple):
    """The items of two lists: `pairs` of one before and one after, and how many were `added` and `lost`."""

    pairs: list[tuple[Any, Any]]
    added: int
    lost: int


def paired(before: Sequence[Any], after: Sequence[Any], *, key: Sequence[str] = ()) -> Paired:
    """Return the items of two lists as pairs. `key`: the properties that identify an item; (): a usual name."""
    identify = _identity([*before, *after], key)
    groups: dict[Hashable, tuple[list[Any], list[Any]]] = {}
    for side, items in enumerate((before, after)):
        for item in items:
            groups.setdefault(identify(item), ([], []))[side].append(item)
    pairs: list[tuple[Any, Any]] = []
    added = 0
    lost = 0
    for identity, (olds, news) in groups.items():
        own = list(_pairs(olds, news, in_order=identity is not None))
        pairs += own
        lost += len(olds) - len(own)
        added += len(news) - len(own)
    return Paired(pairs, added, lost)


def _identity(items: Sequence[Any], key: Sequence[str]) -> Identify:
    """Return the function that gives the identity of an item; None for one without."""
    if not key:
        usual = (name for name in IDENTITIES if items and all(_has_name(item, name) for item in items))
        key = tuple(name for name, _ in zip(usual, range(1), strict=False))

    def identify(item: Any) -> Hashable:
        values = [item.get(name) for name in key] if isinstance(item, dict) else []
        return tuple(map(value_key, values)) if values and not any(map(is_nothing, values)) else None

    return identify


def _has_name(item: Any, name: str) -> bool:
    value = item.get(name) if isinstance(item, dict) else None
    return isinstance(value, (str, int)) and not is_nothing(value)


def _pairs(olds: Sequence[Any], news: Sequence[Any], *, in_order: bool) -> Iterator[tuple[Any, Any]]:
    """Yield the pairs of items of one identity; `in_order`: also of those that share nothing."""
    waiting: dict[str, list[int]] = defaultdict(list)
    for number, item in reversed(list(enumerate(news))):
        waiting[_text(item)].append(number)
    old_left = []
    for item in olds:
        if equal := waiting[_text(item)]:
            yield item, news[equal.pop()]
        else:
            old_left.append(item)
    new_left = [news[number] for number in sorted(number for numbers in waiting.values() for number in numbers)]
    similar = _similar(old_left, new_left)
    yield from ((old_left[old], new_left[new]) for old, new in similar.items())
    if in_order:
        used = set(similar.values())
        unpaired = (item for number, item in enumerate(new_left) if number not in used)
        yield from zip((item for number, item in enumerate(old_left) if number not in similar), unpaired, strict=False)


def _similar(olds: Sequence[Any], news: Sequence[Any]) -> dict[int, int]:
    """Return the numbers of objects that share at least half of their values, the most similar ones first."""
    if len(olds) * len(news) > MOST_COMPARED:
        return {}
    old_values = [frozenset(_values(item, "")) for item in olds]
    new_values = [frozenset(_values(item, "")) for item in news]
    candidates = []
    for old, new in product(range(len(olds)), range(len(news))):
        larger_size = max(len(old_values[old]), len(new_values[new]))
        shared = len(old_values[old] & new_values[new]) / larger_size if larger_size else 0.0
        if shared >= LEAST_SHARED and isinstance(olds[old], dict) and isinstance(news[new], dict):
            # the pairs must be the same when the two sides are swapped
            candidates.append(
                (-shared, abs(old - new), old + new, sorted((_text(olds[old]), _text(news[new]))), old, new)
            )
    pairs: dict[int, int] = {}
    used: set[int] = set()
    for *_, old, new in sorted(candidates):
        if old not in pairs and new not in used:
            pairs[old] = new
            used.add(new)
    return pairs


def _values(value: Any, path: str) -> Iterator[tuple[str, Hashable]]:
    """Yield the places and values of an object that are not empty."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _values(inner, f"{path}.{name}")
    elif isinstance(value, list):
        for inner in value:
            yield from _values(inner, f"{path}[]")
    elif not is_nothing(value):
        yield path, value_key(value)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
