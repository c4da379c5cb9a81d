"""Verify by repetition, from token counts alone, that a server reads prompts to their end.

A server that truncates a long prompt and answers 200 leaves one trace: the `prompt_tokens` that it reports. This module
makes that trace visible, and sends nothing itself:

1. The document's text is sent again in three verification requests (`max_tokens: 1`): once, r times and 2r times in
   its place. r makes 2r copies longer than any document so far can be, with a margin.
2. A server that reads everything reports `rest of the prompt + n * text` tokens: the three counts lie on a straight
   line that rises. From then on, prompts that cannot exceed the largest count are accepted without a request.
3. A server that truncates reports a count below the line; one that refuses returns an error. limit_search.py then
   finds the limit, and the counts that truncated prompts have.
4. Once a limit is known, each document with such a count is verified by its two halves (halves.py).

Lengths in characters cannot replace this comparison: white space and base64 hide truncation or look like it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

EXEMPT_TOKENS = 512
"""Shorter prompts are not verified (docs/prompt-length.md)."""
EXEMPT_BYTES = 8 * EXEMPT_TOKENS
"""A prompt of more bytes is verified whatever its count: the count may be low because of a small context."""
TOLERANCE = 4
"""Tokens that a tokenizer may add or save where two copies, or two halves, meet: for each copy and `$document`."""
NEAR = 3
"""Distance in tokens from the counts of truncated prompts within which a document is verified by its halves."""
BYTES_PER_TOKEN = 1.0
"""Fewest bytes of UTF-8 in a token, so that bytes bound the tokens: Qwen and Gemma have one token for each digit."""
TEMPLATE_TOKENS = 128
"""Tokens that a chat template may add to the texts of a prompt."""
MOST_BYTES_PER_TOKEN = 12
COPIES_AHEAD = 2
COPIES_AHEAD_LATER = 8
EARLY_VERIFICATIONS = 3
"""The first verifications reach `COPIES_AHEAD` times the longest prompt, so that ascending lengths need few; later
ones reach `COPIES_AHEAD_LATER` times."""
MOST_PROBE_BYTES = 64 * 1024 * 1024


def size_of(*texts: str) -> int:
    """Return the size of texts in bytes of UTF-8: in every script, tokens follow bytes, not characters."""
    return sum(len(text.encode("utf-8", "replace")) for text in texts)


@dataclass(frozen=True, slots=True)
class Probe:
    """Reply to a verification request: the reported prompt tokens, or a refusal of a prompt that is too long.

    `context_length`: the context length that a refusal names, in tokens.
    """

    tokens: int | None
    refused: bool = False
    context_length: int | None = None


Send = Callable[[str, int], Probe]
"""Send the prompt with this text as the document and this `max_tokens`; raises VerificationFailedError."""


class VerificationFailedError(Exception):
    """A verification request failed because of the server or the network, and showed nothing about its limit."""


@dataclass(frozen=True, slots=True)
class TruncatedCounts:
    """Range of the token counts that truncated prompts have, `low` to `high`, when sent with `max_tokens`.

    `context_length`: the server's limit in tokens.
    """

    low: int
    high: int
    max_tokens: int
    context_length: int

    def is_near(self, tokens: int, max_tokens: int) -> bool:
        """Return whether a prompt with this count may be truncated.

        Servers that reserve room for the answer keep less of the prompt for a larger `max_tokens`.
        """
        low = self.low - max(0, max_tokens - self.max_tokens)
        return low - NEAR <= tokens <= self.high + NEAR


Verdict = Literal["whole", "verify", "halves", "unverified"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Findings about a server's limit.

    `verified_tokens`: prompts that cannot have more tokens are read whole. `refuses`: longer prompts are an error.
    `truncation`: longer prompts are truncated. `unverified`: why the counts of this server show nothing; else empty.
    """

    verified_tokens: int = 0
    refuses: bool = False
    truncation: TruncatedCounts | None = None
    unverified: str = ""

    def verdict(self, tokens: int, *, size_bytes: int, max_tokens: int) -> Verdict:
        """Return whether a prompt of `size_bytes` bytes and `tokens` tokens was read whole, or how to verify it."""
        if self.truncation is not None and self.truncation.is_near(tokens, max_tokens):
            return "halves"
        if self.unverified:
            return "unverified"
        if self.truncation is not None:
            return "whole"
        if self.refuses or (tokens < EXEMPT_TOKENS and size_bytes <= EXEMPT_BYTES):
            return "whole"
        return "whole" if most_tokens(size_bytes) + max_tokens <= self.verified_tokens else "verify"

    def is_contradicted(self, tokens: int) -> bool:
        """Return whether this count exceeds the limit, so that several servers must answer at this address.

        limit_search.py finds the limit to within 1/64 or 16 tokens; twice that distance leaves no doubt.
        """
        if self.truncation is None:
            return False
        return tokens > max(self.truncation.high, self.truncation.context_length) * 33 / 32 + 2 * 16


