"""Changes of the configuration during a run: the keys that differ, and the changes that a run must not apply.

It compares values and returns keys only: a value may be a secret.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from pipeline.config.models import AppConfig

FIXED = ("input", "output", "agent", "agents_dir")
_QUESTION = ("max_tokens", "temperature", "extra_body", "num_ctx", "model_id", "options")


def differences(former: Any, present: Any, place: str = "") -> Iterator[str]:
    """Yield the dotted keys whose values differ; a provider that only one side has is reported as one key."""
    if former == present:
        return
    if is_dataclass(present) and type(former) is type(present):
        for field in fields(present):
            if field.compare:
                yield from differences(
                    getattr(former, field.name), getattr(present, field.name), f"{place}{field.name}."
                )
    elif place == "providers." and isinstance(former, Mapping):
        for name in dict.fromkeys((*former, *present)):
            yield from differences(former.get(name), present.get(name), f"{place}{name}.")
    else:
        yield place.removesuffix(".")


def with_fixed_settings(present: AppConfig, former: AppConfig) -> AppConfig:
    """Return the new configuration with the old values of all settings that must not change during a run.

    Unless `runner.refresh` is `all`, the variant and the provider settings that shape a request are kept as well, so
    that one run does not produce two kinds of results.
    """
    keep = {name: getattr(former, name) for name in FIXED}
    keep["runner"] = replace(former.runner, refresh=present.runner.refresh, max_reasks=present.runner.max_reasks)
    if former.runner.refresh != "all":
        keep["variant"] = former.variant
        keep |= {name: _keep_question(getattr(present, name), getattr(former, name)) for name in ("ollama", "vllm")}
        keep["providers"] = {
            name: _keep_question(config, former.providers[name]) if name in former.providers else config
            for name, config in present.providers.items()
        }
    return replace(present, **keep, origins=present.origins)


def _keep_question(present: Any, former: Any) -> Any:
    unchanged = {name: getattr(former, name) for name in _QUESTION if hasattr(former, name) and hasattr(present, name)}
    return replace(present, **unchanged)
