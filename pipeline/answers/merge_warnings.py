"""Warnings about fields whose schema leaves open how the answers about windows are merged.

They are for agents that cut long documents (`overflow: split`). This module must not read an agent file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipeline.answers.merge_checks import rules_for
from pipeline.answers.merge_keywords import KEY, MERGE, OVER
from pipeline.answers.schema_nodes import SchemaNode, SchemaNodes
from pipeline.answers.subschemas import QUOTE, places
from pipeline.long.merge_rules import CONCAT, FIELDS, UNION, Rule

if TYPE_CHECKING:
    from pipeline.answers.schema import CompiledSchema

_SHOWN_RULES = 2


def merge_warnings(compiled: CompiledSchema, *, overlap_tokens: int | None) -> list[str]:
    """Return the warnings, one for each field. `overlap_tokens`: of the windows; None: the default overlap."""
    walk = _Walk(SchemaNodes(compiled.schema), overlaps=overlap_tokens != 0)
    root = walk.nodes.node(compiled.schema, "schema")
    return [f"overflow: split: {warning}" for warning in walk.object(root, compiled.root_rule, is_item=False)]


_WHOLE = "holds for the whole document: more than that fails it (x-over)"


class _Walk:
    """A walk over the values of a schema and their rules."""

    def __init__(self, nodes: SchemaNodes, *, overlaps: bool) -> None:
        self.nodes = nodes
        self._overlaps = overlaps
        self._visited: set[int] = set()

    def object(self, node: SchemaNode, rule: Rule, *, is_item: bool) -> Iterator[str]:
        """Yield the warnings about the properties of an object. `is_item`: it is one of a list."""
        if id(rule) in self._visited:
            return
        self._visited.add(id(rule))
        for name, schema in node.structure.get("properties", {}).items():
            inner = self.nodes.node(schema, f"{node.place}.properties.{name}")
            yield from self._value(inner, rule.properties[name], is_item=is_item)

    def _value(self, node: SchemaNode, rule: Rule, *, is_item: bool) -> Iterator[str]:
        if rule.strategy == FIELDS:
            yield from self.object(node, rule, is_item=is_item)
        elif node.kind == "array":
            yield from self._list(node, rule)
        elif rule.strategy == "sum" and self._overlaps:
            yield f"{node.place}: x-merge: sum counts twice what two windows share: set overlap_tokens: 0"
        elif rule.strategy == "join" and rule.max_size is not None and not node.keyword(OVER):
            yield f"{node.place}: maxLength {rule.max_size} {_WHOLE}"
        elif rule.strategy == "first" and not node.keyword(MERGE) and not is_item:
            rules = ", ".join(rules_for(node)[:_SHOWN_RULES])
            yield f"{node.place} has no x-merge: of several values the first is taken ({rules}, …)"

    def _list(self, node: SchemaNode, rule: Rule) -> Iterator[str]:
        items = self.nodes.node(node.structure.get("items", {}), f"{node.place}.items")
        assert rule.items is not None
        if items.kind == "object" and not node.keyword(KEY) and not node.keyword(MERGE):
            yield f"{node.place} has no x-key: an item that ten windows name is listed ten times"
        elif rule.strategy == CONCAT and self._overlaps and not _has_quote(items):
            need = "give its items an x-quote string"
            yield f"{node.place}: x-merge: concat tells rows of two windows apart by their order alone: {need}"
        if rule.max_size is not None and not node.keyword(OVER):
            yield f"{node.place}: maxItems {rule.max_size} {_WHOLE}"
        for name in rule.key:
            if rule.items.of_property(name).nullable:
                yield f"{items.place}.{name} of x-key may be null: such items stay apart"
        if rule.strategy == UNION and rule.key and rule.items.strategy == FIELDS:
            yield from self.object(items, rule.items, is_item=True)


def _has_quote(node: SchemaNode) -> bool:
    return any(inner.get(QUOTE) for _, source in node.sources for _, inner in places(source, ""))
