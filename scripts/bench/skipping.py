"""Measure the CPU time of a skipped, unchanged file, relative to one `stat` and one sqlite read in Python.

It is the difference between two runs over a finished folder: with all its files, and with few of them.
"""

from __future__ import annotations

import os
import sqlite3
import statistics
import tempfile
import time
from pathlib import Path

from bench.site import COMMAND, Stub, measured, stub_server, write_site

FILES = 6_000
FEW = 100
AN_HOUR_AGO = time.time() - 3600
"""A file that was written just before it is listed has no version, and is read again by the next run."""


def skipped_ratio(rounds: int) -> float:
    """Return the median of this many rounds."""
    with stub_server(0.0) as stub, tempfile.TemporaryDirectory() as name:
        sites = [_site(Path(name, str(count)), count, stub) for count in (FILES, FEW)]
        return statistics.median(_ratio(*sites) for _ in range(rounds))


def _site(folder: Path, count: int, stub: Stub) -> Path:
    """Return a folder whose files are all done."""
    folder.mkdir()
    write_site(folder, stub.url, dialect="vllm", settings={"runner.concurrency": 32})
    (folder / "inbox").mkdir()
    for number in range(count):
        path = folder / "inbox" / f"{number:06}.txt"
        path.write_text(f"Profits of {number} rose by a tenth.", encoding="utf-8")
        os.utime(path, (AN_HOUR_AGO, AN_HOUR_AGO))
    measured((*COMMAND, "run", "--quiet"), folder)
    return folder


def _ratio(long_run: Path, short_run: Path) -> float:
    own_s = _own_s(long_run / "inbox", FILES)
    more_s = (
        measured((*COMMAND, "run", "--quiet"), long_run).cpu_s - measured((*COMMAND, "run", "--quiet"), short_run).cpu_s
    )
    return more_s / (FILES - FEW) / own_s


def _own_s(folder: Path, count: int) -> float:
    """Return the CPU seconds of one `stat` and one read by key, in the simplest way."""
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE done (id TEXT PRIMARY KEY, sha256 TEXT, version TEXT) WITHOUT ROWID")
    names = [f"{number:06}.txt" for number in range(count)]
    database.executemany("INSERT INTO done VALUES (?, 'x', 'y')", ((name,) for name in names))
    began = time.process_time()
    for name in names:
        (folder / name).stat()
        database.execute("SELECT sha256, version FROM done WHERE id = ?", (name,)).fetchone()
    spent_s = time.process_time() - began
    database.close()
    return spent_s / count
