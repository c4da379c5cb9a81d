"""Compare `runner.concurrency: auto` with fixed numbers, on simulated servers with a simulated clock.

The limit is the code that a run uses. For each model it prints the share of the best fixed number's throughput, the
time to reach it, the use of the server's capacity, and the throughput of other fixed numbers.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache

from bench.model import Answer, Sample, Server, Shape, simulate
from bench.site import Figure, table
from pipeline.llm.server_metrics import Gauges
from pipeline.records import ExtractionAttempt, ModelMetadata
from pipeline.run.concurrency import AdaptiveLimits

SETTLED_S = 30.0
FIXED = (1, 4, 16, 64, 256)
CEILING = 256


@dataclass(frozen=True, slots=True)
class Row:
    """One model: servers, their reports (none, queue, gauges), and their changes during the run."""

    name: str
    shapes: tuple[Shape, ...]
    reports: str = "nothing"
    changes: tuple[tuple[float, int, Shape], ...] = ()


@dataclass(frozen=True, slots=True)
class AutoResult:
    """Share of the best throughput, seconds to 95 % of it, mean requests in flight, and the servers' capacity."""

    share: float
    reached_s: float | None
    present: float
    room: float


@dataclass
class ReportingServer:
    """One server, as the limit sees it."""

    endpoint: str
    reports: str
    timeout_s: float = 300.0
    share: int = 1
    now: Gauges | None = None

    def gauges(self) -> Gauges | None:
        """Return its current gauges."""
        return self.now if self.reports == "gauges" else None


@dataclass
class LimitOfModel:
    """The limit of a run, connected to the model."""

    servers: list[ReportingServer]
    limit: AdaptiveLimits = field(default_factory=lambda: AdaptiveLimits(ceiling=CEILING))

    def record(self, answer: Answer, now: float) -> None:
        """Report an answer to the adaptive limit, as the runner does."""
        server = self.servers[answer.server]
        queue_s = answer.queue_s if server.reports == "queue" else None
        model = ModelMetadata("model", "m", server.endpoint)
        self.limit.record([ExtractionAttempt(model, latency_s=answer.latency_s, queue_s=queue_s)], full=True, now=now)

    def read_gauges(self, servers: Sequence[Server], now: float) -> None:
        """Have the limit read the gauges, as the prober does."""
        for reported, server in zip(self.servers, servers, strict=True):
            reported.now = Gauges(float(len(server.heap)), float(len(server.queue)))
        self.limit.read_gauges(self.servers, now=now)
        self.limit.set_servers(self.servers)

    def limits(self) -> list[int]:
        """Return the limit of each server: requests go to the replica with the least in flight for its share."""
        return [server.share for server in self.servers]


def slots(number: int, **more: float) -> Shape:
    """Return a server that works on this many requests at a time, each as fast as alone."""
    return Shape(number, **more)


def batching(number: int) -> Shape:
    """Return a server whose requests slow each other down: the rate grows by less and less up to its slots."""
    return Shape(number, half=number / 2)


def preempting(number: int) -> Shape:
    """Return a server that drops work when more requests run than its memory allows: the rate falls."""
    return Shape(1000, half=number / 2, preempts_at=number)


ROWS = (
    *(Row(f"{number} slots, Ollama", (slots(number),), "queue") for number in (1, 2, 4, 16)),
    *(Row(f"{number} slots, reports nothing", (slots(number),)) for number in (32, 64, 100, 200)),
    *(Row(f"batch of {number}, vLLM", (batching(number),), "gauges") for number in (16, 64, 128, 200)),
    *(Row(f"preempts at {number}", (preempting(number),)) for number in (64, 128)),
    Row("saturates, no slots", (Shape(1000, half=30),)),
    Row("50 slots, 150 from 60 s", (slots(50),), "gauges", ((60.0, 0, slots(150)),)),
    Row("150 slots, 50 from 60 s", (slots(150),), "gauges", ((60.0, 0, slots(50)),)),
    Row("half as fast from 60 s", (slots(64),), "gauges", ((60.0, 0, slots(64, base_s=0.8)),)),
    Row("replicas of 8 and 100", (slots(8), slots(100)), "gauges"),
    Row("replicas of 1 and 4, Ollama", (slots(1), slots(4)), "queue"),
)


