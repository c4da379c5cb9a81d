"""Compare the pipeline with tuned requests and aiohttp, as ratios within one interleaved run, each beside its aim.

Unlike milliseconds, ratios are comparable between machines and loads; the load is printed with them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.overhead import OURS, PAIR, TWO, Point, Setting, measure
from bench.site import Figure, Stub, stub_server, table
from bench.skipping import skipped_ratio

TUNED = "tuned"
AIOHTTP = "aiohttp"
DIALECTS = ("vllm", "ollama")
SIZE = 2000


@dataclass(frozen=True, slots=True)
class Case:
    """A server, a number of requests in flight, and the clients that are compared."""

    threads: int
    latency_s: float
    clients: tuple[str, ...] = (OURS, TUNED, AIOHTTP)

    @property
    def name(self) -> str:
        """The name of the case."""
        return f"{self.threads} in flight, {self.latency_s * 1000:.0f} ms"


AT_ONCE = Case(64, 0.0)
BUSY = Case(256, 0.2)
FULL = Case(256, 0.05, (OURS, TWO, PAIR))
"""At most 5,120 documents a second, which no single process reaches; of the maximum at 200 ms, one reaches most."""
MANY = Case(1024, 0.2, (OURS, AIOHTTP))
MOST = Case(64, 0.2)
CASES = (AT_ONCE, MOST, BUSY, FULL, MANY)

Medians = Mapping[tuple[Case, str], Point]


@dataclass(frozen=True, slots=True)
class Ratio:
    """A row of the table: `of` computes it from the medians; it must be at least or at most `bound`, if there is one.

    `is_best`: it is computed from the best round of each client instead. More processes than free cores show
    nothing about their benefit, and on a busy machine only some rounds find two free cores.
    """

    name: str
    of: Callable[[Medians], float]
    bound: float | None = None
    at_least: bool = False
    is_best: bool = False

    @property
    def aim(self) -> str:
        """The bound as text."""
        if self.bound is None:
            return ""
        return f"{'≥' if self.at_least else '≤'} {self.bound:g}"


def _cpu(case: Case, base: str, other_case: Case | None = None) -> Callable[[Medians], float]:
    return lambda medians: medians[case, OURS].cpu_ms / medians[other_case or case, base].cpu_ms


def _rate(case: Case, base: str) -> Callable[[Medians], float]:
    return lambda medians: medians[case, OURS].rate / medians[case, base].rate


RATIOS = (
    Ratio(f"CPU a document to tuned requests, {AT_ONCE.name}", _cpu(AT_ONCE, TUNED), 0.9),
    Ratio(f"CPU a document to tuned requests, {BUSY.name}", _cpu(BUSY, TUNED), 1.1),
    Ratio(f"CPU a document to aiohttp, {AT_ONCE.name}", _cpu(AT_ONCE, AIOHTTP), 2.0),
    Ratio(f"CPU a document to aiohttp, {BUSY.name}", _cpu(BUSY, AIOHTTP), 2.0),
    Ratio(f"documents a second to tuned requests, {AT_ONCE.name}", _rate(AT_ONCE, TUNED), 1.2, at_least=True),
    Ratio(f"documents a second to aiohttp, {AT_ONCE.name}", _rate(AT_ONCE, AIOHTTP), 0.5, at_least=True),
    Ratio(f"documents a second to aiohttp, {MOST.name}", _rate(MOST, AIOHTTP), 0.97, at_least=True),
    Ratio(f"documents a second to aiohttp, {BUSY.name}", _rate(BUSY, AIOHTTP), 0.75, at_least=True),
    Ratio(f"documents a second to aiohttp, {MANY.name}", _rate(MANY, AIOHTTP), 0.9, at_least=True),
    Ratio("CPU a document, 1024 in flight to 64", _cpu(MANY, OURS, MOST), 1.3),
    Ratio(
        f"documents a second of two processes to one, best round, {FULL.name}",
        lambda medians: medians[FULL, TWO].rate / medians[FULL, OURS].rate,
        1.5,
        at_least=True,
        is_best=True,
    ),
    Ratio(
        f"the same of two separate runs to one, the most that this machine allows, {FULL.name}",
        lambda medians: medians[FULL, PAIR].rate / medians[FULL, OURS].rate,
        is_best=True,
    ),
    Ratio(
        f"CPU a document of two processes to one, best round, {FULL.name}",
        lambda medians: medians[FULL, TWO].cpu_ms / medians[FULL, OURS].cpu_ms,
        1.2,
        is_best=True,
    ),
)


def ratios(dialect: str, *, rounds: int, seconds: float) -> Iterator[tuple[Ratio, float]]:
    """Measure each ratio of one dialect, from the medians of interleaved rounds."""
    points: dict[tuple[Case, str], list[Point]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as name:
        for case in CASES:
            setting = Setting(dialect, case.threads, case.latency_s, seconds, SIZE)
            folder = Path(name, case.name)
            folder.mkdir()
            with stub_server(case.latency_s) as stub:
                began_s = stub.stats().cpu_s
                for client, point in _interleaved(case, setting, stub=stub, folder=folder, rounds=rounds):
                    points[case, client].append(point)
                stub_ms = (stub.stats().cpu_s - began_s) * 1000 / (rounds * len(case.clients) * setting.documents)
            print(f"  {dialect}, {case.name}: the stub server took {stub_ms:.2f} ms of CPU a document", file=sys.stderr)
    medians = {place: _median(place_points) for place, place_points in points.items()}
    best = {place: _best(place_points) for place, place_points in points.items()}
    return ((ratio, ratio.of(best if ratio.is_best else medians)) for ratio in RATIOS)


def _interleaved(case: Case, setting: Setting, *, stub: Stub, folder: Path, rounds: int) -> Iterator[tuple[str, Point]]:
    """Yield a point for each client and round; the order rotates from round to round."""
    for turn in range(rounds):
        for at in range(len(case.clients)):
            client = case.clients[(at + turn) % len(case.clients)]
            point = measure(client, setting, stub=stub, folder=folder)
            print(f"  {setting.dialect}, {case.name}, {client}: {point}", file=sys.stderr, flush=True)
            yield client, point


def _median(points: list[Point]) -> Point:
    return Point(*(statistics.median(getattr(point, part) for point in points) for part in Point.__slots__))


def _best(points: list[Point]) -> Point:
    """Return the highest rates and the lowest cost of any round."""
    return Point(
        max(point.share for point in points), max(point.rate for point in points), min(point.cpu_ms for point in points)
    )


def load() -> str:
    """Return the machine's load as text."""
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


def figures(dialects: tuple[str, ...], *, rounds: int, seconds: float) -> Iterator[Figure]:
    """Return a row for each ratio and dialect, and one for a skipped file."""
    for dialect in dialects:
        load_before = load()
        for ratio, value in ratios(dialect, rounds=rounds, seconds=seconds):
            yield Figure(f"{dialect}: {ratio.name}", f"{value:.2f} ({load_before}, then {load()})", ratio.aim)
    yield Figure("CPU a skipped file, to one stat and one sqlite read", f"{skipped_ratio(rounds):.2f}", "≤ 3")


def short() -> Iterator[Figure]:
    """Measure three short rounds."""
    return figures(DIALECTS, rounds=3, seconds=2.0)


def main() -> int:
    """Print the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dialect", nargs="+", choices=DIALECTS, default=DIALECTS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of one run, at the ideal rate")
    options = parser.parse_args()
    results = figures(tuple(options.dialect), rounds=options.rounds, seconds=options.seconds)
    print(table(("ratio", "result", "required"), [(figure.quantity, figure.result, figure.aim) for figure in results]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
