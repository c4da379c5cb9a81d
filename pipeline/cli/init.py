"""`pipeline init DIR`: create a config, an agent with its schema and documents to start a project.

It must not change or replace an existing file.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from pipeline.config.json_schema import agent_schema, config_schema
from pipeline.errors import EXIT_OK, ConfigError, OutputError
from pipeline.terminal import fitted, pasteable, unwrapped_or_width, write_out

CONFIG = "config/default.yaml"
EXAMPLES = """\
examples:
  pipeline init my_project && cd my_project && pipeline check
  pipeline init mails --example mail --provider ollama"""

_GITIGNORE = """\
# results and reports: a run makes them again
out/
# keys
.env
*.key
"""


@dataclass(frozen=True, slots=True)
class Starter:
    """A built-in agent for a new project: its name, the folder in starter/, and its documents."""

    agent: str
    folder: str
    documents: tuple[str, ...]

    @property
    def places(self) -> dict[str, str]:
        """The source of each file of the project, as paths in starter/."""
        documents = {f"inbox/{name}": f"{self.folder}/{name}".lstrip("/") for name in self.documents}
        if self.agent in BUILT_IN:
            return documents
        gold = {"gold.jsonl": f"{self.folder}/gold.jsonl"} if self.folder else {}
        name = f"{self.folder}/agent" if self.folder else self.agent
        return {
            f"agents/{self.agent}.yaml": f"{name}.yaml",
            f"agents/{self.agent}.schema.json": f"{name}.schema.json",
            **documents,
            **gold,
        }


BUILT_IN = ("event_classifier", "extractor")
"""Agents that come with the program."""
PLAIN = Starter("my_agent", "", ("example.txt",))
STARTERS: Mapping[str, Starter] = {
    "mail": Starter("mail", "mail", ("offer.eml", "invoice.eml", "complaint.eml")),
    "contracts": Starter("contracts", "contracts", ("lease.txt", "services.txt", "confidentiality.txt")),
    "news": Starter("news", "news", ("harbour.txt", "earnings.txt", "strike.txt")),
    "support": Starter("support", "support", ("tickets.jsonl",)),
}
"""The starters by `--example`; each has three documents and their gold."""


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the flags of this command."""
    command.add_argument("folder", metavar="DIR", help="the project's folder; existing files are not changed")
    command.add_argument(
        "--provider", choices=("vllm", "ollama"), help="default: a server of this machine that answers, else vllm"
    )
    command.add_argument("--model", metavar="NAME", default="", help="default: the first model that the server lists")
    command.add_argument(
        "--agent", metavar="NAME", choices=BUILT_IN, help=f"copy a built-in agent to change: {', '.join(BUILT_IN)}"
    )
    command.add_argument(
        "--example", choices=tuple(STARTERS), help="an agent with three documents and their gold (docs/examples.md)"
    )


def main(arguments: argparse.Namespace, *, environ: Mapping[str, str]) -> int:
    """Return 0 when all files are written; ConfigError before any write when one of them exists."""
    folder = Path(arguments.folder)
    if arguments.agent and arguments.example:
        raise ConfigError("init: got --agent and --example, need one of them: each names the agent to start from")
    starter = STARTERS.get(arguments.example, PLAIN)
    if arguments.agent:
        starter = Starter(arguments.agent, "", PLAIN.documents)
    from pipeline.cli.server_choice import choose_server  # slow to import

    choice = choose_server(environ, provider=arguments.provider, model=arguments.model)
    texts = _texts(starter, provider=choice.provider, server=choice.block)
    existing = [name for name in texts if (folder / name).exists()]
    if existing:
        raise ConfigError(f"init: {folder} has {', '.join(existing)} already, need a folder without them")
    try:
        for name, text in texts.items():
            _write(folder / name, text)
    except OSError as cause:
        raise OutputError(f"init: {cause.filename or folder} cannot be written: {cause.strerror or cause}") from cause
    lines = _next_steps(folder, starter, remarks=choice.remarks)
    write_out("\n".join(fitted(lines, unwrapped_or_width(sys.stdout, environ))))
    return EXIT_OK


def _starter_text(name: str) -> str:
    return (files("pipeline.cli") / "starter" / name).read_text(encoding="utf-8")


def _texts(starter: Starter, *, provider: str, server: str) -> dict[str, str]:
    """Return the content of each file, by its place in the project."""
    config = _starter_text("default.yaml").replace("provider: vllm  ", f"provider: {provider:<6}", 1)
    agent = f"agent: {starter.agent}"
    config = config.replace(
        "agent: my_agent                # agents/my_agent.yaml", f"{agent:<31}# agents/{agent[7:]}.yaml"
    )
    schemas = {"pipeline": config_schema(), "agent": agent_schema()}
    return {
        CONFIG: config.replace("# server\n", server, 1),
        ".gitignore": _GITIGNORE,
        **_built_in(starter.agent),
        **{place: _starter_text(name) for place, name in starter.places.items()},
        **{f"config/schemas/{name}.schema.json": json.dumps(schema, indent=2) for name, schema in schemas.items()},
    }


def _built_in(agent: str) -> dict[str, str]:
    """Return the file of a built-in agent, by its place in the project; nothing for another agent."""
    if agent not in BUILT_IN:
        return {}
    text = (files("pipeline.agents") / f"{agent}.yaml").read_text(encoding="utf-8")
    return {f"agents/{agent}.yaml": text.replace("$schema=../../config/", "$schema=../config/", 1)}


def _write(path: Path, text: str) -> None:
    """Write a new file; FileExistsError when another process has just created it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("x", encoding="utf-8", newline="\n") as file:
        file.write(text if text.endswith("\n") else text + "\n")


def _next_steps(folder: Path, starter: Starter, *, remarks: Sequence[str]) -> list[str]:
    purposes = {
        CONFIG: "provider, agent, input and output",
        f"agents/{starter.agent}.yaml": "the prompts, and the schema" if starter.agent in BUILT_IN else "the prompts",
        **(
            {}
            if starter.agent in BUILT_IN
            else {f"agents/{starter.agent}.schema.json": "the JSON Schema of every result"}
        ),
        f"inbox/{starter.documents[0]}": "a document for a first try" if not starter.folder else "documents to try",
        **({"gold.jsonl": "what the answers should be"} if starter.folder else {}),
        "config/schemas/": "for completion and checks in your editor",
        ".gitignore": "keeps results and keys out of git",
    }
    created = [f"  {name:<31} {purpose}" for name, purpose in purposes.items()]
    commands = ["pipeline check", f"pipeline try inbox/{starter.documents[0]}", "pipeline run"]
    steps = [line for command in commands for line in pasteable("", command, indent=2)]
    about_server = ["", *remarks] if remarks else []
    enter = pasteable("", f"cd {shlex.quote(str(folder))}", indent=2) if folder.resolve() != Path.cwd() else []
    return [f"Created in {folder}:", *created, *about_server, "", "Next:", *enter, *steps]
