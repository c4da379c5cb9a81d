"""Choose one of several windows' values for one place, by the rules of `x-merge` for single values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from pipeline.long.merge_rules import Place, RankProperty, Rule
from pipeline.long.same_values import value_key


class Enclosing(NamedTuple):
    """The object that contains a value, and the objects around that one."""

    properties: Mapping[str, Any]
    outer: Enclosing | None


class Candidate(NamedTuple):
    """A value and its place in the answer of one window; `part`: the number of the window, from 0."""

    value: Any
    part: int
    place: Place
    enclosing: Enclosing | None = None


CONFLICTING = frozenset({"first", "last", "longest", "shortest", "majority", "best"})
"""The rules under which two different values are a conflict; the record shows conflicts."""


def choose(rule: Rule, values: Sequence[Candidate]) -> Candidate:
    """Return the value that the rule chooses from values in document order; the first of equally good ones."""
    if rule.strategy == "best" and rule.rank_property is not None:
        by = rule.rank_property
        return max(values, key=lambda candidate: _rank(candidate, by))
    return _CHOICES.get(rule.strategy, _first)(values)


def summed(values: Sequence[Candidate]) -> int | float:
    """Return the sum, exact in decimal; an integer of integers."""
    numbers: list[int | float] = [candidate.value for candidate in values]
    if all(isinstance(number, int) for number in numbers):
        return sum(numbers)
    return float(sum(Decimal(repr(number)) for number in numbers))


def joined_texts(values: Sequence[Candidate]) -> str:
    """Return the different texts with a blank line between them."""
    texts: dict[Hashable, str] = {}
    for candidate in values:
        texts.setdefault(value_key(candidate.value), candidate.value)
    return "\n\n".join(texts.values())


def cut_text(text: str, most_chars: int) -> str:
    """Return at most `most_chars` characters of a text, cut at white space where possible."""
    if len(text) <= most_chars:
        return text
    start = text[: most_chars + 1]
    at = max((place for place in range(len(start)) if start[place].isspace()), default=0)
    return text[:at].rstrip() or text[:most_chars]


def _rank(candidate: Candidate, by: RankProperty) -> tuple[bool, float]:
    """Return the number that a value ranks by; a value without one ranks last."""
    enclosing = Enclosing(candidate.value, None) if by.levels < 0 else candidate.enclosing
    for _ in range(by.levels):
        enclosing = enclosing.outer if enclosing is not None else None
    number = enclosing.properties.get(by.name) if enclosing is not None else None
    if isinstance(number, (int, float)) and not isinstance(number, bool):
        return (True, number)
    return (False, 0)


def _first(values: Sequence[Candidate]) -> Candidate:
    return values[0]


def _last(values: Sequence[Candidate]) -> Candidate:
    return values[-1]


def _majority(values: Sequence[Candidate]) -> Candidate:
    keys = [value_key(candidate.value) for candidate in values]
    counts = Counter(keys)
    return values[max(range(len(values)), key=lambda number: counts[keys[number]])]


def _length(candidate: Candidate) -> int:
    return len(candidate.value)


_CHOICES: Mapping[str, Callable[[Sequence[Candidate]], Candidate]] = {
    "last": _last,
    "longest": lambda values: max(values, key=_length),
    "shortest": lambda values: min(values, key=_length),
    "min": lambda values: min(values, key=lambda given: given.value),
    "max": lambda values: max(values, key=lambda given: given.value),
    "majority": _majority,
    "any": lambda values: next((given for given in values if given.value), values[0]),
    "all": lambda values: next((given for given in values if not given.value), values[0]),
}
