"""Sketches: the most frequent values, the number of distinct ones, and the range of values, in bounded memory.

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
"""Quantiles of a sample that a profile keeps for merging."""
_HASHES = 1 << 32


class TopValues:
    """Counts of the most frequent values. Adding a new value takes one step on average."""

    def __init__(self) -> None:
        self.counts: dict[Hashable, int] = {}
        self.error = 0

    def add(self, value: Hashable) -> bool:
        """Count one value; return True for a value without a count, which may have been dropped before."""
        counts = self.counts
        count = counts.get(value)
        if count is not None:
            counts[value] = count + 1
            return False
        counts[value] = 1
        if len(counts) > 8 * CAPACITY:
            self.counts, error = reduced(counts, CAPACITY)
            self.error += error
        return True


def reduced(counts: dict[Hashable, int], capacity: int) -> tuple[dict[Hashable, int], int]:
    """Return at most `capacity` of the most frequent values; their counts are too small by the second value.

    The greatest count that does not fit is subtracted from all counts: a dropped value had no more than that.
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
        # a CRC is linear: the product (by 2**32 over the golden ratio) spreads the hashes of similar texts
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
    """Estimate the number of distinct values from their smallest hashes."""
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
        """The middle value of the sample, or the mean of its two middle numbers; None for two different dates."""
        middle = len(self.points) // 2
        upper = self.points[middle]
        lower = upper if len(self.points) % 2 else self.points[middle - 1]
        if isinstance(upper, str):
            return None if self.count == 2 and lower != upper else upper
        return lower if lower == upper else _mean(lower, upper)


def _mean(lower: float, upper: float) -> float:
    """Return the mean of two numbers; that of integers is exact where it is an integer."""
    try:
        total = lower + upper
        return total // 2 if isinstance(total, int) and total % 2 == 0 else lower / 2 + upper / 2
    except OverflowError:  # an integer beyond the range of floats
        return upper


class Spread:
    """Smallest, greatest and a uniform sample of comparable values. `random` returns a number from 0 to 1.

    The sample is drawn by Algorithm L (Li 1994), which draws the number of values to skip instead of a decision per
    value.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._least: Any = None
        self._greatest: Any = None
        self._sample: list[Any] = []
        self._weight = 1.0
        self._next_taken = 1  # the number of the next value for the sample
        self._to_skip = 1

    def add(self, value: Any) -> None:
        """Count one value."""
        self._to_skip -= 1
        if not self._to_skip:
            self._take(value)
        if value < self._least:
            self._least = value
        elif value > self._greatest:
            self._greatest = value

    def _take(self, value: Any) -> None:
        """Put the value into the sample, and draw the number of the next one."""
        if len(self._sample) < SAMPLE:
            if not self._sample:
                self._least = self._greatest = value
            self._sample.append(value)
        else:
            self._sample[int(self._random() * SAMPLE)] = value
        self._to_skip = 1
        if len(self._sample) == SAMPLE:
            self._weight *= math.exp(math.log(1.0 - self._random()) / SAMPLE)
            self._to_skip += int(math.log(1.0 - self._random()) / math.log1p(-self._weight))
        self._next_taken += self._to_skip

    def range(self) -> Range | None:
        """Return the range of the values; None without any."""
        if not self._sample:
            return None
        weighted = [(value, 1.0) for value in self._sample]
        return Range(self._next_taken - self._to_skip, self._least, self._greatest, _quantiles(weighted))


def merged_ranges(parts: Iterable[Range | None]) -> Range | None:
    """Return the range of all parts; each sample is weighted by the number of its values."""
    ranges = [part for part in parts if part is not None]
    if not ranges:
        return None
    weighted = [(point, part.count / len(part.points)) for part in ranges for point in part.points]
    least = min(part.least for part in ranges)
    return Range(sum(part.count for part in ranges), least, max(part.greatest for part in ranges), _quantiles(weighted))


def _quantiles(weighted: list[tuple[Any, float]]) -> tuple[Any, ...]:
    """Return the values at the middles of POINTS equal parts of the weight; all values if there are no more than
    POINTS."""
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
