"""The trial completion of a preflight: the agent's own schema and a prompt without a document, judged as in a run.

schema, few tokens ─▶ an answer, or the beginning of one ─▶ passed
        │ only thoughts        ─▶ once more with the agent's own max_tokens
        │ no answer            ─▶ once more
        └ an error status      ─▶ without the schema: does the server refuse the schema?
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.answers import after_thoughts
from pipeline.errors import PROMPT_TOO_LONG, PROVES_LIFE, kind_of
from pipeline.llm.capabilities import FoundError, Preflight, Status
from pipeline.llm.ollama import OllamaClient
from pipeline.llm.vllm import VLLMClient
from pipeline.records import ExtractionAttempt

TRIAL_TOKENS = 48
TRIAL_TIMEOUT_S = 60.0
CUT_REASONS = frozenset({"output_truncated", "generation_loop"})

_ADVICE = tuple(
    (re.compile(pattern, re.IGNORECASE), advice)
    for pattern, advice in (
        (r"all of them thought|only (reasoning|thinking)", "see docs/thinking-models.md"),
        (
            r"system role|roles must alternate|only user and assistant",
            "this model's chat template takes no system message: move the agent's `system_prompt` into `user_prompt`",
        ),
        (
            r"max_tokens.{0,80}support|unsupported.{0,40}max_tokens",
            "set `extra_body: {max_tokens: null, max_completion_tokens: N}`",
        ),
        (r"temperature.{0,80}support|unsupported.{0,40}temperature", "set `extra_body: {temperature: null}`"),
        (r"does not support thinking|think value", "set `ollama.think: auto`"),
        (r"repetition_detection|stream_options", "use `type: openai` for a server other than vLLM 0.32"),
        (
            r"response_format|json.?schema|grammar|guided|structured",
            "simplify the agent's schema, or start the server with another structured-output back end",
        ),
        (r"budget has been|over budget|credit|quota|payment|http 402", "the account behind the key has no budget left"),
        (
            r"extra inputs|not permitted|unknown|unrecognized|unsupported",
            "leave out what it names: see `extra_body`, the agent's `request`, and `type: openai`",
        ),
        (r"finish_reason|done_reason", "let the gateway pass on the server's own end of an answer, or leave it out"),
    )
)


@dataclass(frozen=True, slots=True)
class Trial:
    """A trial request: prompts, schema, limit of the answer in tokens, and time limit."""

    prompts: Mapping[str, str]
    json_schema: Mapping[str, Any] | None
    max_tokens: int = TRIAL_TOKENS
    timeout_s: float = TRIAL_TIMEOUT_S


def try_completion(
    client: VLLMClient | OllamaClient, prompts: Mapping[str, str], json_schema: Mapping[str, Any] | None
) -> ExtractionAttempt:
    """Return a completion that a run would accept, or the beginning of one; FoundError if there is none.

    An attempt whose prompt is too long is returned, too.
    """
    attempt = _ask(client, Trial(prompts, json_schema))
    if _passes(attempt):
        return attempt
    if _is_answer_of_status(attempt) and json_schema is not None:
        return _without_schema(client, Trial(prompts, json_schema), attempt)
    if kind_of(attempt.reason or "") == "answer" or attempt.reason in PROVES_LIFE or attempt.ok:
        retry = _ask(client, Trial(prompts, json_schema, client.config.max_tokens, client.config.timeout))
        if _passes(retry):
            return retry
        if retry.ok or retry.reason in CUT_REASONS or retry.reason in PROVES_LIFE:
            raise _no_answer(retry)
        attempt = retry
    raise refusal(attempt)


def _ask(client: VLLMClient | OllamaClient, trial: Trial) -> ExtractionAttempt:
    trial_client = client.short_client(
        max_tokens=min(trial.max_tokens, client.config.max_tokens),
        timeout_s=min(trial.timeout_s, client.config.timeout),
    )
    attempt = trial_client.call_llm(trial.prompts, trial.json_schema, "")
    client.overhead.add(attempt.prompt_tokens)
    return attempt


def _passes(attempt: ExtractionAttempt) -> bool:
    """Return whether the attempt has an answer, the beginning of one (not thoughts), or a prompt that is too long."""
    if attempt.reason in PROMPT_TOO_LONG:
        return True
    if not attempt.ok and attempt.reason not in CUT_REASONS:
        return False
    return bool((after_thoughts(attempt.raw_text or "") or "").strip())


def _is_answer_of_status(attempt: ExtractionAttempt) -> bool:
    """Return True for an error status that the schema may have caused."""
    if not (attempt.error or "").startswith("http_"):
        return False
    return attempt.reason in ("server_error", "rejected", "rejected_config", "bad_response")


def _without_schema(
    client: VLLMClient | OllamaClient, trial: Trial, refused_attempt: ExtractionAttempt
) -> ExtractionAttempt:
    """Return a second completion with the schema; FoundError that blames the schema, else the server."""
    free_attempt = _ask(client, Trial(trial.prompts, None))
    if not (_passes(free_attempt) or free_attempt.reason in CUT_REASONS or free_attempt.reason in PROVES_LIFE):
        raise refusal(refused_attempt)
    retry = _ask(client, trial)
    if _passes(retry):
        return retry
    if not _is_answer_of_status(retry):
        raise refusal(retry)
    message = "the server refuses the agent's schema, and completes the same request without it: "
    message += f"{retry.message}; simplify the schema, or start the server with another structured-output back end"
    raise FoundError(Preflight("misconfigured", "rejected_config", message))


def refusal(attempt: ExtractionAttempt) -> FoundError:
    """Return the error of a trial without a completion: the server's message, and advice."""
    kind = kind_of(attempt.reason or "")
    status: Status = "misconfigured" if kind in ("config", "document") else "unreachable"
    message = f"a tiny completion failed: {attempt.message or attempt.error}"
    message += _advice(attempt.message)
    return FoundError(Preflight(status, attempt.reason, message, unpaid=attempt.unpaid))


def _no_answer(attempt: ExtractionAttempt) -> FoundError:
    """Return the error of a server that completes requests, but without a usable answer."""
    words = attempt.message
    if attempt.raw_text and not (after_thoughts(attempt.raw_text) or "").strip():
        words = f"the model only thinks within its answer: {words or 'nothing follows'}; see docs/thinking-models.md"
    message = f"the server answers, but a run would accept none of its answers: {words}{_advice(words)}"
    return FoundError(Preflight("misconfigured", attempt.reason or "empty_model_response", message))


def _advice(message: str) -> str:
    advice_text = next((advice for pattern, advice in _ADVICE if pattern.search(message)), None)
    return f" ({advice_text})" if advice_text and advice_text not in message else ""
