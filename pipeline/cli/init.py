"""`pipeline init DIR`: create a config, an agent with its schema and a document to start a project.

It must not change or replace an existing file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from pipeline.config.json_schema import agent_schema, config_schema
from pipeline.errors import EXIT_OK, ConfigError, OutputError
from pipeline.terminal import pasteable, write_out

EXAMPLES = "example:\n  pipeline init news && cd news && pipeline check"

_PLACES = {
    "config/default.yaml": "default.yaml",
    "agents/my_agent.yaml": "my_agent.yaml",
    "agents/my_agent.schema.json": "my_agent.schema.json",
    "inbox/example.txt": "example.txt",
}
"""Place in the project → file in starter/."""

_PURPOSES = {
    "config/default.yaml": "provider, agent, input and output",
    "agents/my_agent.yaml": "the prompts",
    "agents/my_agent.schema.json": "the JSON Schema of every result",
    "inbox/example.txt": "a document for a first try",
    "config/schemas/": "for completion and checks in your editor",
}


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the flags of this command."""
    command.add_argument("folder", metavar="DIR", help="the project's folder; existing files are not changed")
    command.add_argument("--provider", choices=("vllm", "ollama"), default="vllm", help="default: vllm")


def main(arguments: argparse.Namespace, *, environ: Mapping[str, str]) -> int:  # noqa: ARG001
    """Return 0 when all files are written; ConfigError before any write when one of them exists."""
    folder = Path(arguments.folder)
    texts = _texts(arguments.provider)
    existing = [name for name in texts if (folder / name).exists()]
    if existing:
        raise ConfigError(f"init: {folder} has {', '.join(existing)} already, need a folder without them")
    try:
        for name, text in texts.items():
            _write(folder / name, text)
    except OSError as cause:
        raise OutputError(f"init: {cause.filename or folder} cannot be written: {cause.strerror or cause}") from cause
    write_out("\n".join(_next_steps(folder)))
    return EXIT_OK


def _texts(provider: str) -> dict[str, str]:
    """Return the content of each file, by its place in the project."""
    starter = files("pipeline.cli") / "starter"
    texts = {place: (starter / name).read_text(encoding="utf-8") for place, name in _PLACES.items()}
    config = texts["config/default.yaml"].replace("provider: vllm  ", f"provider: {provider:<6}", 1)
    schemas = {"pipeline": config_schema(), "agent": agent_schema()}
    return {
        **texts,
        "config/default.yaml": config,
        **{f"config/schemas/{name}.schema.json": json.dumps(schema, indent=2) for name, schema in schemas.items()},
    }


def _write(path: Path, text: str) -> None:
    """Write a new file; FileExistsError when another process has just created it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("x", encoding="utf-8") as file:
        file.write(text if text.endswith("\n") else text + "\n")


def _next_steps(folder: Path) -> list[str]:
    files_made = [f"  {name:<30}{purpose}" for name, purpose in _PURPOSES.items()]
    commands = ["pipeline check", "pipeline try inbox/example.txt", "pipeline run"]
    steps = [line for command in commands for line in pasteable("", command, indent=2)]
    return [f"Created in {folder}:", *files_made, "", "Next:", *pasteable("", f"cd {folder}", indent=2), *steps]
