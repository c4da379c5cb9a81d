"""Loading of a YAML file, the environment and flags into one validated AppConfig.

It must not define a default (models.py) or a range (table.py), and must not contact a server.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from pipeline.config.api_keys import read_api_key as read_api_key
from pipeline.config.api_keys import register_provider_secrets as register_provider_secrets
from pipeline.config.constraints import Rule, Unacceptable, clean, hints_of, shown_value
from pipeline.config.discovery import ConfigFile, placed
from pipeline.config.discovery import find_config as find_config
from pipeline.config.keys import env_names, sections, split_key, top_keys, value_of_text
from pipeline.config.members import member_errors
from pipeline.config.misplaced import misplaced_settings
from pipeline.config.models import AppConfig, OllamaConfig, ProviderConfig, ValueSource, VLLMConfig, rule_of
from pipeline.config.ollama_host import host_variable
from pipeline.config.redaction import SECRETS
from pipeline.config.texts import is_secret_name, mask_url
from pipeline.config.unknown_settings import unknown_setting
from pipeline.config.yaml_file import load_yaml as load_yaml
from pipeline.errors import ConfigError

MAX_ERRORS = 20
PROVIDER_TYPES: Mapping[str, type[ProviderConfig]] = {"ollama": OllamaConfig, "vllm": VLLMConfig, "openai": VLLMConfig}
_RANK: Mapping[ValueSource, int] = {"default": 0, "file": 1, "env": 2, "flag": 3}
_KINDS: Mapping[type, str] = {str: "a text", list: "a list", bool: "true or false"}
_NAMES = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


@dataclass(frozen=True, slots=True)
class _Setting:
    """A value that was set, with the kind of its source and the name of that source for messages.

    `inside`: path of the value within a mapping whose other values come from `weaker`; () for a whole setting.
    """

    value: Any
    origin: ValueSource
    place: str
    inside: tuple[str, ...] = ()
    weaker: _Setting | None = None

    def place_of(self, path: Sequence[str]) -> str:
        """Return the source of the value at a path within the setting."""
        common = min(len(path), len(self.inside))
        return (
            self.place if self.weaker is None or path[:common] == self.inside[:common] else self.weaker.place_of(path)
        )


def parse_set(text: str) -> tuple[str, str]:
    """Split `key=value` into the dotted key and the text; load_config converts the text."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set: got {shown_value(key, Rule())}, need dotted.key=value")
    return key.strip(), value


