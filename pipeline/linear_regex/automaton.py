"""A program is run over a text: all ways through it at once, one node after the other."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from pipeline.linear_regex.program import LookAround, Position, Program

MAX_VISITS = 10_000_000
"""Steps that one search may visit in nodes that were not known: a few seconds."""

_MAX_REMEMBERED = 500_000
_MAX_KINDS = 10_000
_END = -1

Holds = Callable[[int], bool]
"""Return True when an assertion holds at this position of a text."""


class TooExpensiveError(Exception):
    """A search took more than MAX_VISITS."""


class _Node:
    """A set of steps before a character, and what follows from it: (does the pattern end here, the next node)."""

    __slots__ = ("following", "steps")

    def __init__(self, steps: tuple[int, ...]) -> None:
        self.steps = steps
        self.following: dict[tuple[int, int], tuple[bool, _Node]] = {}


class _HoldsPosition:
    """The test of a position (`^`, `$`, `\\b`) by the standard library, which reads two characters for it."""

    def __init__(self, assertion: Position) -> None:
        self._match = re.compile(assertion.text, assertion.flags).match
        self.inside = assertion.text in (r"\b", r"\B") or bool(assertion.flags & re.MULTILINE)

    def on(self, text: str) -> Holds:
        """The answer for each position of this text."""
        return lambda at: self._match(text, at) is not None


class _HoldsAround:
    """The results of a look-around for all positions, computed in one run."""

    inside = True

    def __init__(self, assertion: LookAround) -> None:
        self._automaton = Automaton(assertion.program)
        self._back = assertion.back
        self._is_positive = assertion.is_positive

    def on(self, text: str) -> Holds:
        """The answer for each position of this text."""
        holds = bytearray(self._automaton.ends(text, anywhere=True, back=self._back))
        if self._back:
            holds.reverse()
        return lambda at: bool(holds[at]) is self._is_positive


class Automaton:
    """The execution of a program; thread-safe, as two threads at worst compute a node twice."""

    def __init__(self, program: Program) -> None:
        self._steps = program.steps
        self._start = program.start
        self._leaves = [re.compile(text, flags).fullmatch for text, flags in program.leaves]
        self._assertions = [
            _HoldsPosition(assertion) if isinstance(assertion, Position) else _HoldsAround(assertion)
            for assertion in program.assertions
        ]
        self._inside = any(assertion.inside for assertion in self._assertions)
        self._kinds: dict[str, int] = {}
        self._nodes: dict[tuple[tuple[int, ...], bool], _Node] = {}
        self._remembered = 0

    def ends(self, text: str, *, anywhere: bool, back: bool = False) -> Iterator[bool]:
        """For each position in order, from 0 or from the end: can the pattern end there?

        `anywhere`: it may begin at every position, else at the first only.
        """
        checks = [assertion.on(text) for assertion in self._assertions]
        size = len(text)
        inside = self._inside
        visits = 0
        kinds = self._kinds
        node = self._node((self._start,), anywhere)
        for count in range(size + 1):
            at = size - count if back else count
            kind = _END
            if count < size:
                char = text[at - 1] if back else text[at]
                kind = kinds[char] if char in kinds else self._kind(char)
            holding = 0
            if checks and (inside or at == 0 or at >= size - 1):
                holding = sum(1 << number for number, holds in enumerate(checks) if holds(at))
            transition = node.following.get((kind, holding))
            if transition is None:
                visited = self._closure(node.steps, holding)
                visits += len(visited)
                if visits > MAX_VISITS:
                    raise TooExpensiveError
                transition = node.following[kind, holding] = self._next_states(visited, kind, anywhere)
            yield transition[0]
            node = transition[1]

    def _closure(self, steps: Iterable[int], holding: int) -> set[int]:
        """All steps that are reached without reading."""
        visited = set(steps)
        waiting = list(visited)
        while waiting:
            kind, number, to = self._steps[waiting.pop()]
            if kind == "branch":
                reached = to
            elif kind == "assert" and holding >> number & 1:
                reached = (to,)
            else:
                continue
            for step in reached:
                if step not in visited:
                    visited.add(step)
                    waiting.append(step)
        return visited

    def _next_states(self, visited: set[int], kind: int, anywhere: bool) -> tuple[bool, _Node]:
        steps = {self._start} if anywhere else set()
        self._remembered += 8
        if kind != _END:
            for step in visited:
                kind_of_step, number, to = self._steps[step]
                if kind_of_step == "read" and kind >> number & 1:
                    steps.add(to)
        return 0 in visited, self._node(tuple(sorted(steps)), anywhere)

    def _node(self, steps: tuple[int, ...], anywhere: bool) -> _Node:
        node = self._nodes.get((steps, anywhere))
        if node is None:
            self._remembered += len(steps)
            if self._remembered > _MAX_REMEMBERED:
                self._nodes = {}
                self._remembered = 0
            node = self._nodes[steps, anywhere] = _Node(steps)
        return node

    def _kind(self, char: str) -> int:
        """Return the leaves of the pattern that the character fits, one bit each."""
        if len(self._kinds) > _MAX_KINDS:
            self._kinds.clear()
        kind = sum(1 << number for number, fits in enumerate(self._leaves) if fits(char))
        self._kinds[char] = kind
        return kind
