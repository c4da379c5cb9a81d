"""Judge how an answer ended, by the server's finish reason: complete, truncated or failed.

One table for all dialects. An answer is valid if the model ended it and it has content; a truncated answer is never
completed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.answers import (
    answer_in_reasoning,
    is_object,
    looks_like_loop,
    padded_object,
)
from pipeline.llm.protocol import cut_reason, failed_answer
from pipeline.records import ExtractionAttempt, changed

NATURAL: Mapping[str, str] = {
    "stop": "OpenAI protocol, vLLM 0.32, Ollama 0.32, SGLang 0.4, Gemini (STOP)",
    "eos_token": "TGI 1 to 3",
    "stop_sequence": "TGI 1 to 3, Anthropic-like gateways",
    "end_turn": "Anthropic-like gateways",
    "complete": "Cohere-like gateways",
    "eos": "tabbyAPI, Together",
}
"""Finish reasons of complete answers, in lower case, and where each was seen."""

DOUBTFUL: Mapping[str, str] = {
    "": "missing or null: mlx_lm, older llama.cpp builds, gateways that rebuild replies",
    "tool_calls": "LM Studio 0.3 with an empty list of calls, vLLM with a tool parser",
    "function_call": "OpenAI protocol before tools",
}
"""Finish reasons that do not show whether the text is complete; it is valid only as a complete object."""

CUT_REASONS: Mapping[str, str] = {
    "length": "OpenAI protocol, Ollama",
    "max_tokens": "Anthropic-like gateways, Gemini (MAX_TOKENS)",
    "model_length": "Mistral",
}

WHITE_SPACE_ADVICE = (
    "the answer is mostly white space: start vLLM with --structured-outputs-config "
    '\'{"backend": "xgrammar", "disable_any_whitespace": true}\', or forbid it in the prompt'
)


@dataclass(frozen=True, slots=True)
class Dialect:
    """A protocol's field names for the finish reason, the limit of the answer, and the model's thoughts."""

    finish: str
    limit: str
    thoughts: str


OPENAI = Dialect("finish_reason", "max_tokens", "reasoning")
OLLAMA = Dialect("done_reason", "num_predict", "thinking")


def judge_end(
    attempt: ExtractionAttempt,
    finish: object,
    *,
    dialect: Dialect,
    thoughts: str,
    json_schema: Mapping[str, Any] | None,
    from_reasoning: bool = True,
) -> ExtractionAttempt:
    """Return the attempt as an answer, or as failed by its finish reason. `thoughts`: the reasoning of the model."""
    word = finish.lower() if isinstance(finish, str) else None
    if finish is None:
        word = ""
    if word in CUT_REASONS:
        return _unpadded(attempt) or _judge_cut(attempt, dialect=dialect, thoughts=thoughts)
    if word == "repetition":
        return _unpadded(attempt) or failed_answer(attempt, "generation_loop", "the server stopped a repetition")
    if word in ("abort", "error"):
        return failed_answer(
            attempt,
            "server_error",
            f"the server ended the answer: {dialect.finish} {word}",
        )
    if word not in NATURAL and word not in DOUBTFUL:
        name = finish if isinstance(finish, str) else type(finish).__name__
        return failed_answer(attempt, "bad_response", f"{dialect.finish} is {name[:40]!r}, need 'stop'")
    text = attempt.raw_text or ""
    if not text.strip():
        return _without_content(
            attempt,
            thoughts,
            dialect=dialect,
            schema=json_schema if from_reasoning else None,
        )
    if word in DOUBTFUL and json_schema is not None and not is_object(text):
        ending = f"{dialect.finish} is {finish!r}" if finish else f"there is no {dialect.finish}"
        return failed_answer(
            attempt,
            "bad_response",
            f"the answer is incomplete: {ending}, and it is not a complete object",
        )
    return attempt


def ended_early(attempt: ExtractionAttempt, *, repeats: bool) -> ExtractionAttempt:
    """Return the attempt as failed: an Ollama ends an answer without `done` when it stops a repetition."""
    if repeats or looks_like_loop(attempt.raw_text or ""):
        error = "the server stopped a repetition (done: false)"
        return _unpadded(attempt) or failed_answer(attempt, "generation_loop", error)
    return failed_answer(attempt, "bad_response", "the answer is incomplete: done is not true")


def _without_content(
    attempt: ExtractionAttempt,
    thoughts: str,
    *,
    dialect: Dialect,
    schema: Mapping[str, Any] | None,
) -> ExtractionAttempt:
    answer = answer_in_reasoning(thoughts, schema)
    if answer is not None:
        return changed(attempt, raw_text=answer, notes=(*attempt.notes, "answer_in_reasoning"))
    if not thoughts.strip():
        return failed_answer(attempt, "empty_model_response", "no content")
    error = f"only {dialect.thoughts}, no content: turn thinking off ({thinking_settings(dialect)})"
    error += "" if dialect is OLLAMA else ", or start the server with its model's reasoning parser"
    return changed(failed_answer(attempt, "empty_model_response", error), thought=True)


def _unpadded(attempt: ExtractionAttempt) -> ExtractionAttempt | None:
    """Return the answer if it was complete before the white space in which it was truncated."""
    answer = padded_object(attempt.raw_text or "")
    if answer is None:
        return None
    return changed(attempt, raw_text=answer, notes=(*attempt.notes, "trailing_whitespace"))


def _judge_cut(attempt: ExtractionAttempt, *, dialect: Dialect, thoughts: str) -> ExtractionAttempt:
    tokens = attempt.completion_tokens
    limit = attempt.max_tokens
    text = attempt.raw_text
    blank = not (text or "").strip()
    if blank and not text and not thoughts and tokens == 0:
        error = "stopped for length before the first token: prompt and answer do not fit the context"
        return failed_answer(attempt, "context_length", error)  # LMDeploy 0.4 to 0.6
    error = f"stopped for length after {tokens} tokens ({dialect.limit} {limit})"
    if dialect is OPENAI and tokens is not None and limit is not None and tokens < limit:
        attempt = changed(attempt, notes=(*attempt.notes, "max_tokens_clamped"))
        error += ": the server clamped it to the room that the prompt left"
    if thoughts and text is None:
        attempt = changed(attempt, thought=True)
        error += f", all of them thought: raise max_tokens, or limit thinking ({thinking_settings(dialect)})"
    elif text and is_mostly_space(text):
        error += f"; {WHITE_SPACE_ADVICE}"
    return failed_answer(attempt, cut_reason(text), error)


def thinking_settings(dialect: Dialect) -> str:
    """Return the settings that turn thinking off or limit it."""
    if dialect is OLLAMA:
        return "`ollama.think: false` or `low`"
    return "`request: {chat_template_kwargs: {enable_thinking: false}}`, `reasoning_effort`, `thinking_token_budget`"


def is_mostly_space(text: str) -> bool:
    """Return whether more than half of a text, or its last 40 characters, are white space."""
    return len(text) >= 40 and (sum(map(len, text.split())) * 2 < len(text) or not text[-40:].strip())