def load_config(
    path: str | Path | ConfigFile | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> AppConfig:
    """Return the configuration: `overrides` over the environment (None: the process's) over the file at `path`.

    `path` None reads no file: what nothing sets has its default. `overrides`: values by dotted key, such as
    `{"vllm.timeout": 60}`. ConfigError lists all errors, one per line; it is also raised for a file that is not there.
    """
    errors: list[str] = []
    environ = os.environ if environ is None else environ
    settings = {key: _Setting(value, "default", place) for key, (value, place) in host_variable(environ).items()}
    file = path if isinstance(path, ConfigFile) or path is None else ConfigFile(Path(path))
    settings |= {} if file is None else _of_file(load_yaml(file.path), file, errors)
    settings |= _of_environment(environ)
    for key, value in (overrides or {}).items():
        parsed = value_of_text(key, value) if isinstance(value, str) else value
        name, inside = split_key(key)
        before = settings.get(name) if inside else None
        value = _placed(parsed, inside, before.value if before else None)
        settings[name] = _Setting(value, "flag", "command line", inside, before)
    place = str(file.path) if file is not None else "environment and command line"
    app = _assemble(settings, errors, place=place)
    _register_secrets(app)
    return app


def _placed(value: object, inside: tuple[str, ...], former: Any) -> Any:
    """Return the value; for a path inside a mapping, the previous mapping with the value at that path."""
    if not inside:
        return value
    former_mapping = former if isinstance(former, Mapping) else {}
    return {**former_mapping, inside[0]: _placed(value, inside[1:], former_mapping.get(inside[0]))}


def _of_file(tree: Mapping[str, Any], file: ConfigFile, errors: list[str]) -> dict[str, _Setting]:
    """Return the file's settings by dotted key; a value in place of a mapping is added to the errors."""
    settings: dict[str, _Setting] = {}
    place = str(file.path)
    for parts, value in _leaves((), tree, place=place, errors=errors):
        if any("." in part for part in parts):
            errors.append(f"{' / '.join(parts)}: a key with a dot in it, need nested keys ({place})")
        else:
            key = ".".join(parts)
            settings[key] = _Setting(placed(key, value, file.root), "file", place)
    return settings


def _leaves(
    parts: tuple[str, ...], value: Any, *, place: str, errors: list[str]
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield path and value of each setting; an empty section (null) has none, an empty provider lacks its type."""
    if len(parts) >= _depth(parts):
        yield parts, value
    elif len(parts) == 2 and not value:
        yield (*parts, "type"), None
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves((*parts, key), item, place=place, errors=errors)
    elif value is not None:
        errors.append(f"{'.'.join(parts)}: got {_KINDS.get(type(value), 'a number')}, need a mapping ({place})")


def _depth(parts: tuple[str, ...]) -> int:
    """Return the number of keys in the path of a setting that begins with these parts."""
    if not parts:
        return 1
    if parts[0] == "providers":
        return 3
    return 2 if parts[0] in sections() else 1


def _of_environment(environ: Mapping[str, str]) -> dict[str, _Setting]:
    """Return the values of the variables that are set and not empty, by dotted key."""
    return {
        key: _Setting(value_of_text(key, environ[name]), "env", f"environment variable {name}")
        for name, key in env_names().items()
        if environ.get(name)
    }


def _assemble(settings: Mapping[str, _Setting], errors: list[str], *, place: str) -> AppConfig:
    """Build the configuration; ConfigError lists all errors, including those found before."""
    groups: dict[str, dict[str, _Setting]] = {}
    errors += (
        misplaced := misplaced_settings({key: (item.value, item.place) for key, item in settings.items()})
    ).values()
    for key, item in settings.items():
        section, _, name = key.rpartition(".")
        if key not in misplaced:
            groups.setdefault(section, {})[name] = item
    values = _values(groups.pop("", {}), AppConfig, section="", errors=errors)
    for section, cls in sections().items():
        values[section] = _build(groups.pop(section, {}), cls, section=section, errors=errors, place=place)
    values["providers"] = _providers(groups, errors, place=place)
    for section, items in groups.items():
        errors += [f"{unknown_setting(f'{section}.{name}', item.value)} ({item.place})" for name, item in items.items()]
    if not errors:
        places = {key: item.place for key, item in settings.items()}
        app = AppConfig(**values, origins={key: item.origin for key, item in settings.items()}, places=places)
        _check_names(app, settings, errors)
    if errors:
        rest = [f"and {len(errors) - MAX_ERRORS} more"] if len(errors) > MAX_ERRORS else []
        raise ConfigError("\n".join([*errors[:MAX_ERRORS], *rest]))
    return app


def _providers(groups: dict[str, dict[str, _Setting]], errors: list[str], *, place: str) -> dict[str, Any]:
    """Build the named providers, each of its own type, and remove their groups."""
    providers: dict[str, Any] = {}
    for section in [section for section in groups if section.startswith("providers.")]:
        name = section.removeprefix("providers.")
        items = groups.pop(section)
        if not name or not _NAMES.issuperset(name) or name in ("ollama", "vllm"):
            need = "letters, digits, - and _, and a name other than ollama and vllm"
            errors.append(f"{section}: got the name {shown_value(name, Rule())}, need {need} ({place})")
        kind = items["type"].value if "type" in items else None
        if not isinstance(kind, str) or kind not in PROVIDER_TYPES:
            value_text = shown_value(kind, Rule()) if "type" in items else "nothing"
            errors.append(f"{section}.type: got {value_text}, need one of {', '.join(PROVIDER_TYPES)} ({place})")
        else:
            providers[name] = _build(items, PROVIDER_TYPES[kind], section=section, errors=errors, place=place)
    return providers


def _build(items: dict[str, _Setting], cls: type, *, section: str, errors: list[str], place: str) -> Any:
    """Build the section's dataclass, or return None and add its errors."""
    before = len(errors)
    values = _values(_without_weaker_key(items), cls, section=section, errors=errors)
    if len(errors) > before:
        return None
    try:
        return cls(**values)
    except ConfigError as cause:
        errors += [f"{section}.{line} ({_place_of(line, items, place)})" for line in str(cause).splitlines()]
        return None


def _place_of(error_text: str, items: Mapping[str, _Setting], place: str) -> str:
    """Return the source of the setting that an error text begins with; `place` for one that was not set."""
    name, *inside = error_text.partition(":")[0].split(".")
    return items[name].place_of(tuple(inside)) if name in items else place


def _without_weaker_key(items: dict[str, _Setting]) -> dict[str, _Setting]:
    """Return the values; drop a key file when a source of higher precedence has a key."""
    key = items.get("api_key")
    file = items.get("api_key_file")
    if key and file and key.value and _RANK[key.origin] > _RANK[file.origin]:
        return {name: item for name, item in items.items() if name != "api_key_file"}
    return items


def _values(items: Mapping[str, _Setting], cls: type, *, section: str, errors: list[str]) -> dict[str, Any]:
    """Return the converted values of a section's fields; null means "" for a text that is empty by default."""
    hints = hints_of(cls) if section else {name: hints_of(cls)[name] for name in top_keys()}
    defaults = {f.name: f.default for f in fields(cls)}
    rules = section
    if section.startswith("providers."):
        rules = "ollama" if cls is OllamaConfig else "vllm"
    values: dict[str, Any] = {}
    for name, item in items.items():
        key = f"{section}.{name}" if section else name
        if name not in hints:
            errors.append(f"{unknown_setting(key, item.value, cls=cls if section else None)} ({item.place})")
            continue
        value = "" if item.value is None and defaults[name] == "" else item.value
        rule = rule_of(rules, name)
        try:
            values[name] = clean(value, hints[name], rule=rule)
        except Unacceptable as cause:
            wrong_members = dict(member_errors(value, hints[name], rule=rule))
            errors += [f"{key}.{line} ({item.place_of((member,))})" for member, line in wrong_members.items()]
            if not wrong_members:
                errors.append(f"{key}: got {shown_value(value, rule)}, need {cause} ({item.place})")
    return values


def _check_names(app: AppConfig, settings: Mapping[str, _Setting], errors: list[str]) -> None:
    for key, names in {"provider": (app.provider,), "fallback": app.fallback or ()}.items():
        for name in names:
            try:
                app.provider_config(name, key=key)
            except ConfigError as cause:
                errors.append(f"{cause} ({settings[key].place})")


def describe(app: AppConfig) -> dict[str, Any]:
    """Return the settings as JSON-compatible data, with provider and fallback resolved and every secret masked."""
    plain = {f.name: masked(getattr(app, f.name), f.name) for f in fields(app) if f.compare}
    return {**plain, "provider": app.provider or "ollama", "fallback": list(app.fallback_names())}


def masked(value: Any, name: str = "") -> Any:
    """Return the value as JSON-compatible data, with `***` for possible secrets; `name` is the name of the value."""
    if is_dataclass(value):
        return {f.name: masked(getattr(value, f.name), f.name) for f in fields(value)}
    if isinstance(value, (list, tuple)):
        return [masked(item, name) for item in value]
    if isinstance(value, Mapping):
        return {key: "***" if _may_be_secret(item, name, key) else masked(item, key) for key, item in value.items()}
    if isinstance(value, str):
        return "***" if value and name == "api_key" else mask_url(value)
    return value


def _may_be_secret(value: Any, name: str, key: str) -> bool:
    """Return True for a value in a mapping that may be a secret: any header, or one whose name suggests a secret."""
    plain = value is None or isinstance(value, (bool, int, float)) or is_dataclass(value) or not value
    return not plain and (name == "headers" or is_secret_name(key))


def _register_secrets(app: AppConfig) -> None:
    """Register every key, password and secret header of the configuration for redaction."""
    for config in (app.ollama, app.vllm, *app.providers.values()):
        register_provider_secrets(config)
    for storage in (app.input.storage, app.output.storage):
        SECRETS.add(*(str(value) for name, value in storage.items() if value and is_secret_name(name)))
