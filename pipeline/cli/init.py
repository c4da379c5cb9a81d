"""`pipeline init DIR`: create a config, an agent with its schema and documents to start a project.

It must not change or replace an existing file.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.json_schema import agent_schema, config_schema
from pipeline.errors import EXIT_OK, ConfigError, OutputError
from pipeline.terminal import fitted, pasteable, unwrapped_or_width, write_out

if TYPE_CHECKING:
    from pipeline.cli.local_servers import LocalServer

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
_NO_SERVER = (
    "No model server was found on this machine (Ollama at port 11434, vLLM at 8000, LM Studio at 1234). Start one, or "
    "set VLLM_BASE_URL or OLLAMA_BASE_URL to yours."
)
CONFIG = "config/default.yaml"


@dataclass(frozen=True, slots=True)
class Starter:
    """An agent to start from: its name, the folder in starter/, and its documents."""

    agent: str
    folder: str
    documents: tuple[str, ...]

    @property
    def places(self) -> dict[str, str]:
        """Place in the project → file in starter/."""
        documents = {f"inbox/{each}": f"{self.folder}/{each}".lstrip("/") for each in self.documents}
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
"""`--example` → what it creates; each has three documents and their gold."""


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the flags of this command."""
    command.add_argument("folder", metavar="DIR", help="the project's folder; existing files are not changed")
    command.add_argument(
        "--provider", choices=("vllm", "ollama"), help="default: a server of this machine that answers, else vllm"
    )
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
    provider, server, remark = _server(arguments.provider, environ)
    texts = _texts(starter, provider=provider, server=server)
    existing = [name for name in texts if (folder / name).exists()]
    if existing:
        raise ConfigError(f"init: {folder} has {', '.join(existing)} already, need a folder without them")
    try:
        for name, text in texts.items():
            _write(folder / name, text)
    except OSError as cause:
        raise OutputError(f"init: {cause.filename or folder} cannot be written: {cause.strerror or cause}") from cause
    lines = _next_steps(folder, starter, remark=remark)
    write_out("\n".join(fitted(lines, unwrapped_or_width(sys.stdout, environ))))
    return EXIT_OK


def _server(wanted: str | None, environ: Mapping[str, str]) -> tuple[str, str, str]:
    """Return the provider, its block of the config file, and a remark for the user.

    Without a wanted one, and without an address in the environment, the usual ports of this machine are looked at.
    """
    named = any(environ.get(name) for name in ("VLLM_BASE_URL", "PIPELINE_PROVIDER"))
    if wanted is None and not named and not any(environ.get(name) for name in ("OLLAMA_BASE_URL", "OLLAMA_HOST")):
        from pipeline.cli.local_servers import found_servers  # slow to import

        found = list(found_servers())
        return _block_of(found) if found else ("vllm", _starter_text("vllm.yaml"), _NO_SERVER)
    if wanted == "vllm" or (wanted is None and named):
        return ("vllm", *_vllm(environ))
    return ("ollama", *_ollama(environ))


def _block_of(found: Sequence[LocalServer]) -> tuple[str, str, str]:
    """Return the provider of the first server with a model, its block, and a remark about all that were found."""
    server = next((each for each in found if each.models), found[0])
    model = server.models[0] if server.models else ""
    section = server.section
    text = _starter_text(f"{section}.yaml")
    if section == "ollama":
        if model:
            text = _with_model(text, model)
    else:
        text = text.replace("http://127.0.0.1:8000", server.place.url, 1)
        text = _with_model(text, model)
        if server.place.type == "openai":
            text = text.replace(
                "vllm:\n", "vllm:\n  type: openai                 # a server of the OpenAI protocol\n", 1
            )
    listing = "; ".join(each.text() for each in found)
    if len(found) == len(server.models) == 1:
        return section, text, f"{listing}. {CONFIG} names both."
    chosen = f" with the model {model}" if model else ", which has no model yet"
    return section, text, f"{listing}. {CONFIG} names {server.place.name}{chosen}."


def _with_model(text: str, model: str) -> str:
    """Return the block of a provider with this model instead of the one it has."""
    named = f"model: {json.dumps(model)}"
    return re.sub(r"model: \S+ *#", lambda _: f"{named:<28} #", text, count=1)


def _vllm(environ: Mapping[str, str]) -> tuple[str, str]:
    """Return the block of the server at VLLM_BASE_URL with one of its models, and a remark.

    The address is written down: a cron job does not have the variables of the shell in which it was tried.
    """
    from pipeline.cli.local_servers import environment_server  # slow to import

    text = _starter_text("vllm.yaml")
    found = environment_server(environ)
    if found is None:
        return text, ""
    text = text.replace("http://127.0.0.1:8000", json.dumps(found.url), 1)
    if found.models is None:
        return text, f"No server lists its models at {found.url}. {CONFIG} names this address; start the server there."
    model = found.models[0] if found.models else ""
    chosen = f"and the model {model}" if model else "and no model, as the server lists none"
    return _with_model(text, model), f"{CONFIG} names {found.url} (VLLM_BASE_URL) {chosen}."


def _ollama(environ: Mapping[str, str]) -> tuple[str, str]:
    """Return the block of the Ollama that the environment names or that runs here, and a remark."""
    from pipeline.cli.ollama_models import found_server  # slow to import, and needed for Ollama only

    found = found_server(environ)
    text = _starter_text("ollama.yaml")
    if found.base_url != found.default_url and "@" not in found.base_url:
        text = text.replace("#  base_url: http://127.0.0.1:11434", f"  base_url: {json.dumps(found.base_url)}", 1)
    if found.model:
        text = _with_model(text, found.model)
    return text, found.remark


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


def _next_steps(folder: Path, starter: Starter, *, remark: str) -> list[str]:
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
    }
    files_made = [f"  {name:<31} {purpose}" for name, purpose in purposes.items()]
    commands = ["pipeline check", f"pipeline try inbox/{starter.documents[0]}", "pipeline run"]
    steps = [line for command in commands for line in pasteable("", command, indent=2)]
    told = ["", remark] if remark else []
    return [f"Created in {folder}:", *files_made, *told, "", "Next:", *pasteable("", f"cd {folder}", indent=2), *steps]
