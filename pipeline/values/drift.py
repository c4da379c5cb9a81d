"""Drift: the shares of values that moved between two profiles, by more than chance and by enough to matter.

Each share is compared by Fisher's exact test, or for large counts by a test of two shares with Yates' correction. As
many shares are compared at once, one of them may differ by chance: Holm's correction keeps the probability of any false
mark at 1 %. Documents are the unit, as the values of one document are not independent.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.values.value_profile import FieldProfile, ValueProfile

LEVEL = 0.01
"""Probability of any mark when nothing moved."""
LEAST_MOVE = 0.02
"""Two percentage points: a smaller move does not matter, however certain it is."""
FEWEST_DOCUMENTS = 10
FILLED = "(filled)"
_EXACT_BELOW = 40.0
"""Expected count of the smallest cell below which the test is exact."""


@dataclass(frozen=True, slots=True)
class Move:
    """A share that moved. `value`: a value's label, or `(filled)` for the share of documents that have any value."""

    field: str
    value: str
    share: float
    share_before: float
    p: float

    @property
    def is_filled(self) -> bool:
        """Return True when the share of documents with any value moved."""
        return self.value == FILLED

    @property
    def size(self) -> float:
        """The absolute difference of the two shares."""
        return abs(self.share - self.share_before)


@dataclass(frozen=True, slots=True)
class Drift:
    """The comparison of two profiles: the moves, greatest first, and the number of shares compared."""

    documents: int
    documents_before: int
    compared: int
    moves: tuple[Move, ...]


def drift(present: ValueProfile, former: ValueProfile) -> Drift:
    """Return the shares that moved from `former` to `present`; with too few documents, no share is compared."""
    if min(present.documents, former.documents) < FEWEST_DOCUMENTS:
        return Drift(present.documents, former.documents, 0, ())
    shares = [share for name in present.fields if name in former.fields for share in _shares(name, present, former)]
    moves = sorted(shares, key=lambda move: move.p)
    sure = 0
    while sure < len(moves) and moves[sure].p <= LEVEL / (len(moves) - sure):
        sure += 1
    marked = [move for move in moves[:sure] if move.size >= LEAST_MOVE]
    marked.sort(key=lambda move: (-move.size, move.field, move.value))
    return Drift(present.documents, former.documents, len(shares), tuple(marked))


def _shares(name: str, present: ValueProfile, former: ValueProfile) -> Iterator[Move]:
    """Yield each share of a field that is exact enough in both profiles, with the probability that chance moved it."""
    new = present.fields[name]
    old = former.fields[name]
    yield _move(name, FILLED, new.filled, present.documents, old.filled, former.documents)
    if _is_rough(new) or _is_rough(old):
        return
    for label in dict.fromkeys((*new.values, *old.values)):
        count = new.values.get(label, 0)
        count_before = old.values.get(label, 0)
        if (label not in new.values and new.error) or (label not in old.values and old.error):
            continue
        if max(count / present.documents, count_before / former.documents) >= LEAST_MOVE:
            yield _move(name, label, count, present.documents, count_before, former.documents)


def _is_rough(field: FieldProfile) -> bool:
    """Return True when the counts may be off by more than a fifth of the smallest move."""
    return field.error > LEAST_MOVE / 5 * field.documents


def _move(name: str, value: str, count: int, of: int, count_before: int, of_before: int) -> Move:
    p = difference_p(count, of, count_before, of_before)
    return Move(name, value, count / of, count_before / of_before, p)


def difference_p(count: int, of: int, count_before: int, of_before: int) -> float:
    """Return the probability that two samples of one share differ as much as these, in either direction."""
    total = count + count_before
    documents = of + of_before
    rare = min(total, documents - total)
    if rare == 0:
        return 1.0
    if rare * min(of, of_before) / documents < _EXACT_BELOW:
        return _fisher(count, of, total, documents)
    share = total / documents
    gap = abs(count / of - count_before / of_before) - 0.5 * (1 / of + 1 / of_before)
    deviation = math.sqrt(share * (1 - share) * (1 / of + 1 / of_before))
    return math.erfc(max(gap, 0.0) / deviation / math.sqrt(2))


def _fisher(count: int, of: int, total: int, documents: int) -> float:
    """Return the two-sided p-value of Fisher's exact test: the sum over tables that are no likelier than the observed
    one."""
    low = max(0, of + total - documents)
    high = min(of, total)
    observed = _log_chance(count, of, total, documents) + 1e-9
    chances = (_log_chance(hits, of, total, documents) for hits in range(low, high + 1))
    return min(1.0, math.fsum(math.exp(chance) for chance in chances if chance <= observed))


def _log_chance(count: int, of: int, total: int, documents: int) -> float:
    """Return the logarithm of the hypergeometric probability."""
    return _log_choose(total, count) + _log_choose(documents - total, of - count) - _log_choose(documents, of)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
