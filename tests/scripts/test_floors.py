"""The lowest admitted versions, as CI installs them, and the pinned list of the image."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from constraints import FILE, misfits
from floors import requirements

ROOT = Path(__file__).resolve().parents[2]


def floors(*extras: str) -> dict[str, str]:
    """Return package → lowest version, as the script prints them."""
    command = [sys.executable, str(ROOT / "scripts" / "floors.py"), *extras]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return dict(line.partition(";")[0].split("==") for line in lines)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def test_every_requirement_has_a_lowest_version() -> None:
    """This covers each line of install_requires, and the extras that `all` names."""
    lowest = floors("all")
    assert {"requests", "urllib3", "pyyaml", "jsonschema", "pypdfium2", "trafilatura", "pyarrow", "json-repair"} <= set(
        lowest
    )
    assert "pypdfium2" not in floors()


def test_pinned_versions_are_not_below_the_lowest() -> None:
    """Each pin has hashes."""
    text = (ROOT / "config" / "docker" / "constraints.txt").read_text(encoding="utf-8")
    blocks = re.split(r"\n(?=[A-Za-z])", text.strip())
    assert all("--hash=sha256:" in block for block in blocks)
    pinned = {block.partition("==")[0].lower(): re.split(r"[ ;\\]", block.partition("==")[2])[0] for block in blocks}
    for name, floor in floors("all").items():
        assert _numbers(pinned[name.lower()]) >= _numbers(floor), name


def test_pinned_versions_satisfy_setup_cfg() -> None:
    """Each requirement has a pin within its bounds; a change of setup.cfg may need a new list."""
    assert misfits(FILE.read_text(encoding="utf-8"), requirements(["all"])) == []


@pytest.mark.parametrize(
    ("requirement", "wrong"),
    [
        ("no-such-package>=1", ["no-such-package: got nothing, need >=1"]),
        ("Chardet>=7.8,<9", ["Chardet: got 7.7.0, need <9,>=7.8"]),
        ("six<2; python_version < '3.11'", []),
    ],
)
def test_unsatisfied_requirement_is_named(requirement: str, wrong: list[str]) -> None:
    """The pin may be missing, too old or too new."""
    text = "chardet==7.7.0 \\\n    --hash=sha256:00 \\\n    --hash=sha256:01\nsix==1.17.0 \\\n    --hash=sha256:02\n"
    assert misfits(text, [requirement]) == wrong
    assert misfits("six==1.17.0\n", []) == ["six: no hash"]
