"""A provider of several servers: which one gets the next request, which is unavailable, and which has recovered."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fake_llm import FakeLLM, Fault, ReceivedRequest
from provider_setup import MODEL, Clock, only, provider_of, question, request_count
from raw_server import RawServer, refusing_url
from timing import until

from pipeline.llm.replica import FIRST_PAUSE_S, MAX_PAUSE_S, at_once


def test_least_busy_replica_gets_the_request() -> None:
    """The replica with the fewest requests in flight is next."""
    with FakeLLM() as a, FakeLLM() as b:
        provider = provider_of(a.url, b.url)
        provider.replicas[0].in_flight = 1
        for n in range(6):
            assert provider.ask(question(f"d{n}")).attempts[-1].ok
        assert (len(a.chats()), len(b.chats())) == (0, 6)
        assert [replica.in_flight for replica in provider.replicas] == [1, 0]


def test_requests_in_flight_are_spread_evenly() -> None:
    """Eight at a time on two servers are four on each."""
    with FakeLLM(latency_s=0.5) as a, FakeLLM(latency_s=0.5) as b, ThreadPoolExecutor(8) as threads:
        provider = provider_of(a.url, b.url)
        list(threads.map(lambda n: provider.ask(question(f"d{n}")), range(8)))
        assert (a.max_in_flight, b.max_in_flight) == (4, 4)


def test_ties_are_broken_at_random() -> None:
    """Sequential single requests reach every replica."""
    with FakeLLM() as a, FakeLLM() as b:
        provider = provider_of(a.url, b.url)
        for n in range(30):
            provider.ask(question(f"d{n}"))
        assert min(len(a.chats()), len(b.chats())) > 5


def test_dead_replica_is_marked_unavailable() -> None:
    """One refused connection is enough; every document is done by the others."""
    with FakeLLM() as alive:
        dead = refusing_url()
        provider = provider_of(dead, alive.url)
        outcome = [provider.ask(question(f"d{n}")) for n in range(20)]
        assert all(result.attempts[-1].ok for result in outcome)
        assert sum(len(result.attempts) - 1 for result in outcome) == 1
        assert [replica.state for replica in provider.replicas] == ["unavailable", "up"]
        assert provider.available
        assert provider.trouble is None


def test_replica_returns_after_its_pause() -> None:
    """It is used again after a preflight that starts no earlier than the end of the pause."""
    clock = Clock()
    with FakeLLM() as server:
        provider = provider_of(server.url, clock=clock)
        server.down()
        assert provider.ask(question("d")).unavailable
        server.up()
        provider.recover(at_once)
        assert provider.replicas[0].state == "unavailable"
        clock.now += 2 * FIRST_PAUSE_S
        provider.recover(at_once)
        assert provider.replicas[0].state == "up"
        assert provider.ask(question("d")).attempts[-1].ok


def test_pause_grows_with_probes_not_with_documents() -> None:
    """Many documents that fail at once are one outage."""
    clock = Clock()
    provider = provider_of(refusing_url(), clock=clock)
    (replica,) = provider.replicas
    replica.clients = {"default": Together(replica.client, 16)}
    with ThreadPoolExecutor(16) as threads:
        outcome = list(threads.map(lambda n: provider.ask(question(f"d{n}")), range(16)))
    assert all(result.unavailable for result in outcome)
    assert sum(len(result.attempts) for result in outcome) == 16
    assert replica.pause_s == 2 * FIRST_PAUSE_S
    pauses = []
    for _ in range(6):
        clock.now += 60
        provider.recover(at_once)
        pauses.append(replica.pause_s)
    assert pauses == [4.0, 8.0, 16.0, 30.0, 30.0, MAX_PAUSE_S]


def test_pause_is_jittered_and_reset_by_an_answer() -> None:
    """Parallel runs then do not probe together, and an earlier outage does not prolong a new one."""
    clock = Clock()
    with FakeLLM() as server:
        provider = provider_of(server.url, clock=clock)
        (replica,) = provider.replicas
        server.down()
        waits = []
        for _ in range(8):
            replica.check(full=False)
            waits.append(replica.retry_at - clock.now)
        assert replica.pause_s == MAX_PAUSE_S
        assert len({round(wait, 1) for wait in waits[-3:]}) == 3
        assert all(0.7 * MAX_PAUSE_S < wait < 1.3 * MAX_PAUSE_S for wait in waits[-3:])
        server.up()
        clock.now += 60
        provider.recover(at_once)
        assert (replica.state, replica.pause_s) == ("up", FIRST_PAUSE_S)


def test_hanging_replica_does_not_delay_another() -> None:
    """Each is probed separately: the healthy one returns while the probe of the other still waits."""
    with RawServer(lambda line: line.ended.wait()) as hanging, FakeLLM() as healthy, ThreadPoolExecutor(2) as threads:
        provider = provider_of(hanging.url, healthy.url)
        for replica in provider.replicas:
            replica.quarantine()
        provider.retry_within(0.0)
        provider.recover(lambda body, _name: threads.submit(body))
        until(lambda: provider.replicas[1].state == "up")
        assert (provider.replicas[0].state, provider.replicas[0].is_checking) == ("unavailable", True)
        provider.recover(lambda *_: pytest.fail("it is looked at already"))
        hanging.__exit__()
    assert not provider.replicas[0].is_checking


class Together:
    """A client whose requests leave together, as soon as this many threads have one."""

    def __init__(self, client: Any, threads: int) -> None:
        self._client, self._barrier = client, threading.Barrier(threads, timeout=60)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def call_llm(self, prompts: Any, json_schema: Any, document_text: str) -> Any:
        """Wait for the others, then call the client."""
        self._barrier.wait()
        return self._client.call_llm(prompts, json_schema, document_text)


def test_outage_returns_the_document_without_a_loss() -> None:
    """All replicas are unavailable."""
    with FakeLLM() as a, FakeLLM() as b:
        provider = provider_of(a.url, b.url)
        a.down()
        b.down()
        outcome = provider.ask(question("d"))
        assert (outcome.unavailable, outcome.losses) == (True, 0)
        assert not provider.available
        assert provider.trouble is not None
        assert provider.ask(question("d")).attempts == ()


def test_draining_server_is_an_outage() -> None:
    """Its health page answers 200, but the tiny completion fails."""
    clock = Clock()
    with FakeLLM() as server:
        provider = provider_of(server.url, clock=clock)
        server.draining = True
        outcome = provider.ask(question("d"))
        assert (outcome.unavailable, outcome.losses, provider.available) == (True, 0, False)
        server.draining = False
        clock.now += 60
        provider.recover(at_once)
        assert provider.ask(question("d")).attempts[-1].ok


def test_no_back_off_when_no_replica_is_left() -> None:
    """It would only occupy the worker."""
    slept: list[float] = []
    provider_of(refusing_url(), sleep=slept.append).ask(question("d"))
    assert slept == []


def test_changed_key_is_read_again_after_a_401(tmp_path: Path) -> None:
    """The document is then sent once more."""
    file = tmp_path / "key"
    file.write_text("old")
    with FakeLLM(api_key="old") as server:
        provider = provider_of(server.url, api_key_file=str(file))
        assert provider.ask(question("a")).attempts[-1].ok
        server.api_key = "new"
        file.write_text("new\n")
        outcome = provider.ask(question("b"))
        assert (outcome.unavailable, outcome.attempts[-1].reason) == (True, "unauthorized")
        assert provider.ask(question("b")).attempts[-1].ok


def test_wrong_key_marks_the_replica_misconfigured() -> None:
    """A new preflight confirms it, and no document fails."""
    with FakeLLM(api_key="right") as server:
        provider = provider_of(server.url, api_key="wrong")
        assert provider.ask(question("d")).unavailable
        assert provider.replicas[0].state == "misconfigured"


def test_configuration_error_of_one_document_fails_only_it() -> None:
    """The preflight passes twice, so the document fails on its second request."""
    with FakeLLM(faults=only("bad", "http_404_model")) as server:
        provider = provider_of(server.url)
        outcome = provider.ask(question("bad"))
        assert (outcome.unavailable, [attempt.reason for attempt in outcome.attempts]) == (
            False,
            ["model_not_found"] * 2,
        )
        assert provider.ask(question("good")).attempts[-1].ok


def test_concurrent_liveness_checks_are_shared() -> None:
    """Twelve documents that fail together cost far fewer than twelve tiny completions each."""
    barrier = threading.Barrier(12, timeout=60)
    with FakeLLM() as server, ThreadPoolExecutor(12) as threads:
        provider = provider_of(server.url, sleep=lambda _: barrier.wait() and None, max_retries=1)
        server.draining = True
        list(threads.map(lambda n: provider.ask(question(f"d{n}")), range(12)))
        tiny = [chat for chat in server.chats() if "[[doc:" not in chat.body["messages"][-1]["content"]]
        assert len(tiny) <= 3


def test_preflight_capabilities_reach_every_client() -> None:
    """Attempts of clients without a preflight of their own have the server's context as well."""
    with FakeLLM(context=4096) as server:
        provider = provider_of(server.url)
        assert provider.examine(provider.replicas[0]).context_length == 4096
        attempt = provider.ask(question("d")).attempts[-1]
        assert (attempt.context_length, attempt.model.name) == (4096, MODEL)


