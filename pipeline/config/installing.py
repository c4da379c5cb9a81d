"""The command that adds an extra to this installation, for messages."""

from __future__ import annotations

import json
import sys
from pathlib import Path

_ORIGIN = "lib/python*/site-packages/extraction_pipeline-*.dist-info/direct_url.json"


def install_command(extra: str, *, environment: Path = Path(sys.prefix)) -> str:
    """Return the command by the tool that has made the environment: pipx and uv leave a file in it, else it is pip.

    pip adds an extra to what is installed; pipx and uv install again, so the command names the folder or the wheel.
    """
    package = f"extraction-pipeline[{extra}]"
    if (environment / "pipx_metadata.json").exists():
        return f"pipx install --force '{package}{_origin(environment)}'"
    if (environment / "uv-receipt.toml").exists():
        return f"uv tool install --force '{package}{_origin(environment)}'"
    return f"pip install '{package}'"


def _origin(environment: Path) -> str:
    """Return ` @ URL` of the folder or the wheel from which the package was installed; "" for an index."""
    for path in environment.glob(_ORIGIN):
        try:
            url = json.loads(path.read_bytes())["url"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        return f" @ {url}" if isinstance(url, str) and url.startswith("file:") and "'" not in url else ""
    return ""
