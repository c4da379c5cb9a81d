"""Proof that a server reads a prompt to its end, by token counts alone; it sends nothing itself.

A server that reads everything counts on one straight line when a document's text stands once, r times and 2r times in
its place of the prompt. One that cuts leaves the line. The algorithm has two parts:

    prove    three requests, of which the longest is twice as long as any document so far can be. On the line: every
             prompt that cannot be longer is read whole. Off the line, or refused: where is the limit, and what does a
             cut leave? (limit_search.py)
    halves   once a limit is known, only a document whose count is one that a cut leaves needs a proof of its own: the
             tokens of its two halves must add up to those of the whole (halves.py).

Comparing counts with lengths in characters does not work: white space and base64 hide cuts or look like them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

EXEMPT_TOKENS = 512
"""Shorter prompts need no proof (docs/prompt-length.md)."""
EXEMPT_BYTES = 8 * EXEMPT_TOKENS
"""A prompt of more bytes is proved whatever its count is: a small window may be why the count is low."""
TOLERANCE = 4
"""Tokens that may go or come where two copies, or two halves, meet: for each copy and `$document`."""
NEAR = 3
"""Tokens around the counts that a cut leaves within which a document is proved by its halves."""
BYTES_PER_TOKEN = 1.0
"""No token has fewer bytes of UTF-8, so that a prompt bounds its tokens: Qwen and Gemma have one for each digit."""
TEMPLATE_TOKENS = 128
"""What a chat template may add to the texts of a prompt."""
MOST_BYTES_PER_TOKEN = 12
AHEAD = 2
AHEAD_LATER = 8
EARLY_PROOFS = 3
"""A proof reaches twice as far as is needed, so that lengths that ascend need few; later ones reach further still."""
MOST_PROBE_BYTES = 64 * 1024 * 1024


def size_of(*texts: str) -> int:
    """Return the bytes of texts in UTF-8, which tokens follow in every script; characters they do not."""
    return sum(len(text.encode("utf-8", "replace")) for text in texts)


@dataclass(frozen=True, slots=True)
class Probe:
    """Reply to a proof request: how many prompt tokens it counted, or that it was refused as too long.

    `context_length`: the context that a refusal names, in tokens.
    """

    tokens: int | None
    refused: bool = False
    context_length: int | None = None


Send = Callable[[str, int], Probe]
"""Sends the document's prompt with another text in its place and this `max_tokens`; ProofFailedError when it cannot."""


class ProofFailedError(Exception):
    """A proof request failed for reasons of the server or the network: nothing is known."""


@dataclass(frozen=True, slots=True)
class Cut:
    """The counts that a cut leaves lie from `low` to `high`, asked with `max_tokens`; `context_length` is the limit."""

    low: int
    high: int
    max_tokens: int
    context_length: int

    def is_near(self, tokens: int, max_tokens: int) -> bool:
        """Return whether a cut may have left this count; servers that keep room for the answer keep less for more."""
        low = self.low - max(0, max_tokens - self.max_tokens)
        return low - NEAR <= tokens <= self.high + NEAR


