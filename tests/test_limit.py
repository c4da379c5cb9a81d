"""The limit that finds itself, against a server model with so many slots."""

from __future__ import annotations

import pytest

from pipeline.limit import Auto, Fixed
from pipeline.records import ExtractionAttempt, ModelMetadata

MODEL = ModelMetadata("vllm", "m")
ANSWER = ExtractionAttempt(MODEL, raw_text="{}")
REFUSED = ExtractionAttempt(MODEL, error="http_503", reason="overloaded")


def settled(slots: int, *, service_s: float = 0.2, documents: int = 20000, ceiling: int = 256) -> Auto:
    """The limit after so many documents on a server that works on `slots` at a time and queues the rest."""
    now = 0.0
    limit = Auto(servers=("http://a",), ceiling=ceiling, now=now)
    for _ in range(documents):
        now += service_s / min(limit.value, slots)
        limit.finished([ANSWER], in_flight=limit.value, now=now)
    return limit


@pytest.mark.parametrize("slots", [8, 32, 100, 200])
def test_the_limit_climbs_to_what_the_server_can_use(slots: int) -> None:
    """A server with many slots is filled, and not buried under many times more."""
    assert 0.7 * slots <= settled(slots).value <= 2.6 * slots


def test_a_server_that_works_on_one_at_a_time_gets_no_long_queue() -> None:
    """More in flight brings nothing, so the limit stays near where it started."""
    limit = settled(1)
    assert limit.value <= 8
    assert limit.reason in ("more in flight brings no more answers", "climbing")


def test_the_ceiling_holds() -> None:
    """Whatever it would gain, the limit does not pass the ceiling."""
    assert settled(10_000, ceiling=50).value == 50


def test_a_burst_of_refusals_counts_once() -> None:
    """Twenty refusals in one moment shrink the limit as one does; a later one shrinks it again."""
    limit = settled(100)
    before, now = limit.value, 1e6
    for _ in range(20):
        limit.finished([REFUSED], in_flight=before, now=now)
    assert limit.value == int(before * 0.7)
    limit.finished([REFUSED], in_flight=before, now=now + 10)
    assert limit.value == int(int(before * 0.7) * 0.7)


def test_a_run_that_is_short_of_documents_does_not_climb() -> None:
    """A window in which the limit was not used says nothing about the server."""
    limit, now = Auto(servers=("http://a",), ceiling=256, now=0.0), 0.0
    for _ in range(1000):
        now += 0.1
        limit.finished([ANSWER], in_flight=1, now=now)
    assert limit.value == 4


def test_a_number_stays_what_the_user_set() -> None:
    """`runner.concurrency: 7` is 7, whatever the server does."""
    limit = Fixed(7)
    limit.finished([REFUSED], in_flight=7, now=1.0)
    assert limit.value == 7


def test_other_servers_are_found_out_anew() -> None:
    """What the first server could do says nothing of the next ones; the same ones again change nothing."""
    limit = settled(100)
    before = limit.value
    limit.follow(("http://a",), now=1.0)
    assert limit.value == before > 8
    limit.follow(("http://b", "http://c"), now=2.0)
    assert (limit.value, limit.reason) == (8, "start")
    fixed = Fixed(7)
    fixed.follow(("http://b",), now=3.0)
    assert fixed.value == 7
