"""The automatic concurrency limit: how it reacts to answers, to servers that come and go, and to server metrics."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from bench.concurrency import ROWS, Row, result_of_auto
from raw_server import answering_together

from pipeline import load_config
from pipeline.llm.server_metrics import Gauges
from pipeline.records import ExtractionAttempt, ModelMetadata
from pipeline.run.adaptive_limit import AdaptiveLimit
from pipeline.run.concurrency import AdaptiveLimits, FixedLimit
from pipeline.run.plan import build_plan


@dataclass
class Fake:
    """A fake server whose `gauges()` returns the next of the given values."""

    endpoint: str = "http://a"
    timeout_s: float = 300.0
    share: int = 1
    reported: list[Gauges] = field(default_factory=list)

    def gauges(self) -> Gauges | None:
        """Return the next gauges, or None when there are no more."""
        return self.reported.pop(0) if self.reported else None


def attempt(
    endpoint: str = "http://a", *, latency_s: float = 1.0, queue_s: float | None = None, reason: str | None = None
) -> ExtractionAttempt:
    """Return an attempt with this outcome."""
    model = ModelMetadata("vllm", "m", endpoint)
    return ExtractionAttempt(model, error=reason, reason=reason, latency_s=latency_s, queue_s=queue_s)


def auto(*servers: Fake, ceiling: int = 256, most: int = 4096) -> AdaptiveLimits:
    """Return an automatic limit that follows these servers."""
    limit = AdaptiveLimits(ceiling=ceiling, highest_total=most)
    limit.set_servers(servers)
    return limit


def run(
    limit: AdaptiveLimits, seconds: float, *, slots: int, start: float = 0.0, latency_s: float = 1.0, **report: float
) -> float:
    """Simulate a server with so many slots for some seconds; return the time at the end."""
    now = start
    while now < start + seconds:
        now += latency_s / min(limit.value, slots)
        taken_s = latency_s * max(1.0, limit.value / slots)
        limit.record([attempt(latency_s=taken_s, **report)], full=True, now=now)
    return now


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_auto_limit_reaches_95_percent_of_the_best_throughput(row: Row) -> None:
    """This is measured after 30 s on each server model, with a queue of at most a fifth of the slots."""
    result = result_of_auto(row, seconds=90.0)
    assert result.share >= 0.95
    assert result.present <= max(1.2 * result.room, result.room + 1.0)


def test_limit_starts_at_four_per_server() -> None:
    """Without any answers the limit is four for each server."""
    limit = auto(Fake("http://a"), Fake("http://b"))
    assert (limit.value, limit.reason) == (8, "a 4, b 4")


def test_limit_never_exceeds_the_ceiling() -> None:
    """The limit stays at the ceiling even when a higher one would be faster."""
    limit = auto(Fake(), ceiling=50)
    run(limit, 60, slots=10_000)
    assert limit.value == 50


@pytest.mark.parametrize(("most", "value", "least"), [(4096, 2048, 256), (50, 50, 1)])
def test_ceiling_applies_per_server_and_the_machine_bounds_the_total(most: int, value: int, least: int) -> None:
    """Eight servers that could take more get 256 each, or share what this machine can hold."""
    servers = [Fake(f"http://{name}") for name in "abcdefgh"]
    limit, now = auto(*servers, most=most), 0.0
    for _ in range(10_000):
        now += 0.01
        for server in servers:
            limit.record([attempt(server.endpoint)], full=True, now=now)
    assert limit.value == value >= sum(server.share for server in servers)
    assert all(least <= server.share <= 256 for server in servers)


def test_fixed_concurrency_above_the_ceiling_reuses_connections(tmp_path: Path) -> None:
    """With `concurrency: 8` and `max_concurrency: 2`, eight requests at a time reuse eight connections."""
    many = 8
    with answering_together(many) as server, ThreadPoolExecutor(many) as threads:
        settings = {"concurrency": many, "max_concurrency": 2}
        config = {"provider": "vllm", "vllm": {"base_url": server.url, "model": "m"}, "runner": settings}
        (tmp_path / "pipeline.yaml").write_text(json.dumps(config), encoding="utf-8")
        client = build_plan(load_config(tmp_path / "pipeline.yaml", environ={}), stop=threading.Event()).client
        endpoint = client.first_provider.replicas[0].client.endpoint
        for _ in range(3):
            list(threads.map(lambda _: endpoint.get("/x", timeout_s=60), range(many)))
        assert server.accepts == many
        client.close()


def test_burst_of_refusals_shrinks_the_limit_once() -> None:
    """Twenty refusals at one moment shrink the limit as one does; a later one shrinks it again."""
    limit = auto(Fake())
    now = run(limit, 60, slots=100)
    before = limit.value
    for _ in range(20):
        limit.record([attempt(reason="overloaded")], full=True, now=now)
    assert (limit.value, limit.reason) == (int(before * 0.7), "server overloaded")
    limit.record([attempt(reason="overloaded")], full=True, now=now + 10)
    assert limit.value == int(int(before * 0.7) * 0.7)


def test_refused_limit_is_not_retried_for_30_s() -> None:
    """The limit at which the server refused requests is remembered for half a minute."""
    limit = auto(Fake())
    now = run(limit, 60, slots=1000)
    before = limit.value
    limit.record([attempt(reason="overloaded")], full=True, now=now)
    run(limit, 25, slots=1000, start=now, latency_s=0.5)
    assert limit.value < before


def test_limit_does_not_grow_while_it_is_unused() -> None:
    """A window in which the limit was not reached shows nothing about the server."""
    limit, now = auto(Fake()), 0.0
    for _ in range(1000):
        now += 0.1
        limit.record([attempt()], full=False, now=now)
    assert limit.value == 4


def test_limit_shrinks_when_ollama_reports_queueing() -> None:
    """Ollama reports each request's queue time; with one slot, the limit falls from four to one."""
    limit, now = auto(Fake()), 0.0
    for number in range(40):
        now += 1.0
        waited_s = 0.0 if number == 0 else float(limit.value - 1)
        limit.record([attempt(latency_s=waited_s + 1.0, queue_s=waited_s)], full=True, now=now)
    assert (limit.value, limit.reason) == (1, "requests queue at the server")