Verdict = Literal["whole", "prove", "halves", "unverified"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What the proofs showed of a server's limit.

    `proven`: prompts that cannot be longer than this many tokens are read whole. `refuses`: longer ones are an error.
    `cut`: longer ones are cut. `unverified`: why its counts prove nothing; empty while they may.
    """

    proven: int = 0
    refuses: bool = False
    cut: Cut | None = None
    unverified: str = ""

    def verdict(self, tokens: int, *, size_bytes: int, max_tokens: int) -> Verdict:
        """Return what is still to be done for a prompt of `size_bytes` bytes that was counted as `tokens`."""
        if self.cut is not None and self.cut.is_near(tokens, max_tokens):
            return "halves"
        if self.unverified:
            return "unverified"
        if self.cut is not None:
            return "whole"
        if self.refuses or (tokens < EXEMPT_TOKENS and size_bytes <= EXEMPT_BYTES):
            return "whole"
        return "whole" if most_tokens(size_bytes) + max_tokens <= self.proven else "prove"

    def is_contradicted(self, tokens: int) -> bool:
        """Return whether a prompt was read that is longer than the limit: another server answers at this address.

        The limit is known to 1/64 or 16 tokens (limit_search.py); twice that is out of doubt.
        """
        if self.cut is None:
            return False
        return tokens > max(self.cut.high, self.cut.context_length) * 33 / 32 + 2 * 16


def most_tokens(size_bytes: int) -> int:
    """Return how many tokens a prompt of this many bytes can have."""
    return math.ceil(size_bytes / BYTES_PER_TOKEN) + TEMPLATE_TOKENS


def copies_for(*, wanted: int, unit_tokens: int, text_bytes: int) -> int:
    """Return r, so that 2r copies of the text have `wanted` tokens; at least 2, and no more than memory is fit for."""
    unit = max(1, unit_tokens, text_bytes // MOST_BYTES_PER_TOKEN)
    affordable = MOST_PROBE_BYTES // (2 * max(1, text_bytes))
    return max(2, min(math.ceil(wanted / (2 * unit)), affordable))


def is_straight(once: int, many: int, twice: int, *, copies: int, places: int = 1) -> bool:
    """Return whether the counts of 1, `copies` and 2 * `copies` copies lie on one straight line that rises.

    Within 4 tokens for each copy and place. A line that stops rising is none, however short the copies are.
    """
    rise = (many - once) / (copies - 1)
    off = abs(many + rise * copies - twice)
    return off <= TOLERANCE * copies * places and 2 * (twice - many) >= many - once > 0


@dataclass(frozen=True, slots=True)
class Counted:
    """A document whose prompt, of `size_bytes` bytes, was counted as `tokens`; its text stands there `places` times."""

    text: str
    tokens: int
    size_bytes: int
    max_tokens: int
    places: int = 1


def prove(send: Send, document: Counted, *, longest_bytes: int, proofs: int) -> tuple[Finding, Probe, str]:
    """Prove by repetition; return the finding, the last probe, and the longest text sent, for a search of the limit.

    `longest_bytes`: the longest prompt so far. `proofs`: how many were made before. An empty finding: there is a limit.
    """
    text = document.text
    places = document.places
    once = send(text, 1)
    if once.refused or not once.tokens:
        return Finding(unverified=TWO_LIMITS if once.refused else NO_COUNT), once, text
    if once.tokens < document.tokens - NEAR:
        again = send(text, 1).tokens or 0
        is_cut = again > once.tokens + NEAR  # by some servers; a count without what is cached only falls
        return two_limits(once.tokens, 1) if is_cut else Finding(unverified=ONLY_UNCACHED), once, text
    copies = _copies(document, once.tokens, longest_bytes=longest_bytes, ahead=_ahead(proofs))
    many = send(text * copies, 1)
    if many.tokens is None:
        return Finding(unverified="" if many.refused else NO_COUNT), many, text * copies
    longest = text * (2 * copies)
    twice = send(longest, 1)
    if twice.tokens is None:
        return Finding(unverified="" if twice.refused else NO_COUNT), twice, longest
    if not is_straight(once.tokens, many.tokens, twice.tokens, copies=copies, places=places):
        return Finding(), twice, longest
    if once.tokens > document.tokens + NEAR:
        return two_limits(document.tokens, document.max_tokens), twice, longest
    return recounted(send, longest, twice.tokens) or Finding(proven=twice.tokens), twice, longest


def recounted(send: Send, text: str, tokens: int) -> Finding | None:
    """Send a probe again that was counted as `tokens`; return that there are two limits when its count differs now.

    A load balancer may have chosen another server.
    """
    again = send(text, 1).tokens
    return two_limits(min(again, tokens), 1) if again and abs(again - tokens) > NEAR else None


def two_limits(left: int, max_tokens: int) -> Finding:
    """Return the finding on a prompt that was sent twice and counted as different: `left` is the lower count."""
    return Finding(cut=Cut(left, left, max_tokens, left), unverified=TWO_LIMITS)


def _ahead(proofs: int) -> int:
    return AHEAD if proofs < EARLY_PROOFS else AHEAD_LATER


def _copies(document: Counted, once: int, *, longest_bytes: int, ahead: int) -> int:
    """Return r for a document whose prompt has `once` tokens: the text's share of them is judged by its bytes."""
    text_bytes = size_of(document.text)
    places = document.places
    around = once * max(0, document.size_bytes - places * text_bytes) // max(1, document.size_bytes)
    wanted = ahead * most_tokens(longest_bytes) + document.max_tokens
    return copies_for(wanted=wanted // places, unit_tokens=(once - around) // places, text_bytes=text_bytes)


NO_COUNT = "it reports no prompt tokens"
ONLY_UNCACHED = "its counts leave out what it has cached"
TWO_LIMITS = "it behaves like servers with different limits behind one address"
UNPROVABLE = "the proof requests fail"
