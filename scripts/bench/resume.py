"""Measure the time and memory with which the pipeline resumes on an output with many documents done.

python scripts/bench resume            1,000,000 documents, 1.5 GB in a temporary folder
python scripts/bench resume --short    50,000 documents
python scripts/bench resume --documents 200000

Two ways to load the index (lines, checkpoint), each with the whole command over an input that has grown by one line:
the hash of every earlier line is compared, and only the new one is sent. The last row is
without the search for the same prompt under another id (runner.duplicates).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.site import COMMAND, SCRIPTS, Figure, Stub, measured, own_peak_mb, stub_server, table, write_site
from pipeline.config import OutputConfig
from pipeline.output import scan

INPUT = "all.jsonl"
LARGE = 1_000_000
SHORT = 50_000


def main() -> int:
    """Print the table; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--short", action="store_true", help=f"{SHORT:,} documents")
    parser.add_argument("--documents", type=int, default=LARGE, help=f"instead of {LARGE:,}")
    parser.add_argument("--scan", metavar="FOLDER", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.scan:
        _scan(arguments.scan)
        return 0
    results = figures(SHORT if arguments.short else arguments.documents)
    print(table(("how", "result", "aim"), [(figure.quantity, figure.result, figure.aim) for figure in results]))
    return 0


def short() -> Iterator[Figure]:
    """Measure all ways with fewer documents."""
    return figures(SHORT)


def figures(documents: int) -> Iterator[Figure]:
    """Measure each way to start on an output with this many documents done."""
    aim = "15 s, 250 MB" if documents == LARGE else ""
    with stub_server(0.0) as stub, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _make(folder, documents, stub)
        for number, source in enumerate(("lines", "checkpoint")):
            yield Figure(f"loading the index, {documents:,} documents, from {source}", _child(folder))
            took = _resume(folder, stub, number=documents + number)
            yield Figure(f"the command, {documents:,} done and one new, from {source}", took, aim)
        took = _resume(folder, stub, "--set", "runner.duplicates=ask", number=documents + 2)
        yield Figure(f"the same with runner.duplicates: ask, from {source}", took, aim)


def _make(folder: Path, documents: int, stub: Stub) -> None:
    """Write an input, and an output in which all of it is done: copies of a real record with other ids and hashes."""
    settings = {"input.uri": INPUT, "runner.concurrency": 4}
    write_site(folder, stub.url, dialect="vllm", settings=settings)
    with (folder / INPUT).open("w", encoding="utf-8") as lines:
        lines.writelines(_line(number) for number in range(documents))
    measured((*COMMAND, "run", "--quiet", "--limit", "1"), folder)
    results = folder / "out" / "results.jsonl"
    pattern = json.loads(results.read_bytes())
    with results.open("w", encoding="utf-8") as file:
        file.writelines(_records(pattern, documents))


def _records(pattern: dict[str, object], documents: int) -> Iterator[str]:
    for number in range(documents):
        place = f"{INPUT}#{number + 1}"
        digest = hashlib.sha256(_line(number).rstrip("\n").encode()).hexdigest()
        record = {**pattern, "id": place, "uri": place, "sha256": digest, "question_sha256": digest}
        yield json.dumps(record, separators=(",", ":")) + "\n"  # as the pipeline writes, which is read fastest


def _line(number: int) -> str:
    return json.dumps({"text": f"Profits of {number} rose by a tenth."}) + "\n"


def _resume(folder: Path, stub: Stub, *more: str, number: int) -> str:
    """Run the whole command after adding a line, whose request is the only one for a document."""
    with (folder / INPUT).open("a", encoding="utf-8") as lines:
        lines.write(_line(number))
    stub.stats()
    started = time.monotonic()
    cost = measured((*COMMAND, "run", "--quiet", *more), folder)
    whole_s = time.monotonic() - started
    stats = stub.stats()
    if stats.answered != 1:
        raise RuntimeError(f"{stats.answered} requests, need one")
    return (
        f"{stats.first - started:.1f} s to its request, {whole_s:.1f} s in all ({cost.cpu_s:.1f} s of one core),"
        f" {cost.peak_mb:.0f} MB at most"
    )


def _child(folder: Path) -> str:
    command = [sys.executable, str(SCRIPTS), "resume", "--scan", str(folder / "out")]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _scan(folder: str) -> None:
    started = time.perf_counter()
    index = scan(OutputConfig(folder))
    taken_s = time.perf_counter() - started
    busy_s = time.process_time()
    peak_mb = own_peak_mb()
    done_count = index.counts()["done"]
    print(f"{taken_s:.1f} s ({busy_s:.1f} s of one core), {peak_mb:.0f} MB at most, {done_count:,} done")


if __name__ == "__main__":
    sys.exit(main())
