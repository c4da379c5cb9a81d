"""Agent files on disk: find and read them; every error names its place.

It must not resolve settings or compile schemas.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from pipeline.config import rule_of
from pipeline.config.agent_file import AgentFile, VariantFile
from pipeline.config.constraints import Rule, Unacceptable, clean, hints_of, nearest, shown_value, unknown_key
from pipeline.config.request import reserved_in
from pipeline.config.split import split_errors
from pipeline.config.yaml_file import load_yaml
from pipeline.errors import ConfigError, SettingError

BUILT_IN = Path(__file__).parent


def agent_paths(agents_dir: str | Path | None) -> dict[str, Path]:
    """Return the file of every agent by name; one in `agents_dir` overrides a built-in one of the same name."""
    built_in = {path.stem: path for path in sorted(BUILT_IN.glob("*.yaml"))}
    if agents_dir is None:
        return built_in
    folder = Path(agents_dir)
    try:
        own = sorted(path for path in folder.iterdir() if path.suffix == ".yaml")
    except (OSError, ValueError) as cause:
        reason = getattr(cause, "strerror", None) or "not a path"
        message = f"got {str(folder)!r} ({reason}), need a folder of agent files, relative to the current directory"
        raise SettingError("agents_dir", message) from cause
    return built_in | {path.stem: path for path in own}


def read_agent_file(path: Path) -> tuple[AgentFile, dict[str, VariantFile]]:
    """Return the file's settings and its variants; ConfigError lists all errors, one per line."""
    errors: list[str] = []
    tree = load_yaml(path)
    settings = _settings(tree, AgentFile, path=path, place="", errors=errors)
    variants: dict[str, Any] = {}
    for name, own in settings.get("variants", {}).items():
        place = f"variants.{name}"
        if own is not None and not isinstance(own, Mapping):
            errors.append(f"{path}: {place}: got {shown_value(own, Rule())}, need a mapping")
            continue
        variants[name] = _settings(own or {}, VariantFile, path=path, place=f"{place}.", errors=errors)
    errors += _split_errors(settings, variants, path=path)
    if errors:
        raise ConfigError("\n".join(errors))
    return AgentFile(**settings), {name: VariantFile(**own) for name, own in variants.items()}


def _split_errors(settings: Mapping[str, Any], variants: Mapping[str, Any], *, path: Path) -> Iterator[str]:
    """Yield the error messages about `split`, which needs `overflow: split` beside it or in the agent."""
    own = settings.get("overflow")
    used = "split" if "split" in (own, *(split.get("overflow") for split in variants.values())) else own
    places = {"split": (settings, used)}
    places |= {f"variants.{name}.split": (split, split.get("overflow", own)) for name, split in variants.items()}
    for place, (split, overflow) in places.items():
        yield from (f"{path}: {line}" for line in split_errors(split.get("split", {}), overflow=overflow, place=place))


def _settings(tree: Mapping[str, Any], cls: type, *, path: Path, place: str, errors: list[str]) -> dict[str, Any]:
    """Return the values of the dataclass's keys; append unknown keys and invalid values to the errors."""
    hints = hints_of(cls)
    values: dict[str, Any] = {}
    for key, value in tree.items():
        if key not in hints:
            message = unknown_key(f"{place}{key}", value, near=nearest(key, hints), accepted_keys=hints)
            errors.append(f"{path}: {message}")
            continue
        rule = rule_of("agent", key)
        try:
            values[key] = clean({} if key == "variants" and value is None else value, hints[key], rule=rule)
        except Unacceptable as cause:
            errors.append(f"{path}: {place}{key}: got {shown_value(value, rule)}, need {cause}")
    errors += (f"{path}: {message}" for message in reserved_in(values.get("request", {}), f"{place}request"))
    for field in fields(cls):
        if field.name not in tree and field.default is MISSING and field.default_factory is MISSING:
            errors.append(f"{path}: {place}{field.name}: got nothing, need it: {rule_of('agent', field.name).doc}")
    return values


def read_schema(schema: str | Mapping[str, Any], *, path: Path) -> Mapping[str, Any]:
    """Return the schema: the inline one, or that of a file relative to the agent's."""
    if not isinstance(schema, str):
        return schema
    file = path.parent / schema
    if file.suffix in (".yaml", ".yml"):
        return load_yaml(file)
    try:
        loaded = json.loads(file.read_text("utf-8"))
    except json.JSONDecodeError as cause:
        raise ConfigError(f"{path}: schema: {file}, line {cause.lineno}: not JSON: {cause.msg}") from cause
    except (OSError, ValueError, RecursionError) as cause:
        reason = getattr(cause, "strerror", None) or "not a text of JSON"
        raise ConfigError(
            f"{path}: schema: got {schema!r}, which cannot be read ({reason}), need a JSON file"
        ) from cause
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path}: schema: {file} holds a {type(loaded).__name__}, need a JSON Schema as an object")
    return loaded
