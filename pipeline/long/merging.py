"""One record from the answers about the windows of a document: one pass over all of them, in document order.

    merged = merge(compiled.merge_rules, [Part(0, 8123, answer, evidence), …], text=document.text)

The order in which answers arrive does not matter, and no model is called. A window within another one does not count.
Each place of the schema has its rule (merge_rules.py); the result there is a node (merged_nodes.py), from which the
value, its evidence and its conflicts are read at the end.

    parts ─▶ Candidate values of a place ─▶ ChosenValue | MergedValue | Fields | Items ─▶ Merged

The values of the parts are shared with the result and must not be changed.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import DocumentError
from pipeline.evidence import Evidence
from pipeline.long.choosing import CONFLICTING, Candidate, Enclosing, choose, cut_text, joined_texts, summed
from pipeline.long.concatenation import concatenated
from pipeline.long.item_keys import ItemKey, ItemKeys
from pipeline.long.merge_rules import CONCAT, FIELDS, FIRST, NO_DEFAULT, UNION, MergeRules, Place, Rule
from pipeline.long.merged_nodes import ChosenValue, Fields, Items, Merged, MergedValue, Node, merged_from
from pipeline.long.same_values import is_nothing, value_key
from pipeline.long.windows import Span

__all__ = ["Merged", "Part", "merge"]


_KINDS = {FIELDS: dict, UNION: list, CONCAT: list}
"""Rules that apply to one type only."""


@dataclass(frozen=True, slots=True)
class Part:
    """The answer about text[start:end]: a value that is valid against the schema of windows.

    None: a blank window, for which no request was sent. `evidence`: its quotes, with their places in the whole text.
    """

    start: int
    end: int
    value: Mapping[str, Any] | None
    evidence: Sequence[Evidence] = ()


def merge(rules: MergeRules, parts: Sequence[Part], *, text: str) -> Merged:
    """Return the record of the document; DocumentError `merge_failed` when the parts cannot be merged.

    Windows are numbered from 1 in the order of the text, including those without an answer.
    """
    outermost = _outermost(parts)
    merger = _Merger(rules, outermost, text)
    merged = merged_from(merger.root(), outermost, absorbed=merger.absorbed, unkeyed=merger.unkeyed)
    broken = rules.violation(merged.value)
    if broken is not None:
        raise _failure(broken)
    return merged


def _outermost(parts: Sequence[Part]) -> list[Part]:
    """Return the parts that are not within another one, sorted."""
    outermost: list[Part] = []
    for part in sorted(parts, key=lambda span: (span.start, -span.end)):
        if not outermost or part.end > outermost[-1].end:
            outermost.append(part)
    return outermost


def _failure(message: str) -> DocumentError:
    return DocumentError("merge_failed", message, stage="validate")


class _Merger:
    """The merging of one document's parts. `absorbed`: the number of list items that were equal to others."""

    def __init__(self, rules: MergeRules, parts: Sequence[Part], text: str) -> None:
        self.absorbed = 0
        self.unkeyed = 0
        self._rules = rules
        self._parts = parts
        self._text = text
        self._keys = ItemKeys([part.evidence for part in parts])

    def root(self) -> Node:
        """Return the node of the whole answer."""
        answers = [Candidate(part.value, at, ()) for at, part in enumerate(self._parts) if part.value is not None]
        if not answers:
            raise _failure("none of the windows has an answer")
        return self._fields(self._rules.root, answers, ())

    def _merged(self, rule: Rule, values: Sequence[Candidate], place: Place, *, is_required: bool) -> Node | None:
        """Return the node of the windows' values for one place; None when it is omitted."""
        counting = [candidate for candidate in values if not _is_empty(rule, candidate.value)]
        if not counting:
            return self._missing_value(rule, values, place, is_required=is_required)
        kind = _KINDS.get(rule.strategy)
        if kind is not None and not all(isinstance(candidate.value, kind) for candidate in counting):
            return self._single(FIRST, counting, place)  # a schema without a type accepts other values, too
        if kind is dict:
            return self._whole_or_fields(rule, counting, place)
        return self._single(rule, counting, place) if kind is None else self._list(rule, counting, place)

    def _missing_value(
        self, rule: Rule, values: Sequence[Candidate], place: Place, *, is_required: bool
    ) -> Node | None:
        """Return the node of a place without a value in any window."""
        filled = next((candidate for candidate in values if candidate.value is not None), None)
        if filled is not None:
            return ChosenValue(filled)
        if rule.nullable:
            return ChosenValue(values[0])
        if rule.default is not NO_DEFAULT:
            return MergedValue(rule.default)
        if not is_required:
            return None
        at = self._rules.describe(place)
        windows = len(self._parts)
        complaint = f"none of the {windows} windows gave a value" if windows > 1 else "the only window gave no value"
        raise _failure(f"{at}: {complaint}, the schema needs one: allow null or give a default")

    def _whole_or_fields(self, rule: Rule, values: Sequence[Candidate], place: Place) -> Node:
        try:
            return self._fields(rule, values, place)
        except DocumentError:
            # windows were asked for the parts of an object that may be null as a whole, and gave none
            if rule.nullable and all(is_nothing(candidate.value) for candidate in values):
                return MergedValue(None)
            raise

    def _fields(self, rule: Rule, values: Sequence[Candidate], place: Place) -> Node:
        """Return the node of an object, each of its properties by its own rule."""
        by_name: dict[str, list[Candidate]] = {}
        for candidate in values:
            around = Enclosing(candidate.value, candidate.enclosing)
            for name, value in candidate.value.items():
                by_name.setdefault(name, []).append(Candidate(value, candidate.part, (*candidate.place, name), around))
        merged = {}
        for name, candidates in by_name.items():
            node = self._merged(rule.of_property(name), candidates, (*place, name), is_required=name in rule.required)
            if node is not None:
                merged[name] = node
        return Fields(merged)

    def _single(self, rule: Rule, values: Sequence[Candidate], place: Place) -> Node:
        if rule.strategy == "sum":
            return MergedValue(summed(values))
        if rule.strategy == "join":
            return self._join(rule, values, place)
        chosen_value = choose(rule, values)
        if rule.is_quote or (rule.strategy not in CONFLICTING and rule.strategy != "same"):
            return ChosenValue(chosen_value)
        other_values = _different_values(chosen_value, values)
        if other_values and rule.strategy == "same":
            first, second = sorted((chosen_value.part + 1, other_values[0].part + 1))
            raise _failure(f"{self._rules.describe(place)}: windows {first} and {second} differ (x-merge: same)")
        return ChosenValue(chosen_value, rule.strategy, other_values)

    def _join(self, rule: Rule, values: Sequence[Candidate], place: Place) -> Node:
        text = joined_texts(values)
        if rule.max_size is None or len(text) <= rule.max_size:
            return MergedValue(text)
        if rule.cuts_excess:
            return MergedValue(cut_text(text, rule.max_size), full_length=len(text))
        complaint = (
            f"{len(text)} characters after joining {len(self._parts)} windows, the schema allows {rule.max_size}"
        )
        raise _failure(f"{self._rules.describe(place)}: {complaint}: raise maxLength, or set x-over: cut")

    def _list(self, rule: Rule, values: Sequence[Candidate], place: Place) -> Node:
        nodes = self._union(rule, values, place) if rule.strategy == UNION else self._concat(rule, values)
        if rule.max_size is None or len(nodes) <= rule.max_size:
            return Items([node for node, _ in nodes])
        if not rule.cuts_excess:
            complaint = (
                f"{len(nodes)} items after merging {len(self._parts)} windows, the schema allows {rule.max_size}"
            )
            remedy = "raise maxItems (x-window-items bounds one answer), or set x-over: cut"
            raise _failure(f"{self._rules.describe(place)}: {complaint}: {remedy}")
        best_items = sorted(range(len(nodes)), key=lambda at: -nodes[at][1])[: rule.max_size]
        return Items([nodes[at][0] for at in sorted(best_items)], full_length=len(nodes))

    def _union(self, rule: Rule, values: Sequence[Candidate], place: Place) -> list[tuple[Node, int]]:
        """Return the nodes of the different items, each with the number of windows that gave it."""
        items = rule.items
        assert items is not None
        groups: dict[ItemKey, list[Candidate]] = {}
        for item in _items(values):
            groups.setdefault(self._keys.of(rule, item), []).append(item)
        nodes: list[tuple[Node, int]] = []
        for key, group in groups.items():
            self.absorbed += len(group) - 1
            self.unkeyed += bool(rule.key) and not key.is_key
            node: Node | None = ChosenValue(group[0])
            if key.is_key and len(group) > 1:
                node = self._merged(items, group, (*place, len(nodes)), is_required=True)
            assert node is not None
            nodes.append((node, len({item.part for item in group})))
        return nodes

    def _concat(self, rule: Rule, values: Sequence[Candidate]) -> list[tuple[Node, int]]:
        """Return the nodes of all items except repetitions from the text that two windows share."""
        lists: dict[int, list[Candidate]] = {}
        for item in _items(values):
            lists.setdefault(item.part, []).append(item)
        spans = [Span(part.start, part.end) for part in self._parts]
        result = concatenated(rule, lists, keys=self._keys, spans=spans, text=self._text)
        if rule.unique:
            result = list({value_key(item.value, exact=True): item for item in reversed(result)}.values())[::-1]
        self.absorbed += sum(map(len, lists.values())) - len(result)
        if rule.key:
            self.unkeyed += sum(not self._keys.of(rule, item).is_key for item in result)
        return [(ChosenValue(item), 1) for item in result]


def _is_empty(rule: Rule, value: Any) -> bool:
    """Return True for a value that counts as empty when another window has one."""
    if isinstance(value, dict):
        is_empty = not value if rule.strategy == FIELDS else is_nothing(value)
    else:
        is_empty = is_nothing(value)
    return is_empty or bool(rule.empty and value_key(value) in rule.empty)


def _items(lists: Sequence[Candidate]) -> list[Candidate]:
    return [
        Candidate(item, candidate.part, (*candidate.place, number), candidate.enclosing)
        for candidate in lists
        for number, item in enumerate(candidate.value)
    ]


def _different_values(chosen_value: Candidate, values: Sequence[Candidate]) -> list[Candidate]:
    """Return the first of each value that differs from the chosen one."""
    key = value_key(chosen_value.value)
    by_key: dict[Hashable, Candidate] = {}
    for candidate in values:
        by_key.setdefault(value_key(candidate.value), candidate)
    by_key.pop(key, None)
    return list(by_key.values())
