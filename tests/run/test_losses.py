"""A document that crashes its server is distinguished from a chance failure, and is not sent without end."""

from __future__ import annotations

import threading

import pytest
from fake_llm import FakeLLM, Fault, ReceivedRequest
from provider_setup import only, provider_of, question, request_count
from raw_server import RawServer, reply

from pipeline.llm.provider import LOSSES_BEFORE_ALONE, Provider


def test_three_lost_servers_return_the_document_to_be_sent_alone() -> None:
    """Each time the connection broke during the request and no other request survived."""
    with FakeLLM(faults=only("bad", "reset")) as server:
        outcome = provider_of(server.url).ask(question("bad"))
        assert (outcome.unavailable, outcome.losses, len(outcome.attempts)) == (True, LOSSES_BEFORE_ALONE, 3)


@pytest.mark.parametrize("before", [1, 2])
def test_losses_of_earlier_requests_count(before: int) -> None:
    """A document keeps its loss count when it is returned."""
    with FakeLLM(faults=only("bad", "close")) as server:
        outcome = provider_of(server.url).ask(question("bad", losses=before))
        assert (outcome.unavailable, outcome.losses) == (True, LOSSES_BEFORE_ALONE - before)


def test_one_loss_while_alone_fails_the_document() -> None:
    """No other request was in flight, so this document is the cause."""
    with FakeLLM(faults=only("bad", "reset")) as server:
        outcome = provider_of(server.url).ask(question("bad", alone=True))
        assert (outcome.unavailable, outcome.losses, request_count(server, "bad")) == (True, 1, 1)


def test_failure_that_others_survive_is_not_a_lost_server() -> None:
    """A request in flight at that moment succeeds, so the normal retries decide."""
    with FakeLLM(latency_s=0.3) as server, Bystander(server, fault="reset") as good:
        provider = provider_of(server.url, sleep=good.wait_for)
        good.ask(provider)
        # sent once beside the other document: a loss after that is its own
        outcome = provider.ask(question("bad", losses=2))
        assert outcome.attempts[0].lost
        assert len(outcome.attempts) > 1


def test_success_on_another_replica_does_not_clear_a_loss() -> None:
    """Each replica that dies over a document counts as a loss, however well the others do."""
    with FakeLLM(restart_s=30.0) as a, FakeLLM(latency_s=0.3, restart_s=30.0) as b, Bystander(b, fault="kill") as good:
        a.faults = only("bad", "kill")
        provider = provider_of(a.url, b.url, sleep=good.wait_for)
        provider.replicas[0].in_flight = 1
        good.ask(provider)
        provider.replicas[0].in_flight = 0
        outcome = provider.ask(question("bad"))
        assert (outcome.unavailable, outcome.losses, provider.available) == (True, 2, False)


class Bystander:
    """A good document in flight at a server while the bad one is sent; the bad one meets `fault` there."""

    def __init__(self, server: FakeLLM, *, fault: str) -> None:
        self._arrived, self._done = threading.Event(), threading.Event()
        strikes = only("bad", fault)

        def faults(request: ReceivedRequest, n: int) -> Fault | None:
            if request.document == "good":
                self._arrived.set()
            return strikes(request, n)

        server.faults = faults

    def __enter__(self) -> Bystander:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for the good document."""
        assert self._done.wait(60)

    def ask(self, provider: Provider) -> None:
        """Send the good document in a thread; return when the server has received it."""
        threading.Thread(target=self._ask, args=(provider,), daemon=True).start()
        assert self._arrived.wait(60)

    def _ask(self, provider: Provider) -> None:
        provider.ask(question("good"))
        self._done.set()

    def wait_for(self, _: float) -> None:
        """Serve as the back-off: wait until the good document is done."""
        assert self._done.wait(60)


@pytest.mark.parametrize("retries", [0, 3])
def test_killed_server_is_a_loss_and_an_outage(retries: int) -> None:
    """The document is returned with its loss, even with few retries left, or it would kill servers for ever."""
    with FakeLLM(faults=only("bad", "kill"), restart_s=30.0) as server:
        provider = provider_of(server.url, max_retries=retries)
        outcome = provider.ask(question("bad"))
        assert (outcome.unavailable, outcome.losses) == (True, 1)
        assert not provider.available


def test_server_death_on_a_reused_connection_is_a_loss() -> None:
    """It looks like a connection closed while idle, but no server is left for the immediate retry."""
    with FakeLLM(faults=only("bad", "kill"), restart_s=30.0) as server:
        provider = provider_of(server.url)
        assert provider.ask(question("good")).attempts[-1].ok
        outcome = provider.ask(question("bad"))
        assert (outcome.unavailable, outcome.losses, provider.available) == (True, 1, False)


def dying(*, afterwards: bytes) -> RawServer:
    """A server that answers each document with an engine error, and tiny completions with `afterwards`."""
    last_words = reply({"error": {"message": "EngineCore encountered an issue. See stack trace", "code": 500}}, 500)

    def talk(line: object) -> None:
        while (request := line.read()) is not None:  # type: ignore[attr-defined]
            line.send(last_words if b"[[doc:" in request.body else afterwards)  # type: ignore[attr-defined]

    return RawServer(talk)


def test_500_from_a_dying_vllm_engine_is_a_loss() -> None:
    """vLLM answers 500 to the requests in progress and exits: that counts like a closed connection."""
    with dying(afterwards=reply({"error": "EngineDeadError"}, 500)) as server:
        outcome = provider_of(server.url).ask(question("bad"))
        assert (outcome.unavailable, outcome.losses) == (True, 1)


def test_500_from_a_surviving_engine_is_a_server_error() -> None:
    """The tiny completion succeeds, so the retries decide as for any other 500."""
    message = {"role": "assistant", "content": "ok"}
    alive = reply({"choices": [{"message": message, "finish_reason": "stop"}]})
    with dying(afterwards=alive) as server:
        outcome = provider_of(server.url).ask(question("bad"))
        assert (outcome.unavailable, outcome.losses, len(outcome.attempts)) == (False, 0, 4)


@pytest.mark.parametrize("retries", [0, 3])
def test_hanging_server_is_a_loss(retries: int) -> None:
    """A tiny completion hangs as well; without a loss the document would hang servers for ever."""
    with FakeLLM(faults=lambda _seen, _n: Fault("hang")) as server:
        outcome = provider_of(server.url, max_retries=retries, timeout=0.3).ask(question("bad"))
        assert (outcome.unavailable, outcome.losses, len(outcome.attempts)) == (True, 1, 1)


def test_timeout_of_a_responsive_server_is_no_loss() -> None:
    """The tiny completion succeeds, so the document itself takes too long and the retries decide."""
    with FakeLLM(faults=only("bad", "hang")) as server:
        outcome = provider_of(server.url, timeout=1.0).ask(question("bad"))
        assert (outcome.unavailable, outcome.losses, len(outcome.attempts)) == (False, 0, 2)
