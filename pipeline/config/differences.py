"""The settings that differ from their defaults, with the source of each, for `pipeline check`.

Secrets are masked here as in every description of the configuration.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.config.keys import sections
from pipeline.config.loading import describe, masked
from pipeline.config.models import AppConfig


@dataclass(frozen=True, slots=True)
class ChangedSetting:
    """A setting with another value than its default; `place`: the file, variable or flag that set it."""

    key: str
    value: Any
    place: str


def changed_settings(app: AppConfig) -> list[ChangedSetting]:
    """Return the settings that differ from the defaults, in the order of the config file."""
    usual = dict(_leaves(describe(AppConfig())))
    types = {name: dict(_leaves(masked(type(config)()), f"providers.{name}")) for name, config in app.providers.items()}
    for defaults in types.values():
        usual |= defaults
    return [
        ChangedSetting(key, value, app.places.get(key, "the defaults"))
        for key, value in _leaves(describe(app))
        if key not in usual or usual[key] != value
    ]


def _leaves(tree: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and the value of each setting; a setting may be a mapping itself."""
    for name, value in tree.items():
        key = f"{before}.{name}" if before else name
        inner = key in sections() or key == "providers" or before == "providers"
        if inner and isinstance(value, Mapping):
            yield from _leaves(value, key)
        else:
            yield key, value
