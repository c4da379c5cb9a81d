"""Print the lowest versions that setup.cfg allows, as pinned requirements for `pip install -r`.

python scripts/floors.py all > floors.txt    # with the extras that the extra `all` names
"""

from __future__ import annotations

import configparser
import re
import sys
from pathlib import Path

SETUP = Path(__file__).resolve().parents[1] / "setup.cfg"
_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)>=(?P<floor>[0-9.]+)(?:,<[0-9.]+)?(?P<marker>;.*)?$")


def floors(extras: list[str]) -> list[str]:
    """Return `name==version` for each requirement with a floor."""
    matches = (_REQUIREMENT.match(line) for line in requirements(extras))
    return [f"{match['name']}=={match['floor']}{match['marker'] or ''}" for match in matches if match]


def requirements(extras: list[str]) -> list[str]:
    """Return the requirements of the package with these extras; an extra that names other extras includes them."""
    setup = configparser.ConfigParser()
    setup.read(SETUP, encoding="utf-8")
    lines = _lines(setup["options"]["install_requires"])
    queue = list(extras)
    for extra in queue:
        for line in _lines(setup["options.extras_require"][extra]):
            inner = re.match(r"extraction-pipeline\[(.*)\]$", line)
            queue.extend(inner[1].split(",") if inner else [])
            lines += [] if inner else [line]
    return lines


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]


def main() -> int:
    """Print the requirements; return the exit code."""
    print("\n".join(floors(sys.argv[1:])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
