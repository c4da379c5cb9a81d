"""Patterns that Python's own engine may be left with: it has few ways to try on any text."""

from __future__ import annotations

import math
import re
from typing import Any

from pipeline.linear_regex.program import LEAVES

_MAX_WAYS = 64


def is_plain(tree: Any) -> bool:
    """True when Python's engine has few ways to try, and at most one long repeat, behind a `^`."""
    ways, long = _count_ways(tree)
    anchored = bool(tree) and str(tree[0][1]) in ("AT_BEGINNING", "AT_BEGINNING_STRING")
    anchored = anchored and not tree.state.flags & re.MULTILINE
    return ways <= _MAX_WAYS and (long == 0 or (long == 1 and anchored))


def _count_ways(tree: Any) -> tuple[float, int]:
    """Return the number of ways in which a sequence can match at one position, and of long repeats that multiply it."""
    ways = 1.0
    long = 0
    for op, argument in tree:
        factor, long_repeats = _ways_of(str(op), argument)
        ways = min(ways * factor, math.inf)
        long = long + long_repeats
    return ways, long


def _ways_of(op: str, argument: Any) -> tuple[float, int]:
    if op in LEAVES or op == "AT":
        return 1, 0
    if op == "SUBPATTERN":
        return _count_ways(argument[3])
    if op == "BRANCH":
        branch_ways = [_count_ways(branch) for branch in argument[1]]
        return sum(ways for ways, _ in branch_ways), sum(long for _, long in branch_ways)
    if op not in ("MAX_REPEAT", "MIN_REPEAT"):
        return math.inf, 0
    low, high, body = argument
    if len(body) == 1 and str(body[0][0]) in LEAVES:
        spread = int(high) - low
        return (1, 1) if spread >= _MAX_WAYS else (spread + 1, 0)
    ways, long = _count_ways(body)
    if int(high) <= 1:
        return ways + 1 - low, long
    return (ways**low, 0) if low == int(high) <= _MAX_WAYS and not long else (math.inf, 0)
