"""Format of a CSV file's cells: the settings of `input.csv`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.config.constraints import nearest, unknown_key
from pipeline.errors import ConfigError

CSV_OPTIONS = ("quotechar", "escapechar", "delimiter")


def check_csv(options: Mapping[str, Any]) -> None:
    """Raise ConfigError for an unknown option, or a value that is neither one character nor null."""
    names_by_value: dict[str, str] = {}
    for name, value in options.items():
        if name not in CSV_OPTIONS:
            message = unknown_key(name, value, near=nearest(name, CSV_OPTIONS), accepted_keys=CSV_OPTIONS)
            raise ConfigError(f"csv.{message}")
        if value is None:
            continue
        if not isinstance(value, str) or len(value) != 1 or value in "\r\n\0":
            raise ConfigError(f"csv.{name}: got {value!r}, need one character, or null to detect it")
        if value in names_by_value:
            raise ConfigError(f"csv.{name}: got {value!r}, which is csv.{names_by_value[value]} as well")
        names_by_value[value] = name
