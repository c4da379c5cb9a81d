"""Verify one document by its two halves: whether a server read it to its end. Sends nothing itself.

A server whose limit is known truncates longer prompts to a known count. An honest document may have that count by
chance, so it is sent in two halves, each of which fits the limit:

    tokens with the first half + tokens with the second half - tokens without a document = tokens with the whole

A smaller count of the whole means that the whole was truncated. A larger one means that a half was truncated, by
another server at the same address; the halves are then sent again.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from pipeline.llm.prompt_length.repetition import NEAR, TOLERANCE, Probe, TruncatedCounts

MORE_HALVES = 3
"""The most repetitions of both halves when together they have fewer tokens than the whole."""


@dataclass(frozen=True, slots=True)
class Halves:
    """Token counts of a document's prompt: with each half of it, without it, and with all of it."""

    first: int
    second: int
    base: int
    full_tokens: int

    @property
    def lost_tokens(self) -> int:
        """Return how many tokens fewer the full prompt has than its halves together."""
        return self.first + self.second - self.base - self.full_tokens

    def is_cut(self, places: int) -> bool:
        """Return whether the full prompt was truncated; halves that stay too short verify nothing and count as cut."""
        return abs(self.lost_tokens) > TOLERANCE * places

    def is_short(self, places: int) -> bool:
        """Return whether a half was truncated, so that another server with a smaller limit must be at this address."""
        return self.lost_tokens < -TOLERANCE * places

    def larger_counts(self, halves: Halves) -> Halves:
        """Return the higher count of each half: truncation only lowers a count."""
        return replace(self, first=max(self.first, halves.first), second=max(self.second, halves.second))


def split(text: str) -> tuple[str, str]:
    """Return two halves: split at the single white-space character nearest to the middle, else between two clusters.

    A split inside a run of white space, or inside a cluster (a letter with its accents, a flag, a family of emoji),
    would add tokens.
    """
    place = _space_near_middle(text) or _gap_near_middle(text) or len(text) // 2
    return text[:place], text[place:]


def _space_near_middle(text: str) -> int:
    """Return the place of a single white-space character in the middle half of the text, or 0."""
    middle = len(text) // 2
    for step in range(len(text) // 4 + 1):
        for place in (middle - step, middle + step):
            neighbours = text[max(0, place - 1) : place + 2]
            is_inside = 0 < place < len(text) - 1
            if is_inside and [character.isspace() for character in neighbours] == [False, True, False]:
                return place
    return 0


def _gap_near_middle(text: str) -> int:
    """Return the place between two clusters that is nearest to the middle; 0 when there is none."""
    middle = len(text) // 2
    places = (place for step in range(middle + 1) for place in (middle - step, middle + step))
    return next((place for place in places if 0 < place < len(text) and not _joined(text, place)), 0)


_JOINER = "\u200d"
_JAMO = range(0x1100, 0x1200)
_FLAGS = range(0x1F1E6, 0x1F200)
_SKINS = range(0x1F3FB, 0x1F400)


def _joined(text: str, place: int) -> bool:
    """Return whether the characters before and at `place` belong to one cluster, or to one run of white space."""
    left = text[place - 1]
    right = text[place]
    if left.isspace() and right.isspace():
        return True
    if unicodedata.category(right) in ("Mn", "Me", "Mc") or _JOINER in (left, right) or ord(right) in _SKINS:
        return True
    pairs = [(ord(left) in kind and ord(right) in kind) for kind in (_JAMO, _FLAGS)]
    return any(pairs)


class HalvesResult(NamedTuple):
    """Whether a document was truncated, the tokens that its whole prompt needs (if known), and whether halves differed.

    `differs`: a half had another count when it was sent again, so that several servers answer at this address.
    """

    is_cut: bool
    needed_tokens: int | None = None
    differs: bool = False


def verify_by_halves(
    text: str,
    send: Callable[[str, bool], Probe],
    *,
    tokens: int,
    places: int,
    truncation: TruncatedCounts,
    renew: Callable[[], object] = lambda: None,
) -> HalvesResult:
    """Send the document's two halves, and return whether the document was truncated.

    `send` sends the prompt with a part of the text, with or without the text after the document (a re-ask's complaint).
    Halves that were truncated themselves are sent again, over new connections (`renew`).
    """
    first, second = split(text)
    base = send("", False).tokens or 0

    def count() -> Halves:
        return Halves(send(first, True).tokens or 0, send(second, False).tokens or 0, base, full_tokens=tokens)

    halves = count()
    if not (halves.first and halves.second and base) or truncation.is_near(base, 1):  # no room for a document
        return HalvesResult(is_cut=True)
    first_lost = halves.lost_tokens
    for _ in range(MORE_HALVES):
        if not halves.is_short(places):
            break
        renew()
        halves = halves.larger_counts(count())
    needed_tokens = halves.full_tokens + halves.lost_tokens if halves.lost_tokens > 0 else None
    return HalvesResult(halves.is_cut(places), needed_tokens, differs=halves.lost_tokens > first_lost + NEAR)
