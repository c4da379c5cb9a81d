"""A model of servers that batch, on a clock of its own: what a limit makes of them costs no time and has no noise.

It must not know how a limit is found: it sends as many as it is told and tells when each answer came.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Told = Callable[["Answer", float], None]


@dataclass(frozen=True, slots=True)
class Shape:
    """How a server behaves. With n at work each takes 1 + n / `half` times `base_s`: the rate saturates.

    More than `slots` wait, first come first served; `preempts_at` and more at work lose a part of what they do.
    """

    slots: int
    base_s: float = 0.4
    half: float = 1e9
    preempts_at: float = float("inf")
    spread: float = 0.3

    def speed(self, working: int) -> float:
        """How fast each request at work goes on: 1 alone."""
        slowed = 1.0 / (1.0 + working / self.half)
        return slowed * min(1.0, self.preempts_at / working) ** 2 if working else 1.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: where from, how long it took, and how much of that it had waited."""

    server: int
    latency_s: float
    queue_s: float


@dataclass(slots=True)
class Server:
    """Requests at work (they end in the order of `heap`) and in the queue."""

    shape: Shape
    rng: random.Random
    done: float = 0.0
    at: float = 0.0
    heap: list[tuple[float, int, float, float]] = field(default_factory=list)
    queue: deque[float] = field(default_factory=deque)
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    @property
    def present(self) -> int:
        """Requests at work and in the queue."""
        return len(self.heap) + len(self.queue)

    def send(self, now: float) -> None:
        """One request arrives."""
        self._pass(now)
        self.queue.append(now)
        self._fill(now)

    def change(self, shape: Shape, now: float) -> None:
        """From now on it behaves like this; what is at work goes on."""
        self._pass(now)
        self.shape = shape
        self._fill(now)

    def next_end(self) -> float:
        """When the next request ends, if nothing changes before."""
        if not self.heap:
            return float("inf")
        return self.at + (self.heap[0][0] - self.done) / self.shape.speed(len(self.heap))

    def end(self, now: float) -> tuple[float, float]:
        """Latency and time in the queue of the request that ends now."""
        self._pass(now)
        _, _, sent, begun = heapq.heappop(self.heap)
        self._fill(now)
        return now - sent, begun - sent

    def _pass(self, now: float) -> None:
        self.done += (now - self.at) * self.shape.speed(len(self.heap))
        self.at = now

    def _fill(self, now: float) -> None:
        while self.queue and len(self.heap) < self.shape.slots:
            work_s = self.shape.base_s * self.rng.lognormvariate(0.0, self.shape.spread)
            heapq.heappush(self.heap, (self.done + work_s, next(self.numbers), self.queue.popleft(), now))


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer's end: when, from which server, and how many were at all servers after it."""

    at: float
    server: int
    present: tuple[int, ...]


def simulate(
    shapes: Sequence[Shape],
    *,
    limits: Callable[[], Sequence[int]],
    told: Told,
    until: float,
    changes: Sequence[tuple[float, int, Shape]] = (),
    every_s: float = 1.0,
    gauge: Callable[[Sequence[Server], float], None] | None = None,
    seed: int = 1,
) -> list[Sample]:
    """All answers up to `until` seconds, with as many at each server as `limits` says, and documents without end."""
    rng = random.Random(seed)
    servers = [Server(shape, rng) for shape in shapes]
    pending, gauges_at, samples, now = deque(changes), every_s, list[Sample](), 0.0
    while now < until:
        for server, limit in zip(servers, limits(), strict=True):
            while server.present < limit:
                server.send(now)
        which = min(range(len(servers)), key=lambda each: servers[each].next_end())
        event = min(servers[which].next_end(), pending[0][0] if pending else until, gauges_at)
        now = event
        if pending and event == pending[0][0]:
            _, at, shape = pending.popleft()
            servers[at].change(shape, now)
        elif event == gauges_at:
            gauges_at += every_s
            if gauge is not None:
                gauge(servers, now)
        else:
            latency_s, queue_s = servers[which].end(now)
            samples.append(Sample(now, which, tuple(each.present for each in servers)))
            told(Answer(which, latency_s, queue_s), now)
    return samples