@pytest.mark.parametrize("fault", ["empty_content", "html_200", "huge"])
def test_malformed_reply_needs_no_liveness_check(fault: str) -> None:
    """The document fails by itself; a tiny completion would be refused here."""
    with FakeLLM(faults=lambda request, _n: Fault(fault if request.document == "bad" else "http_503")) as server:
        provider = provider_of(server.url, max_retries=1)
        outcome = provider.ask(question("bad"))
        assert (outcome.unavailable, outcome.losses, len(outcome.attempts)) == (False, 0, 2)
        assert provider.available
        assert [chat.document for chat in server.chats()] == ["bad"] * 2


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_poisoned_document_costs_only_its_retries(retries: int) -> None:
    """It fails while others are done, and also when only such documents are left."""
    with FakeLLM(faults=only("bad", "http_503")) as server:
        provider = provider_of(server.url, max_retries=retries)
        for _ in range(2):
            outcome = provider.ask(question("bad"))
            assert (outcome.unavailable, outcome.losses) == (False, 0)
            assert [attempt.error for attempt in outcome.attempts] == ["http_503"] * (retries + 1)
        assert request_count(server, "bad") == 2 * (retries + 1)
        assert provider.ask(question("good")).attempts[-1].ok
        assert provider.available


def test_timeout_is_retried_once() -> None:
    """It is two requests, whatever `max_retries` is."""
    with FakeLLM(faults=only("slow", "hang")) as server:
        outcome = provider_of(server.url, timeout=1.0).ask(question("slow"))
        assert (outcome.unavailable, [attempt.error for attempt in outcome.attempts]) == (False, ["timeout"] * 2)
        assert request_count(server, "slow") == 2