def last_shapes(row: Row) -> tuple[Shape, ...]:
    """Return the servers after the last change."""
    shapes = list(row.shapes)
    for _, at, shape in row.changes:
        shapes[at] = shape
    return tuple(shapes)


@cache
def fixed_rate(shapes: tuple[Shape, ...], number: int) -> float:
    """Return answers per second with this many requests at each server."""
    seconds = 40.0
    samples = simulate(shapes, limits=lambda: [number] * len(shapes), on_answer=lambda *_: None, until=seconds, seed=2)
    return sum(1 for sample in samples if sample.at > seconds / 4) / (seconds * 3 / 4)


@cache
def best_of(shape: Shape) -> tuple[float, int]:
    """Return the best fixed number's rate at one server, and the lowest number that reaches 99 % of it."""
    top = int(min(shape.slots, shape.preempts_at, CEILING))
    rates = {number: fixed_rate((shape,), number) for number in {top, *range(max(1, top // 8), CEILING + 1, 32)}}
    best = max(rates.values())
    return best, min(number for number, rate in rates.items() if rate >= 0.99 * best)


def result_of_auto(row: Row, *, seconds: float) -> AutoResult:
    """Return the result of auto within `seconds` of the start or of the last change, without the first 30."""
    servers = [ReportingServer(f"http://{number}", row.reports) for number in range(len(row.shapes))]
    trial = LimitOfModel(servers)
    trial.limit.set_servers(servers)
    start = max((at for at, _, _ in row.changes), default=0.0)
    samples = simulate(
        row.shapes,
        limits=trial.limits,
        on_answer=trial.record,
        until=start + seconds,
        changes=row.changes,
        on_gauge=trial.read_gauges,
    )
    rates = [best_of(shape) for shape in last_shapes(row)]
    best = sum(rate for rate, _ in rates)
    room = sum(number for _, number in rates)
    settled = [sample for sample in samples if sample.at > start + SETTLED_S]
    present = sum(sum(sample.present) for sample in settled) / max(1, len(settled))
    share = len(settled) / (seconds - SETTLED_S) / best
    return AutoResult(
        share, _reached(samples, start=start, until=start + seconds, rate=0.95 * best), present, float(room)
    )


def _reached(
    samples: Sequence[Sample], *, start: float, until: float, rate: float, over_s: float = 5.0
) -> float | None:
    """Return the seconds from the start to the first five in which the rate was reached."""
    for second in range(int(start), int(until - over_s)):
        if sum(1 for sample in samples if second < sample.at <= second + over_s) >= rate * over_s:
            return second - start
    return None


def line(row: Row, *, seconds: float) -> list[object]:
    """Return a row of the table."""
    result = result_of_auto(row, seconds=seconds)
    shapes = last_shapes(row)
    best = sum(best_of(shape)[0] for shape in shapes)
    reached = "never" if result.reached_s is None else f"{result.reached_s:.0f} s"
    fixed_shares = [f"{fixed_rate(shapes, max(1, number // len(shapes))) / best:.0%}" for number in FIXED]
    return [
        row.name,
        f"{result.share:.0%}",
        reached,
        f"{result.present:.0f} of {result.room:.0f}",
        *fixed_shares,
    ]


def short() -> Iterator[Figure]:
    """Yield each model's row after 90 simulated seconds."""
    for row in ROWS:
        name, share, reached, present, *_ = line(row, seconds=90.0)
        result = f"{share} of the best fixed number, 95 % after {reached}, {present} in flight"
        yield Figure(f"concurrency: auto, {name}", result, "95 % within 30 s")


def main() -> int:
    """Print the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=180.0, help="of the model's clock, for each row")
    options = parser.parse_args()
    head = ("server", "auto", "95 % after", "in flight", *(f"fixed {number}" for number in FIXED))
    print(table(head, [line(row, seconds=options.seconds) for row in ROWS]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
