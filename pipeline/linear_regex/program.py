"""A parsed pattern becomes a program: steps that read a character, branch, or hold an assertion."""

from __future__ import annotations

import importlib
import re
import sys
from dataclasses import dataclass
from typing import Any

MAX_STEPS = 20_000
"""Places in a pattern, its counted repeats written out."""

LEAVES = frozenset(("LITERAL", "NOT_LITERAL", "ANY", "IN"))
"""Names of a single character in the standard library's parser."""

_LEAF_FLAGS = re.IGNORECASE | re.MULTILINE | re.DOTALL | re.ASCII
_POSITIONS = {
    "AT_BEGINNING": "^",
    "AT_BEGINNING_STRING": r"\A",
    "AT_BOUNDARY": r"\b",
    "AT_NON_BOUNDARY": r"\B",
    "AT_END": "$",
    "AT_END_STRING": r"\Z",
}
_CATEGORIES = {
    "CATEGORY_DIGIT": r"\d",
    "CATEGORY_NOT_DIGIT": r"\D",
    "CATEGORY_SPACE": r"\s",
    "CATEGORY_NOT_SPACE": r"\S",
    "CATEGORY_WORD": r"\w",
    "CATEGORY_NOT_WORD": r"\W",
}

_parser: Any = importlib.import_module("re._parser" if sys.version_info >= (3, 11) else "sre_parse")


class UnsupportedPatternError(ValueError):
    """The pattern has no automaton, or too large a one; the message gives the reason."""


def parse(pattern: str, flags: int = 0) -> Any:
    """The standard library's tree of a pattern; `tree.state.flags` are the flags, its own included."""
    return _parser.parse(pattern, flags)


@dataclass(frozen=True, slots=True)
class Position:
    """`^`, `$`, `\\b` and the like, as a pattern of its own."""

    text: str
    flags: int


@dataclass(frozen=True, slots=True)
class LookAround:
    """A look-ahead (its program is a mirror image) or a look-behind; not `is_positive`: a negative one."""

    program: Program
    back: bool
    is_positive: bool


class Program:
    """The steps of a pattern, or of its mirror image (`back`): what to read, where to branch, what to assert."""

    def __init__(self, tree: Any, flags: int, *, back: bool) -> None:
        self.steps: list[tuple[str, int, Any]] = [("match", 0, None)]
        self.leaves: dict[tuple[str, int], int] = {}
        self.assertions: list[Position | LookAround] = []
        self._back = back
        self.start = self._sequence(tree, flags, 0)

    def _add(self, kind: str, number: int, to: Any) -> int:
        if len(self.steps) >= MAX_STEPS:
            raise UnsupportedPatternError(f"its repeats are more than {MAX_STEPS} places when written out")
        self.steps.append((kind, number, to))
        return len(self.steps) - 1

    def _sequence(self, tree: Any, flags: int, to: int) -> int:
        """Return the first step of a sequence that continues with step `to`."""
        for op, argument in tree if self._back else reversed(list(tree)):
            to = self._item(str(op), argument, flags, to)
        return to

    def _item(self, op: str, argument: Any, flags: int, to: int) -> int:
        if op in LEAVES:
            number = self.leaves.setdefault((_leaf(op, argument), flags & _LEAF_FLAGS), len(self.leaves))
            return self._add("read", number, to)
        if op == "SUBPATTERN":
            _, added_flags, removed_flags, inner = argument
            return self._sequence(inner, _with_flags(flags, added_flags, removed_flags), to)
        if op == "BRANCH":
            return self._add("branch", 0, [self._sequence(branch, flags, to) for branch in argument[1]])
        if op in ("MAX_REPEAT", "MIN_REPEAT"):
            return self._repeat(*argument, flags=flags, to=to)
        if op == "FAILURE":
            return self._add("branch", 0, [])
        return self._assertion(op, argument, flags, to)

    def _assertion(self, op: str, argument: Any, flags: int, to: int) -> int:
        if op == "AT" and str(argument) in _POSITIONS:
            self.assertions.append(Position(_POSITIONS[str(argument)], flags & _LEAF_FLAGS))
        elif op in ("ASSERT", "ASSERT_NOT"):
            direction, inner = argument
            back = direction > 0
            self.assertions.append(LookAround(Program(inner, flags, back=back), back, is_positive=op == "ASSERT"))
        else:
            raise UnsupportedPatternError(f"{op.lower().replace('_', ' ')} needs backtracking")
        return self._add("assert", len(self.assertions) - 1, to)

    def _repeat(self, low: int, high: Any, body: Any, *, flags: int, to: int) -> int:
        if high is _parser.MAXREPEAT:
            loop = self._add("branch", 0, [to])
            self.steps[loop] = ("branch", 0, [self._sequence(body, flags, loop), to])
            first = loop
        else:
            first = to
            for _ in range(int(high) - low):
                first = self._add("branch", 0, [self._sequence(body, flags, first), to])
        for _ in range(low):
            first = self._sequence(body, flags, first)
        return first


def _with_flags(flags: int, added_flags: int, removed_flags: int) -> int:
    """The flags within `(?added-removed:…)`."""
    kinds = re.ASCII | re.UNICODE
    return ((flags & ~kinds if added_flags & kinds else flags) | added_flags) & ~removed_flags


def _leaf(op: str, argument: Any) -> str:
    """Return the source of a pattern of one character for the standard library."""
    if op == "ANY":
        return "."
    if op == "LITERAL":
        return _escaped(argument)
    if op == "NOT_LITERAL":
        return f"[^{_escaped(argument)}]"
    return f"[{''.join(_class_item(str(kind), value) for kind, value in argument)}]"


def _class_item(kind: str, value: Any) -> str:
    if kind == "NEGATE":
        return "^"
    if kind == "CATEGORY":
        return _CATEGORIES[str(value)]
    return f"{_escaped(value[0])}-{_escaped(value[1])}" if kind == "RANGE" else _escaped(value)


def _escaped(code: int) -> str:
    return f"\\U{code:08x}"
