"""`pipeline schema`: the JSON Schema of the config file, or of an agent file."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping

from pipeline.config.json_schema import agent_schema, config_schema
from pipeline.errors import EXIT_OK
from pipeline.terminal import write_out

EXAMPLES = "example:\n  pipeline schema > config.schema.json\n  pipeline schema --agent > agent.schema.json"


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the flags of this command."""
    command.add_argument("--agent", action="store_true", help="the schema of an agent file instead")


def main(arguments: argparse.Namespace, *, environ: Mapping[str, str]) -> int:  # noqa: ARG001
    """Print the schema and return 0."""
    write_out(json.dumps(agent_schema() if arguments.agent else config_schema(), indent=2, ensure_ascii=False))
    return EXIT_OK
