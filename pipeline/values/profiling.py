"""Builder of the profile of values, answer by answer, in bounded memory.

One thread updates it. It must stay cheap: it sees each result of a run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pipeline.values.profiled_fields import FieldNode, fields_of
from pipeline.values.sketches import DistinctValues, Spread, TopValues, reduced
from pipeline.values.value_profile import KEPT_VALUES, FieldProfile, ValueProfile, digest_label

MAX_VARIANTS = 8
OTHER_VARIANTS = "(others)"
COUNTED_CHARS = 100
"""Longer texts are hardly ever equal: only their lengths and the number of distinct ones are counted."""
_DATE_CHARS = 10


class ProfileBuilder:
    """Profiles of the answers of each variant. `random` draws the samples; with `show_texts`, texts may be in the
    profile."""

    def __init__(
        self, schema: Mapping[str, Any] | None, *, random: Callable[[], float], show_texts: bool = False
    ) -> None:
        self._nodes = fields_of(schema)
        self._random = random
        self._show_texts = show_texts
        self._variants: dict[str, _VariantCounter] = {}

    def add(self, output: Any, *, variant: str, fingerprint: str) -> None:
        """Count one answer."""
        name = variant if variant in self._variants or len(self._variants) < MAX_VARIANTS else OTHER_VARIANTS
        if name not in self._variants:
            self._variants[name] = _VariantCounter(self._nodes, self._random)
        self._variants[name].add(output, fingerprint)

    def profiles(self) -> dict[str, ValueProfile]:
        """Return the profile of each variant."""
        return {name: counter.profile(show_texts=self._show_texts) for name, counter in self._variants.items()}


class _VariantCounter:
    def __init__(self, nodes: Sequence[FieldNode], random: Callable[[], float]) -> None:
        self._documents = 0
        self._fingerprints: set[str] = set()
        self._fields = [_FieldCounter(node, random) for node in nodes]

    def add(self, output: Any, fingerprint: str) -> None:
        self._documents += 1
        if fingerprint not in self._fingerprints and len(self._fingerprints) < MAX_VARIANTS:
            self._fingerprints.add(fingerprint)
        if type(output) is dict:
            for field in self._fields:
                value = output.get(field.name)
                if value is not None:
                    field.add(value)

    def profile(self, *, show_texts: bool) -> ValueProfile:
        fields = {
            path: field_profile
            for field in self._fields
            for path, field_profile in field.profiles(self._documents, show_texts=show_texts)
        }
        return ValueProfile(self._documents, fields, frozenset(self._fingerprints))


class _FieldCounter:
    """Counts of one field of one variant. Its values arrive by document, for a field in a list those of all items
    together."""

    def __init__(self, node: FieldNode, random: Callable[[], float]) -> None:
        self.name = node.name
        self._path = node.path
        self._listed = node.listed
        self._children = [_FieldCounter(child, random) for child in node.children]
        self._filled = 0
        self._top = TopValues()
        self._distinct = DistinctValues()
        self._numbers = Spread(random)
        self._dates = Spread(random)
        self._lengths = Spread(random)
        self._items = Spread(random)

    def add(self, value: Any) -> None:
        """Count the value of one document; it must not be null."""
        kind = type(value)
        if kind is list:
            self._items.add(len(value))
            self._add_all([item for item in value if item is not None])
        elif self._children:
            self._add_objects((value,))
        elif kind is str:
            self._filled += self._add_text(value)
        else:
            self._filled += self._add_scalar(value)

    def add_inner(self, values: Sequence[Any]) -> None:
        """Count the values of one document's list items."""
        if len(values) == 1:
            self.add(values[0])
            return
        flat: list[Any] = []
        for value in values:
            if type(value) is list:
                self._items.add(len(value))
                flat += [item for item in value if item is not None]
            else:
                flat.append(value)
        self._add_all(flat)

    def _add_all(self, values: Sequence[Any]) -> None:
        """Count the values of one document, each distinct value once."""
        if self._children:
            self._add_objects(values)
            return
        try:
            distinct: Iterable[Any] = dict.fromkeys(values)
        except TypeError:  # an object or a list among them
            distinct = values
        filled = False
        for value in distinct:
            filled |= self._add_text(value) if type(value) is str else self._add_scalar(value)
        self._filled += filled

    def _add_objects(self, values: Sequence[Any]) -> None:
        objects = [value for value in values if type(value) is dict]
        if not objects:
            return
        self._filled += 1
        for child in self._children:
            name = child.name
            inner = [value for entry in objects if (value := entry.get(name)) is not None]
            if inner:
                child.add_inner(inner)

    def _add_scalar(self, value: Any) -> bool:
        """Count one value that is not a text."""
        kind = type(value)
        if kind is dict or kind is list:
            return bool(value)
        if kind is bool:
            value = f"\0{value}"  # as a dictionary key, True equals 1
        else:
            self._numbers.add(value)
            if kind is float and value.is_integer():
                value = int(value)
        if self._top.add(value) and not self._listed:
            self._distinct.add(repr(value))
        return True

    def _add_text(self, text: str) -> bool:
        """Count one text; return False for a text without visible characters."""
        if not text or text.isspace():
            return False
        if self._listed:
            self._top.add(text)
            return True
        size = len(text)
        self._lengths.add(size)
        if size > COUNTED_CHARS or self._top.add(text):
            self._distinct.add(text)
        if size >= _DATE_CHARS and text[4] == "-" == text[7] and _is_date(text):
            self._dates.add(text[:_DATE_CHARS])
        return True

    def profiles(self, documents: int, *, show_texts: bool) -> list[tuple[str, FieldProfile]]:
        """Return path and profile of this field and of all fields below it."""
        counts, error = reduced(self._top.counts, KEPT_VALUES)
        values = {self._label(value, show_texts=show_texts): count for value, count in counts.items()}
        for label in values if self._listed else ():
            self._distinct.add(label)
        own = FieldProfile(
            documents,
            self._filled,
            values,
            self._top.error + error,
            self._distinct.hashes,
            self._numbers.range(),
            self._dates.range(),
            self._lengths.range(),
            self._items.range(),
        )
        below = [pair for child in self._children for pair in child.profiles(documents, show_texts=show_texts)]
        return [(self._path, own), *below]

    def _label(self, value: Any, *, show_texts: bool) -> str:
        if isinstance(value, str) and value.startswith("\0"):
            return value[1:].lower()
        if not isinstance(value, str):
            return json.dumps(value)
        return json.dumps(value, ensure_ascii=False) if self._listed or show_texts else digest_label(value)


def _is_date(text: str) -> bool:
    """Return True for a text that begins with digits as in YYYY-MM-DD."""
    return text[:4].isdigit() and text[5:7].isdigit() and text[8:10].isdigit() and text[:10].isascii()
