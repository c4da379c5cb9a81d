"""The keys of an agent file as frozen data, validated like the configuration.

It must not read a file: agents/ does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.config.models import Overflow, check_fields


@dataclass(frozen=True, slots=True, kw_only=True)
class _ExtractionSettings:
    """Settings of an agent and of each of its variants; None keeps the value of the level above."""

    provider: str | None = None
    fallback: tuple[str, ...] | None = None
    model: str | None = None
    model_id: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    max_reasks: int | None = None
    overflow: Overflow | None = None
    split: Mapping[str, Any] = field(default_factory=dict, hash=False)
    request: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantFile(_ExtractionSettings):
    """Settings of a variant that override its agent's; None keeps the agent's value."""

    system_prompt: str | None = None
    user_prompt: str | None = None
    weight: float | None = None

    def __post_init__(self) -> None:
        check_fields(self, "variant")


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentFile(_ExtractionSettings):
    """The keys of an agent file; None keeps the configuration's value."""

    user_prompt: str
    schema: str | Mapping[str, Any]
    description: str = ""
    system_prompt: str = ""
    examples: tuple[Mapping[str, Any], ...] = field(default=(), hash=False)
    variables: tuple[str, ...] = ()
    variants: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        check_fields(self, "agent")
