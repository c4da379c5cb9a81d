"""Patterns of error messages, in one table, each with the server and version it was seen on.

Used only for errors that no status, class or field identifies.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pattern:
    """`text` found in an error of one of `statuses` means `reason`; `seen_on` names where that was observed."""

    text: re.Pattern[str]
    statuses: tuple[int, ...]
    reason: str
    seen_on: str


def _row(text: str, statuses: tuple[int, ...], reason: str, seen_on: str) -> Pattern:
    return Pattern(re.compile(text, re.IGNORECASE), statuses, reason, seen_on)


TOO_LONG = (400, 413, 422, 500)
"""The statuses of a prompt that is too long; 500 is a gateway's (LiteLLM), or an error within a stream."""


def _overflow(text: str, seen_on: str) -> Pattern:
    """Return a row for a prompt that is too long; the groups `needed` and `limit` are tokens."""
    return _row(text, TOO_LONG, "context_length", seen_on)


OVERFLOWS = (
    _overflow(r"maximum context length is (?P<limit>\d+)(?: tokens)?(?:.{0,60}?(?:\(|resulted in )(?P<needed>\d+) (?:in the messages|tokens))?", "vLLM 0.4 to 0.32, OpenAI, OpenRouter"),
    _overflow(r"max_tokens must be at least 1, got (0|-\d+)", "vLLM 0.32.0: the prompt fills it"),
    _overflow(r"request \((?P<needed>\d+) tokens\) exceeds the available context size \((?P<limit>\d+)", "llama.cpp b10488"),
    _overflow(r"exceed_context_size_error|exceeds the available context size|context size has been exceeded", "llama.cpp, LocalAI"),
    _overflow(r"Requested tokens \((?P<needed>\d+)\) exceed context window of (?P<limit>\d+)", "llama-cpp-python 0.2, 0.3"),
    _overflow(r"prompt is longer than the context length|input length exceeds the context", "Ollama 0.32"),
    _overflow(r"input \((?P<needed>\d+) tokens\) is longer than the model's context length \((?P<limit>\d+)", "SGLang 0.4, Together"),
    _overflow(r"Requested token count exceeds the model's maximum context length of (?P<limit>\d+) tokens(?:\. You requested a total of \d+ tokens: (?P<needed>\d+))?", "SGLang 0.4"),
    _overflow(r"input length \(?(?P<needed>\d+)(?: tokens)?\)? exceeds (?:the|model's) maximum (?:allowed|context)(?: input)? length (?:of )?\(?(?P<limit>\d+)", "SGLang 0.4"),
    _overflow(r"exceed.{0,20}session.{0,20}len|INPUT_LENGTH_ERROR", "LMDeploy 0.2 to 0.7"),
    _overflow(r"prompt length \((?P<needed>\d+)(?:\.\d+)?\).{0,40}exceeds? (?:maximum (?:input|sequence) length|max_num_tokens) \((?P<limit>\d+)", "TensorRT-LLM 0.10 to 1.0"),
    _overflow(r"default_max_tokens \(-?\d+\) (?:must|should) be greater than 0", "TensorRT-LLM 1.0"),
    _overflow(r"`inputs` must have less than (?P<limit>\d+) tokens\. Given: (?P<needed>\d+)", "TGI 1 to 3"),
    _overflow(r"`inputs` tokens \+ `max_new_tokens` must be <= (?P<limit>\d+)\.? Given: (?P<needed>\d+)", "TGI 1 to 3"),
    _overflow(r"keep the first (?P<needed>\d+) tokens when.{0,120}context length of only (?P<limit>\d+)", "LM Studio 0.3"),
    _overflow(r"tokens to keep from the initial prompt is greater than the context length(?: \(n_keep: (?P<needed>\d+) ?>= n_ctx: (?P<limit>\d+))?", "LM Studio 0.4"),
    _overflow(r"cannot truncate prompt with n_keep \((?P<needed>\d+)\) >= n_ctx \((?P<limit>\d+)", "LM Studio 0.4"),
    _overflow(r"context length of only (?P<limit>\d+)", "LM Studio 0.3"),
    _overflow(r"prompt has (?P<needed>\d+) tokens in total, larger than the model input length limit (?P<limit>\d+)", "MLC-LLM 0.1"),
    _overflow(r"prompt sequence length is greater than (?P<limit>\d+)", "mistral.rs 0.3 to 0.6"),
    _overflow(r"prompt is too long: (?P<needed>\d+) tokens > (?P<limit>\d+)", "Anthropic-like gateways"),
    _overflow(r"exceed context limit: (?P<needed>\d+) \+ \d+ > (?P<limit>\d+)", "Anthropic-like gateways"),
    _overflow(r"maximum prompt length is (?P<limit>\d+) but the request contains (?P<needed>\d+)", "xAI"),
    _overflow(r"input token count.{0,20}exceeds the maximum number of tokens allowed(?: \((?P<limit>\d+))?", "Gemini behind LiteLLM"),
    _overflow(r"prompt contains (?P<needed>\d+) tokens.{0,40}too large for model with (?P<limit>\d+)", "Mistral"),
    _overflow(r"ContextWindowExceeded|context_length_exceeded|exceeds the context window|reduce the length of the (?:messages|input)", "LiteLLM 1.6x, OpenAI, Groq"),
    _overflow(r"context.?(length|window|size).{0,60}exceed|exceed.{0,60}context.?(length|window|size)", "OpenAI-like gateways"),
)  # fmt: skip
"""All known forms of "the prompt is too long", those with token counts first."""