def test_back_off_is_jittered_or_follows_retry_after() -> None:
    """It is up to 1, 2, 4 seconds, or the value of Retry-After."""
    slept: list[float] = []
    with FakeLLM(faults=only("bad", "http_500")) as server:
        provider_of(server.url, sleep=slept.append).ask(question("bad"))
    assert len(slept) == 3
    assert all(0 <= seconds <= ceiling for seconds, ceiling in zip(slept, (1, 2, 4), strict=True))
    slept.clear()
    with FakeLLM(faults=only("bad", "http_429")) as server:
        provider_of(server.url, sleep=slept.append).ask(question("bad"))
    assert slept == [1.0, 1.0, 1.0]


def test_stop_in_a_back_off_returns_the_document() -> None:
    """A shutdown is no failure of the document."""
    with FakeLLM(faults=only("bad", "http_500")) as server:
        outcome = provider_of(server.url, sleep=lambda _: True).ask(question("bad"))
        assert (outcome.unavailable, len(outcome.attempts)) == (True, 1)


def test_full_queue_is_no_outage() -> None:
    """A liveness check that is refused while another request is in progress keeps the server available."""
    arrived = threading.Event()

    def gateway(request: ReceivedRequest, _n: int) -> Fault | None:
        if request.document == "long":
            arrived.set()
            return None
        return Fault("http_503") if arrived.is_set() else None

    with FakeLLM(latency_s=1.0, faults=gateway) as server, ThreadPoolExecutor(1) as threads:
        provider = provider_of(server.url, max_retries=1)
        provider.ask(question("first"))
        long = threads.submit(provider.ask, question("long"))
        assert arrived.wait(60)
        outcome = provider.ask(question("refused"))
        assert (outcome.unavailable, outcome.losses, provider.available) == (True, 0, True)
        assert long.result().attempts[-1].ok
