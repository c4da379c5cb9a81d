"""How long a start takes over an output with many documents done, and how much memory: with a checkpoint and without.

python scripts/bench_resume.py            1,000,000 documents, 1.2 GB in a temporary folder
python scripts/bench_resume.py --short    50,000 documents
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pipeline.config import OutputConfig
from pipeline.output import Output, scan
from pipeline.records import ModelMetadata, Result, Stamp, Usage, to_line

FINGERPRINT = hashlib.sha256(b"question").hexdigest()


def main() -> None:
    """Prints a line for each way to start."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--short", action="store_true", help="50,000 documents")
    parser.add_argument("--scan", metavar="FOLDER", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.scan:
        _scan(arguments.scan)
        return
    documents = 50_000 if arguments.short else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        with (Path(folder) / "results.jsonl").open("wb") as file:
            file.writelines(to_line(_result(number), Stamp(1, "bench")) for number in range(documents))
        size_mb = (Path(folder) / "results.jsonl").stat().st_size / 1e6
        print(f"{documents:,} documents done, {size_mb:,.0f} MB of results", flush=True)
        _child("lines read", folder)
        started = time.perf_counter()
        with Output.open(
            OutputConfig(folder), agent="extractor", shard=None, lock_wait_s=0, run_id="bench", wait=lambda _: True
        ) as output:
            output.finish()
        print(f"a run that does nothing, with its checkpoint written: {time.perf_counter() - started:.1f} s")
        _child("checkpoint read", folder)


def _child(name: str, folder: str) -> None:
    command = [sys.executable, __file__, "--scan", folder]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    print(f"{name}: {said.strip()}", flush=True)


def _scan(folder: str) -> None:
    started = time.perf_counter()
    index = scan(OutputConfig(folder))
    taken_s, busy_s = time.perf_counter() - started, time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    print(f"{taken_s:.1f} s ({busy_s:.1f} s of one core), {peak:.0f} MB at most, {index.counts()['done']:,} done")


def _result(number: int) -> Result:
    return Result(
        f"d{number % 100:02d}/doc-{number:07d}.txt", f"inbox/doc-{number}.txt",
        hashlib.sha256(b"%d" % number).hexdigest(),
        "extractor", "default", FINGERPRINT, {"summary": "x" * 500, "companies": []}, ModelMetadata("vllm", "m"),
        1, 0, False, (), Usage(900, 150), 8192, 4000, {}, 0.5, "2024-01-01T00:00:00.000Z", "4000-1700000000000000000",
    )  # fmt: skip


if __name__ == "__main__":
    main()
