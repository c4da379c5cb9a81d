"""The merge rules of a schema, read from its `x-` keywords and checked against the types they are on.

`long/merging.py` applies them. It must not import a validator.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipeline.answers.merge_checks import Checks, rules_for
from pipeline.answers.merge_keywords import BY, EMPTY, KEY, KEY_MATCH, MERGE, MERGE_KEYWORDS, OVER
from pipeline.answers.schema_nodes import SchemaNode, SchemaNodes
from pipeline.answers.subschemas import QUOTE, places
from pipeline.linear_regex import linear_regex
from pipeline.long.merge_rules import CONCAT, FIELDS, NO_DEFAULT, UNION, RankProperty, Rule
from pipeline.long.same_values import value_key


def read_rules(schema: Mapping[str, Any], *, accepts_null: Callable[[Any], bool], where: str) -> Rule:
    """Return the rule of a valid schema's root; ConfigError with `where` and the place of a wrong keyword.

    `accepts_null` returns whether a part of the schema accepts null.
    """
    reader = _Reader(schema, accepts_null=accepts_null, where=where)
    root = reader.root(schema)
    reader.check_visited(schema)
    return root


@dataclass(frozen=True, slots=True)
class _Pending:
    """The rule of an object whose properties are still to be read. `objects`: the objects around it, nearest first."""

    rule: Rule
    node: SchemaNode
    objects: tuple[SchemaNode, ...]
    in_item: bool


class _Reader:
    """Reader of the rules of one schema; it uses a queue, not recursion, as a schema may refer to itself."""

    def __init__(self, schema: Mapping[str, Any], *, accepts_null: Callable[[Any], bool], where: str) -> None:
        self._nodes = SchemaNodes(schema)
        self._accepts_null = accepts_null
        self._checks = Checks(self._nodes, where=where)
        self._rules_read: dict[tuple[int, bool], Rule] = {}
        self._pending: deque[_Pending] = deque()
        self._visited: set[int] = set()

    def root(self, schema: Mapping[str, Any]) -> Rule:
        """Return the rule of the whole schema."""
        node = replace(self._nodes.node(schema, "$"), kind="object")  # a whole answer is always one value
        self._visited.update(id(source) for _, source in node.sources)
        self._checks.check_root(node)
        root = self._own_rule(node, schema, objects=(), in_item=False)
        self._rules_read[id(schema), False] = root
        self._pending.append(_Pending(root, node, (), False))
        while self._pending:
            self._fill(self._pending.popleft())
        return root

    def check_visited(self, schema: Mapping[str, Any]) -> None:
        """Raise ConfigError for a merge keyword at a place where it would have no effect."""
        for place, node in places(schema, "$"):
            if id(node) not in self._visited and not place.startswith(("$.$defs.", "$.definitions.")):
                for keyword in MERGE_KEYWORDS:
                    if keyword in node:
                        self._checks.refuse_place(f"{place}.{keyword}")

    def _rule(self, schema: Any, place: str, *, objects: tuple[SchemaNode, ...], in_item: bool) -> Rule:
        cached = self._rules_read.get((id(schema), in_item))
        if cached is not None:
            return cached
        node = self._nodes.node(schema, place)
        self._visited.update(id(source) for _, source in node.sources)
        self._checks.check(node, objects)
        if node.kind == "array":
            rule = self._list_rule(node, schema, objects=objects)
        else:
            rule = self._own_rule(node, schema, objects=objects, in_item=in_item)
        self._rules_read[id(schema), in_item] = rule
        if node.kind == "object" and rule.strategy == FIELDS:
            self._pending.append(_Pending(rule, node, objects, in_item))
        return rule

    def _own_rule(self, node: SchemaNode, schema: Any, *, objects: Iterable[SchemaNode], in_item: bool) -> Rule:
        strategy = node.value(MERGE, _default_rule(node, in_item=in_item))
        return Rule(
            strategy=strategy,
            nullable=self._accepts_null(schema),
            default=node.value("default", NO_DEFAULT),
            empty=frozenset(map(value_key, node.value(EMPTY, ()))),
            is_quote=bool(node.value(QUOTE, False)),
            rank_property=self._compared_number(node, objects) if strategy == "best" else None,
            max_size=node.structure.get("maxLength") if strategy == "join" else None,
            cuts_excess=node.value(OVER) == "cut",
            required=frozenset(node.structure.get("required", ())),
        )

    def _list_rule(self, node: SchemaNode, schema: Any, *, objects: tuple[SchemaNode, ...]) -> Rule:
        items, place = node.structure.get("items", {}), f"{node.place}.items"
        key = node.value(KEY, ())
        item_node = self._nodes.node(items, place)
        by_default = UNION if key or item_node.kind in ("string", "number", "boolean") else CONCAT
        return Rule(
            strategy=node.value(MERGE, by_default),
            nullable=self._accepts_null(schema),
            default=node.value("default", NO_DEFAULT),
            empty=frozenset(map(value_key, node.value(EMPTY, ()))),
            max_size=node.structure.get("maxItems"),
            cuts_excess=node.value(OVER) == "cut",
            items=self._rule(items, place, objects=objects, in_item=True),
            key=(key,) if isinstance(key, str) else tuple(key),
            exact_key=node.value(KEY_MATCH) == "exact",
            unique=bool(node.structure.get("uniqueItems")),
        )

    def _fill(self, pending: _Pending) -> None:
        """Read the rules of an object's properties."""
        structure = pending.node.structure
        objects = (pending.node, *pending.objects)
        for name, schema in structure.get("properties", {}).items():
            place = f"{pending.node.place}.properties.{name}"
            pending.rule.properties[name] = self._rule(schema, place, objects=objects, in_item=pending.in_item)
        for pattern, schema in structure.get("patternProperties", {}).items():
            place = f"{pending.node.place}.patternProperties.{pattern}"
            rule = self._rule(schema, place, objects=objects, in_item=pending.in_item)
            pending.rule.patterns.append((linear_regex(pattern).search, rule))
        additional = structure.get("additionalProperties")
        if isinstance(additional, Mapping):
            place = f"{pending.node.place}.additionalProperties"
            rule = self._rule(additional, place, objects=objects, in_item=pending.in_item)
            pending.rule.patterns.append((_any_name, rule))

    def _compared_number(self, node: SchemaNode, objects: Iterable[SchemaNode]) -> RankProperty | None:
        """Return the number that `best` compares, in the object itself or the nearest one around it that has it."""
        name = node.value(BY)
        if node.kind == "object" and name in node.structure.get("properties", {}):
            return RankProperty(name, -1)
        levels = (
            level for level, object_node in enumerate(objects) if name in object_node.structure.get("properties", {})
        )
        return RankProperty(name, next(levels, 0))


def _default_rule(node: SchemaNode, *, in_item: bool) -> str:
    """Return the rule of a value without `x-merge`: in an item of a list the first boolean counts."""
    if node.kind == "object":
        return FIELDS
    return "any" if node.kind == "boolean" and not in_item and "any" in rules_for(node) else "first"


def _any_name(_name: str) -> bool:
    return True
