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


def differences(before: Any, now: Any, place: str = "") -> Iterator[str]:
    """Yield the dotted keys whose values differ; a provider that only one side has is reported as one key."""
    if before == now:
        return
    if is_dataclass(now) and type(before) is type(now):
        for field in fields(now):
            if field.compare:
                yield from differences(getattr(before, field.name), getattr(now, field.name), f"{place}{field.name}.")
    elif place == "providers." and isinstance(before, Mapping):
        for name in dict.fromkeys((*before, *now)):
            yield from differences(before.get(name), now.get(name), f"{place}{name}.")
    else:
        yield place.removesuffix(".")


def allowed(now: AppConfig, before: AppConfig) -> AppConfig:
    """Return the new configuration with the old values of all settings that must not change during a run.

    Unless `runner.refresh` is `all`, the variant and the provider settings that shape a request are kept as well, so
    that one run does not produce two kinds of results.
    """
    keep = {name: getattr(before, name) for name in FIXED}
    keep["runner"] = replace(before.runner, refresh=now.runner.refresh, max_reasks=now.runner.max_reasks)
    if before.runner.refresh != "all":
        keep["variant"] = before.variant
        keep |= {name: _keep_question(getattr(now, name), getattr(before, name)) for name in ("ollama", "vllm")}
        keep["providers"] = {
            name: _keep_question(config, before.providers[name]) if name in before.providers else config
            for name, config in now.providers.items()
        }
    return replace(now, **keep, origins=now.origins)


def _keep_question(now: Any, before: Any) -> Any:
    unchanged = {name: getattr(before, name) for name in _QUESTION if hasattr(before, name) and hasattr(now, name)}
    return replace(now, **unchanged)
