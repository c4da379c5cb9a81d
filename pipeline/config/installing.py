"""The command that installs an extra, as error messages show it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

_ORIGIN = "lib/python*/site-packages/extraction_pipeline-*.dist-info/direct_url.json"


def install_command(extra: str, *, environment: Path = Path(sys.prefix)) -> str:
    """Return the command that installs an extra with the tool that created the environment: pipx, uv or pip.

    pipx and uv leave a file in an environment. They reinstall the package, so their command names its folder or wheel.
    """
    package = f"extraction-pipeline[{extra}]"
    if (environment / "pipx_metadata.json").exists():
        return f"pipx install --force '{package}{_origin(environment)}'"
    if (environment / "uv-receipt.toml").exists():
        return f"uv tool install --force '{package}{_origin(environment)}'"
    return f"pip install '{package}'"


def _origin(environment: Path) -> str:
    """Return ` @ URL` of the folder or wheel that the package was installed from; "" when it came from an index."""
    for path in environment.glob(_ORIGIN):
        try:
            url = json.loads(path.read_bytes())["url"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        return f" @ {url}" if isinstance(url, str) and url.startswith("file:") and "'" not in url else ""
    return ""
