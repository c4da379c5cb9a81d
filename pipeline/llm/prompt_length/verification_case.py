"""A document's prompt with the data for its verification, and the findings that verification requests give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.llm.prompt_length.limit_search import WORD, find_limit
from pipeline.llm.prompt_length.repetition import ONLY_UNCACHED, CountedDocument, Finding, Probe, repeat


@dataclass(frozen=True, slots=True)
class VerificationCase:
    """A document's prompt of `tokens` tokens, and how to send it again with another text in the document's place.

    `send`: takes the text, max_tokens, and whether to include the text after the document (a re-ask's complaint).
    `send_tiny`: sends the same tiny prompt each time. `renew`: makes the next request use a new connection, for which a
    load balancer may choose another server. `places`: how often the prompt contains the text. `base`: its tokens
    without a document. `promised_context`: the context length of a server that is configured to refuse longer prompts.
    `weight`: tokens estimated from characters (token_weight.py), 0 where no estimate is needed. `document`: its id.
    """

    text: str
    tokens: int | None
    size_bytes: int
    max_tokens: int
    send: Callable[[str, int, bool], Probe]
    send_tiny: Callable[[], Probe]
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

    def send_for_count(self, text: str, is_full_prompt: bool) -> Probe:
        """Send the prompt with another text, for its token count only."""
        return self.send(text, 1, is_full_prompt)


class PromptMeasurements(NamedTuple):
    """Measurements of an answered prompt whose text is in another process; the fields are those of VerificationCase.

    `chars`: the length of the document's text in the prompt.
    """

    chars: int
    tokens: int | None
    size_bytes: int
    max_tokens: int
    promised_context: int | None = None
    weight: int = 0
    document: str = ""


AnyPrompt = VerificationCase | PromptMeasurements


@dataclass(frozen=True, slots=True)
class VerificationResult:
    """Result of a verification. `needed_tokens`: the full length of a truncated prompt, if known."""

    is_cut: bool = False
    needed_tokens: int | None = None
    notes: tuple[str, ...] = ()


def finding_without_document(case: VerificationCase) -> Finding:
    """Return the finding that the server refuses long prompts or counts only uncached tokens; else an empty one."""
    if case.promised_context and case.send(WORD * case.promised_context, 1, False).refused:
        return Finding(refuses=True)
    first = case.send_tiny().tokens
    second = case.send_tiny().tokens
    is_less = first is not None and second is not None and second < first
    return Finding(unverified=ONLY_UNCACHED if is_less else "")


def finding_by_repetition(
    case: VerificationCase, tokens: int, *, longest_bytes: int, verifications: int, verified_tokens: int
) -> Finding:
    """Return the findings of a verification by repetition, with the server's limit if it has one.

    `longest_bytes`: the longest prompt so far. `verifications`: the number of earlier ones. `verified_tokens`: the
    length up to which prompts are known to be read whole.
    """

    def send(text: str, max_tokens: int) -> Probe:
        case.renew()
        return case.send(text, max_tokens, True)

    document = CountedDocument(case.text, tokens, case.size_bytes, case.max_tokens, case.places)
    finding, last, longest = repeat(send, document, longest_bytes=longest_bytes, verifications=verifications)
    if finding != Finding():
        return finding
    base = case.base or send("", 1).tokens or 0  # a chat template may drop any message but the last
    return find_limit(
        send, last=last, longest=longest, max_tokens=case.max_tokens, base=base, verified_tokens=verified_tokens
    )
