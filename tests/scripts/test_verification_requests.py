"""scripts/verification_requests.py counts real runs, whatever servers the user's environment names."""

from __future__ import annotations

import pytest
from verification_requests import articles, run


def test_environment_of_the_user_does_not_change_the_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """README tells the user to export such variables; the runs of the script have a server of their own."""
    monkeypatch.setenv("VLLM_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("VLLM_MODEL", "another")
    counts = run(articles("ascending", 6), context=8192, way="refuse")
    assert counts.done == 6
    assert counts.requests > 0
