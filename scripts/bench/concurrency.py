"""`runner.concurrency: auto` against fixed numbers, on models of servers and on a clock of their own.

The limit is the very one that a run uses. For each model it prints the share of the best fixed number's throughput,
how soon it was reached, how full the server was against the room it has, and what other fixed numbers reach.
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
from pipeline.run.concurrency import Auto

SETTLED_S = 30.0
FIXED = (1, 4, 16, 64, 256)
CEILING = 256


@dataclass(frozen=True, slots=True)
class Row:
    """One model: servers, what they tell of themselves (nothing, queue, gauges), and how they change in mid-run."""

    name: str
    shapes: tuple[Shape, ...]
    tells: str = "nothing"
    changes: tuple[tuple[float, int, Shape], ...] = ()


@dataclass(frozen=True, slots=True)
class Judged:
    """Share of the best throughput, seconds to 95 % of it, in flight on average, and the room that the servers have."""

    share: float
    reached_s: float | None
    present: float
    room: float


@dataclass
class Told:
    """One server, as the limit sees it."""

    endpoint: str
    tells: str
    timeout_s: float = 300.0
    share: int = 1
    now: Gauges | None = None

    def gauges(self) -> Gauges | None:
        """Returns what it tells now."""
        return self.now if self.tells == "gauges" else None


@dataclass
class Watched:
    """The limit of a run, connected to the model."""

    servers: list[Told]
    limit: Auto = field(default_factory=lambda: Auto(ceiling=CEILING))

    def told(self, answer: Answer, now: float) -> None:
        """Hands an answer on, as the runner does."""
        server = self.servers[answer.server]
        queue_s = answer.queue_s if server.tells == "queue" else None
        model = ModelMetadata("model", "m", server.endpoint)
        self.limit.finished([ExtractionAttempt(model, latency_s=answer.latency_s, queue_s=queue_s)], full=True, now=now)

    def gauge(self, servers: Sequence[Server], now: float) -> None:
        """Lets the limit look at the servers, as the prober does."""
        for told, server in zip(self.servers, servers, strict=True):
            told.now = Gauges(float(len(server.heap)), float(len(server.queue)))
        self.limit.look(self.servers, now=now)
        self.limit.follow(self.servers)

    def limits(self) -> list[int]:
        """How many may be at each server: the replica with the least in flight for its share is taken."""
        return [server.share for server in self.servers]


def slots(number: int, **more: float) -> Shape:
    """A server that works on so many at a time, each as fast as alone."""
    return Shape(number, **more)


def batching(number: int) -> Shape:
    """One whose requests slow each other down: the rate grows by less and less up to its slots."""
    return Shape(number, half=number / 2)


def preempting(number: int) -> Shape:
    """One that throws work away when more are at work than its memory holds: the rate falls."""
    return Shape(1000, half=number / 2, preempts_at=number)


ROWS = (
    *(Row(f"{number} slots, Ollama", (slots(number),), "queue") for number in (1, 2, 4, 16)),
    *(Row(f"{number} slots, tells nothing", (slots(number),)) for number in (32, 64, 100, 200)),
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
    """The servers after the last change."""
    shapes = list(row.shapes)
    for _, at, shape in row.changes:
        shapes[at] = shape
    return tuple(shapes)


@cache
def fixed_rate(shapes: tuple[Shape, ...], number: int) -> float:
    """Answers a second of so many at each server."""
    seconds = 40.0
    samples = simulate(shapes, limits=lambda: [number] * len(shapes), told=lambda *_: None, until=seconds, seed=2)
    return sum(1 for sample in samples if sample.at > seconds / 4) / (seconds * 3 / 4)


@cache
def best_of(shape: Shape) -> tuple[float, int]:
    """The best fixed number's rate at one server, and the fewest that reach 99 % of it."""
    top = int(min(shape.slots, shape.preempts_at, CEILING))
    rates = {number: fixed_rate((shape,), number) for number in {top, *range(max(1, top // 8), CEILING + 1, 32)}}
    best = max(rates.values())
    return best, min(number for number, rate in rates.items() if rate >= 0.99 * best)


def judged(row: Row, *, seconds: float) -> Judged:
    """What auto comes to within `seconds` of the start or of the last change; the first 30 of them don't count."""
    servers = [Told(f"http://{number}", row.tells) for number in range(len(row.shapes))]
    watched = Watched(servers)
    watched.limit.follow(servers)
    start = max((at for at, _, _ in row.changes), default=0.0)
    samples = simulate(
        row.shapes,
        limits=watched.limits,
        told=watched.told,
        until=start + seconds,
        changes=row.changes,
        gauge=watched.gauge,
    )
    found = [best_of(shape) for shape in last_shapes(row)]
    best, room = sum(rate for rate, _ in found), sum(number for _, number in found)
    settled = [sample for sample in samples if sample.at > start + SETTLED_S]
    present = sum(sum(sample.present) for sample in settled) / max(1, len(settled))
    share = len(settled) / (seconds - SETTLED_S) / best
    return Judged(share, _reached(samples, start=start, until=start + seconds, rate=0.95 * best), present, float(room))


def _reached(
    samples: Sequence[Sample], *, start: float, until: float, rate: float, over_s: float = 5.0
) -> float | None:
    """Seconds from the start to the first five in which the rate was reached."""
    for second in range(int(start), int(until - over_s)):
        if sum(1 for each in samples if second < each.at <= second + over_s) >= rate * over_s:
            return second - start
    return None


def line(row: Row, *, seconds: float) -> list[object]:
    """A row of the table."""
    found, shapes = judged(row, seconds=seconds), last_shapes(row)
    best = sum(best_of(shape)[0] for shape in shapes)
    reached = "never" if found.reached_s is None else f"{found.reached_s:.0f} s"
    others = [f"{fixed_rate(shapes, max(1, number // len(shapes))) / best:.0%}" for number in FIXED]
    return [row.name, f"{found.share:.0%}", reached, f"{found.present:.0f} of {found.room:.0f}", *others]


def short() -> Iterator[Figure]:
    """Each model for 90 seconds of its clock."""
    for row in ROWS:
        name, share, reached, present, *_ = line(row, seconds=90.0)
        found = f"{share} of the best fixed number, 95 % after {reached}, {present} in flight"
        yield Figure(f"concurrency: auto, {name}", found, "95 % within 30 s")


def main() -> int:
    """Prints the table and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=180.0, help="of the model's clock, for each row")
    asked = parser.parse_args()
    head = ("server", "auto", "95 % after", "in flight", *(f"fixed {number}" for number in FIXED))
    print(table(head, [line(row, seconds=asked.seconds) for row in ROWS]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
