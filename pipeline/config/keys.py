"""The dotted keys of the configuration, the environment variables that set them, and what a text means for each.

It builds no configuration and reads nothing: settings.py does.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from pipeline.config.constraints import hints_of, options
from pipeline.config.models import AppConfig, OllamaConfig, VLLMConfig
from pipeline.config.yaml_file import scalar

_SHORT = (*tuple(hints_of(VLLMConfig))[:10], "api_key_file")


def sections() -> dict[str, type]:
    """The sections of the file, by name, with their dataclasses; `providers` is none of them."""
    return {name: hint for name, hint in hints_of(AppConfig).items() if _is_section(hint)}


def _is_section(hint: Any) -> bool:
    return isinstance(hint, type) and is_dataclass(hint)


def top_keys() -> tuple[str, ...]:
    """The keys at the top of the file that are no sections."""
    other = (*sections(), "providers")
    return tuple(field.name for field in fields(AppConfig) if field.compare and field.name not in other)


def known_keys() -> tuple[str, ...]:
    """Every dotted key but those below `providers`."""
    nested = (f"{section}.{name}" for section, cls in sections().items() for name in hints_of(cls))
    return (*top_keys(), *nested)


def provider_key(provider: str, name: str) -> str:
    """The dotted key of a provider's setting."""
    return f"{provider}.{name}" if provider in ("ollama", "vllm") else f"providers.{provider}.{name}"


def env_names() -> dict[str, str]:
    """Environment variable -> dotted key; of two that set one key, the later one counts."""
    names = {f"{kind.upper()}_{key.upper()}": f"{kind}.{key}" for kind in ("vllm", "ollama") for key in _SHORT}
    names |= {f"OLLAMA_{key.upper()}": f"ollama.{key}" for key in ("num_ctx", "keep_alive")}
    return names | {"PIPELINE_" + key.replace(".", "_").upper(): key for key in known_keys()}


def misspelt_names(environ: Iterable[str]) -> dict[str, str]:
    """Variables of ours that set nothing and look much like one that does -> that one.

    Only with our own prefix: servers have variables of theirs (OLLAMA_MODELS, VLLM_PORT), and Kubernetes makes many.
    """
    known = [*(name for name in env_names() if name.startswith("PIPELINE_")), "PIPELINE_CONFIG", "PIPELINE_SHARDS"]
    unknown = [name for name in environ if name.startswith("PIPELINE_") and name not in known]
    found = {name: difflib.get_close_matches(name[:200], known, n=1, cutoff=0.9) for name in unknown}
    return {name: near[0] for name, near in found.items() if near}


def value_of_text(key: str, text: str) -> Any:
    """What a flag's or a variable's text means for this key: itself, a list, or what YAML says it is."""
    kinds = options(_hint_of(key))
    if type(None) in kinds and text in ("null", "~"):
        return None
    if any(typing.get_origin(kind) is tuple for kind in kinds):
        return _listed(text, split=key != "input.uri")
    return text if str in kinds and int not in kinds else scalar(text)


def split_key(key: str) -> tuple[str, tuple[str, ...]]:
    """The dotted key of a setting, and where a longer one leads in the mapping that it holds: `input.storage`, region.

    In a mapping of texts, as headers are, the rest is one name, dots and all.
    """
    parts = key.split(".")
    for end in range(2, len(parts)):
        name, rest = ".".join(parts[:end]), parts[end:]
        if (kind := _held_by(name)) is not None:
            return name, (".".join(rest),) if kind is str else tuple(rest)
    return key, ()


def _held_by(key: str) -> Any:
    """What the mapping holds that this setting is; None for one that is none."""
    kinds = (kind for kind in options(_hint_of(key)) if typing.get_origin(kind) is Mapping)
    return next((typing.get_args(kind)[1] for kind in kinds), None)


def _hint_of(key: str) -> Any:
    """The annotation of a dotted key; None for an unknown one."""
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
    """A YAML list as such, a text with commas as a list, another text alone; a path may contain a comma."""
    if text.startswith("[") and isinstance(found := scalar(text), list):
        return found
    parts = [part.strip() for part in text.split(",") if part.strip()] if split else [text]
    return parts if len(parts) != 1 else parts[0]