def test_limit_shrinks_when_vllm_reports_waiting_requests() -> None:
    """Its gauges report that half of the requests are waiting."""
    server = Fake(reported=[Gauges(2.0, 2.0)] * 100)
    limit = auto(server)
    for number in range(20):
        limit.read_gauges([server], now=float(number))
        limit.set_servers([server])
        limit.record([attempt()], full=True, now=float(number))
    assert limit.value <= 2


def test_gauges_are_read_at_most_once_a_second() -> None:
    """A prober that polls more often does not cause more reads."""
    server = Fake(reported=[Gauges(1.0, 0.0)] * 100)
    limit = auto(server)
    for number in range(101):
        limit.read_gauges([server], now=number / 8)
    assert len(server.reported) == 100 - 13


def test_limit_shrinks_when_latency_nears_the_timeout() -> None:
    """More requests in flight would turn answers into timeouts."""
    limit = AdaptiveLimit(256, timeout_s=10.0)
    for number in range(40):
        limit.record_answer(8.0, None, full=True, now=8.0 * number)
    assert limit.value < 4
    assert limit.reason == "latency near the timeout"


def test_timed_out_ollama_request_occupies_a_slot_until_an_answer_without_queueing() -> None:
    """Ollama keeps working on a request whose client has given up."""
    limit = AdaptiveLimit(256)
    limit.record_answer(1.0, 0.0, full=True, now=1.0)
    limit.record_overload(timed_out=True, now=2.0)
    assert (limit.value, limit.allowed) == (2, 1)
    limit.record_answer(9.0, 8.0, full=True, now=10.0)
    assert limit.allowed == 1
    limit.record_answer(1.0, 0.0, full=True, now=11.0)
    assert limit.allowed == 2


def test_returning_server_keeps_its_limit() -> None:
    """Each server has a limit of its own: a new server starts at four and does not change the others' limits."""
    first, second = Fake("http://a"), Fake("http://b")
    limit = auto(first)
    run(limit, 60, slots=100)
    before = limit.value
    limit.set_servers([second])
    assert limit.value == 4
    limit.set_servers([first, second])
    assert (limit.value, first.share, second.share) == (before + 4, before, 4)


def test_limit_without_servers_is_one() -> None:
    """During an outage the limit is one, and answers of unknown servers are ignored."""
    limit = auto(Fake())
    limit.set_servers([])
    limit.record([attempt("http://elsewhere")], full=True, now=1.0)
    assert limit.value == 1


@pytest.mark.parametrize("reason", ["rejected", "connection_error"])
def test_refused_documents_do_not_raise_the_limit(reason: str) -> None:
    """A thousand refusals in a second do not count as a throughput of a thousand answers."""
    limit = auto(Fake())
    for number in range(1000):
        limit.record([attempt(reason=reason, latency_s=0.001)], full=True, now=number / 1000)
    assert limit.value == 4


def test_fixed_concurrency_never_changes() -> None:
    """`runner.concurrency: 7` stays 7, whatever the servers report."""
    limit = FixedLimit(7)
    servers: Sequence[Fake] = [Fake(reported=[Gauges(1.0, 9.0)])]
    limit.record([attempt(reason="overloaded")], full=True, now=1.0)
    limit.read_gauges(servers, now=1.0)
    limit.set_servers(servers)
    assert (limit.value, limit.reason, len(servers[0].reported)) == (7, "set", 1)
