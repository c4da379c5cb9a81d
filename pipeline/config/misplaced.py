"""Messages about settings of agent files, even misspelt ones, that were given as settings of the configuration.

It must not read a file.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import fields
from pathlib import Path

from pipeline.config.agent_file import AgentFile, VariantFile
from pipeline.config.keys import known_keys, sections, top_keys
from pipeline.config.models import AppConfig
from pipeline.config.split import SplitConfig

_MISSPELT = 0.8
"""Similarity of a misspelt name: `ovrflow` (0.93) and `system_promt` resemble a setting, `prompt` (0.71) does not."""


def agent_file_place(agent: object, agents_dir: object) -> str:
    """Return where the settings of an agent are changed, for a message; a built-in agent has to be copied first."""
    if isinstance(agents_dir, str) and agents_dir:
        return (Path(agents_dir) / f"{agent}.yaml").as_posix()
    return f"{agent}.yaml in your `agents_dir` (copy the built-in agent)"


def misplaced_settings(settings: Mapping[str, tuple[object, str]]) -> dict[str, str]:
    """Return, by key, the error messages about settings that only agent files have, such as `overflow` or `ovrflow`.

    `settings`: dotted key → value, and the name of the place where it was set.
    """
    names = {field.name for cls in (AgentFile, VariantFile) for field in fields(cls)}
    names -= {known_key.rpartition(".")[2] for known_key in known_keys()}
    agent, agents_dir = (settings.get(key, (None, ""))[0] for key in ("agent", "agents_dir"))
    file = agent_file_place(agent or AppConfig().agent, agents_dir)
    misplaced = {key: name for key in settings if (name := _agent_setting(key, names)) is not None}
    return {
        key: f"{key}: {_message(key, name)}: set it in {file} ({settings[key][1]})" for key, name in misplaced.items()
    }


def _agent_setting(key: str, names: Collection[str]) -> str | None:
    """Return the agents' setting that a key names, or resembles more than any setting of the configuration."""
    first, _, remainder = key.partition(".")
    if remainder and first in names:
        return key
    if key in (field.name for field in fields(SplitConfig)):
        return f"split.{key}"
    candidates = [*names, *top_keys(), *sections(), "providers", *known_keys()]
    matches = difflib.get_close_matches(key[:200], candidates, n=1, cutoff=_MISSPELT)
    return matches[0] if matches and matches[0] in names else None


def _message(key: str, name: str) -> str:
    if key == name:
        return "is a setting of agents, not of the configuration"
    return f"unknown key, the nearest is {name}, which is a setting of agents"
