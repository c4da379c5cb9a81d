"""The weight of a possible pair of objects whose properties are single values: how many of them agree.

Each object is read once, and its values are converted to normal forms that are compared by equality, as long lists have
very many possible pairs. It must count exactly as grading.py does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pipeline.truth.comparators import Comparator, is_something
from pipeline.truth.graded_fields import Field, Leaf, ObjectField

_Value = tuple[Comparator, Any, str | None]
"""The comparison of a value, the value (None: null), and its normal form (None: it has none)."""


class LeafWeights:
    """Weight of gold and predicted objects, which must outlive it; `unknown`: paths that are not graded."""

    def __init__(self, item: ObjectField, unknown: Collection[str]) -> None:
        self._item = item
        self._unknown = unknown
        self._judged: dict[int, dict[str, _Value]] = {}
        self._answered: dict[int, dict[str, _Value]] = {}

    def __call__(self, gold: Any, predicted: Any) -> tuple[int, int]:
        """Return how many leaves of a pair agree on a value, and how many on null."""
        judged = self._judged.get(id(gold))
        if judged is None:
            judged = self._judged[id(gold)] = dict(self._values(self._item, gold, is_gold=True))
        values = self._answered.get(id(predicted))
        if values is None:
            values = self._answered[id(predicted)] = dict(self._values(self._item, predicted, is_gold=False))
        agreeing = nothings = 0
        for path, (comparator, value, form) in judged.items():
            _, answer, answer_form = values[path]
            if value is None or answer is None:
                nothings += value is answer
            elif form is not None and answer_form is not None:
                agreeing += form == answer_form
            else:
                agreeing += comparator.agree(answer, value)
        return agreeing, nothings

    def _values(self, field: Field, value: Any, *, is_gold: bool) -> Iterator[tuple[str, _Value]]:
        """Yield the leaves of an object; for gold only the judged ones."""
        if field.path in self._unknown:
            return
        if isinstance(field, Leaf):
            if field.comparator is not None:
                content = value if is_something(value) else None
                form = None if content is None else field.comparator.normal_form(content)
                yield field.path, (field.comparator, content, form)
        elif isinstance(field, ObjectField):
            values = value if isinstance(value, Mapping) else {}
            for name, inner in field.properties.items():
                if name in values or not is_gold or not isinstance(value, Mapping):
                    yield from self._values(inner, values.get(name), is_gold=is_gold)


def has_leaves_only(field: Field) -> bool:
    """Return True for an object that contains no list."""
    if isinstance(field, ObjectField):
        return all(map(has_leaves_only, field.properties.values()))
    return isinstance(field, Leaf)
