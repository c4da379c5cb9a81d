"""Agents: read from their files, resolved against the configuration, and rendered as prompts for a document.

It must not talk to a server or handle an answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from pipeline.agents.examples import read_examples
from pipeline.agents.files import BUILT_IN, agent_paths, read_agent_file, read_schema
from pipeline.agents.fingerprints import fingerprint, former_fingerprints, question, split_question
from pipeline.agents.prompts import LEAD, check_prompts, check_variables, named_values, rendered
from pipeline.config import AppConfig, ResolvedAgentConfig, others
from pipeline.config.agent_file import AgentFile, VariantFile
from pipeline.config.constraints import Rule, nearest_hint, shown_value
from pipeline.config.keys import provider_key
from pipeline.config.misplaced import agent_file_place
from pipeline.config.models import Overflow
from pipeline.config.request import merged
from pipeline.config.resolved_agent import ANSWER_TURN, EXAMPLE_TURN, Example
from pipeline.config.split import SplitConfig
from pipeline.errors import ConfigError, SettingError
from pipeline.records import Document

if TYPE_CHECKING:
    from pipeline.answers.schema import CompiledSchema

__all__ = [
    "DEFAULT_VARIANT",
    "Agent",
    "fingerprint",
    "former_fingerprints",
    "load_agent",
    "names_special_tokens",
    "question",
    "render",
    "resolve",
    "split_question",
    "variant_for",
]

DEFAULT_VARIANT = "default"


@dataclass(frozen=True, slots=True)
class Agent:
    """A checked agent file; `variants` always has `default`, `compiled` is shared by all threads."""

    name: str
    path: Path
    description: str
    system_prompt: str
    user_prompt: str
    schema: Mapping[str, Any]
    compiled: CompiledSchema
    examples: tuple[Example, ...]
    settings: AgentFile
    variants: Mapping[str, VariantFile]

    @property
    def editable(self) -> str:
        """The file in which a user changes the agent, for a message; a built-in agent has to be copied first."""
        return agent_file_place(self.name, None if self.path.parent == BUILT_IN else str(self.path.parent))


def load_agent(name: str, *, agents_dir: str | Path | None = None) -> Agent:
    """Load an agent by name, from `agents_dir` or built in; ConfigError with the place of the error."""
    from pipeline.answers.lint import check_known_keywords
    from pipeline.answers.schema import compile_schema  # slow to import, and `--help` needs no schema

    paths = agent_paths(agents_dir)
    if name not in paths:
        need = f"one of {', '.join(sorted(paths))}{nearest_hint(name, paths)}"
        raise SettingError("agent", f"got {shown_value(name, Rule())}, need {need}")
    path = paths[name]
    settings, variants = read_agent_file(path)
    is_split = "split" in (settings.overflow, *(own.overflow for own in variants.values()))
    check_variables(settings.variables, path=path, reserved_names=(LEAD,) if is_split else ())
    placeholders = (*settings.variables, LEAD) if is_split else settings.variables
    check_prompts(settings, path=path, place="", variables=placeholders)
    for variant, own in variants.items():
        check_prompts(own, path=path, place=f"variants.{variant}.", variables=placeholders)
    schema = read_schema(settings.schema, path=path)
    place = f"{path}: schema" if isinstance(settings.schema, Mapping) else f"{path}: schema ({settings.schema})"
    compiled = compile_schema(schema, where=place)
    check_known_keywords(compiled.schema, where=place)
    examples = read_examples(settings.examples, compiled, path=path)
    return Agent(
        name=name,
        path=path,
        description=settings.description,
        system_prompt=settings.system_prompt,
        user_prompt=settings.user_prompt,
        schema=schema,
        compiled=compiled,
        examples=examples,
        settings=settings,
        variants={DEFAULT_VARIANT: VariantFile(), **variants},
    )


def variant_for(agent: Agent, document_id: str, *, pinned: str | None) -> str:
    """Return the variant of a document: the pinned one, else by weight and a stable hash, else `default`."""
    if pinned is not None:
        return _known_variant(agent, pinned)
    if len(agent.variants) == 1:
        return DEFAULT_VARIANT
    weights = {name: own.weight for name, own in sorted(agent.variants.items()) if own.weight}
    if not weights:
        return DEFAULT_VARIANT
    digest = hashlib.sha256(b"variant\0" + document_id.encode("utf-8", "surrogatepass")).digest()
    remaining = int.from_bytes(digest[:8], "big") / 2**64 * sum(weights.values())
    for name, weight in weights.items():
        remaining -= weight
        if remaining < 0:
            return name
    return name


def _known_variant(agent: Agent, variant: str) -> str:
    if variant in agent.variants:
        return variant
    need = f"one of {', '.join(agent.variants)}{nearest_hint(variant, agent.variants)}"
    raise ConfigError(f"variant: got {shown_value(variant, Rule())}, need {need} ({agent.path})")


def resolve(agent: Agent, app: AppConfig, *, variant: str) -> ResolvedAgentConfig:
    """Resolve a variant's settings: flag over environment over variant over agent over configuration."""
    layers = (agent.variants[_known_variant(agent, variant)], agent.settings)
    provider = _pinned_or(app, layers, "provider", otherwise=app.provider) or "ollama"
    fallback = others(_pinned_or(app, layers, "fallback", otherwise=app.fallback_names(provider)), first=provider)
    for key, names in (("provider", (provider,)), ("fallback", fallback)):
        for name in names:
            _check_provider(app, name, place=f"{agent.path}: {key}")
    own = _sampling(app, layers, provider)
    overflow: Overflow = _set(layers, "overflow") or "fail"
    split = {**agent.settings.split, **agent.variants[variant].split}
    return ResolvedAgentConfig(
        agent=agent.name,
        variant=variant,
        description=agent.description,
        provider=provider,
        fallback=fallback,
        model=None if app.pinned(provider_key(provider, "model")) else _model(layers, provider),
        system_prompt=_set(layers, "system_prompt"),
        user_prompt=_set(layers, "user_prompt"),
        examples=agent.examples,
        schema=agent.schema,
        max_tokens=own.get("max_tokens"),
        temperature=own.get("temperature"),
        model_id=_set(layers, "model_id"),
        max_reasks=_pinned_or(app, layers, "max_reasks", otherwise=app.runner.max_reasks, key="runner.max_reasks"),
        overflow=overflow,
        split=SplitConfig(**split) if overflow == "split" else None,
        request=merged(agent.settings.request, agent.variants[variant].request),
        fallback_settings={name: _sampling(app, layers, name) for name in fallback},
    )


