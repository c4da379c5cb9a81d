"""The identity of items of lists: their key, else all their values except quotes.

A quote is not part of the identity: two windows may support the same fact with different sentences.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from pipeline.evidence import Evidence, json_pointer
from pipeline.long.choosing import Candidate
from pipeline.long.merge_rules import Rule
from pipeline.long.same_values import is_nothing, value_key
from pipeline.long.windows import Span


class ItemKey(NamedTuple):
    """A key that is equal for equal items. `is_key`: it was built from the properties of `x-key`."""

    is_key: bool
    value: Hashable


class ItemKeys:
    """The keys of items and the places of their quotes; `evidence`: that of each window's answer."""

    def __init__(self, evidence: Sequence[Sequence[Evidence]]) -> None:
        self._evidence = evidence

    @cached_property
    def _quotes(self) -> list[dict[str, dict[str, Span]]]:
        return [_quotes_by_place(part) for part in self._evidence]

    def of(self, rule: Rule, item: Candidate) -> ItemKey:
        """Return the key of an item of a list."""
        items = rule.items
        assert items is not None
        if rule.key and isinstance(item.value, dict):
            properties = [(items.of_property(name), item.value.get(name)) for name in rule.key]
            if not any(is_nothing(value) or value_key(value) in own.empty for own, value in properties):
                return ItemKey(True, tuple(value_key(value, exact=rule.exact_key) for _, value in properties))
        own_key = _value_key(items, item.value, exact=rule.exact_key)
        return ItemKey(False, value_key(item.value, exact=rule.exact_key) if own_key is None else own_key)

    def quotes(self, item: Candidate) -> dict[str, Span]:
        """Return the places of the quotes in an item, by their places in it."""
        quotes = self._quotes[item.part]
        return quotes.get(json_pointer(item.place), {}) if quotes else {}


def _value_key(rule: Rule, value: Any, *, exact: bool) -> Hashable | None:
    """Return a key built from all leaves of a value except quotes and empty values; None without such leaves."""
    if isinstance(value, dict):
        keys = [(name, _value_key(rule.of_property(name), item, exact=exact)) for name, item in value.items()]
        leaves = sorted((name, key) for name, key in keys if key is not None)
        return ("object", *leaves) if leaves else None
    if isinstance(value, list):
        items = [_value_key(rule.items, item, exact=exact) for item in value] if rule.items else [value_key(value)]
        leaves_of_list = [key for key in items if key is not None]
        return ("array", *leaves_of_list) if leaves_of_list else None
    return None if rule.is_quote or is_nothing(value) else value_key(value, exact=exact)


def _quotes_by_place(evidence: Sequence[Evidence]) -> dict[str, dict[str, Span]]:
    """Return the quotes in each place of an answer, by their places in it: `{"/rows/3": {"/quote": Span(…)}, …}`."""
    by_place: dict[str, dict[str, Span]] = {}
    for quote in evidence:
        path = quote["path"]
        span = Span(quote["start"], quote["end"])
        end = len(path)
        while end > 0:
            by_place.setdefault(path[:end], {})[path[end:]] = span
            end = path.rfind("/", 0, end)
    return by_place
