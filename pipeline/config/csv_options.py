"""How the cells of a CSV file are written: the settings of `input.csv`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.config.constraints import nearest_hint
from pipeline.errors import ConfigError

CSV_OPTIONS = ("quotechar", "escapechar", "delimiter")


def check_csv(given: Mapping[str, Any]) -> None:
    """Raise ConfigError for an unknown option, or a value that is neither one character nor null."""
    seen: dict[str, str] = {}
    for name, value in given.items():
        if name not in CSV_OPTIONS:
            known = ", ".join(CSV_OPTIONS)
            raise ConfigError(f"csv.{name}: unknown, need one of {known}{nearest_hint(name, CSV_OPTIONS)}")
        if value is None:
            continue
        if not isinstance(value, str) or len(value) != 1 or value in "\r\n\0":
            raise ConfigError(f"csv.{name}: got {value!r}, need one character, or null: found out")
        if value in seen:
            raise ConfigError(f"csv.{name}: got {value!r}, which is csv.{seen[value]} as well")
        seen[value] = name