def most_tokens(size_bytes: int) -> int:
    """Return the most tokens that a prompt of this many bytes can have."""
    return math.ceil(size_bytes / BYTES_PER_TOKEN) + TEMPLATE_TOKENS


def copies_for(*, target_tokens: int, unit_tokens: int, text_bytes: int) -> int:
    """Return r so that 2r copies of the text reach `target_tokens`: at least 2, at most what MOST_PROBE_BYTES holds."""
    unit = max(1, unit_tokens, text_bytes // MOST_BYTES_PER_TOKEN)
    affordable = MOST_PROBE_BYTES // (2 * max(1, text_bytes))
    return max(2, min(math.ceil(target_tokens / (2 * unit)), affordable))


def is_straight(single: int, repeated: int, doubled: int, *, copies: int, places: int = 1) -> bool:
    """Return whether the counts of 1, `copies` and 2 * `copies` copies lie on one straight line that rises.

    TOLERANCE tokens are allowed for each copy and place. The line must rise throughout: many short copies could
    otherwise hide a truncation in the tolerance.
    """
    rise = (repeated - single) / (copies - 1)
    deviation = abs(repeated + rise * copies - doubled)
    return deviation <= TOLERANCE * copies * places and 2 * (doubled - repeated) >= repeated - single > 0


@dataclass(frozen=True, slots=True)
class CountedDocument:
    """A document whose prompt has `size_bytes` bytes and `tokens` tokens, and contains its text `places` times."""

    text: str
    tokens: int
    size_bytes: int
    max_tokens: int
    places: int = 1


def repeat(
    send: Send, document: CountedDocument, *, longest_bytes: int, verifications: int
) -> tuple[Finding, Probe, str]:
    """Send the document repeated; return the finding, the last reply, and the longest text that was sent.

    `longest_bytes`: the longest prompt so far. `verifications`: the number of earlier ones. An empty finding means that
    the server has a limit: limit_search.py continues with the reply and the text.
    """
    text = document.text
    places = document.places
    single = send(text, 1)
    if single.refused or not single.tokens:
        return Finding(unverified=TWO_LIMITS if single.refused else NO_COUNT), single, text
    if single.tokens < document.tokens - NEAR:
        recount = send(text, 1).tokens or 0
        is_cut = recount > single.tokens + NEAR  # by one of several servers; counts without cached tokens only fall
        return two_limits(single.tokens, 1) if is_cut else Finding(unverified=ONLY_UNCACHED), single, text
    copies = _copies(document, single.tokens, longest_bytes=longest_bytes, ahead=_copies_ahead(verifications))
    repeated = send(text * copies, 1)
    if repeated.tokens is None:
        return Finding(unverified="" if repeated.refused else NO_COUNT), repeated, text * copies
    longest = text * (2 * copies)
    doubled = send(longest, 1)
    if doubled.tokens is None:
        return Finding(unverified="" if doubled.refused else NO_COUNT), doubled, longest
    if not is_straight(single.tokens, repeated.tokens, doubled.tokens, copies=copies, places=places):
        return Finding(), doubled, longest
    if single.tokens > document.tokens + NEAR:
        return two_limits(document.tokens, document.max_tokens), doubled, longest
    return count_again(send, longest, doubled.tokens) or Finding(verified_tokens=doubled.tokens), doubled, longest


def count_again(send: Send, text: str, tokens: int) -> Finding | None:
    """Send a text again that had `tokens` tokens; return the finding "two limits" if its count differs now.

    A load balancer may have chosen another server.
    """
    recount = send(text, 1).tokens
    return two_limits(min(recount, tokens), 1) if recount and abs(recount - tokens) > NEAR else None


def two_limits(lower_tokens: int, max_tokens: int) -> Finding:
    """Return the finding about a prompt that was sent twice and had two counts, of which `lower_tokens` is one."""
    truncation = TruncatedCounts(lower_tokens, lower_tokens, max_tokens, lower_tokens)
    return Finding(truncation=truncation, unverified=TWO_LIMITS)


def _copies_ahead(verifications: int) -> int:
    return COPIES_AHEAD if verifications < EARLY_VERIFICATIONS else COPIES_AHEAD_LATER


def _copies(document: CountedDocument, single: int, *, longest_bytes: int, ahead: int) -> int:
    """Return r for a document whose prompt has `single` tokens; the bytes give the text's share of these."""
    text_bytes = size_of(document.text)
    places = document.places
    rest_bytes = max(0, document.size_bytes - places * text_bytes)
    rest_tokens = single * rest_bytes // max(1, document.size_bytes)
    target = ahead * most_tokens(longest_bytes) + document.max_tokens
    unit_tokens = (single - rest_tokens) // places
    return copies_for(target_tokens=target // places, unit_tokens=unit_tokens, text_bytes=text_bytes)


NO_COUNT = "it reports no prompt tokens"
ONLY_UNCACHED = "its counts leave out cached tokens"
TWO_LIMITS = "it behaves like several servers with different limits behind one address"
UNVERIFIABLE = "the verification requests fail"
UNVERIFIED = "prompt_length_unverified"
"""Note of a record whose document may have been truncated unnoticed."""
