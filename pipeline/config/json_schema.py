"""The JSON Schemas of the configuration file and of an agent file, for editors.

They are generated from the dataclasses and the rules; no setting may be described here by hand.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from pipeline.config.agent_file import AgentFile, VariantFile
from pipeline.config.constraints import Rule, hints_of, options
from pipeline.config.keys import sections, top_keys
from pipeline.config.limits import limit_settings
from pipeline.config.models import AppConfig, InputSource, OllamaConfig, VLLMConfig, rule_of
from pipeline.config.split import SplitConfig

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def config_schema() -> dict[str, Any]:
    """Return the schema of the configuration file."""
    root = _object(AppConfig, "", names=top_keys())
    for name, cls in sections().items():
        root["properties"][name] = {**_object(cls, name), "type": ["object", "null"]}
    root["properties"]["input"]["properties"]["limits"] |= _limits()
    provider_schema = {"anyOf": [{**_object(cls, name), "required": ["type"]} for name, cls in _PROVIDERS.items()]}
    root["properties"]["providers"] = {
        "description": rule_of("", "providers").doc,
        "type": ["object", "null"],
        "propertyNames": {"pattern": "^[A-Za-z0-9_-]+$"},
        "additionalProperties": provider_schema,
    }
    return {"$schema": DRAFT, "title": "Configuration of the extraction pipeline", **root}


def agent_schema() -> dict[str, Any]:
    """Return the schema of an agent file."""
    root = _object(AgentFile, "agent")
    variant = {**_object(VariantFile, "variant"), "type": ["object", "null"]}
    for schema in (root, variant):
        schema["properties"]["split"] |= _object(SplitConfig, "split")
    root["properties"]["variants"] |= {"type": ["object", "null"], "additionalProperties": variant}
    return {"$schema": DRAFT, "title": "An agent of the extraction pipeline", **root}


def _limits() -> dict[str, Any]:
    """Return the schema of the keys of `input.limits`."""
    properties = {name: _property(type(default), rule, default) for name, rule, default in limit_settings()}
    return {"type": "object", "additionalProperties": False, "properties": properties}


_PROVIDERS: Mapping[str, type] = {"ollama": OllamaConfig, "vllm": VLLMConfig}


def _object(cls: type, section: str, *, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    """Return the schema of one section: each field with its description, type, range and default."""
    hints = hints_of(cls)
    settings = {f.name: f for f in fields(cls) if names is None or f.name in names}
    defaults = {name: _default(field) for name, field in settings.items()}
    properties = {name: _property(hints[name], rule_of(section, name), defaults[name]) for name in settings}
    required = [name for name, default in defaults.items() if default is MISSING]
    schema: dict[str, Any] = {"type": "object", "additionalProperties": False, "properties": properties}
    return {**schema, "required": required} if required else schema


def _default(field: Any) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return field.default


def _property(hint: Any, rule: Rule, default: Any) -> dict[str, Any]:
    kinds = [_kind(option, rule) for option in options(hint)]
    if default == "":
        kinds.append({"type": "null"})
    if rule.lone:
        kinds += [entry["items"] for entry in kinds if "items" in entry]
    body = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    schema = {"description": rule.doc, **body} if rule.doc else body
    return schema if default is MISSING else {**schema, "default": _plain_value(default)}


def _kind(option: Any, rule: Rule) -> dict[str, Any]:
    """Return the schema of one member of a union."""
    if option in (int, float):
        bounds = {"minimum": rule.low, "exclusiveMinimum": rule.above, "maximum": rule.high}
        kind = {"type": "integer" if option is int else "number"}
        return {**kind, **{key: bound for key, bound in bounds.items() if bound is not None}}
    simple = {bool: "boolean", str: "string", type(None): "null"}
    if option in simple:
        return {"type": simple[option]}
    origin = typing.get_origin(option)
    args = typing.get_args(option)
    if origin is typing.Literal:
        return {"enum": list(args)}
    if origin is tuple:
        return {"type": "array", "items": _kind(args[0], rule)}
    if option is InputSource:
        return {"anyOf": [{"type": "string"}, {**_object(InputSource, "source"), "type": "object"}]}
    values = {"additionalProperties": {"type": "string"}} if args and args[1] is str else {}
    return {"type": "object", **values}


def _plain_value(value: Any) -> Any:
    """Return a default in the form a configuration file holds it."""
    if isinstance(value, tuple):
        items = [_plain_value(item) for item in value]
        return items[0] if len(items) == 1 and isinstance(value[0], InputSource) else items
    if is_dataclass(value) and isinstance(value, InputSource):
        return value.uri
    return value
