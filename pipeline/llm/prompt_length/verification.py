"""Verify that an answered prompt was read whole, and keep prompts from being sent that cannot fit.

It connects a client, whose requests cost something, with what is known of its server (proofs.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.errors import kind_of
from pipeline.llm.ollama import OllamaClient
from pipeline.llm.prompt_length.proof_case import Case, Measured, Verified
from pipeline.llm.prompt_length.repetition import Probe, ProofFailedError, size_of
from pipeline.llm.prompt_length.token_weight import weigh
from pipeline.llm.vllm import VLLMClient
from pipeline.records import ExtractionAttempt, changed

if TYPE_CHECKING:
    from pipeline.llm.extraction_request import ExtractionRequest

Client = VLLMClient | OllamaClient
PromptsFor = Callable[[str, bool], Mapping[str, str]]
"""The prompts with another text in the document's place, with or without what follows the document."""

TRIES = 2
TINY_PROMPTS = {"system": "", "user": "Say ok."}
REFUSALS = frozenset({"context_length", "document_too_large", "rejected"})


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked of a document: its prompts, how to rebuild them, and how often the text stands in them."""

    prompts: Mapping[str, str]
    json_schema: Mapping[str, Any] | None
    text: str
    prompts_for: PromptsFor
    places: int = 1
    base: int = 0
    document: str = ""

    @property
    def size_bytes(self) -> int:
        """Return the length of the prompts in UTF-8."""
        return size_of(*self.prompts.values())


def too_long(client: Client, prompts: Mapping[str, str]) -> ExtractionAttempt | None:
    """Return the failure of a prompt that does not fit the configured context, or None when it may be sent."""
    limit = client.config.context_length
    if limit is None:
        return None
    estimate = client.proofs.estimate(_weight(prompts))
    if estimate + client.config.max_tokens <= limit:
        return None
    told = f"the prompt has about {estimate} tokens and max_tokens is {client.config.max_tokens}"
    return ExtractionAttempt(
        client.model,
        error="context_length",
        reason="context_length",
        message=f"{told}: that does not fit the configured context_length of {limit}; it was not sent",
        context_length=limit,
        max_tokens=client.config.max_tokens,
        needed_tokens=estimate,
        sent=False,
    )


def fits(client: Client, prompts: Mapping[str, str], *, tokens_per_weight: float) -> bool:
    """Return whether a prompt fits the configured context, by another process's estimate for this server."""
    limit = client.config.context_length
    return limit is None or _weight(prompts) * tokens_per_weight + client.config.max_tokens <= limit


def _weight(prompts: Mapping[str, str]) -> int:
    return sum(map(weigh, prompts.values()))


def verified(
    client: Client, asked: Asked, attempt: ExtractionAttempt, *, may_wait: Callable[[], bool]
) -> ExtractionAttempt | None:
    """Return the attempt, failed as `prompt_truncated` when its prompt was cut, noted when that cannot be told.

    None: the proof cannot be made now, and the document must be asked again later. An Ollama's client takes a prompt
    for cut by its count alone while nothing is proved: the proof decides then, and a whole prompt is asked again.
    """
    is_suspected = attempt.reason == "prompt_truncated"
    if attempt.reason is not None and kind_of(attempt.reason) != "answer" and not is_suspected:
        return attempt
    proofs = client.proofs
    _note_server(client, attempt)
    try:
        found = proofs.verify(case_of(client, asked, attempt.prompt_tokens), may_wait=may_wait)
    except ProofFailedError:
        return None
    if found is None:
        return None
    if is_suspected and not found.cut:
        return _asked_again(client, asked, attempt) if proofs.decides else attempt
    if not found.cut:
        return _read_to_its_end(client, attempt, found)
    return _cut(attempt, found, limit=proofs.context_length)


def verified_at_once(client: Client, case: Measured, attempt: ExtractionAttempt) -> ExtractionAttempt | None:
    """Return an answered attempt as `verified` does, but without the document; None: its prompt must be proved."""
    _note_server(client, attempt)
    found = client.proofs.glance(case)
    return None if found is None else _read_to_its_end(client, attempt, found)


def _note_server(client: Client, attempt: ExtractionAttempt) -> None:
    """Pass on to the proofs what the answer shows about the server's software."""
    if attempt.server == "ollama" and isinstance(client, VLLMClient):
        client.proofs.doubt()
    elif attempt.server:
        client.proofs.distrust(f"{attempt.server} may count a prompt before the server behind it cuts it")


def _read_to_its_end(client: Client, attempt: ExtractionAttempt, found: Verified) -> ExtractionAttempt:
    context_length = attempt.context_length or client.proofs.context_length
    return changed(attempt, context_length=context_length, notes=(*attempt.notes, *found.notes))


