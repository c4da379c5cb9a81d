"""The short forms of all benchmarks, in one table: what was measured, what came out, and what it should be.

Timings hold for one machine and one moment; each benchmark by itself has a long form (see its --help).
"""

from __future__ import annotations

import sys

import bench_concurrency
import bench_memory
import bench_overhead
import bench_resume
import bench_sources
from bench_site import table

PARTS = (bench_overhead, bench_concurrency, bench_memory, bench_resume, bench_sources)


def main() -> int:
    """Prints the table, and on stderr each row when it is there; returns the exit code."""
    rows: list[tuple[str, str, str]] = []
    for part in PARTS:
        for each in part.short():
            rows.append((each.what, each.found, each.aim))
            print("  ", *rows[-1], file=sys.stderr, flush=True)
    print(table(("what", "what came out", "aim"), rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
