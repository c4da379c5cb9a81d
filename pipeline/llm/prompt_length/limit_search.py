"""Search for a server's limit after a verification by repetition found that it has one. Sends nothing itself.

The search sends texts of one word, repeated: each word adds the same number of tokens, so that any prompt length can be
produced and its count predicted. Two short requests calibrate that line. Beyond the limit the server refuses the
prompt, or reports a count below the line. A bisection narrows the range between the longest prompt on the line and the
shortest one beyond it, until no message fits in between that a chat template might drop. The counts that were reported
beyond the limit are those of truncated prompts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from pipeline.llm.prompt_length.repetition import (
    NEAR,
    Finding,
    Probe,
    Send,
    TruncatedCounts,
    count_again,
    two_limits,
)

WORD = " the"
FEW_WORDS = 32
MORE_WORDS = 96
"""Words of the two requests that calibrate the line."""
MOST_REQUESTS = 14
FINEST = 16
"""Range in tokens, between the last prompt on the line and the first one beyond it, at which the search ends."""
SLACK = 8
"""Tokens that a count may deviate from the line, in addition to the error of the calibration."""


@dataclass(slots=True)
class _Search:
    """The line, the longest prompt on it, and the counts reported beyond it (`truncated`)."""

    few: int
    rise: float
    low_words: int
    low_tokens: int
    high_words: int | None = None
    truncated: list[int] = field(default_factory=list)
    refusals: int = 0

    @property
    def high_tokens(self) -> int:
        """Return the predicted length of the shortest prompt beyond the limit."""
        return self.low_tokens + round(((self.high_words or self.low_words) - self.low_words) * self.rise)

    def gap(self, base: int) -> float:
        """Return how small the range must become: below any message that may be dropped, or 1/64 of the limit."""
        return max(FINEST, min(base // 8, self.low_tokens // 64))

    def words_of(self, tokens: float) -> int:
        """Return how many words make a prompt of this many tokens."""
        return max(FEW_WORDS, FEW_WORDS + round((tokens - self.few) / self.rise))

    def add(self, words: int, probe: Probe) -> None:
        """Add a reply: a count on the line raises the lower end of the range, any other reply lowers the upper end."""
        if probe.tokens is not None and not probe.refused:
            predicted = self.low_tokens + (words - self.low_words) * self.rise
            distance = (words - self.low_words) / max(1, self.low_words - FEW_WORDS)
            if abs(probe.tokens - predicted) <= SLACK + 2 * distance:
                self.low_words = words
                self.low_tokens = probe.tokens
                self.rise = (self.low_tokens - self.few) / (self.low_words - FEW_WORDS)
                return
            self.truncated.append(probe.tokens)
        else:
            self.refusals += 1
        self.high_words = words

    def is_done(self, base: int) -> bool:
        """Return whether the range is small enough."""
        return self.high_words is not None and self.high_tokens - self.low_tokens <= self.gap(base)


def find_limit(
    send: Send, *, last: Probe, longest: str, max_tokens: int, base: int, verified_tokens: int = 0
) -> Finding:
    """Return the server's limit, and how it treats longer prompts.

    `last`: the reply to the `longest` text, refused or off the line. That text is sent once more with the agent's own
    `max_tokens`, which shows the count of a truncated document. `base`: tokens of the prompt without a document.
    `verified_tokens`: the length up to which prompts are known to be read whole.
    """
    truncated = []
    if last.tokens is not None:
        if (contradiction := count_again(send, longest, last.tokens)) is not None:
            return contradiction
        with_answer = send(longest, max_tokens)
        if (with_answer.tokens or 0) > last.tokens + NEAR:  # more room for the answer never leaves the prompt more
            return two_limits(last.tokens, 1)
        truncated = [last.tokens, *([with_answer.tokens] if with_answer.tokens else [])]
    few = send(WORD * FEW_WORDS, 1)
    many = send(WORD * MORE_WORDS, 1)
    if not few.tokens or not many.tokens or many.tokens <= few.tokens:
        limit = max([*truncated, few.tokens or 0, many.tokens or 0])
        counts = TruncatedCounts(0, limit, max_tokens, limit)
        return Finding(truncation=counts) if truncated else Finding(refuses=True)
    rise = (many.tokens - few.tokens) / (MORE_WORDS - FEW_WORDS)
    search = _Search(few.tokens, rise, MORE_WORDS, many.tokens)
    guesses = list(_guesses(last, verified_tokens=verified_tokens))
    for _ in range(MOST_REQUESTS):
        if search.is_done(base):
            break
        words = _next_length(search, guesses)
        search.add(words, send(WORD * words, 1))
        expected_limit = max(verified_tokens, truncated[0] if truncated else verified_tokens, 4096)
        if search.high_words is None and search.low_tokens > 64 * expected_limit:
            break
    finding = _finding(search, truncated=truncated, max_tokens=max_tokens, base=base)
    if truncated and finding.truncation is None:  # a longer text of words was read whole: by the same server?
        return count_again(send, longest, truncated[0]) or finding
    return finding


def _guesses(last: Probe, *, verified_tokens: int) -> Iterator[int]:
    """Yield likely limits in tokens: near the one that a refusal names, near a truncated count, and near twice that."""
    margin = FINEST // 2
    if verified_tokens:
        yield verified_tokens
    if last.context_length:
        yield from (last.context_length - margin, last.context_length + margin)
    if last.tokens:
        yield from (last.tokens - margin, last.tokens + margin, 2 * last.tokens - margin, 2 * last.tokens + margin)


def _next_length(search: _Search, guesses: list[int]) -> int:
    """Return the next length to send, in words: a guess inside the range, else its middle, else twice the length."""
    while guesses:
        words = search.words_of(guesses.pop(0))
        if words > search.low_words and (search.high_words is None or words < search.high_words):
            return words
    if search.high_words is None:
        return 2 * search.low_words
    return (search.low_words + search.high_words) // 2


def _finding(search: _Search, *, truncated: list[int], max_tokens: int, base: int) -> Finding:
    """Return the result of the search. `refuses`: the server refused every prompt beyond the limit."""
    if not truncated and not search.truncated:
        return Finding(verified_tokens=search.low_tokens, refuses=bool(search.refusals))
    if not search.truncated and not search.refusals:  # only the document's own text left the line: no limit in sight
        return Finding(verified_tokens=search.low_tokens)
    counts = [*truncated, *search.truncated]
    low = min(counts)
    high = max(counts)
    same_answer = [*truncated[:1], *search.truncated]
    if search.refusals or not truncated or max(same_answer) - min(same_answer) > NEAR:
        # The server drops whole messages: each leaves another count, and it may reserve the answer's room as well.
        # Without `truncated` the longest text was refused, and one count of a shorter one does not predict the others.
        low = min(low, search.low_tokens - base - (max_tokens - 1 if truncated else 0))
        high = max(high, search.high_tokens)
    limit = max(search.low_tokens, *truncated, 0)
    return Finding(truncation=TruncatedCounts(low, high, max_tokens if truncated else 1, limit))
