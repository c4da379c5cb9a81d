"""Check each merge keyword of a schema against the type that it is on, and suggest the nearest name for a wrong one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NoReturn

from pipeline.answers.merge_keywords import BY, EMPTY, KEY, KEY_MATCH, MERGE, OVER, WINDOW_ITEMS
from pipeline.answers.schema_nodes import SchemaNode, SchemaNodes
from pipeline.answers.subschemas import QUOTE
from pipeline.answers.violations import shortened
from pipeline.config.constraints import nearest_hint
from pipeline.errors import ConfigError

_ONE_VALUE = ("first", "last", "majority", "same", "best")
_RULES: Mapping[str, Sequence[str]] = {
    "string": ("first", "last", "longest", "shortest", "min", "max", "majority", "same", "best", "join"),
    "number": ("first", "last", "min", "max", "majority", "same", "best", "sum"),
    "boolean": ("any", "all", "first", "last", "majority", "same", "best"),
    "object": ("fields", *_ONE_VALUE),
    "array": ("union", "concat"),
    "mixed": _ONE_VALUE,
}
_KIND_NAMES = {
    "string": "a string",
    "number": "a number",
    "boolean": "a boolean",
    "object": "an object",
    "array": "an array",
    "mixed": "a value of several types, a tuple or an array of arrays",
}


def rules_for(node: SchemaNode) -> list[str]:
    """Return the values of `x-merge` that the type of a value accepts."""
    joins = not node.value(QUOTE, False) and node.choices is None
    return [rule for rule in _RULES[node.kind] if rule != "join" or joins]


class Checks:
    """The checks of the merge keywords of one schema; they raise ConfigError with the place of a wrong keyword."""

    def __init__(self, nodes: SchemaNodes, *, where: str) -> None:
        self._nodes = nodes
        self._where = where

    def check_root(self, node: SchemaNode) -> None:
        """Check that the whole answer is merged by its fields."""
        if node.value(MERGE, "fields") != "fields":
            self._refuse(node, MERGE, " for the whole answer", ["fields"])

    def check(self, node: SchemaNode, objects: Sequence[SchemaNode]) -> None:
        """Check the keywords of a value. `objects`: the objects around it, the nearest first."""
        rule = node.value(MERGE)
        if rule is not None and rule not in rules_for(node):
            self._refuse(node, MERGE, f" on {_KIND_NAMES[node.kind]}", rules_for(node))
        self._check_key(node)
        self._check_by(node, objects)
        if not isinstance(node.value(EMPTY, []), list):
            self._refuse(node, EMPTY, "", [], need='a list of values, such as ["none", "n/a"]')
        if node.keyword(OVER):
            if node.kind != "array" and rule != "join":
                self._refuse(
                    node, OVER, f" on {_KIND_NAMES[node.kind]}", [], need="it on an array, or beside x-merge: join"
                )
            if node.value(OVER) not in ("fail", "cut"):
                self._refuse(node, OVER, "", ["fail", "cut"])
        self._check_window_items(node)

    def refuse_place(self, place: str) -> NoReturn:
        """Raise ConfigError for a keyword at a place where it has no effect."""
        need = "need it on the property itself: here it has no effect"
        raise ConfigError(f"{self._where}: at {place}: got it in a part of a value that is merged as one; {need}")

    def _check_key(self, node: SchemaNode) -> None:
        if node.keyword(KEY_MATCH):
            if node.keyword(KEY) is None:
                self._refuse(node, KEY_MATCH, " without x-key", [], need="x-key beside it")
            if node.value(KEY_MATCH) not in ("exact", "folded"):
                self._refuse(node, KEY_MATCH, "", ["folded", "exact"])
        if node.keyword(KEY) is None:
            return
        items = self._nodes.node(node.structure.get("items", {}), f"{node.place}.items")
        if node.kind != "array" or items.kind != "object":
            self._refuse(node, KEY, f" on {_KIND_NAMES[node.kind]}", [], need="it on an array of objects")
        key = node.value(KEY)
        names = [key] if isinstance(key, str) else key
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            self._refuse(node, KEY, "", [], need="the name of a property, or a list of names")
        properties = items.structure.get("properties", {})
        for name in names:
            if name not in properties:
                lacking = "" if name == key else f", of which {shortened(name)}"
                complaint = f"{lacking or ', which'} is not a property of the items"
                self._refuse(node, KEY, complaint, properties, near=name)

    def _check_by(self, node: SchemaNode, objects: Sequence[SchemaNode]) -> None:
        best = node.value(MERGE) == "best"
        if best and node.keyword(BY) is None:
            self._refuse(node, MERGE, " without x-by", [], need="x-by beside it: the number that decides")
        if node.keyword(BY) is None:
            return
        if not best:
            self._refuse(node, BY, " without x-merge: best", [], need="x-merge: best beside it")
        name = node.value(BY)
        if not isinstance(name, str):
            self._refuse(node, BY, "", [], need="the name of a number beside it or around it")
        candidates = [node, *objects] if node.kind == "object" else objects
        holder = next(
            (candidate for candidate in candidates if name in candidate.structure.get("properties", {})), None
        )
        if holder is None:
            numbers = [number for candidate in candidates for number in self._numbers(candidate)]
            self._refuse(node, BY, ", which is not a property beside it or around it", numbers)
        if name not in self._numbers(holder):
            self._refuse(node, BY, ", which is not a number", self._numbers(holder))

    def _numbers(self, node: SchemaNode) -> list[str]:
        """Return the properties of an object that are numbers."""
        properties = node.structure.get("properties", {}).items()
        return [name for name, schema in properties if self._nodes.node(schema, "").kind == "number"]

    def _check_window_items(self, node: SchemaNode) -> None:
        if node.keyword(WINDOW_ITEMS) is None:
            return
        if node.kind != "array":
            self._refuse(node, WINDOW_ITEMS, f" on {_KIND_NAMES[node.kind]}", [], need="it on an array")
        max_items = node.value(WINDOW_ITEMS)
        if not isinstance(max_items, int) or isinstance(max_items, bool) or max_items < 1:
            self._refuse(node, WINDOW_ITEMS, "", [], need="a whole number of items from 1")
        limit = node.structure.get("maxItems", max_items)
        if max_items > limit:
            self._refuse(node, WINDOW_ITEMS, f" above maxItems {limit}", [], need=f"at most {limit}")

    def _refuse(
        self,
        node: SchemaNode,
        keyword: str,
        complaint: str,
        choices: Collection[str],
        *,
        need: str = "",
        near: Any = None,
    ) -> NoReturn:
        """Raise ConfigError with the value seen, what is needed, and the nearest accepted value."""
        placed = node.keyword(keyword)
        place, value = placed if placed is not None else (node.place, None)
        requirement = need or f"one of {', '.join(choices) or 'none'}"
        text = value if near is None else near
        is_known = any(text in rules for rules in _RULES.values())  # of another type: nothing is misspelt
        hint = nearest_hint(text, choices) if isinstance(text, str) and not is_known else ""
        raise ConfigError(
            f"{self._where}: at {place}.{keyword}: got {shortened(value)}{complaint}, need {requirement}{hint}"
        )