def _check_provider(app: AppConfig, name: str, *, place: str) -> None:
    app.provider_config(name, key=place)


def _set(layers: tuple[VariantFile, AgentFile], name: str) -> Any:
    """Return the variant's value, else the agent's, else None."""
    values = [getattr(layer, name) for layer in layers]
    return next((value for value in values if value is not None), None)


def _pinned_or(
    app: AppConfig, layers: tuple[VariantFile, AgentFile], name: str, *, otherwise: Any, key: str | None = None
) -> Any:
    """Return the configuration's value if pinned by a flag or the environment, else the agent's, else `otherwise`."""
    value = _set(layers, name)
    return otherwise if value is None or app.pinned(key or name) else value


def _model(layers: tuple[VariantFile, AgentFile], provider: str) -> str | None:
    """Return the agent's model for this provider; None when it names one for another provider only."""
    own, agent = layers
    intended = own.provider if own.provider is not None else agent.provider
    for model, first in ((own.model, intended), (agent.model, agent.provider)):
        if model is not None and (first is None or (first or "ollama") == provider):
            return model
    return None


def _sampling(app: AppConfig, layers: tuple[VariantFile, AgentFile], provider: str) -> dict[str, Any]:
    """Return `max_tokens` and `temperature` where the agent overrides the provider."""
    values = {name: _set(layers, name) for name in ("max_tokens", "temperature")}
    return {
        name: value
        for name, value in values.items()
        if value is not None and not app.pinned(provider_key(provider, name))
    }


@lru_cache(maxsize=64)
def _static(template: str) -> str:
    """Return a template without placeholders as text; it is the same for every document."""
    return Template(template).substitute({})


def render(resolved: ResolvedAgentConfig, document: Document) -> dict[str, str]:
    """Return the prompts for a document; its text is substituted once, so that a `$` in it is kept.

    The texts of examples replace `$document` in the user prompt, without any metadata.
    """
    turns: dict[str, str] = {}
    for number, example in enumerate(resolved.examples, 1):
        text = Document("", "", "", example.document)
        turns[f"{EXAMPLE_TURN}{number}"] = rendered(resolved.user_prompt, text)
        turns[f"{EXAMPLE_TURN}{number}{ANSWER_TURN}"] = example.output
    return {
        "system": _static(resolved.system_prompt),
        **turns,
        "user": rendered(resolved.user_prompt, document),
    }


def names_special_tokens(resolved: ResolvedAgentConfig, document: Document) -> bool:
    """Return True when a special token was broken up in the document's id, URI or metadata in the prompt."""
    return any(broken for _, broken in named_values(resolved.user_prompt, document).values())
