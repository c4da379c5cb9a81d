"""Measure the cost of the pipeline over a bare HTTP client: share of the ideal rate, and CPU seconds per document.

All rows are measured interleaved, against one stub that answers after a fixed time; medians of the rounds are shown.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from bench.clients import CLIENTS
from bench.site import COMMAND, SCRIPTS, Cost, Figure, Stub, measured, stub_server, table, text_of, write_site

OURS = "pipeline"
TITLE = "this pipeline, everything on"
TWO = "two processes"
"""This pipeline with `runner.processes: 2`."""
PAIR = "two runs"
"""Two independent runs, each with half of the documents and of the requests in flight: what two processes could reach
on this machine, beside the stub server, if they shared nothing."""
SATURATED = 800.0
"""Documents per second for which a run is planned if the server answers at once."""
START_UP = 1
"""Documents of the run whose cost is subtracted as the start-up."""


@dataclass(frozen=True, slots=True)
class Point:
    """One run: share of the ideal rate, documents per second, milliseconds of CPU per document."""

    share: float
    rate: float
    cpu_ms: float


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting: a dialect, a number of requests in flight, and about how many seconds at the ideal rate.

    Without a latency there is no ideal rate; SATURATED replaces it.
    """

    dialect: str
    threads: int
    latency_s: float
    seconds: float
    size: int

    @property
    def documents(self) -> int:
        """The number of documents: a multiple of those in flight, so that the last batch is full."""
        rate = self.threads / self.latency_s if self.latency_s else SATURATED
        return self.threads * max(2, round(self.seconds * rate / self.threads))


def run(name: str, setting: Setting, *, documents: int, stub: Stub, folder: Path) -> tuple[Cost, float]:
    """Run a client; return the child's cost, and the seconds from the first document's request to the last answer."""
    if name == PAIR:
        cost = _pair(setting, documents=documents, stub=stub, folder=folder)
    elif name in (OURS, TWO):
        cost = _pipeline(setting, documents=documents, stub=stub, folder=folder, processes=2 if name == TWO else 1)
    else:
        numbers = (setting.threads, documents, setting.size)
        cost = measured(
            [sys.executable, str(SCRIPTS), "clients", name, stub.url, setting.dialect, *map(str, numbers)], folder
        )
    stats = stub.stats()
    if stats.answered < documents:
        raise RuntimeError(f"{name}: the stub answered {stats.answered} requests of {documents}")
    return cost, stats.last - stats.first


def _pipeline(setting: Setting, *, documents: int, stub: Stub, folder: Path, processes: int = 1) -> Cost:
    _site(folder, setting, stub, processes=processes)
    return measured([*COMMAND, "run", "--limit", str(documents), "--concurrency", str(setting.threads)], folder)


