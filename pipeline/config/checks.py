"""Validation of a settings class against its annotations and rules."""

from __future__ import annotations

from typing import Any

from pipeline.config.constraints import Rule, Unacceptable, clean, hints_of, shown_value
from pipeline.config.members import member_errors
from pipeline.config.table import RULES
from pipeline.errors import ConfigError


def rule_of(section: str, name: str) -> Rule:
    """Return the rule of a setting, looked up by its dotted key, else by its name in any section."""
    return RULES.get(f"{section}.{name}") or RULES.get(name) or Rule()


def check_fields(config: Any, section: str) -> None:
    """Validate and convert each field in place; raise ConfigError listing every invalid field."""
    errors: list[str] = []
    for name, hint in hints_of(config.__class__).items():
        value = getattr(config, name)
        rule = rule_of(section, name)
        try:
            object.__setattr__(config, name, clean(value, hint, rule=rule))
        except Unacceptable as cause:
            lines = [f"{name}.{line}" for _, line in member_errors(value, hint, rule=rule)]
            errors += lines or [f"{name}: got {shown_value(value, rule)}, need {cause}"]
    if errors:
        raise ConfigError("\n".join(errors))
