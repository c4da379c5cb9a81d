"""All benchmarks in their short forms, in one table; or one of them in its long form.

Timings are valid for one machine and one moment. `python scripts/bench NAME --help` describes the long form of each.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

sys.path[0] = str(
    Path(__file__).resolve().parents[1]
)  # run as `python scripts/bench`: find the packages beside this one

from bench.site import table

PARTS = ("overhead", "ratios", "concurrency", "memory", "long", "windows", "resume", "sources", "validation")
TOOLS = ("clients", "server")
"""Modules that benchmarks start as child processes."""


def main() -> int:
    """Print the table, and each row on stderr as soon as it is measured; return the exit code."""
    if sys.argv[1:2] and sys.argv[1] in PARTS + TOOLS:
        name = sys.argv.pop(1)
        return int(importlib.import_module(f"bench.{name}").main() or 0)
    if sys.argv[1:]:
        print(f"usage: python scripts/bench [{'|'.join(PARTS)}] [--help]", file=sys.stderr)
        return 2
    rows: list[tuple[str, str, str]] = []
    for part in PARTS:
        for figure in importlib.import_module(f"bench.{part}").short():
            rows.append((figure.quantity, figure.result, figure.aim))
            print("  ", *rows[-1], file=sys.stderr, flush=True)
    print(table(("quantity", "result", "aim"), rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
