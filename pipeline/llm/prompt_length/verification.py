"""Verify with a client that an answered prompt was read whole, and hold back prompts that cannot fit.

Connects a client, which sends the verification requests, with the findings about its server (verifier.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.errors import kind_of
from pipeline.llm.ollama import OllamaClient
from pipeline.llm.prompt_length.repetition import Probe, VerificationFailedError, size_of
from pipeline.llm.prompt_length.token_weight import weigh
from pipeline.llm.prompt_length.verification_case import PromptMeasurements, VerificationCase, VerificationResult
from pipeline.llm.vllm import VLLMClient
from pipeline.records import ExtractionAttempt, changed

if TYPE_CHECKING:
    from pipeline.llm.extraction_request import ExtractionRequest

Client = VLLMClient | OllamaClient
PromptsFor = Callable[[str, bool], Mapping[str, str]]
"""Return the prompts with another text as the document, and with or without the text that follows the document."""

TRIES = 2
TINY_PROMPTS = {"system": "", "user": "Say ok."}
REFUSALS = frozenset({"context_length", "document_too_large", "rejected"})


@dataclass(frozen=True, slots=True)
class VerifiablePrompt:
    """The prompts that were sent for a document, and how to rebuild them with another text.

    `places`: how often the prompts contain the text. `base`: their tokens without a document, 0 when unknown.
    `document`: its id.
    """

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
    """Return the failure of a prompt that exceeds the configured context length; None when it may be sent."""
    limit = client.config.context_length
    if limit is None:
        return None
    estimate = client.verifier.estimate(_weight(prompts))
    if estimate + client.config.max_tokens <= limit:
        return None
    sizes = f"the prompt has about {estimate} tokens and max_tokens is {client.config.max_tokens}"
    return ExtractionAttempt(
        client.model,
        error="context_length",
        reason="context_length",
        message=f"{sizes}: together they exceed the configured context_length of {limit}; the prompt was not sent",
        context_length=limit,
        max_tokens=client.config.max_tokens,
        needed_tokens=estimate,
        sent=False,
    )


def fits(client: Client, prompts: Mapping[str, str], *, tokens_per_weight: float) -> bool:
    """Return whether a prompt fits the configured context length, by the main process's estimate for this server."""
    limit = client.config.context_length
    return limit is None or _weight(prompts) * tokens_per_weight + client.config.max_tokens <= limit


def _weight(prompts: Mapping[str, str]) -> int:
    return sum(map(weigh, prompts.values()))


def verified(
    client: Client, prompt: VerifiablePrompt, attempt: ExtractionAttempt, *, may_wait: Callable[[], bool]
) -> ExtractionAttempt | None:
    """Return the attempt after verification: failed as `prompt_truncated`, or with a note if its length is unverified.

    None: no verification is possible now, and the document must be sent again later. The client of an Ollama judges a
    prompt by its count alone until the server is verified: a prompt that it suspects wrongly is sent again.
    """
    is_suspected = attempt.reason == "prompt_truncated"
    if attempt.reason is not None and kind_of(attempt.reason) != "answer" and not is_suspected:
        return attempt
    verifier = client.verifier
    _note_server(client, attempt)
    try:
        result = verifier.verify(case_of(client, prompt, attempt.prompt_tokens), may_wait=may_wait)
    except VerificationFailedError:
        return None
    if result is None:
        return None
    if is_suspected and not result.is_cut:
        return _sent_again(client, prompt, attempt) if verifier.is_decisive else attempt
    if not result.is_cut:
        return _verified_attempt(client, attempt, result)
    return _truncated(attempt, result, limit=verifier.context_length)


def verified_without_request(
    client: Client, prompt: PromptMeasurements, attempt: ExtractionAttempt
) -> ExtractionAttempt | None:
    """Return the attempt after verification where that needs no request; None where `verified` is needed."""
    _note_server(client, attempt)
    result = client.verifier.verify_without_request(prompt)
    return None if result is None else _verified_attempt(client, attempt, result)


def _note_server(client: Client, attempt: ExtractionAttempt) -> None:
    """Report the software that the answer names to the verifier."""
    if attempt.server == "ollama" and isinstance(client, VLLMClient):
        client.verifier.forget_refusal()
    elif attempt.server:
        client.verifier.mark_as_unverifiable(f"{attempt.server} may count a prompt before the server behind it cuts it")


def _verified_attempt(client: Client, attempt: ExtractionAttempt, result: VerificationResult) -> ExtractionAttempt:
    context_length = attempt.context_length or client.verifier.context_length
    return changed(attempt, context_length=context_length, notes=(*attempt.notes, *result.notes))


def measured(client: Client, prompt: VerifiablePrompt, attempt: ExtractionAttempt) -> PromptMeasurements:
    """Return the measurements of an answered prompt, without its text."""
    return PromptMeasurements(
        len(prompt.text),
        attempt.prompt_tokens,
        prompt.size_bytes,
        client.config.max_tokens,
        promised_context=_promised_context(client),
        weight=_weight(prompt.prompts) if client.config.context_length is not None else 0,
        document=prompt.document,
    )


