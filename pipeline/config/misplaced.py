"""Messages about settings of agent files that were given as settings of the configuration.

It must not read a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from pipeline.config.agent_file import AgentFile, VariantFile
from pipeline.config.keys import known_keys
from pipeline.config.models import AppConfig


def agent_file_place(agent: object, agents_dir: object) -> str:
    """Return where the settings of an agent are changed, for a message; a built-in agent has to be copied first."""
    if isinstance(agents_dir, str) and agents_dir:
        return (Path(agents_dir) / f"{agent}.yaml").as_posix()
    return f"{agent}.yaml in your `agents_dir` (copy the built-in agent)"


def misplaced_settings(given: Mapping[str, tuple[object, str]]) -> dict[str, str]:
    """Return the error messages about settings that only agent files have, such as `overflow`, by key.

    `given`: dotted key → value, and the name of the place where it was set.
    """
    names = {each.name for cls in (AgentFile, VariantFile) for each in fields(cls)}
    names -= {known.rpartition(".")[2] for known in known_keys()}
    agent, agents_dir = (given.get(key, (None, ""))[0] for key in ("agent", "agents_dir"))
    file = agent_file_place(agent or AppConfig().agent, agents_dir)
    return {
        key: f"{key}: is a setting of agents, not of the configuration: set it in {file} ({place})"
        for key, (_, place) in given.items()
        if key in names
    }
