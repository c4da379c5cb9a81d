"""A document's prompt as a proof sees it, and what can be found out of a server without it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.llm.prompt_length.limit_search import WORD, find_limit
from pipeline.llm.prompt_length.repetition import ONLY_UNCACHED, Counted, Finding, Probe, prove


@dataclass(frozen=True, slots=True)
class Case:
    """A document's prompt that was counted as `tokens`, and how to send it again with another text in its place.

    `send`: text, max_tokens, and whether what follows the document (a re-ask's complaint) is sent with it.
    `tiny`: sends the same tiny question each time. `renew`: has the next request sent over a new connection, for which
    a load balancer may choose another server. `places`: how often the text stands in the prompt. `base`: tokens without
    a document.
    `promised_context`: the context of a server that was asked to refuse what is longer. `weight`: the prompt's tokens
    by its characters (token_weight.py); 0 where nobody asks for an estimate. `document`: its id.
    """

    text: str
    tokens: int | None
    size_bytes: int
    max_tokens: int
    send: Callable[[str, int, bool], Probe]
    tiny: Callable[[], Probe]
    renew: Callable[[], object] = lambda: None
    places: int = 1
    base: int = 0
    promised_context: int | None = None
    weight: int = 0
    document: str = ""

    @property
    def chars(self) -> int:
        """Return the length of the document's text in the prompt."""
        return len(self.text)


class Measured(NamedTuple):
    """The measurements of an answered prompt, without its text, which another process has; fields are those of Case.

    `chars`: the length of the document's text in the prompt.
    """

    chars: int
    tokens: int | None
    size_bytes: int
    max_tokens: int
    promised_context: int | None = None
    weight: int = 0
    document: str = ""


@dataclass(frozen=True, slots=True)
class Verified:
    """Result of a proof. `needed_tokens`: the true length of a prompt that was cut, where it is known."""

    cut: bool = False
    needed_tokens: int | None = None
    notes: tuple[str, ...] = ()


def without_document(case: Case) -> Finding:
    """Return that the server refuses what is too long, or counts only what it has not cached; else nothing is known."""
    if case.promised_context and case.send(WORD * case.promised_context, 1, False).refused:
        return Finding(refuses=True)
    first = case.tiny().tokens
    second = case.tiny().tokens
    is_less = first is not None and second is not None and second < first
    return Finding(unverified=ONLY_UNCACHED if is_less else "")


def by_repetition(case: Case, tokens: int, *, longest_bytes: int, proofs: int, proven: int) -> Finding:
    """Return what a proof by repetition shows of a server, and its limit where there is one.

    `longest_bytes`: the longest prompt so far. `proofs`: how many were made before. `proven`: known to be read whole.
    """

    def send(text: str, max_tokens: int) -> Probe:
        case.renew()
        return case.send(text, max_tokens, True)

    document = Counted(case.text, tokens, case.size_bytes, case.max_tokens, case.places)
    found, last, longest = prove(send, document, longest_bytes=longest_bytes, proofs=proofs)
    if found != Finding():
        return found
    base = case.base or send("", 1).tokens or 0  # a chat template may drop any message but the last
    return find_limit(send, last=last, longest=longest, max_tokens=case.max_tokens, base=base, proven=proven)
