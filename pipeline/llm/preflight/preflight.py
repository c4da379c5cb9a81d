"""Preflight of a server before it gets documents: is it reachable, is the model there, does it accept our requests?

It sends requests and reports; it decides nothing and keeps nothing. The agent's own schema is sent first, the canary
second, because vLLM chooses its grammar back end by the first structured request that it gets (vLLM 0.32.0).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipeline.config.keys import provider_key
from pipeline.errors import PROMPT_TOO_LONG, PROVES_LIFE, kind_of
from pipeline.llm.capabilities import FoundError, Preflight, Status, facts_of, misconfigured, of_ollama
from pipeline.llm.ollama import OllamaClient
from pipeline.llm.preflight.enforcement import unenforced_keywords
from pipeline.llm.preflight.schema_canary import (
    CANARY_PROMPTS,
    FLOOD_WARNING,
    NOT_ENFORCED,
    NOT_ENFORCED_WARNING,
    canary_schema,
    enforcement,
    is_flooded,
)
from pipeline.llm.preflight.trial import TRIAL_TOKENS, try_completion
from pipeline.llm.prompt_length.verification import TINY_PROMPTS, verified_base_prompt
from pipeline.llm.sharing import choose_context
from pipeline.llm.vllm import VLLMClient
from pipeline.records import ExtractionAttempt

TINY_TIMEOUT_S = 60.0
TINY_TOKENS = 8


@dataclass(frozen=True, slots=True)
class PreflightSample:
    """A sample of the run's requests: the prompts with an empty document, and the schema as servers get it.

    `window_schema`: the schema of windows, if long documents are split into windows.
    """

    prompts: Mapping[str, str]
    json_schema: Mapping[str, Any] | None = None
    window_schema: Mapping[str, Any] | None = None


def examine(
    client: VLLMClient | OllamaClient,
    *,
    sample: PreflightSample,
    full: bool,
    canary: bool,
    earlier_facts: Preflight | None = None,
) -> Preflight:
    """Return the preflight of the client's server. Not `full`: only test whether a tiny completion succeeds.

    A full preflight costs three to six small requests; the `canary` one more. `earlier_facts`: the facts that were just
    found for another variant of the same model; only the differences are examined.
    """
    mode = client.config.preflight
    try:
        if not full or mode == "off":
            return earlier_facts or _tiny_preflight(client, loads=full)
        return _full_preflight(client, sample=sample, canary=canary, earlier_facts=earlier_facts)
    except FoundError as end:
        if mode != "warn" or end.preflight.reason in ("timeout", "connection_error"):
            return end.preflight
        complaint = end.preflight.message
    try:
        return replace(_tiny_preflight(client, loads=True), warnings=(complaint,))
    except FoundError as end:
        return end.preflight


def _tiny_preflight(client: VLLMClient | OllamaClient, *, loads: bool) -> Preflight:
    """Return ok when a tiny completion succeeds; `loads`: the model may have to be loaded for it."""
    timeout_s = client.config.load_timeout if loads and isinstance(client, OllamaClient) else None
    _complete(client, PreflightSample(TINY_PROMPTS), max_tokens=TINY_TOKENS, timeout_s=timeout_s)
    return Preflight("ok")


def _full_preflight(
    client: VLLMClient | OllamaClient, *, sample: PreflightSample, canary: bool, earlier_facts: Preflight | None
) -> Preflight:
    if isinstance(client, OllamaClient) and earlier_facts is None:
        choose_context(client, sample.prompts)
    facts = earlier_facts if earlier_facts is not None and earlier_facts.model else facts_of(client)
    take_over(client, facts)
    completion = try_completion(client, sample.prompts, sample.json_schema)
    if completion.reason == "context_length":
        complaint = f"the prompt without a document does not fit: {completion.message}"
        raise misconfigured("rejected_config", f"{complaint}: {_larger_context(client)}")
    if completion.server == "ollama" and isinstance(client, VLLMClient):
        facts = of_ollama(client, facts)
    completion = _verified(client, sample, completion)
    facts = replace(facts, prompt_tokens=completion.prompt_tokens)
    _check_fit(client, facts)
    if sample.window_schema is not None:
        try_completion(client, sample.prompts, sample.window_schema)
    if sample.json_schema is None:
        return facts
    facts = replace(facts, unenforced=tuple(unenforced_keywords(sample.json_schema, client.config.type)))
    return _with_canary(client, facts, sample.json_schema, completion) if canary else facts


def _verified(
    client: VLLMClient | OllamaClient, sample: PreflightSample, attempt: ExtractionAttempt
) -> ExtractionAttempt:
    """Return the attempt at the prompt without a document, which few-shot examples may make long.

    FoundError when the server truncates it. A count that only looks like that of a truncated prompt is verified.
    """
    if attempt.reason in PROVES_LIFE:
        return attempt
    verified = verified_base_prompt(client, sample.prompts, sample.json_schema, attempt)
    if verified is None:
        raise FoundError(Preflight("unreachable", "server_error", "the verification of the prompt length failed"))
    if verified.reason == "prompt_truncated":
        raise misconfigured("rejected_config", f"the prompt without a document is cut: {verified.message}")
    return verified


def take_over(client: VLLMClient | OllamaClient, facts: Preflight) -> None:
    """Apply the facts about its server to a client."""
    client.adopt(
        model=facts.model or client.config.model,
        think=facts.think,
        digest=facts.digest,
        context_length=facts.context_length,
        server=facts.server,
    )
    if facts.refuses:
        client.verifier.mark_as_refusing()


def _complete(
    client: VLLMClient | OllamaClient, sample: PreflightSample, *, max_tokens: int, timeout_s: float | None = None
) -> ExtractionAttempt:
    """Return a small completion, also one that was cut; FoundError when the server returns none."""
    client_for_trial = client.short_client(
        max_tokens=max_tokens, timeout_s=timeout_s or min(TINY_TIMEOUT_S, client.config.timeout)
    )
    attempt = client_for_trial.call_llm(sample.prompts, sample.json_schema, "")
    client.overhead.add(attempt.prompt_tokens)
    kind = kind_of(attempt.reason) if attempt.reason else "answer"
    if kind == "answer" or attempt.reason in PROVES_LIFE | PROMPT_TOO_LONG:
        return attempt
    status: Status = "misconfigured" if kind in ("config", "document") else "unreachable"
    message = f"a tiny completion failed: {attempt.message or attempt.error}"
    raise FoundError(Preflight(status, attempt.reason, message, unpaid=attempt.unpaid))


def _larger_context(client: VLLMClient | OllamaClient) -> str:
    """Return the settings to change when the prompt without a document does not fit the context."""
    provider = client.model.provider
    lower = f"lower `max_tokens` in the agent's file, or `{provider_key(provider, 'max_tokens')}` where that sets none"
    if isinstance(client, OllamaClient):
        return f"raise `{provider_key(provider, 'num_ctx')}`, or {lower}"
    return f"start the server with a larger context, or {lower}"


def _check_fit(client: VLLMClient | OllamaClient, facts: Preflight) -> None:
    max_tokens = client.config.max_tokens
    if facts.context_length and facts.prompt_tokens and facts.prompt_tokens + max_tokens > facts.context_length:
        message = f"the prompt without a document takes {facts.prompt_tokens} tokens and max_tokens is {max_tokens}"
        message += f": that does not fit the context of {facts.context_length}: {_larger_context(client)}"
        raise misconfigured("rejected_config", message)


def _with_canary(
    client: VLLMClient | OllamaClient, facts: Preflight, schema: Mapping[str, Any], schema_attempt: ExtractionAttempt
) -> Preflight:
    """Return the facts with the statement about the agent's schema; `schema_attempt`: the attempt without a canary."""
    canary = canary_schema(schema)
    trial = None
    if canary is not None:
        client_for_trial = client.short_client(
            max_tokens=TRIAL_TOKENS, timeout_s=min(TINY_TIMEOUT_S, client.config.timeout)
        )
        trial = client_for_trial.call_llm(CANARY_PROMPTS, canary, "")
        client.overhead.add(trial.prompt_tokens)
    statement = enforcement(schema_attempt, trial, schema=schema, unenforced=bool(facts.unenforced))
    warnings = [NOT_ENFORCED_WARNING] if statement == NOT_ENFORCED else []
    if is_flooded(schema_attempt) or (trial is not None and is_flooded(trial)):
        warnings.append(FLOOD_WARNING)
    return replace(facts, enforcement=statement, warnings=(*facts.warnings, *warnings))
