"""Pair the objects of a gold list with those of an answer: by a key, else by the values that agree.

It must not count: grading.py does, and passes in the weight of a pair.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipeline.report.pairing import IDENTITIES
from pipeline.truth.comparators import Comparator, canonical_json, is_something
from pipeline.truth.graded_fields import Leaf, ObjectList, every_field
from pipeline.truth.pairing import assignment

PAIR_EQUALS_FROM = 20
"""Length from which equal objects of a list are paired first, which speeds up long lists."""

Objects = Sequence[Mapping[str, Any]]
Weigh = Callable[[Any, Any], tuple[int, int]]
"""(gold object, predicted object) → how many leaves agree on a value, and how many on null."""

_EXACT = Comparator("exact")
_TEXT = Comparator("text")


def pair_objects(
    field: ObjectList, golds: Objects, answers: Objects, *, weigh: Weigh
) -> tuple[list[tuple[int, int]], bool]:
    """Return the pairs (place in golds, place in answers), and whether they are approximate.

    Both lists are sorted by their canonical JSON, so that ties do not depend on the order in the answer.
    """
    equals = _equal_pairs(golds, answers) if max(len(golds), len(answers)) >= PAIR_EQUALS_FROM else []
    paired_golds = {left for left, _ in equals}
    paired_answers = {right for _, right in equals}
    lefts = [place for place in range(len(golds)) if place not in paired_golds]
    rights = [place for place in range(len(answers)) if place not in paired_answers]
    key = field.key or _identity(golds, answers)
    comparator = _key_comparator(field, key)
    # of the assignments with equally many agreeing leaves, the one that agrees on null most often wins: `scale` exceeds
    # the sum of all agreements on null
    scale = 1 + min(len(lefts), len(rights)) * (1 + sum(1 for _ in every_field(field.item)))
    weights: dict[tuple[int, int], int] = {}
    by_form = _by_form(comparator, answers, rights, key)
    for left in lefts:
        form = None if key is None else comparator.normal_form(golds[left].get(key))
        for right in rights if form is None else by_form.get(form, ()):
            if key is not None and not _same_key(comparator, golds[left].get(key), answers[right].get(key)):
                continue
            agreeing, nothings = weigh(golds[left], answers[right])
            if agreeing or key is not None:
                weights[left, right] = agreeing * scale + nothings + 1
    pairs, approximate = _symmetric_assignment(weights, golds, answers)
    return equals + pairs, approximate


def _by_form(
    comparator: Comparator, answers: Objects, places: Sequence[int], key: str | None
) -> Mapping[str | None, Sequence[int]]:
    """Return the places of the answers by the normal form of their key, which limits the comparisons to equal keys."""
    places_by_form: dict[str | None, list[int]] = {}
    if key is None:
        return places_by_form
    for place in places:
        places_by_form.setdefault(comparator.normal_form(answers[place].get(key)), []).append(place)
    return places_by_form


def _symmetric_assignment(
    weights: Mapping[tuple[int, int], int], golds: Objects, answers: Objects
) -> tuple[list[tuple[int, int]], bool]:
    """Return the heaviest assignment, which is the same when gold and answers are swapped."""
    if list(map(canonical_json, golds)) <= list(map(canonical_json, answers)):
        return assignment(weights)
    pairs, approximate = assignment({(right, left): weight for (left, right), weight in weights.items()})
    return [(left, right) for right, left in pairs], approximate


def _equal_pairs(golds: Objects, answers: Objects) -> list[tuple[int, int]]:
    """Return pairs of objects that are equal in all judged properties, if all gold objects judge the same ones."""
    names = {frozenset(value) for value in golds}
    if len(names) != 1:
        return []
    judged = next(iter(names))
    waiting: dict[str, list[int]] = {}
    for place, value in enumerate(answers):
        key = canonical_json({name: inner for name, inner in value.items() if name in judged})
        waiting.setdefault(key, []).append(place)
    pairs: list[tuple[int, int]] = []
    for place, value in enumerate(golds):
        partners = waiting.get(canonical_json(value))
        if partners and any(map(is_something, value.values())):
            pairs.append((place, partners.pop(0)))
    return pairs


def _identity(golds: Objects, answers: Objects) -> str | None:
    """Return the first of the usual key names that every object of both lists has, as in `pipeline diff`."""
    items = [*golds, *answers]
    for name in IDENTITIES:
        if items and all(isinstance(item.get(name), (str, int)) for item in items):
            return name
    return None


def _key_comparator(field: ObjectList, key: str | None) -> Comparator:
    leaf = field.item.properties.get(key) if key is not None else None
    if not isinstance(leaf, Leaf):
        return _EXACT
    return leaf.comparator or _TEXT


def _same_key(comparator: Comparator, gold: Any, predicted: Any) -> bool:
    return is_something(gold) and is_something(predicted) and comparator.agree(predicted, gold)
