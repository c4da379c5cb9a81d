"""Error messages about dotted keys that are not settings: misspelt ones, and sections that were given a value."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.config.constraints import described, hints_of, nearest, unknown_key
from pipeline.config.keys import known_keys, sections, top_keys
from pipeline.config.models import OllamaConfig, VLLMConfig


def unknown_setting(key: str, value: object, *, cls: type | None = None) -> str:
    """Return the error message about a key that is not a setting; `cls`: the dataclass of a provider's section."""
    names = _keys_of_section(key)
    if names is not None:
        place = f"{key}.NAME" if key == "providers" else key
        choices = ", ".join(names)
        return f"{key}: is a section; got {described(value)}, need {place}.KEY, where KEY is one of {choices}"
    section = key.rpartition(".")[0]
    first_part = key.partition(".")[0]
    if cls is None and section and first_part in sections():
        section = first_part
        cls = sections()[first_part]
    if cls is None:
        everything = [*top_keys(), *sections(), "providers"]
        near = nearest(key, [*known_keys(), *sections(), "providers"])
        return unknown_key(key, value, near=near, accepted_keys=everything)
    keys = [f"{section}.{name}" for name in hints_of(cls)]
    near = nearest(key, keys) or (keys[0] if len(keys) == 1 else None) or nearest(key, known_keys())
    return unknown_key(key, value, near=near, accepted_keys=hints_of(cls))


def _keys_of_section(key: str) -> Iterable[str] | None:
    """Return the names of a section's settings; None for a key that is not a section."""
    if key in sections():
        return hints_of(sections()[key])
    if key == "providers" or (key.startswith("providers.") and key.count(".") == 1):
        return dict.fromkeys(["type", *hints_of(VLLMConfig), *hints_of(OllamaConfig)])
    return None
