"""Additional request fields of an agent or a provider: the reserved ones, and the merging of both.

It must not build a request: the clients do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.errors import ConfigError

RESERVED: Mapping[str, str] = {
    "model": "set the agent's or provider's `model`",
    "messages": "set the agent's prompts",
    "stream": "set the provider's `stream`",
    "format": "set the agent's `schema`",
    "response_format": "set the agent's `schema`",
    "max_tokens": "set the agent's or provider's `max_tokens`",
    "max_completion_tokens": "set the agent's or provider's `max_tokens`",
    "num_predict": "set the agent's or provider's `max_tokens`",
    "num_ctx": "set `ollama.num_ctx`",
    "truncate": "set the agent's `overflow`",
}
"""Fields that decide whether an answer is complete and which model gives it, with the setting to use instead."""

OLLAMA_OPTIONS = frozenset(
    (
        *("seed", "stop", "temperature", "top_k", "top_p", "min_p", "typical_p", "tfs_z", "num_keep", "num_predict"),
        *("repeat_last_n", "repeat_penalty", "presence_penalty", "frequency_penalty", "penalize_newline"),
        *("mirostat", "mirostat_tau", "mirostat_eta", "num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread"),
        *("use_mmap", "use_mlock", "low_vram", "numa", "draft_num_predict"),
    )
)
"""The names that Ollama reads in `options` (api/types.go, 0.32.9, and those of older versions)."""


def reserved_in(request: Mapping[str, Any], place: str) -> Iterator[str]:
    """Yield an error message for each field of an agent's `request` that must not be set there."""
    options = request.get("options")
    for name in request:
        if name in RESERVED:
            yield f"{place}.{name}: got a field that may not be set here; {RESERVED[name]}"
    if isinstance(options, Mapping):
        yield from reserved_in(options, f"{place}.options")


def check_ollama_fields(options: Mapping[str, Any], extra_body: Mapping[str, Any]) -> None:
    """Raise ConfigError when a provider's `options` or `extra_body` contains a field with a setting of its own."""
    own = {"options": "set `options`", "keep_alive": "set `keep_alive`"}
    reserved = list(reserved_in(options, "options"))
    reserved += reserved_in({name: None for name in extra_body if name != "options"}, "extra_body")
    reserved += [
        f"extra_body.{name}: got a field that may not be set here; {own[name]}" for name in extra_body if name in own
    ]
    if reserved:
        raise ConfigError("\n".join(reserved))


def merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Return both mappings merged recursively; the values of `second` win."""
    result = {**first, **second}
    for name in first.keys() & second.keys():
        if isinstance(first[name], Mapping) and isinstance(second[name], Mapping):
            result[name] = merged(first[name], second[name])
    return result


def split_for_ollama(request: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split a request into the fields of Ollama's `options` and the fields beside them."""
    inner = request.get("options")
    options = {name: value for name, value in request.items() if name in OLLAMA_OPTIONS}
    if isinstance(inner, Mapping):
        options = merged(options, inner)
    return options, {name: value for name, value in request.items() if name not in {*OLLAMA_OPTIONS, "options"}}
