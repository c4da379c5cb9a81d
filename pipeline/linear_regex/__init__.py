"""Regular expressions whose time is linear in the text: Python's syntax and meaning, without its backtracking.

Python's engine tries one way to match after another, and `^(a+)+$` can have 2^n of them; while it tries them, it
holds the interpreter lock, and no signal ends it. Here a pattern is parsed by the standard library and becomes an
automaton that follows all ways at once:

1. Each place in the pattern is a step: read a character, branch, or hold an assertion against a position.
2. A node is the set of steps that are possible before a character. Its next node, for each kind of character and
   each outcome of the assertions, is computed once and remembered.
3. The standard library decides `^`, `$` and `\\b`, for which it reads two characters. A look-ahead is the same
   automaton run from the end of the text, a look-behind one run from its beginning; each gives True or False by
   position.

A yes or no needs no groups, so it does not matter which way is taken first. Back references, possessive repeats and
atomic groups do depend on that, and are refused. A pattern for which Python's engine has few ways to try is left to
it: it is ten times as fast. Nothing here knows what a pattern is for.

    program.py    a parsed pattern → the steps of its automaton
    automaton.py  the steps → nodes, and a text → where the pattern can end
    plain.py      is Python's engine fast enough?
"""

from __future__ import annotations

import re
from collections import deque
from functools import lru_cache

from pipeline.linear_regex.automaton import Automaton, TooExpensiveError
from pipeline.linear_regex.plain import is_plain
from pipeline.linear_regex.program import Program, UnsupportedPatternError, parse

__all__ = ["LinearRegex", "TooExpensiveError", "UnsupportedPatternError", "linear_regex"]


class LinearRegex:
    """A compiled pattern that answers yes or no; safe to share between threads."""

    def __init__(self, pattern: str, flags: int = 0) -> None:
        """Raise re.error for an invalid pattern, UnsupportedPatternError for one that needs backtracking."""
        try:
            compiled = re.compile(pattern, flags)
            tree = parse(pattern, flags)
            self.is_plain = is_plain(tree)
            self._automaton = None if self.is_plain else Automaton(Program(tree, tree.state.flags, back=False))
        except RecursionError as cause:
            raise UnsupportedPatternError("it is nested too deeply") from cause
        self._compiled = compiled

    def search(self, text: str) -> bool:
        """Return True when the pattern matches somewhere in the text, like `re.search`; may raise TooExpensiveError."""
        if self._automaton is None:
            return self._compiled.search(text) is not None
        return any(self._automaton.ends(text, anywhere=True))

    def fullmatch(self, text: str) -> bool:
        """Return True when the pattern matches the whole text, like `re.fullmatch`; may raise TooExpensiveError."""
        if self._automaton is None:
            return self._compiled.fullmatch(text) is not None
        return deque(self._automaton.ends(text, anywhere=False), maxlen=1)[0]


@lru_cache(maxsize=1024)
def linear_regex(pattern: str, flags: int = 0) -> LinearRegex:
    """The compiled pattern, remembered."""
    return LinearRegex(pattern, flags)
