"""Simulate servers that batch, with a simulated clock: a trial of a limit takes no time and has no noise.

It must not know how a limit is found: it sends as many requests as allowed, and reports the time of each answer.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

OnAnswer = Callable[["Answer", float], None]


@dataclass(frozen=True, slots=True)
class Shape:
    """Behaviour of a server. With n running requests each takes 1 + n / `half` times `base_s`: the rate saturates.

    More than `slots` wait, first come first served; from `preempts_at` running requests on, a part of the work is lost.
    """

    slots: int
    base_s: float = 0.4
    half: float = 1e9
    preempts_at: float = float("inf")
    spread: float = 0.3

    def speed(self, working: int) -> float:
        """Return the speed of each running request; 1 for a request alone."""
        slowed = 1.0 / (1.0 + working / self.half)
        return slowed * min(1.0, self.preempts_at / working) ** 2 if working else 1.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: its server, its latency, and its time in the queue."""

    server: int
    latency_s: float
    queue_s: float


@dataclass(slots=True)
class Server:
    """A server's running requests (they end in the order of `heap`) and its queue."""

    shape: Shape
    rng: random.Random
    done: float = 0.0
    at: float = 0.0
    heap: list[tuple[float, int, float, float]] = field(default_factory=list)
    queue: deque[float] = field(default_factory=deque)
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    @property
    def present(self) -> int:
        """The number of running and waiting requests."""
        return len(self.heap) + len(self.queue)

    def send(self, now: float) -> None:
        """Add a request."""
        self._pass(now)
        self.queue.append(now)
        self._fill(now)

    def change(self, shape: Shape, now: float) -> None:
        """Change the behaviour from now on; running requests continue."""
        self._pass(now)
        self.shape = shape
        self._fill(now)

    def next_end(self) -> float:
        """Return the time at which the next request ends without another change."""
        if not self.heap:
            return float("inf")
        return self.at + (self.heap[0][0] - self.done) / self.shape.speed(len(self.heap))

    def end(self, now: float) -> tuple[float, float]:
        """End a request; return its latency and its time in the queue."""
        self._pass(now)
        _, _, number, begun = heapq.heappop(self.heap)
        self._fill(now)
        return now - number, begun - number

    def _pass(self, now: float) -> None:
        self.done += (now - self.at) * self.shape.speed(len(self.heap))
        self.at = now

    def _fill(self, now: float) -> None:
        while self.queue and len(self.heap) < self.shape.slots:
            work_s = self.shape.base_s * self.rng.lognormvariate(0.0, self.shape.spread)
            heapq.heappush(self.heap, (self.done + work_s, next(self.numbers), self.queue.popleft(), now))


@dataclass(frozen=True, slots=True)
class Sample:
    """The end of an answer: time, server, and the number of requests at each server after it."""

    at: float
    server: int
    present: tuple[int, ...]


def simulate(
    shapes: Sequence[Shape],
    *,
    limits: Callable[[], Sequence[int]],
    on_answer: OnAnswer,
    until: float,
    changes: Sequence[tuple[float, int, Shape]] = (),
    every_s: float = 1.0,
    on_gauge: Callable[[Sequence[Server], float], None] | None = None,
    seed: int = 1,
) -> list[Sample]:
    """Return all answers up to `until` seconds, with endless documents and at most `limits` requests per server."""
    rng = random.Random(seed)
    servers = [Server(shape, rng) for shape in shapes]
    pending = deque(changes)
    gauges_at = every_s
    samples = list[Sample]()
    now = 0.0
    while now < until:
        for server, limit in zip(servers, limits(), strict=True):
            while server.present < limit:
                server.send(now)
        which = min(range(len(servers)), key=lambda index: servers[index].next_end())
        event = min(servers[which].next_end(), pending[0][0] if pending else until, gauges_at)
        now = event
        if pending and event == pending[0][0]:
            _, at, shape = pending.popleft()
            servers[at].change(shape, now)
        elif event == gauges_at:
            gauges_at += every_s
            if on_gauge is not None:
                on_gauge(servers, now)
        else:
            latency_s, queue_s = servers[which].end(now)
            samples.append(Sample(now, which, tuple(server.present for server in servers)))
            on_answer(Answer(which, latency_s, queue_s), now)
    return samples
