"""What servers say in nothing but text: one table of patterns, each with the server and version it was seen on.

Used only where no status, class or field can tell; everything else is decided without it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pattern:
    """`text` found in an error of one of `statuses` means `reason`; `seen_on` says where that was observed."""

    text: re.Pattern[str]
    statuses: tuple[int, ...]
    reason: str
    seen_on: str


def _row(text: str, statuses: tuple[int, ...], reason: str, seen_on: str) -> Pattern:
    return Pattern(re.compile(text, re.IGNORECASE), statuses, reason, seen_on)


PATTERNS = (
    _row(r"maximum context length is \d+", (400,), "context_length", "vLLM 0.32.0"),
    _row(r"max_tokens must be at least 1, got (0|-\d+)", (400,), "context_length", "vLLM 0.32.0: the prompt fills it"),
    _row(r"exceed_context_size_error|exceeds the available context size", (400,), "context_length", "llama.cpp b10488"),
    _row(r"prompt is longer than the context length|input length exceeds the context", (400,), "context_length", "Ollama 0.32"),
    _row(r"context.?(length|window|size).{0,60}exceed|exceed.{0,60}context.?(length|window|size)", (400, 413, 422), "context_length", "OpenAI-like gateways"),
    _row(r"model .{1,200} not found|model .{1,200} does not exist", (404,), "model_not_found", "Ollama 0.32, vLLM 0.32.0"),
    _row(r"cannot be greater than max_model_len", (400,), "rejected_config", "vLLM 0.32.0"),
    _row(r"grammar error|unsatisfiable schema|into a grammar|not supported by xgrammar", (400,), "rejected_config", "vLLM 0.32.0"),
    _row(r"structured outputs constraint|Input should be 'text', 'json_object'", (400,), "rejected_config", "vLLM 0.32.0"),
    _row(r"json schema conversion failed|cannot resolve \$ref|unrecognized type", (400,), "rejected_config", "llama.cpp b10488"),
    _row(r"temperature must be in|is not a multimodal model", (400,), "rejected_config", "vLLM 0.32.0"),
    _row(r"does not support (thinking|chat|generate|tools)|invalid think value|think must be", (400,), "rejected_config", "Ollama 0.32"),
    _row(r"missing unit in duration|^unsupported type: '|top_logprobs must be", (400,), "rejected_config", "Ollama 0.32"),
    _row(r"invalid model name|model is required", (400,), "model_not_found", "Ollama 0.32"),
    _row(r'option ".{1,80}" must be|invalid format:', (500,), "rejected_config", "Ollama 0.32"),
    _row(r"token repeat limit reached", (500,), "generation_loop", "Ollama after PR 18374"),
)  # fmt: skip

DYING = re.compile(r"EngineCore encountered an issue|model runner has unexpectedly stopped", re.IGNORECASE)
"""The last words of an engine (vLLM 0.32.0, Ollama 0.32): 500 to all that it worked on."""

CONFIG_PARAMS = frozenset({"response_format", "temperature", "extra_body", "structured_outputs", "top_p", "seed"})
"""Request fields whose refusal (an error's `param`, vLLM and OpenAI) is about our settings, not the document."""

REASON_OF_PARAM = {"input_tokens": "context_length", "input_text": "context_length"}
REASON_OF_KIND = {"exceed_context_size_error": "context_length", "NotFoundError": "model_not_found"}

_ECHO_CHARS, _LEAST_ECHO_CHARS = 16, 8
"""A shorter repetition is likely to be chance, as in `maximum`."""


def reason_of_text(status: int, message: str, *, kind: str | None = None, param: str | None = None) -> str | None:
    """The reason that an error's fields prove, or else its words; None when the status alone must decide."""
    told = REASON_OF_PARAM.get(param or "") if status == 400 else None
    told = told or (REASON_OF_KIND.get(kind or "") if status in (400, 404) else None)
    if told:
        return told
    for pattern in PATTERNS:
        if status in pattern.statuses and pattern.text.search(message):
            return pattern.reason
    return "rejected_config" if status == 400 and param in CONFIG_PARAMS else None


def is_dying(status: int, message: str) -> bool:
    """True when an error says that the engine ended while it worked."""
    return status == 500 and DYING.search(message) is not None


def without_echo(message: str, *said: str) -> str:
    """The message with `…` for what it repeats of a text: 16 characters or more of it, or a shorter text as a whole."""
    hidden = bytearray(len(message))
    for text in said:
        size = min(_ECHO_CHARS, len(text.strip()))
        if size < _LEAST_ECHO_CHARS:
            continue
        for start in range(len(message) - size + 1):
            if message[start : start + size] in text:
                hidden[start : start + size] = b"\1" * size
    shown = ("\0" if hide else char for char, hide in zip(message, hidden, strict=True))
    return re.sub("\0+", "…", "".join(shown)) if any(hidden) else message
