"""Resource limits of one document or one archive: the settings of `input.limits`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from pipeline.config.constraints import Rule, bound_text, nearest, shown_value, unknown_key
from pipeline.errors import ConfigError


@dataclass(frozen=True, slots=True)
class InputLimits:
    """Limits of decoding (html, mail, pdf, office, xml, edgar, warc), of a table and of an archive.

    `ratio` and `table_ratio` apply beyond the first FREE_UNPACKED_BYTES of a file: a small file may be compressed to
    any ratio, and each record of a small table may repeat many names of columns.
    """

    cpu_s: float = 20.0
    memory_mb: float = 200.0
    columns: int = 10_000
    members: int = 10_000_000
    unpacked_bytes: int = 1 << 40
    ratio: float = 200.0
    table_ratio: float = 50.0


FREE_UNPACKED_BYTES = 64 << 20
"""Unpacked bytes of a file that do not count towards its ratio."""

_RULES: Mapping[str, Rule] = {
    "cpu_s": Rule("Maximum CPU time for decoding one document.", low=0.1, high=86_400, unit="seconds"),
    "memory_mb": Rule("Maximum memory for decoding one document.", low=16, high=1 << 20, unit="MB"),
    "columns": Rule("Columns of a table.", low=1, high=1 << 24),
    "members": Rule("Members of an archive.", low=1, high=1 << 40),
    "unpacked_bytes": Rule("Unpacked size of an archive or a compressed file.", low=1, high=1 << 50, unit="bytes"),
    "ratio": Rule("Unpacked size of an archive or a compressed file, divided by packed size.", low=1, high=1 << 20),
    "table_ratio": Rule(
        "Size of a table's records with the names of their columns, divided by the table's size.", low=1, high=1 << 20
    ),
}


def limit_settings() -> list[tuple[str, Rule, float]]:
    """Return name, rule and default of each limit."""
    return [(field.name, _RULES[field.name], getattr(InputLimits(), field.name)) for field in fields(InputLimits)]


def limits_of(settings: Mapping[str, float]) -> InputLimits:
    """Return the limits with the given values over the defaults; ConfigError for an unknown or invalid one."""
    values: dict[str, float] = {}
    for name, setting in settings.items():
        number = int(setting) if float(setting).is_integer() else setting
        rule = _RULES.get(name)
        if rule is None or not _fits(name, number, rule):
            raise ConfigError(f"limits.{limit_error(name, number)}")
        values[name] = number
    return InputLimits(**values)  # type: ignore[arg-type]


def _fits(name: str, value: float, rule: Rule) -> bool:
    if _is_integer(name) and not isinstance(value, int):
        return False
    return (rule.low or 0) <= value <= (rule.high or 0)


def _is_integer(name: str) -> bool:
    return isinstance(getattr(InputLimits(), name), int)


def limit_error(name: str, value: Any) -> str:
    """Return the error message about an unknown limit, or about a value that a limit does not accept."""
    rule = _RULES.get(name)
    if rule is None:
        return unknown_key(name, value, near=nearest(name, _RULES), accepted_keys=_RULES)
    kind = "a whole number" if _is_integer(name) else "a number"
    unit = f" of {rule.unit}" if rule.unit else ""
    bounds = f"from {bound_text(rule.low or 0)} to {bound_text(rule.high or 0)}"
    return f"{name}: got {shown_value(value, rule)}, need {kind}{unit} {bounds}"


def changed_limits(settings: Mapping[str, float]) -> dict[str, float]:
    """Return the limits that differ from the defaults, whole numbers as integers; ConfigError as limits_of."""
    limits = limits_of(settings)
    return {name: getattr(limits, name) for name, _, default in limit_settings() if getattr(limits, name) != default}
