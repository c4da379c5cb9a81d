"""A short form of the attack suite that .ci/run runs whole: one attack of each kind, some ended by SIGTERM."""

from __future__ import annotations

from pathlib import Path

import pytest
from attack_cases import ATTACKS
from attacks import run_attack
from evil_servers import KEY, echo, leaks
from fake_llm import FakeLLM

QUICK = ("mail_parameters", "zip_overlap", "reply_endless_headers", "reply_nested_answer", "reply_usage_of_4000_digits",
         "reply_echo_in_answer", "metrics_of_100_mb")  # fmt: skip
BY_NAME = {attack.name: attack for attack in ATTACKS}


@pytest.mark.parametrize("name", QUICK)
def test_attack_fails_at_bounded_cost(name: str, server: FakeLLM, tmp_path: Path) -> None:
    """The run ends within 30 s of CPU and 300 MB, does the ordinary document and names the reason."""
    ended = run_attack(BY_NAME[name], server, tmp_path)
    assert ended.wrong == "", ended


@pytest.mark.parametrize("name", ["html_attributes", "reply_drip"])
def test_sigterm_ends_an_attack(name: str, server: FakeLLM, tmp_path: Path) -> None:
    """A run that decodes a hostile page, or waits for a hostile server, ends within its grace."""
    ended = run_attack(BY_NAME[name], server, tmp_path, stop_by="SIGTERM")
    assert ended.wrong == "", ended


def test_suite_detects_a_leaked_key() -> None:
    """The leak check finds a planted key in each of its forms."""
    forms = echo().split("Bearer ")[1].split(" ")
    assert (forms[0], len(forms)) == (KEY, 4)
    assert all(leaks(form.encode()) for form in forms)
    assert not leaks(b"Bearer ***")