def _promised_context(client: Client) -> int | None:
    return client.context_length if isinstance(client, OllamaClient) else None


def _sent_again(client: Client, prompt: VerifiablePrompt, suspected: ExtractionAttempt) -> ExtractionAttempt | None:
    """Send a prompt again that was wrongly suspected; the first answer counts as a verification request."""
    client.overhead.add(suspected.prompt_tokens)
    attempt = client.call_llm(prompt.prompts, prompt.json_schema, prompt.text)
    return None if attempt.retryable else attempt


def _truncated(attempt: ExtractionAttempt, result: VerificationResult, *, limit: int | None) -> ExtractionAttempt:
    needed_text = f" of about {result.needed_tokens}" if result.needed_tokens else ""
    return changed(
        attempt,
        error="prompt_truncated",
        reason="prompt_truncated",
        message=f"the server read {attempt.prompt_tokens}{needed_text} prompt tokens: it cut the rest "
        f"(its context length is {limit} tokens)",
        context_length=limit,
        needed_tokens=result.needed_tokens,
    )


def case_of(client: Client, prompt: VerifiablePrompt, tokens: int | None) -> VerificationCase:
    """Return the case of an answered prompt, with the functions that send its verification requests."""

    def send(text: str, max_tokens: int, is_full_prompt: bool) -> Probe:
        return _probe(client, prompt.prompts_for(text, is_full_prompt), prompt.json_schema, max_tokens=max_tokens)

    tiny_prompts: dict[str, str] = {}

    def send_tiny() -> Probe:
        if not tiny_prompts:  # the random part keeps the first one from being in the server's cache
            tiny_prompts.update(TINY_PROMPTS, user=f"{TINY_PROMPTS['user']} ({os.urandom(4).hex()})")
        return _probe(client, tiny_prompts, None, max_tokens=1)

    return VerificationCase(
        prompt.text,
        tokens,
        prompt.size_bytes,
        client.config.max_tokens,
        send,
        send_tiny,
        client.endpoint.renew,
        places=prompt.places,
        base=prompt.base,
        promised_context=_promised_context(client),
        weight=_weight(prompt.prompts) if client.config.context_length is not None else 0,
        document=prompt.document,
    )


def inspect_server(client: Client) -> None:
    """Find out how a server treats long prompts without a document (PromptVerifier.inspect), for `pipeline check`."""
    prompt = VerifiablePrompt(TINY_PROMPTS, None, "", lambda text, _whole: {**TINY_PROMPTS, "user": text})
    client.verifier.inspect(case_of(client, prompt, None))


def _probe(
    client: Client, prompts: Mapping[str, str], json_schema: Mapping[str, Any] | None, *, max_tokens: int
) -> Probe:
    """Send a verification request, and once more if it fails."""
    verification_client = client.for_verification(max_tokens)
    for _ in range(TRIES):
        attempt = verification_client.call_llm(prompts, json_schema, "")
        client.overhead.add(attempt.prompt_tokens)
        if attempt.prompt_tokens is not None:
            return Probe(attempt.prompt_tokens)
        if attempt.reason in REFUSALS:
            return Probe(None, refused=True, context_length=attempt.context_length)
        if attempt.reason is None or kind_of(attempt.reason) == "answer" or attempt.reason == "empty_model_response":
            return Probe(None)
    raise VerificationFailedError(attempt.error or "")


def verifiable_prompt(request: ExtractionRequest) -> VerifiablePrompt | None:
    """Return the part of a request that is verified; None when its prompts cannot be rebuilt."""
    if request.prompts_for is None:
        return None
    return VerifiablePrompt(
        request.prompts,
        request.json_schema,
        request.document_text,
        request.prompts_for,
        places=request.places,
        document=request.document,
    )


def verified_base_prompt(
    client: Client, prompts: Mapping[str, str], json_schema: Mapping[str, Any] | None, attempt: ExtractionAttempt
) -> ExtractionAttempt | None:
    """Return the attempt at the prompt without a document after verification, as `verified` does.

    The user's message is repeated in the document's place; the system prompt where that message is empty.
    """
    user = prompts.get("user", "")
    if not user.strip() and needs_verification(client, prompts, attempt):
        user = prompts.get("system", "")
        full_size = client.for_verification(client.config.max_tokens)
        attempt = full_size.call_llm({**prompts, "user": user}, json_schema, "")
        client.overhead.add(attempt.prompt_tokens)
    prompt = VerifiablePrompt(
        {**prompts, "user": user}, json_schema, user, lambda text, _whole: {**prompts, "user": text}
    )
    return verified(client, prompt, attempt, may_wait=lambda: True)


def needs_verification(client: Client, prompts: Mapping[str, str], attempt: ExtractionAttempt) -> bool:
    """Return whether a verification by repetition is needed for this prompt."""
    size_bytes = size_of(*prompts.values())
    tokens = attempt.prompt_tokens or 0
    finding = client.verifier.finding
    return finding.verdict(tokens, size_bytes=size_bytes, max_tokens=client.config.max_tokens) == "verify"
