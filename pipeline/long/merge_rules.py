"""Rules for merging the values of each place of a schema, as data; `pipeline.answers.merge_rules` reads it.

It must not read a schema.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

Place = tuple[str | int, ...]
"""The steps from an answer to a value in it."""

FIELDS: Final = "fields"
UNION: Final = "union"
CONCAT: Final = "concat"
NO_DEFAULT: Final = object()


@dataclass(frozen=True, slots=True)
class RankProperty:
    """The number that `best` compares: a property beside the value, or `levels` further out; -1: inside it."""

    name: str
    levels: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rule:
    """Rule for merging the values of one place.

    `strategy`: a value of `x-merge`. `nullable`: null is accepted. `empty`: the keys of `x-empty`, by `value_key`.
    `is_quote`: the value is a quote of the document. `max_size`: `maxItems`, or `maxLength` of a joined text;
    `cuts_excess`: the rest is cut off (`x-over: cut`). Of an object: `properties`, and `patterns` for other names: a
    test of a name, and the rule. Both are filled after the rule is made, as a schema may refer to itself. Of an array:
    `items`, and the properties that are the `key` of two equal items.
    """

    strategy: str
    nullable: bool = False
    default: Any = NO_DEFAULT
    empty: frozenset[Hashable] = frozenset()
    is_quote: bool = False
    rank_property: RankProperty | None = None
    max_size: int | None = None
    cuts_excess: bool = False
    properties: dict[str, Rule] = field(default_factory=dict)
    required: frozenset[str] = frozenset()
    patterns: list[tuple[Callable[[str], bool], Rule]] = field(default_factory=list)
    items: Rule | None = None
    key: tuple[str, ...] = ()
    exact_key: bool = False
    unique: bool = False

    def of_property(self, name: str) -> Rule:
        """Return the rule of a property of this object."""
        if name in self.properties:
            return self.properties[name]
        return next((rule for matches, rule in self.patterns if matches(name)), FIRST)


FIRST: Final = Rule(strategy="first")
"""The rule of a value that the schema does not describe."""


@dataclass(frozen=True, slots=True)
class MergeRules:
    """The rules of one schema. `violation` returns how a merged value breaks it, None for a valid one.

    `describe` returns a place for a message, without names that come from a document.
    """

    root: Rule
    violation: Callable[[Mapping[str, Any]], str | None]
    describe: Callable[[Place], str]
