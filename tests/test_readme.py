"""What the README says is so: its tables, its agent and its commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from pipeline.agents import load_agent
from pipeline.cli import parser
from pipeline.errors import REASONS

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    """The `pipeline` commands in the README's blocks, without comments, redirections and what a shell does before."""
    lines = [line for kind, text in BLOCKS if kind == "" for line in text.splitlines()]
    found = [re.search(r"(?:^|&& )(pipeline .*?)(?:\s+#.*|\s+>.*)?$", line) for line in lines]
    return [match.group(1) for match in found if match]


def test_the_table_of_reasons_is_that_of_the_program() -> None:
    """Each reason stands there once, with the advice that the report gives."""
    section = README.partition("## When documents fail")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| (.*) \|$", section, re.MULTILINE))
    assert rows == {name: reason.advice for name, reason in REASONS.items()}


def test_there_are_commands_to_test() -> None:
    """The test below looks at something."""
    assert len(commands()) >= 6


@pytest.mark.parametrize("command", commands())
def test_each_command_can_be_typed(command: str) -> None:
    """The command line takes it as it stands."""
    assert parser().parse_args(shlex.split(command)[1:]).command


def test_the_agent_in_it_loads(tmp_path: Path) -> None:
    """Who pastes the README's agent has a valid one."""
    text = next(text for kind, text in BLOCKS if kind == "yaml" and "system_prompt" in text)
    (tmp_path / "appointments.yaml").write_text(text, encoding="utf-8")
    assert load_agent("appointments", agents_dir=tmp_path).schema == yaml.safe_load(text)["schema"]
