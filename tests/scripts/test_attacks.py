"""A short form of the attack suite: the quick attacks, and one that is ended by SIGTERM."""

from __future__ import annotations

from pathlib import Path

import pytest
from attacks import ATTACKS, run_attack
from fake_llm import FakeLLM

QUICK = ("mail_parameters", "csv_columns", "zip_overlap", "zip_long_names", "json_nested")
BY_NAME = {attack.name: attack for attack in ATTACKS}


@pytest.mark.parametrize("name", QUICK)
def test_an_attack_fails_and_costs_little(name: str, server: FakeLLM, tmp_path: Path) -> None:
    """The run ends by itself within 30 s of CPU and 300 MB, does the ordinary document and names the reason."""
    ended = run_attack(BY_NAME[name], server, tmp_path)
    assert ended.wrong == "", ended


def test_sigterm_ends_an_attack(server: FakeLLM, tmp_path: Path) -> None:
    """A run that decodes an evil page ends within its grace."""
    ended = run_attack(BY_NAME["html_attributes"], server, tmp_path, sigterm=True)
    assert ended.wrong == "", ended
