"""An agent's prompts, schema and providers after all precedence, as frozen data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pipeline.config.models import Overflow
from pipeline.config.split import SplitConfig

EXAMPLE_TURN = "example_"
ANSWER_TURN = "_answer"
"""The names of an example's two turns among the prompts: `example_1`, `example_1_answer`."""


class Example(NamedTuple):
    """A text and the answer to it, as JSON in one line."""

    document: str
    output: str


@dataclass(frozen=True, slots=True)
class ResolvedAgentConfig:
    """The agent's prompts, schema and providers after all precedence.

    `model`, `max_tokens`, `temperature` are for the first provider; None keeps the provider's. `request` is added
    to the request's body for every provider. `split`: how documents are cut with `overflow: split`, else None.
    """

    agent: str
    variant: str
    provider: str = "ollama"
    fallback: tuple[str, ...] = ()
    model: str | None = None
    system_prompt: str = ""
    user_prompt: str = "$document"
    examples: tuple[Example, ...] = ()
    schema: Mapping[str, Any] = field(default_factory=dict, hash=False)
    max_tokens: int | None = None
    temperature: float | None = None
    max_reasks: int = 1
    overflow: Overflow = "fail"
    split: SplitConfig | None = None
    request: Mapping[str, Any] = field(default_factory=dict, hash=False)
    description: str = ""
    model_id: str | None = None
    fallback_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, hash=False)

    def settings_for(self, name: str) -> Mapping[str, Any]:
        """Return the agent's overrides of a provider's settings; a fallback keeps its own model."""
        own = {"max_tokens": self.max_tokens, "temperature": self.temperature}
        if (name or "ollama") != (self.provider or "ollama"):
            return self.fallback_settings.get(name, {key: v for key, v in own.items() if v is not None})
        return {key: v for key, v in {"model": self.model, **own}.items() if v is not None}
