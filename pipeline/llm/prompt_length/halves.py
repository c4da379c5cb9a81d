"""Proof by its two halves that a server read one document to its end; it sends nothing itself.

    tokens with the first half + with the second half - without a document = tokens with the whole

Less on the right: the whole was cut. More: a half was cut, by another server at the same address.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from pipeline.llm.prompt_length.repetition import NEAR, TOLERANCE, Cut, Probe

MORE_HALVES = 3
"""Times that two halves are sent again which have fewer tokens than the whole."""


@dataclass(frozen=True, slots=True)
class Halves:
    """Token counts of a document's prompt: with each half of it, with none of it, and with all of it."""

    first: int
    second: int
    base: int
    whole: int

    @property
    def lost(self) -> int:
        """How many tokens the whole has less than its halves together."""
        return self.first + self.second - self.base - self.whole

    def is_cut(self, places: int) -> bool:
        """Return whether the server cut the whole; off the other way proves nothing, which counts as cut."""
        return abs(self.lost) > TOLERANCE * places

    def is_short(self, places: int) -> bool:
        """Return whether a half was cut itself, by another server at this address than the one that read the whole."""
        return self.lost < -TOLERANCE * places

    def most(self, other: Halves) -> Halves:
        """Return the higher count of each half: a cut takes tokens away, and adds none."""
        return replace(self, first=max(self.first, other.first), second=max(self.second, other.second))


def split(text: str) -> tuple[str, str]:
    """Return two halves: at the single white-space character nearest to the middle, else between two clusters.

    Runs of white space are single tokens, and a cluster (a letter with its accents, a flag, a family of emoji) is seen
    whole by tokenizers; a cut inside would add tokens.
    """
    place = _space_near(text) or _gap_near(text) or len(text) // 2
    return text[:place], text[place:]


def _space_near(text: str) -> int:
    """Return the place of a single white-space character in the middle half of the text, or 0."""
    middle = len(text) // 2
    for step in range(len(text) // 4 + 1):
        for place in (middle - step, middle + step):
            around = text[max(0, place - 1) : place + 2]
            if 0 < place < len(text) - 1 and [each.isspace() for each in around] == [False, True, False]:
                return place
    return 0


def _gap_near(text: str) -> int:
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
    before = text[place - 1]
    after = text[place]
    if before.isspace() and after.isspace():
        return True
    if unicodedata.category(after) in ("Mn", "Me", "Mc") or _JOINER in (before, after) or ord(after) in _SKINS:
        return True
    pairs = [(ord(before) in kind and ord(after) in kind) for kind in (_JAMO, _FLAGS)]
    return any(pairs)


class HalvesProof(NamedTuple):
    """Whether the server cut a document, the tokens of its prompt where they can be told, and whether halves differed.

    `differs`: the same half had another count when it was sent again, so that there are two servers at this address.
    """

    is_cut: bool
    needed_tokens: int | None = None
    differs: bool = False


def by_halves(
    text: str,
    send: Callable[[str, bool], Probe],
    *,
    tokens: int,
    places: int,
    cut: Cut,
    renew: Callable[[], object] = lambda: None,
) -> HalvesProof:
    """Prove by its halves that a document was read whole, or find that it was cut.

    `send` sends the prompt with a part of the text, with or without what follows the document (a re-ask's complaint).
    Halves that were cut themselves are sent again, over new connections (`renew`).
    """
    first, second = split(text)
    base = send("", False).tokens or 0

    def counted() -> Halves:
        return Halves(send(first, True).tokens or 0, send(second, False).tokens or 0, base, whole=tokens)

    halves = counted()
    if not (halves.first and halves.second and base) or cut.is_near(base, 1):  # nothing left of the document
        return HalvesProof(is_cut=True)
    first_seen = halves
    for _ in range(MORE_HALVES):
        if not halves.is_short(places):
            break
        renew()
        halves = halves.most(counted())
    needed = halves.whole + halves.lost if halves.lost > 0 else None
    return HalvesProof(halves.is_cut(places), needed, differs=halves.lost > first_seen.lost + NEAR)
