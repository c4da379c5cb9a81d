"""A short torture run with a fixed seed, with the invariants of a night of it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "torture"
ZEROS = ("lost", "doubled", "broken lines", "swapped", "wrong ends", "wrong requests", "other faults")


@pytest.mark.slow
def test_torture_loses_and_duplicates_no_document() -> None:
    """After kills, outages, full disks and faults each document has an end that its fault allows."""
    arguments = ["--seed", "3", "--documents", "200", "--seconds", "8", "--dialect", "both"]
    ran = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=400, check=False
    )
    details = ran.stdout[-6000:] + ran.stderr[-2000:]
    table = {name.strip(): int(count) for name, count in re.findall(r"^  (\S.*?) +(\d+)$", ran.stdout, re.MULTILINE)}
    assert {name: table.get(name) for name in ZEROS} == dict.fromkeys(ZEROS, 0), details
    assert (ran.returncode, table["documents"]) == (0, 200), details
    assert table["faults met"] > 100 and any(name.startswith("kills by") for name in table), details