PATTERNS = (
    *OVERFLOWS,
    _row(r"model .{1,200} not found|model .{1,200} does not exist", (404,), "model_not_found", "Ollama 0.32, vLLM 0.32.0"),
    _row(r"system role not supported|only user and assistant roles are supported|roles must alternate", (400, 500), "rejected_config", "chat templates of Gemma 2, Mistral 7B (vLLM, SGLang, llama.cpp)"),
    _row(r"unsupported (parameter|value)|(parameter|field|argument).{0,60}(not supported|not permitted|unknown|unrecognized)|extra inputs are not permitted|'?max_tokens'? is not supported", (400, 422), "rejected_config", "OpenAI, LiteLLM, FastAPI servers"),
    _row(r"cannot be greater than max_model_len", (400,), "rejected_config", "vLLM 0.32.0"),
    _row(r"grammar error|unsatisfiable schema|into a grammar|not supported by xgrammar", (400,), "rejected_config", "vLLM 0.32.0"),
    _row(r"structured outputs constraint|Input should be 'text', 'json_object'", (400,), "rejected_config", "vLLM 0.32.0"),
    _row(r"json schema conversion failed|cannot resolve \$ref|unrecognized type", (400,), "rejected_config", "llama.cpp b10488"),
    _row(r"temperature must be in|is not a multimodal model", (400,), "rejected_config", "vLLM 0.32.0"),
    _row(r"does not support (thinking|chat|generate|tools)|invalid think value|think must be", (400,), "rejected_config", "Ollama 0.32"),
    _row(r"missing unit in duration|^unsupported type: '|top_logprobs must be", (400,), "rejected_config", "Ollama 0.32"),
    _row(r"invalid model name|model is required", (400,), "model_not_found", "Ollama 0.32"),
    _row(r'option ".{1,80}" must be|invalid format:', (500,), "rejected_config", "Ollama 0.32"),
    _row(r"model has crashed|model was unloaded|model unloaded", (400,), "server_error", "LM Studio 0.3"),
    _row(r"budget has been exceeded|over budget", (400,), "server_error", "LiteLLM 1.6x: the key's budget"),
    _row(r"model is (still |currently )?loading|loading model", (400,), "server_error", "LM Studio 0.3, llama.cpp b10488"),
    _row(r"token repeat limit reached", (500,), "generation_loop", "Ollama after PR 18374"),
)  # fmt: skip

DYING = re.compile(r"EngineCore encountered an issue|model runner has unexpectedly stopped", re.IGNORECASE)
"""The error of an engine that ends (vLLM 0.32.0, Ollama 0.32): all its requests get a 500 with this text."""

CONFIG_PARAMS = frozenset({"response_format", "temperature", "extra_body", "structured_outputs", "top_p", "seed"})
"""Request fields whose refusal (an error's `param`, vLLM and OpenAI) is about our settings, not the document."""

REASON_OF_PARAM = {"input_tokens": "context_length", "input_text": "context_length"}
REASON_OF_KIND = {"exceed_context_size_error": "context_length", "NotFoundError": "model_not_found"}

UNPAID = re.compile(r"budget has been exceeded|over budget", re.IGNORECASE)
"""A gateway's refusal in a 400 because the budget is used up (LiteLLM 1.6x); other servers send 402."""

_ECHO_CHARS = 16
_LEAST_ECHO_CHARS = 8
"""A shorter repetition is likely to be chance, as in `maximum`."""


def reason_of_text(status: int, message: str, *, kind: str | None = None, param: str | None = None) -> str | None:
    """Return the reason from an error's fields, else from its text; None when only the status can decide."""
    by_field = REASON_OF_PARAM.get(param or "") if status == 400 else None
    by_field = by_field or (REASON_OF_KIND.get(kind or "") if status in (400, 404) else None)
    if by_field:
        return by_field
    for pattern in PATTERNS:
        if status in pattern.statuses and pattern.text.search(message):
            return pattern.reason
    return "rejected_config" if status == 400 and param in CONFIG_PARAMS else None


def prompt_size(message: str) -> tuple[int | None, int | None]:
    """Return the tokens that a prompt needs and the context's limit, from the text of an error; None for unknown."""
    for pattern in OVERFLOWS:
        match = pattern.text.search(message)
        if match is not None:
            groups = match.groupdict()
            needed = groups.get("needed")
            limit = groups.get("limit")
            return int(needed[:9]) if needed else None, int(limit[:9]) if limit else None
    return None, None


def is_unpaid(status: int, message: str) -> bool:
    """Return whether the account behind the key has no budget left, which only a payment changes."""
    return status == 402 or (status == 400 and UNPAID.search(message) is not None)


def is_dying(status: int, message: str) -> bool:
    """Return whether the error reports that the engine ended during the request."""
    return status == 500 and DYING.search(message) is not None


def without_echo(message: str, *texts: str) -> str:
    """Return the message with `…` for parts of these texts: 16 or more characters, or a shorter text as a whole."""
    is_echo = bytearray(len(message))
    for text in texts:
        size = min(_ECHO_CHARS, len(text.strip()))
        if size < _LEAST_ECHO_CHARS:
            continue
        for start in range(len(message) - size + 1):
            if message[start : start + size] in text:
                is_echo[start : start + size] = b"\1" * size
    chars = ("\0" if hide else char for char, hide in zip(message, is_echo, strict=True))
    return re.sub("\0+", "…", "".join(chars)) if any(is_echo) else message
