"""Measure the peak memory of runs over more and more documents, and the time to the first request with many files.

The stub answers at once; the peak is the child's own, as the kernel counts it.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.site import COMMAND, Figure, Stub, clean_environment, measured, stub_server, table, text_of, write_site

BASE = 1_000
FOLDER_WIDTH = 1_000
WAIT_S = 120.0


def curve(counts: list[int], *, stub: Stub, folder: Path) -> list[list[object]]:
    """Yield a row for each number of documents: peak, growth since the first row, CPU per document."""
    rows: list[list[object]] = []
    first_mb = 0.0
    for count in counts:
        site = folder / f"lines-{count}"
        site.mkdir()
        write_site(site, stub.url, dialect="vllm", settings={"input.uri": "all.jsonl", "runner.concurrency": 32})
        with (site / "all.jsonl").open("w", encoding="utf-8") as lines:
            lines.writelines(f'{{"text": "{text_of(200, number)}"}}\n' for number in range(count))
        cost = measured((*COMMAND, "run", "--quiet"), site)
        first_mb = first_mb or cost.peak_mb
        over = f"{cost.peak_mb - first_mb:+.1f} MB"
        cpu_ms = cost.cpu_s / count * 1000
        rows.append([f"{count:,} lines", f"{cost.peak_mb:.0f} MB", over, f"{cpu_ms:.2f} ms"])
        print("  ", *rows[-1], file=sys.stderr)
    return rows


def make_files(folder: Path, count: int) -> None:
    """Write this many small files, a thousand in each folder."""
    for start in range(0, count, FOLDER_WIDTH):
        inner = folder / f"{start // FOLDER_WIDTH:05}"
        inner.mkdir(parents=True)
        for number in range(start, min(count, start + FOLDER_WIDTH)):
            (inner / f"{number:07}.txt").write_text(f"Profits of {number} rose by a tenth.", encoding="utf-8")


def first_request_s(count: int, *, stub: Stub, folder: Path) -> float:
    """Return the seconds from the command to its first request with this many files; then end the run."""
    site = folder / f"files-{count}"
    site.mkdir()
    write_site(site, stub.url, dialect="vllm", settings={"runner.grace_s": 1})
    make_files(site / "inbox", count)
    stub.stats()
    started = time.monotonic()
    with (site / "child.log").open("w", encoding="utf-8") as log:
        child = subprocess.Popen((*COMMAND, "run"), cwd=site, env=clean_environment(), stdout=log, stderr=log)
        while (stats := stub.peek()).answered < 1 and time.monotonic() - started < WAIT_S:
            time.sleep(0.02)
        child.send_signal(signal.SIGKILL)
        os.waitpid(child.pid, 0)
    if stats.answered < 1:
        raise RuntimeError(f"no request within {WAIT_S:g} s: {(site / 'child.log').read_text(encoding='utf-8')[-800:]}")
    return stats.first - started


def short() -> Iterator[Figure]:
    """Yield the rows of runs over 1,000 and 20,000 documents, and of a start over 20,000 files."""
    with stub_server(0.0) as stub, tempfile.TemporaryDirectory() as name:
        for documents, peak, over, _ in curve([BASE, 20_000], stub=stub, folder=Path(name)):
            yield Figure(f"a run over {documents}", f"{peak} at most, {over} over the first", "+30 MB")
        seconds = first_request_s(20_000, stub=stub, folder=Path(name))
        yield Figure("the first request over 20,000 files", f"after {seconds:.2f} s", "2 s")


def main() -> int:
    """Print two tables; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, nargs="+", default=[BASE, 10_000, 100_000])
    parser.add_argument("--files", type=int, nargs="*", default=[200_000])
    options = parser.parse_args()
    with stub_server(0.0) as stub, tempfile.TemporaryDirectory() as name:
        rows = curve(options.documents, stub=stub, folder=Path(name))
        print(table(("documents", "peak", "over the first", "CPU a document, with start-up"), rows))
        firsts = [
            [f"{count:,} files", f"{first_request_s(count, stub=stub, folder=Path(name)):.2f} s"]
            for count in options.files
        ]
        print("\n" + table(("folder", "to the first document's request"), firsts) if firsts else "")
    return 0


if __name__ == "__main__":
    sys.exit(main())
