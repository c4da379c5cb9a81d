"""The command that adds an extra to this installation, for messages."""

from __future__ import annotations

import sys
from pathlib import Path


def install_command(extra: str, *, environment: Path = Path(sys.prefix)) -> str:
    """Return the command by the tool that has made the environment: pipx and uv leave a file in it, else it is pip."""
    package = f"'extraction-pipeline[{extra}]'"
    if (environment / "pipx_metadata.json").exists():
        return f"pipx install --force {package}"
    if (environment / "uv-receipt.toml").exists():
        return f"uv tool install --force {package}"
    return f"pip install {package}"
