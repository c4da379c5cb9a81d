"""The limit that finds itself: what it makes of answers, of servers that come and go, and of what they tell."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from bench.concurrency import ROWS, Row, judged
from raw_server import answering_together

from pipeline import load_config
from pipeline.llm.server_metrics import Gauges
from pipeline.records import ExtractionAttempt, ModelMetadata
from pipeline.run.adaptive_limit import AdaptiveLimit
from pipeline.run.concurrency import Auto, Fixed
from pipeline.run.plan import build_plan


@dataclass
class Fake:
    """A server that is asked; `told` is what it tells of itself, one look after the other."""

    endpoint: str = "http://a"
    timeout_s: float = 300.0
    share: int = 1
    told: list[Gauges] = field(default_factory=list)

    def gauges(self) -> Gauges | None:
        """Returns the next of what it tells."""
        return self.told.pop(0) if self.told else None


def attempt(
    endpoint: str = "http://a", *, latency_s: float = 1.0, queue_s: float | None = None, reason: str | None = None
) -> ExtractionAttempt:
    """One request that came to this."""
    model = ModelMetadata("vllm", "m", endpoint)
    return ExtractionAttempt(model, error=reason, reason=reason, latency_s=latency_s, queue_s=queue_s)


def auto(*servers: Fake, ceiling: int = 256, most: int = 4096) -> Auto:
    """A limit over these servers."""
    limit = Auto(ceiling=ceiling, most=most)
    limit.follow(servers)
    return limit


def run(limit: Auto, seconds: float, *, slots: int, start: float = 0.0, latency_s: float = 1.0, **told: float) -> float:
    """Answers of a server that works on so many at a time, for so long; returns the time at the end."""
    now = start
    while now < start + seconds:
        now += latency_s / min(limit.value, slots)
        taken_s = latency_s * max(1.0, limit.value / slots)
        limit.finished([attempt(latency_s=taken_s, **told)], full=True, now=now)
    return now


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_auto_is_within_five_percent_of_the_best_number(row: Row) -> None:
    """After 30 seconds, on each model of a server, with a queue of at most a fifth of its slots."""
    found = judged(row, seconds=90.0)
    assert found.share >= 0.95
    assert found.present <= max(1.2 * found.room, found.room + 1.0)


def test_it_starts_at_four_for_each_server() -> None:
    """Until answers tell more."""
    limit = auto(Fake("http://a"), Fake("http://b"))
    assert (limit.value, limit.reason) == (8, "a 4, b 4")


def test_the_ceiling_holds() -> None:
    """Whatever it would gain, the limit does not pass the ceiling."""
    limit = auto(Fake(), ceiling=50)
    run(limit, 60, slots=10_000)
    assert limit.value == 50


@pytest.mark.parametrize(("most", "value", "least"), [(4096, 2048, 256), (50, 50, 1)])
def test_the_ceiling_is_of_each_server_and_the_machine_bounds_all(most: int, value: int, least: int) -> None:
    """Eight servers that could take more have 256 each, or share what this machine can hold."""
    servers = [Fake(f"http://{name}") for name in "abcdefgh"]
    limit, now = auto(*servers, most=most), 0.0
    for _ in range(10_000):
        now += 0.01
        for server in servers:
            limit.finished([attempt(server.endpoint)], full=True, now=now)
    assert limit.value == value >= sum(server.share for server in servers)
    assert all(least <= server.share <= 256 for server in servers)


def test_a_fixed_number_above_the_ceiling_keeps_its_connections(tmp_path: Path) -> None:
    """`concurrency: 8` with `max_concurrency: 2`: eight requests at a time over eight connections, turn after turn."""
    many = 8
    with answering_together(many) as server, ThreadPoolExecutor(many) as threads:
        settings = {"concurrency": many, "max_concurrency": 2}
        config = {"provider": "vllm", "vllm": {"base_url": server.url, "model": "m"}, "runner": settings}
        (tmp_path / "pipeline.yaml").write_text(json.dumps(config), encoding="utf-8")
        client = build_plan(load_config(tmp_path / "pipeline.yaml", environ={}), stop=threading.Event()).client
        endpoint = client.first.replicas[0].client.endpoint
        for _ in range(3):
            list(threads.map(lambda _: endpoint.get("/x", timeout_s=60), range(many)))
        assert server.accepts == many
        client.close()


def test_a_burst_of_refusals_counts_once() -> None:
    """Twenty refusals in one moment shrink the limit as one does; a later one shrinks it again."""
    limit = auto(Fake())
    now = run(limit, 60, slots=100)
    before = limit.value
    for _ in range(20):
        limit.finished([attempt(reason="overloaded")], full=True, now=now)
    assert (limit.value, limit.reason) == (int(before * 0.7), "server overloaded")
    limit.finished([attempt(reason="overloaded")], full=True, now=now + 10)
    assert limit.value == int(int(before * 0.7) * 0.7)


def test_a_number_that_was_too_many_is_not_reached_again_at_once() -> None:
    """The ceiling that a refusal showed is remembered for half a minute."""
    limit = auto(Fake())
    now = run(limit, 60, slots=1000)
    before = limit.value
    limit.finished([attempt(reason="overloaded")], full=True, now=now)
    run(limit, 25, slots=1000, start=now, latency_s=0.5)
    assert limit.value < before


def test_a_run_that_is_short_of_documents_does_not_climb() -> None:
    """A window in which the limit was not used says nothing about the server."""
    limit, now = auto(Fake()), 0.0
    for _ in range(1000):
        now += 0.1
        limit.finished([attempt()], full=False, now=now)
    assert limit.value == 4


def test_a_queue_that_the_server_tells_of_is_not_filled() -> None:
    """Ollama tells how long a request waited: of four in flight at one slot, three do."""
    limit, now = auto(Fake()), 0.0
    for number in range(40):
        now += 1.0
        waited_s = 0.0 if number == 0 else float(limit.value - 1)
        limit.finished([attempt(latency_s=waited_s + 1.0, queue_s=waited_s)], full=True, now=now)
    assert (limit.value, limit.reason) == (1, "requests queue at the server")


def test_requests_that_wait_at_vllm_make_it_fewer() -> None:
    """Its gauges say that half of them wait."""
    server = Fake(told=[Gauges(2.0, 2.0)] * 100)
    limit = auto(server)
    for number in range(20):
        limit.look([server], now=float(number))
        limit.follow([server])
        limit.finished([attempt()], full=True, now=float(number))
    assert limit.value <= 2


def test_servers_are_looked_at_once_a_second() -> None:
    """However often the prober comes by."""
    server = Fake(told=[Gauges(1.0, 0.0)] * 100)
    limit = auto(server)
    for number in range(101):
        limit.look([server], now=number / 8)
    assert len(server.told) == 100 - 13


def test_answers_that_come_near_the_timeout_make_it_fewer() -> None:
    """The timeout is a hard ceiling: more in flight would lose answers."""
    lane = AdaptiveLimit(256, timeout_s=10.0)
    for number in range(40):
        lane.answered(8.0, None, full=True, now=8.0 * number)
    assert lane.value < 4
    assert lane.reason == "latency near the timeout"


def test_a_timed_out_request_of_ollama_counts_until_another_did_not_wait() -> None:
    """It holds its slot still, for nobody."""
    lane = AdaptiveLimit(256)
    lane.answered(1.0, 0.0, full=True, now=1.0)
    lane.overloaded(timed_out=True, now=2.0)
    assert (lane.value, lane.allowed) == (2, 1)
    lane.answered(9.0, 8.0, full=True, now=10.0)
    assert lane.allowed == 1
    lane.answered(1.0, 0.0, full=True, now=11.0)
    assert lane.allowed == 2


def test_a_server_that_comes_back_has_its_number_still() -> None:
    """What was found out about a server is about that server: others begin at the start, and change nothing of it."""
    first, second = Fake("http://a"), Fake("http://b")
    limit = auto(first)
    run(limit, 60, slots=100)
    before = limit.value
    limit.follow([second])
    assert limit.value == 4
    limit.follow([first, second])
    assert (limit.value, first.share, second.share) == (before + 4, before, 4)


def test_no_server_is_one_document() -> None:
    """In an outage nothing is known, and nothing breaks."""
    limit = auto(Fake())
    limit.follow([])
    limit.finished([attempt("http://elsewhere")], full=True, now=1.0)
    assert limit.value == 1


@pytest.mark.parametrize("reason", ["rejected", "connection_error"])
def test_a_request_without_an_answer_tells_nothing_of_the_speed(reason: str) -> None:
    """A thousand refusals of documents in a second are no thousand answers a second."""
    limit = auto(Fake())
    for number in range(1000):
        limit.finished([attempt(reason=reason, latency_s=0.001)], full=True, now=number / 1000)
    assert limit.value == 4


def test_a_number_stays_what_the_user_set() -> None:
    """`runner.concurrency: 7` is 7, whatever the servers do."""
    limit = Fixed(7)
    servers: Sequence[Fake] = [Fake(told=[Gauges(1.0, 9.0)])]
    limit.finished([attempt(reason="overloaded")], full=True, now=1.0)
    limit.look(servers, now=1.0)
    limit.follow(servers)
    assert (limit.value, limit.reason, len(servers[0].told)) == (7, "set", 1)
