"""Search for a server's limit once a proof by repetition has left the line; it sends nothing itself.

A text of one word, repeated, stands in the document's place: its count rises by the same tokens with each word, so that
any length can be asked for and predicted. Beyond the limit a server refuses, or its count falls below the line. The
search halves the range between the longest prompt on the line and the shortest one beyond, until no message that a
chat template might drop fits in between; what the requests beyond showed are the counts that a cut leaves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from pipeline.llm.prompt_length.repetition import NEAR, Cut, Finding, Probe, Send, recounted, two_limits

WORD = " the"
FEW = 32
MORE = 96
"""Words of the two requests that calibrate the line."""
MOST_REQUESTS = 14
FINEST = 16
"""Tokens between the last prompt on the line and the first beyond, at which the search ends."""
SLACK = 8
"""Tokens that a count may be off the line, beside what the calibration may have been off."""


@dataclass(slots=True)
class _Search:
    """What is known of the line, the longest prompt on it, and the counts seen beyond it."""

    few: int
    rise: float
    low_words: int
    low_tokens: int
    high_words: int | None = None
    left: list[int] = field(default_factory=list)
    refusals: int = 0

    @property
    def high_tokens(self) -> int:
        """Return the length of the shortest prompt beyond the limit, as the line predicts it."""
        return self.low_tokens + round(((self.high_words or self.low_words) - self.low_words) * self.rise)

    def gap(self, base: int) -> float:
        """Return how near the limit must be known: no dropped message may fit in between, and 2 % are near enough."""
        return max(FINEST, min(base // 8, self.low_tokens // 64))

    def words_of(self, tokens: float) -> int:
        """Return how many words make a prompt of this many tokens."""
        return max(FEW, FEW + round((tokens - self.few) / self.rise))

    def note(self, words: int, probe: Probe) -> None:
        """Take a reply in: on the line it raises the lower end of the range, else it lowers the upper one."""
        if probe.tokens is not None and not probe.refused:
            predicted = self.low_tokens + (words - self.low_words) * self.rise
            far = (words - self.low_words) / max(1, self.low_words - FEW)
            if abs(probe.tokens - predicted) <= SLACK + 2 * far:
                self.low_words = words
                self.low_tokens = probe.tokens
                self.rise = (self.low_tokens - self.few) / (self.low_words - FEW)
                return
            self.left.append(probe.tokens)
        else:
            self.refusals += 1
        self.high_words = words

    def is_done(self, base: int) -> bool:
        """Return whether the range is small enough."""
        return self.high_words is not None and self.high_tokens - self.low_tokens <= self.gap(base)


def find_limit(send: Send, *, last: Probe, longest: str, max_tokens: int, base: int, proven: int = 0) -> Finding:
    """Find out what the server does with prompts beyond its limit, and where that lies.

    `last`: the probe with the `longest` text, refused or off the line; sent once more with the agent's own `max_tokens`
    it shows what a cut of a document leaves. `base`: the prompt without a document. `proven`: known to be read whole.
    """
    left = []
    if last.tokens is not None:
        if (found := recounted(send, longest, last.tokens)) is not None:
            return found
        again = send(longest, max_tokens)
        if (again.tokens or 0) > last.tokens + NEAR:  # room for a longer answer leaves the prompt no more
            return two_limits(last.tokens, 1)
        left = [last.tokens, *([again.tokens] if again.tokens else [])]
    few = send(WORD * FEW, 1)
    more = send(WORD * MORE, 1)
    if not few.tokens or not more.tokens or more.tokens <= few.tokens:
        limit = max([*left, few.tokens or 0, more.tokens or 0])
        return Finding(cut=Cut(0, limit, max_tokens, limit)) if left else Finding(refuses=True)
    rise = (more.tokens - few.tokens) / (MORE - FEW)
    search = _Search(few.tokens, rise, MORE, more.tokens)
    guesses = list(_guesses(last, proven=proven))
    for _ in range(MOST_REQUESTS):
        if search.is_done(base):
            break
        words = _next(search, guesses)
        search.note(words, send(WORD * words, 1))
        if search.high_words is None and search.low_tokens > 64 * max(proven, left[0] if left else proven, 4096):
            break
    found = _finding(search, left=left, max_tokens=max_tokens, base=base)
    if left and found.cut is None:  # a longer text of words was read whole: by the same server?
        return recounted(send, longest, left[0]) or found
    return found


def _guesses(last: Probe, *, proven: int) -> Iterator[int]:
    """Lengths in tokens worth trying first: around what a refusal names, around what a cut left, and twice that."""
    half = FINEST // 2
    if proven:
        yield proven
    if last.context_length:
        yield from (last.context_length - half, last.context_length + half)
    if last.tokens:
        yield from (last.tokens - half, last.tokens + half, 2 * last.tokens - half, 2 * last.tokens + half)


def _next(search: _Search, guesses: list[int]) -> int:
    """Return the next length to try, in words: a guess inside of the range, else its middle, else twice as long."""
    while guesses:
        words = search.words_of(guesses.pop(0))
        if words > search.low_words and (search.high_words is None or words < search.high_words):
            return words
    if search.high_words is None:
        return 2 * search.low_words
    return (search.low_words + search.high_words) // 2


def _finding(search: _Search, *, left: list[int], max_tokens: int, base: int) -> Finding:
    """Return what the search showed; prompts beyond that were all refused prove a server that refuses."""
    if not left and not search.left:
        return Finding(proven=search.low_tokens, refuses=bool(search.refusals))
    if not search.left and not search.refusals:  # only the document's own text left the line: no limit in sight
        return Finding(proven=search.low_tokens)
    seen = [*left, *search.left]
    low = min(seen)
    high = max(seen)
    beyond = [*left[:1], *search.left]
    if search.refusals or not left or max(beyond) - min(beyond) > NEAR:
        # Whole messages are dropped: each leaves another count, and the answer's room may be kept as well. Without
        # `left` the longest probe was refused, so that one count of a shorter one does not tell what others leave.
        low = min(low, search.low_tokens - base - (max_tokens - 1 if left else 0))
        high = max(high, search.high_tokens)
    return Finding(cut=Cut(low, high, max_tokens if left else 1, max(search.low_tokens, *left, 0)))
