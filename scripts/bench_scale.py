"""Measure the cost of a fleet: requests, bytes, memory, disk and time of one worker, extrapolated from small runs.

    python scripts/bench_scale.py                 about two minutes; prints tables in Markdown
    python scripts/bench_scale.py --documents 2000

Workers are real processes on a real S3 server (SeaweedFS), behind a proxy that counts requests and bytes. Each is run
at two sizes, so that growing costs show; the printed formulas extrapolate to 10 and 100 million documents and
1, 100 and 1,000 workers. Nothing else is modelled: no slow disk, no throttled store, no network.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fleet_laws import FLEET_HEAD, Law, extrapolated, formulas
from fleet_site import HEAD, Cost, Site, disk_of, site_on_s3, table_row

from pipeline.output import Index
from pipeline.output.record_keys import RecordKey

_PLAN = "plan"
_IDLE_LINES = (4_000, 44_000)
_INDEXED = 400_000


def hash_shards(site: Site, documents: int) -> tuple[list[str], Cost]:
    """Return a row for each of two sizes, and the cost of a shard of the smaller one."""
    rows = []
    costs = []
    for factor in (1, 2):
        site.fill(f"shards{factor}", files=2 * factor, documents=documents * factor)
        costs.append(site.cost("run", "--quiet", "--shard", "0/4"))
        rows.append(table_row(f"shard 0/4 of {documents * factor:,} documents in {2 * factor} files", costs[-1]))
    return rows, costs[0]


def chunks(site: Site, documents: int) -> tuple[list[str], Cost, Cost] | None:
    """Return rows, and the costs of planning and of a chunk; None where the program has no plans."""
    help_text = subprocess.run(
        [str(Path(sys.executable).with_name("pipeline")), "help"], capture_output=True, text=True, check=False
    )
    if not any(line.split()[:1] == [_PLAN] for line in help_text.stdout.splitlines()):
        return None
    site.fill("chunks", files=4, documents=documents * 2)
    plan = site.cost(_PLAN, "--chunks", "8")
    chunk_cost = site.cost("run", "--quiet", "--chunk", "0")
    rows = [table_row(f"plan of {documents * 2:,} documents in 4 files", plan), table_row("chunk 0 of 8", chunk_cost)]
    return rows, plan, chunk_cost


def cpu_per_line(site: Site) -> float:
    """Return the CPU seconds that a line of another shard takes, from two sizes of an input."""
    costs = []
    for number, lines in enumerate(_IDLE_LINES):
        site.fill(f"idle{number}", files=4, documents=lines)
        costs.append(site.cost("run", "--quiet", "--shard", "99998/99999").cpu_s)
    return max(0.0, costs[1] - costs[0]) / (_IDLE_LINES[1] - _IDLE_LINES[0])


def disk_per_document() -> float:
    """Return the bytes of the index on disk for a document that is done."""
    keys = [
        RecordKey(f"2026/11/28/{number:08d}.jsonl#17", 1, "a" * 64, "small", "default", "f" * 64, None, None, 0, "r")
        for number in range(_INDEXED)
    ]
    with tempfile.TemporaryDirectory(prefix="scale-index-") as scratch:
        tempfile.tempdir = scratch
        try:
            with closing(Index()) as index:
                index.add("results", keys, where="bench", owns=lambda _: True)
                index.release_memory()
                index.counts()  # reads all of it, so that what was in memory goes to the file
                return disk_of(os.getpid(), scratch) / _INDEXED
        finally:
            tempfile.tempdir = None


def by_kind(cost: Cost) -> str:
    """Return the requests of a process by method and place."""
    return ", ".join(f"{kind} {count}" for kind, count in sorted(cost.requests.items()))


def show(title: str, lines: Sequence[str]) -> None:
    """Print a section."""
    print(f"\n### {title}\n")
    print("\n".join(lines), flush=True)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=4000, help="of the smaller size; the other one is twice this")
    documents = parser.parse_args().documents
    with site_on_s3() as site:
        rows, small = hash_shards(site, documents)
        line_cpu_s = cpu_per_line(site)
        planned = chunks(site, documents)
    show("Measured", [*HEAD, *rows, *(planned[0] if planned else ())])
    law = Law.of(small)
    disk_document = disk_per_document()
    show("Requests of the first shard by place", [by_kind(small)])
    chunk_law = Law.of(planned[2]) if planned else None
    lines = formulas(law, chunk=chunk_law, line_cpu_s=line_cpu_s, disk_document=disk_document)
    fleets = partial(extrapolated, line_cpu_s=line_cpu_s, disk_document=disk_document)
    show("Formulas", [f"- {line}" for line in lines])
    show("Hash shards, extrapolated", [*FLEET_HEAD, *fleets(law)])
    if planned and chunk_law:
        show("Plan and chunks, extrapolated", [*FLEET_HEAD, *fleets(chunk_law, plan=planned[1])])
    return 0


if __name__ == "__main__":
    sys.exit(main())