def measured(client: Client, asked: Asked, attempt: ExtractionAttempt) -> Measured:
    """Return the measurements of an answered prompt, without its text."""
    return Measured(
        len(asked.text),
        attempt.prompt_tokens,
        asked.size_bytes,
        client.config.max_tokens,
        promised_context=_promised_context(client),
        weight=_weight(asked.prompts) if client.config.context_length is not None else 0,
        document=asked.document,
    )


def _promised_context(client: Client) -> int | None:
    return client.context_length if isinstance(client, OllamaClient) else None


def _asked_again(client: Client, asked: Asked, suspected: ExtractionAttempt) -> ExtractionAttempt | None:
    """Return the answer to a prompt that was wrongly taken for cut; the first answer counts as a part of the proof."""
    client.overhead.add(suspected.prompt_tokens)
    again = client.call_llm(asked.prompts, asked.json_schema, asked.text)
    return None if again.retryable else again


def _cut(attempt: ExtractionAttempt, found: Verified, *, limit: int | None) -> ExtractionAttempt:
    told = f"the server answered {attempt.prompt_tokens} tokens of the prompt"
    told += f", which has about {found.needed_tokens}" if found.needed_tokens else ""
    return changed(
        attempt,
        error="prompt_truncated",
        reason="prompt_truncated",
        message=f"{told}: it cut the rest (its context is {limit} tokens)",
        context_length=limit,
        needed_tokens=found.needed_tokens,
    )


def case_of(client: Client, asked: Asked, tokens: int | None) -> Case:
    """Return the case of an answered prompt, with the requests that can prove it."""

    def send(text: str, max_tokens: int, whole: bool) -> Probe:
        return _probe(client, asked.prompts_for(text, whole), asked.json_schema, max_tokens=max_tokens)

    question: dict[str, str] = {}

    def tiny() -> Probe:
        if not question:  # nobody has it cached before the first time
            question.update(TINY_PROMPTS, user=f"{TINY_PROMPTS['user']} ({os.urandom(4).hex()})")
        return _probe(client, question, None, max_tokens=1)

    return Case(
        asked.text,
        tokens,
        asked.size_bytes,
        client.config.max_tokens,
        send,
        tiny,
        client.endpoint.renew,
        places=asked.places,
        base=asked.base,
        promised_context=_promised_context(client),
        weight=_weight(asked.prompts) if client.config.context_length is not None else 0,
        document=asked.document,
    )


def look(client: Client) -> None:
    """Find out of a server what needs no document (PromptProofs.look), for `pipeline check`."""
    asked = Asked(TINY_PROMPTS, None, "", lambda text, _whole: {**TINY_PROMPTS, "user": text})
    client.proofs.look(case_of(client, asked, None))


def _probe(
    client: Client, prompts: Mapping[str, str], json_schema: Mapping[str, Any] | None, *, max_tokens: int
) -> Probe:
    """Send a proof request; a server that fails once is asked once more."""
    small = client.for_proof(max_tokens)
    for _ in range(TRIES):
        attempt = small.call_llm(prompts, json_schema, "")
        client.overhead.add(attempt.prompt_tokens)
        if attempt.prompt_tokens is not None:
            return Probe(attempt.prompt_tokens)
        if attempt.reason in REFUSALS:
            return Probe(None, refused=True, context_length=attempt.context_length)
        if attempt.reason is None or kind_of(attempt.reason) == "answer" or attempt.reason == "empty_model_response":
            return Probe(None)
    raise ProofFailedError(attempt.error or "")


def asked_of(question: ExtractionRequest) -> Asked | None:
    """Return what can be verified of a request; None when its prompts cannot be rebuilt."""
    if question.prompts_for is None:
        return None
    return Asked(
        question.prompts,
        question.json_schema,
        question.document_text,
        question.prompts_for,
        places=question.places,
        document=question.document,
    )


def read_whole(
    client: Client, prompts: Mapping[str, str], json_schema: Mapping[str, Any] | None, seen: ExtractionAttempt
) -> ExtractionAttempt | None:
    """Return the attempt at the prompt without a document once it is known to be read whole (`verified`).

    The user's message is what is repeated; where that is empty, the system prompt stands in its place.
    """
    user = prompts.get("user", "")
    if not user.strip() and needs_proof(client, prompts, seen):
        user = prompts.get("system", "")
        seen = client.for_proof(client.config.max_tokens).call_llm({**prompts, "user": user}, json_schema, "")
        client.overhead.add(seen.prompt_tokens)
    asked = Asked({**prompts, "user": user}, json_schema, user, lambda text, _whole: {**prompts, "user": text})
    return verified(client, asked, seen, may_wait=lambda: True)


def needs_proof(client: Client, prompts: Mapping[str, str], seen: ExtractionAttempt) -> bool:
    """Return whether the server must still prove that it reads this prompt whole."""
    size_bytes = size_of(*prompts.values())
    finding = client.proofs.finding
    tokens = seen.prompt_tokens or 0
    return finding.verdict(tokens, size_bytes=size_bytes, max_tokens=client.config.max_tokens) == "prove"
