"""The dotted keys of the configuration, their environment variables, and the conversion of texts to values.

It must not build a configuration or read a file: loading.py does.
"""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from pipeline.config.constraints import hints_of, options
from pipeline.config.models import AppConfig, OllamaConfig, VLLMConfig
from pipeline.config.yaml_file import scalar

MISSPELT = 0.87
"""Similarity of a misspelt name: PIPELINE_OUTPUT is near PIPELINE_OUTPUT_URI, PIPELINE_NAME near nothing."""

_OF_A_SERVICE = re.compile(r"_SERVICE_(HOST|PORT)|_PORT(_\d+_(TCP|UDP|SCTP).*)?$")

_SHORT = (*tuple(hints_of(VLLMConfig))[:10], "api_key_file")


def sections() -> dict[str, type]:
    """Return the sections of the file with their dataclasses, by name, without `providers`."""
    return {name: hint for name, hint in hints_of(AppConfig).items() if _is_section(hint)}


def _is_section(hint: Any) -> bool:
    return isinstance(hint, type) and is_dataclass(hint)


def top_keys() -> tuple[str, ...]:
    """Return the keys at the top level of the file that are not sections."""
    excluded = (*sections(), "providers")
    return tuple(field.name for field in fields(AppConfig) if field.compare and field.name not in excluded)


def known_keys() -> tuple[str, ...]:
    """Return every dotted key except those below `providers`."""
    nested = (f"{section}.{name}" for section, cls in sections().items() for name in hints_of(cls))
    return (*top_keys(), *nested)


def provider_key(provider: str, name: str) -> str:
    """Return the dotted key of a provider's setting."""
    return f"{provider}.{name}" if provider in ("ollama", "vllm") else f"providers.{provider}.{name}"


def env_names() -> dict[str, str]:
    """Return dotted keys by environment variable; of two variables for one key, the later one wins."""
    names = {f"{kind.upper()}_{key.upper()}": f"{kind}.{key}" for kind in ("vllm", "ollama") for key in _SHORT}
    names |= {f"OLLAMA_{key.upper()}": f"ollama.{key}" for key in ("num_ctx", "keep_alive")}
    return names | {"PIPELINE_" + key.replace(".", "_").upper(): key for key in known_keys()}


def misspelt_names(environ: Iterable[str]) -> dict[str, str]:
    """Return unknown PIPELINE_… variables, each with the known variable it resembles.

    A variable may be misspelt, or leave the section out (PIPELINE_CONCURRENCY). Other prefixes are skipped: servers
    define their own (OLLAMA_MODELS, VLLM_PORT). So are the variables that Kubernetes creates for a service named
    `pipeline` (PIPELINE_PORT_80_TCP_ADDR).
    """
    names = [
        *(name for name in env_names() if name.startswith("PIPELINE_")),
        "PIPELINE_CONFIG",
        "PIPELINE_SHARDS",
        "PIPELINE_CHUNKS",
        "PIPELINE_PUSHGATEWAY",
        "PIPELINE_RESUME_COMMAND",
    ]
    unknown = [name for name in environ if name.startswith("PIPELINE_") and name not in names]
    matches = {name: _nearest_name(name[:200], names) for name in unknown if not _OF_A_SERVICE.search(name)}
    return {name: near for name, near in matches.items() if near is not None}


def _nearest_name(name: str, names: Sequence[str]) -> str | None:
    """Return the variable that is spelt like this name, or like it without its section."""
    close = difflib.get_close_matches(name, names, n=1, cutoff=MISSPELT)
    if close:
        return close[0]
    setting = name.removeprefix("PIPELINE_")
    candidates = [variable for section in sections() if (variable := f"PIPELINE_{section.upper()}_{setting}") in names]
    return candidates[0] if len(candidates) == 1 else None


def value_of_text(key: str, text: str) -> Any:
    """Return the value that a flag's or a variable's text means for this key: the text, a list, or a YAML scalar."""
    kinds = options(_hint_of(key))
    if type(None) in kinds and text in ("null", "~"):
        return None
    if any(typing.get_origin(kind) is tuple for kind in kinds):
        return _listed(text, split=key != "input.uri")
    return text if str in kinds and int not in kinds else scalar(text)


def split_key(key: str) -> tuple[str, tuple[str, ...]]:
    """Split a dotted key into a setting and a path inside the mapping it holds: `input.storage` and `region`.

    In a mapping of texts or numbers, such as headers or gates, the rest is one name, including its dots.
    """
    parts = key.split(".")
    for end in range(2, len(parts)):
        name = ".".join(parts[:end])
        remainder = parts[end:]
        if (kind := _held_by(name)) is not None:
            return name, (".".join(remainder),) if kind in (str, float) else tuple(remainder)
    return key, ()


def _held_by(key: str) -> Any:
    """Return the value type of a setting that is a mapping; None for any other setting."""
    kinds = (kind for kind in options(_hint_of(key)) if typing.get_origin(kind) is Mapping)
    return next((typing.get_args(kind)[1] for kind in kinds), None)


def _hint_of(key: str) -> Any:
    """Return the annotation of a dotted key; None for an unknown key."""
    key, inside = split_key(key)
    if inside:
        return _held_by(key)
    section, _, name = key.rpartition(".")
    if not section:
        return hints_of(AppConfig).get(name)
    if section.startswith("providers."):
        return hints_of(OllamaConfig).get(name) or hints_of(VLLMConfig).get(name)
    cls = sections().get(section)
    return hints_of(cls).get(name) if cls else None


def _listed(text: str, *, split: bool) -> Any:
    """Return a YAML list, a list from a comma-separated text, or the text; a path is not split at commas."""
    if text.startswith("[") and isinstance(items := scalar(text), list):
        return items
    parts = [part.strip() for part in text.split(",") if part.strip()] if split else [text]
    return parts if len(parts) != 1 else parts[0]
