"""Counts of values in bounded memory: the most frequent ones, how many distinct ones there are, least to greatest.

TopValues       exact up to CAPACITY values; then the Misra-Gries algorithm: each count is too small by at most `error`
DistinctValues  exact up to SMALLEST values; then an estimate by the smallest hashes (k minimum values, about 14 % off)
Spread          exact least and greatest; the median of a uniform sample of SAMPLE values
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

CAPACITY = 64
SMALLEST = 48
SAMPLE = 400
POINTS = 16
"""Quantiles of a sample that are kept for a merge."""
_HASHES = 1 << 32


class TopValues:
    """Counts of the most frequent values. A new value is counted in one step on average."""

    def __init__(self) -> None:
        self.counts: dict[Hashable, int] = {}
        self.error = 0

    def add(self, value: Hashable) -> bool:
        """Count one value; return True for a new one, which may have been seen before and forgotten."""
        counts = self.counts
        count = counts.get(value)
        if count is not None:
            counts[value] = count + 1
            return False
        counts[value] = 1
        if len(counts) > 8 * CAPACITY:
            self.counts, lost = reduced(counts, CAPACITY)
            self.error += lost
        return True


def reduced(counts: dict[Hashable, int], capacity: int) -> tuple[dict[Hashable, int], int]:
    """Return the most frequent values with counts that are too small by the second value, at most `capacity` of them.

    The greatest count that does not fit is subtracted from all: a value that is missing had no more than that.
    """
    if len(counts) <= capacity:
        return counts, 0
    smallest = sorted(counts.values(), reverse=True)[capacity]
    return {value: count - smallest for value, count in counts.items() if count > smallest}, smallest


class DistinctValues:
    """The smallest hashes of the values seen."""

    def __init__(self) -> None:
        self._hashes: set[int] = set()
        self._greatest = _HASHES

    def add(self, text: str) -> None:
        """Count a value by its text."""
        # a CRC is linear; the product (by 2**32 over the golden ratio) spreads those of similar texts
        value = (crc32(text.encode("utf-8", "surrogatepass")) * 0x9E3779B1) & 0xFFFFFFFF
        if value < self._greatest and value not in self._hashes:
            self._hashes.add(value)
            if len(self._hashes) > SMALLEST:
                self._hashes.remove(max(self._hashes))
                self._greatest = max(self._hashes)

    @property
    def hashes(self) -> tuple[int, ...]:
        """The smallest hashes in order, at most SMALLEST of them."""
        return tuple(sorted(self._hashes))


def distinct_count(hashes: Sequence[int]) -> int:
    """Return how many distinct values have these smallest hashes."""
    if len(hashes) < SMALLEST:
        return len(hashes)
    return round((SMALLEST - 1) * _HASHES / (hashes[SMALLEST - 1] + 1))


def merged_hashes(parts: Iterable[Sequence[int]]) -> tuple[int, ...]:
    """Return the smallest hashes of all parts."""
    return tuple(sorted({value for part in parts for value in part})[:SMALLEST])


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers, or dates as YYYY-MM-DD, from least to greatest; `points`: quantiles at equal distances."""

    count: int
    least: Any
    greatest: Any
    points: tuple[Any, ...]

    @property
    def median(self) -> Any:
        """The middle value of the sample."""
        return self.points[len(self.points) // 2]


class Spread:
    """Least, greatest and a uniform sample of values that can be compared. `random` returns a number from 0 to 1.

    The sample is drawn by Algorithm L (Li 1994): how many values to skip is drawn, not whether to take each one.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._least: Any = None
        self._greatest: Any = None
        self._sample: list[Any] = []
        self._weight = 1.0
        self._taken_at = 1  # the number of the value that is taken next
        self._left = 1

    def add(self, value: Any) -> None:
        """Count one value."""
        self._left -= 1
        if not self._left:
            self._take(value)
        if value < self._least:
            self._least = value
        elif value > self._greatest:
            self._greatest = value

    def _take(self, value: Any) -> None:
        """Put the value into the sample, and draw which value is taken next."""
        if len(self._sample) < SAMPLE:
            if not self._sample:
                self._least = self._greatest = value
            self._sample.append(value)
        else:
            self._sample[int(self._random() * SAMPLE)] = value
        self._left = 1
        if len(self._sample) == SAMPLE:
            self._weight *= math.exp(math.log(1.0 - self._random()) / SAMPLE)
            self._left += int(math.log(1.0 - self._random()) / math.log1p(-self._weight))
        self._taken_at += self._left

    def range(self) -> Range | None:
        """Return what was seen; None without a value."""
        if not self._sample:
            return None
        weighted = [(value, 1.0) for value in self._sample]
        return Range(self._taken_at - self._left, self._least, self._greatest, _quantiles(weighted))


def merged_ranges(parts: Iterable[Range | None]) -> Range | None:
    """Return the range of all parts; the sample of each counts by its values."""
    ranges = [part for part in parts if part is not None]
    if not ranges:
        return None
    weighted = [(point, part.count / len(part.points)) for part in ranges for point in part.points]
    least = min(part.least for part in ranges)
    return Range(sum(part.count for part in ranges), least, max(part.greatest for part in ranges), _quantiles(weighted))


def _quantiles(weighted: list[tuple[Any, float]]) -> tuple[Any, ...]:
    """Return the values at the middles of POINTS equal parts of the weight; all values when there are no more."""
    weighted.sort(key=lambda pair: pair[0])
    if len(weighted) <= POINTS and len({weight for _, weight in weighted}) == 1:
        return tuple(value for value, _ in weighted)
    total = sum(weight for _, weight in weighted)
    points: list[Any] = []
    passed = 0.0
    for value, weight in weighted:
        passed += weight
        while len(points) < POINTS and passed >= total * (len(points) + 0.5) / POINTS:
            points.append(value)
    return tuple(points) or (weighted[-1][0],)
