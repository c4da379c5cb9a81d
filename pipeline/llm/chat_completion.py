"""Parse a reply of the OpenAI protocol: text, the model's thoughts, token counts. It reads no socket.

Tested with vLLM 0.32.0, llama.cpp b10488, SGLang 0.4, LMDeploy 0.6, TGI 3, LM Studio 0.3 and LiteLLM 1.6x.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipeline.llm.endings import OPENAI, judge_end
from pipeline.llm.protocol import count_notes, failed_answer, whole_number
from pipeline.records import ExtractionAttempt, changed

THOUGHTS = ("reasoning", "reasoning_content", "thinking")
"""Fields of a message that hold the model's thoughts: vLLM 0.32; older vLLM, SGLang, LM Studio, llama.cpp; Ollama."""


def judge_completion(
    attempt: ExtractionAttempt,
    body: Mapping[str, Any],
    *,
    json_schema: Mapping[str, Any] | None,
    from_reasoning: bool,
) -> ExtractionAttempt:
    """Return the attempt with the content of a completion, or as failed."""
    choices = body.get("choices")
    if not isinstance(choices, list):
        return failed_answer(attempt, "bad_response", "the reply has no list `choices`")
    attempt = _with_usage(_with_model(attempt, body), body)
    if not choices:
        return failed_answer(attempt, "empty_model_response", "`choices` is empty")
    choice = choices[0] if isinstance(choices[0], dict) else {}
    message = choice.get("message")
    if not isinstance(message, dict):
        return failed_answer(attempt, "bad_response", "the first choice has no `message`")
    text, thoughts = _texts(message.get("content"))
    if text is None:
        return failed_answer(attempt, "bad_response", f"`content` is {_kind(message.get('content'))}")
    if not text.strip() and (arguments := _arguments(message)) is not None:
        text = arguments
        attempt = changed(attempt, notes=(*attempt.notes, "answer_in_tool_call"))
    return judge_end(
        changed(attempt, raw_text=text or None),
        choice.get("finish_reason"),
        dialect=OPENAI,
        thoughts=thoughts or _thoughts(message),
        json_schema=json_schema,
        from_reasoning=from_reasoning,
    )


def _texts(content: object) -> tuple[str | None, str]:
    """Return the text of a message's content and the thoughts in it; None for a content of another kind.

    Content may be a list of parts (Mistral, gateways): texts count, thoughts are kept apart.
    """
    if content is None or isinstance(content, str):
        return content or "", ""
    if not isinstance(content, list):
        return None, ""
    parts = []
    thoughts = []
    for part in content:
        if isinstance(part, str):
            parts.append(part)
        elif (
            isinstance(part, dict) and part.get("type") in ("text", "output_text") and isinstance(part.get("text"), str)
        ):
            parts.append(part["text"])
        elif isinstance(part, dict) and part.get("type") in ("thinking", "reasoning"):
            inner = part.get("thinking") or part.get("text")
            thoughts.append(inner if isinstance(inner, str) else _texts(inner)[0] or "")
        else:
            return None, ""
    return "".join(parts), "".join(thoughts)


def _kind(content: object) -> str:
    if isinstance(content, list):
        return "a list with a part that is not text"
    return f"of type {type(content).__name__}"


def _arguments(message: Mapping[str, Any]) -> str | None:
    """Return the arguments of the only tool call; some servers send an answer with a schema in this form."""
    calls = message.get("tool_calls")
    call = calls[0] if isinstance(calls, list) and len(calls) == 1 else None
    function = call.get("function") if isinstance(call, dict) else None
    arguments = function.get("arguments") if isinstance(function, dict) else None
    return arguments if isinstance(arguments, str) and arguments.strip() else None


def _thoughts(message: Mapping[str, Any]) -> str:
    """Return the chain of thought that a server keeps apart from the content."""
    texts = (message.get(name) for name in THOUGHTS)
    return next((text for text in texts if isinstance(text, str) and text), "")


def _with_model(attempt: ExtractionAttempt, body: Mapping[str, Any]) -> ExtractionAttempt:
    """Return the attempt with the model named in the reply, if the request named no model."""
    name = body.get("model")
    if attempt.model.name or not isinstance(name, str):
        return attempt
    return changed(attempt, model=replace(attempt.model, name=name))


def _with_usage(attempt: ExtractionAttempt, body: Mapping[str, Any]) -> ExtractionAttempt:
    usage = body.get("usage") if isinstance(body.get("usage"), dict) else {}
    assert isinstance(usage, dict)
    details = usage.get("prompt_tokens_details")
    return changed(
        attempt,
        prompt_tokens=whole_number(usage.get("prompt_tokens")),
        completion_tokens=whole_number(usage.get("completion_tokens")),
        notes=(
            *attempt.notes,
            *count_notes(usage.get("prompt_tokens"), usage.get("completion_tokens")),
        ),
        cached_tokens=whole_number(details.get("cached_tokens")) if isinstance(details, dict) else None,
    )