def _pair(setting: Setting, *, documents: int, stub: Stub, folder: Path) -> Cost:
    """Run two pipelines side by side, and return their cost together."""
    half = replace(setting, threads=setting.threads // 2)
    limit = -(-documents // 2)

    def run_half(name: str) -> Cost:
        return _pipeline(half, documents=limit, stub=stub, folder=folder / name)

    with ThreadPoolExecutor(max_workers=2) as threads:
        costs = list(threads.map(run_half, ("half-1", "half-2")))
    return Cost(sum(cost.cpu_s for cost in costs), sum(cost.peak_mb for cost in costs))


def _site(folder: Path, setting: Setting, stub: Stub, *, processes: int) -> None:
    """Return a site with a fresh output; the documents are written once."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    settings = {"runner.max_error_rate": 0, "runner.processes": processes}
    write_site(folder, stub.url, dialect=setting.dialect, settings=settings)
    inbox = folder / "inbox"
    if not inbox.exists():
        inbox.mkdir()
        for number in range(setting.documents):
            (inbox / f"{number:06}.txt").write_text(text_of(setting.size, number), encoding="utf-8")


def measure(name: str, setting: Setting, *, stub: Stub, folder: Path) -> Point:
    """Measure one row once."""
    start, _ = run(name, setting, documents=START_UP, stub=stub, folder=folder)
    total, window_s = run(name, setting, documents=setting.documents, stub=stub, folder=folder)
    rate = setting.documents / window_s
    cpu_ms = (total.cpu_s - start.cpu_s) / (setting.documents - START_UP) * 1000
    return Point(rate * setting.latency_s / setting.threads, rate, cpu_ms)


def rows_of(setting: Setting, names: Sequence[str], *, rounds: int) -> list[list[object]]:
    """Measure the rows of one setting; the order rotates from round to round."""
    points: dict[str, list[Point]] = defaultdict(list)
    with stub_server(setting.latency_s) as stub, tempfile.TemporaryDirectory() as folder:
        for turn in range(rounds):
            for name in [*names[turn % len(names) :], *names[: turn % len(names)]]:
                points[name] += _measured(name, setting, stub=stub, folder=Path(folder))
    base = statistics.median(point.cpu_ms for point in points["tuned"]) if points["tuned"] else None
    return [_row(name, setting, points=points[name], base=base) for name in names]


def _measured(name: str, setting: Setting, *, stub: Stub, folder: Path) -> list[Point]:
    """Return one row's figures in a list; an empty one if another client failed."""
    label = f"  {setting.dialect} {setting.threads} {name}"
    try:
        point = measure(name, setting, stub=stub, folder=folder)
    except RuntimeError as failed:
        if name == OURS:
            raise
        print(f"{label}: failed: {str(failed).splitlines()[-1]}", file=sys.stderr)
        stub.stats()
        return []
    print(f"{label}: {point}", file=sys.stderr)
    return [point]


def _row(name: str, setting: Setting, *, points: Sequence[Point], base: float | None) -> list[object]:
    title = TITLE if name == OURS else CLIENTS[name].title
    if not points:
        return [title, setting.dialect, setting.threads, *("failed",) * 4]
    share, rate, cpu_ms = (statistics.median(getattr(point, part) for point in points) for part in Point.__slots__)
    ratio = f"{cpu_ms / base:.1f}" if base else "-"
    return [title, setting.dialect, setting.threads, f"{rate:.0f}", f"{share:.0%}", f"{cpu_ms:.2f} ms", ratio]


def names_of(dialect: str, names: Sequence[str]) -> list[str]:
    """Return the requested rows that are installed and support the dialect."""
    return [name for name in names if name == OURS or (CLIENTS[name].is_here and dialect in CLIENTS[name].dialects)]


def short() -> Iterator[Figure]:
    """Measure every client once, for four seconds."""
    for dialect, threads, aim in (
        ("vllm", 64, "95 %"),
        ("vllm", 256, "70 %"),
        ("ollama", 64, "95 %"),
        ("ollama", 256, "70 %"),
    ):
        setting = Setting(dialect, threads, 0.2, 4.0, 2000)
        for title, *_, share, cpu, ratio in rows_of(setting, names_of(dialect, [OURS, *CLIENTS]), rounds=1):
            title_text = f"{dialect}, {threads} in flight: {title}"
            aimed = f"{aim}, 2.0 ms" if title == TITLE else ""
            yield Figure(title_text, f"{share} of the ideal, {cpu} of CPU a document, {ratio} x tuned requests", aimed)


def main() -> int:
    """Print the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--dialect", nargs="+", choices=("vllm", "ollama"), default=["vllm", "ollama"])
    parser.add_argument("--client", nargs="+", choices=(OURS, *CLIENTS), default=[OURS, *CLIENTS])
    parser.add_argument("--latency", type=float, default=0.2, metavar="SECONDS")
    parser.add_argument("--seconds", type=float, default=8.0, help="of one run, at the ideal rate")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=2000, metavar="BYTES", help="of a document")
    options = parser.parse_args()
    rows: list[list[object]] = []
    for dialect in options.dialect:
        names = names_of(dialect, options.client)
        for threads in options.in_flight:
            setting = Setting(dialect, threads, options.latency, options.seconds, options.size)
            rows += rows_of(setting, names, rounds=options.rounds)
    head = ("client side", "dialect", "in flight", "documents/s", "of the ideal", "CPU a document", "to tuned requests")
    print(table(head, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
