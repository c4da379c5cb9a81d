"""Patterns that Python's own engine may be left with: it has few ways to try on any text."""

from __future__ import annotations

import math
import re
from typing import Any

from pipeline.linear_regex.program import LEAVES

_MAX_WAYS = 64


def is_plain(tree: Any) -> bool:
    """True when Python's engine has few ways to try, and at most one long repeat, behind a `^`."""
    ways, long = _ways(tree)
    anchored = bool(tree) and str(tree[0][1]) in ("AT_BEGINNING", "AT_BEGINNING_STRING")
    anchored = anchored and not tree.state.flags & re.MULTILINE
    return ways <= _MAX_WAYS and (long == 0 or (long == 1 and anchored))


def _ways(tree: Any) -> tuple[float, int]:
    """In how many ways a sequence can be tried at one position, and how many long repeats multiply that."""
    ways = 1.0
    long = 0
    for op, argument in tree:
        more, longer = _ways_of(str(op), argument)
        ways = min(ways * more, math.inf)
        long = long + longer
    return ways, long


def _ways_of(op: str, argument: Any) -> tuple[float, int]:
    if op in LEAVES or op == "AT":
        return 1, 0
    if op == "SUBPATTERN":
        return _ways(argument[3])
    if op == "BRANCH":
        branch_ways = [_ways(branch) for branch in argument[1]]
        return sum(ways for ways, _ in branch_ways), sum(long for _, long in branch_ways)
    if op not in ("MAX_REPEAT", "MIN_REPEAT"):
        return math.inf, 0
    low, high, body = argument
    if len(body) == 1 and str(body[0][0]) in LEAVES:
        spread = int(high) - low
        return (1, 1) if spread >= _MAX_WAYS else (spread + 1, 0)
    ways, long = _ways(body)
    if int(high) <= 1:
        return ways + 1 - low, long
    return (ways**low, 0) if low == int(high) <= _MAX_WAYS and not long else (math.inf, 0)
