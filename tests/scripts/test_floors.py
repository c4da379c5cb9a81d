"""The lowest versions that are admitted, as the CI installs them, and the list that the image is installed from."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def floors(*extras: str) -> dict[str, str]:
    """Package → lowest version, as the script prints them."""
    command = [sys.executable, str(ROOT / "scripts" / "floors.py"), *extras]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return dict(line.partition(";")[0].split("==") for line in lines)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def test_every_requirement_has_a_floor_that_can_be_installed() -> None:
    """One for each line of install_requires, and the extras that `all` names."""
    found = floors("all")
    assert {"requests", "urllib3", "pyyaml", "jsonschema", "pypdfium2", "trafilatura", "pyarrow", "json-repair"} <= set(
        found
    )
    assert "pypdfium2" not in floors()


def test_the_image_gets_no_version_below_the_floor() -> None:
    """Each pinned version has hashes, and is at least the lowest that is admitted."""
    text = (ROOT / "config" / "docker" / "constraints.txt").read_text(encoding="utf-8")
    blocks = re.split(r"\n(?=[A-Za-z])", text.strip())
    assert all("--hash=sha256:" in block for block in blocks)
    pinned = {block.partition("==")[0].lower(): re.split(r"[ ;\\]", block.partition("==")[2])[0] for block in blocks}
    for name, floor in floors("all").items():
        assert _numbers(pinned[name.lower()]) >= _numbers(floor), name
