"""Documents that take their server down: told apart from bad luck, and never sent for ever."""

from __future__ import annotations

import threading

import pytest
from asking import asked_for, only, provider_of, question
from fake_llm import FakeLLM, Fault, Seen
from raw_server import RawServer, reply

from pipeline.llm.provider import LOSSES_BEFORE_ALONE, Provider


def test_three_losses_give_the_document_back_to_be_sent_alone() -> None:
    """Each time the connection ended over the work, and nothing else lived through it."""
    with FakeLLM(faults=only("bad", "reset")) as server:
        asked = provider_of(server.url).ask(question("bad"))
        assert (asked.unavailable, asked.losses, len(asked.attempts)) == (True, LOSSES_BEFORE_ALONE, 3)


@pytest.mark.parametrize("before", [1, 2])
def test_losses_of_earlier_asks_count(before: int) -> None:
    """A document keeps its losses when it is given back."""
    with FakeLLM(faults=only("bad", "close")) as server:
        asked = provider_of(server.url).ask(question("bad", losses=before))
        assert (asked.unavailable, asked.losses) == (True, LOSSES_BEFORE_ALONE - before)


def test_alone_one_loss_is_the_end() -> None:
    """Nothing else was in flight, so nothing else is to blame."""
    with FakeLLM(faults=only("bad", "reset")) as server:
        asked = provider_of(server.url).ask(question("bad", alone=True))
        assert (asked.unavailable, asked.losses, asked_for(server, "bad")) == (True, 1, 1)


def test_a_document_that_others_live_through_is_poisoned() -> None:
    """A request that was in flight at that moment is done: no server was lost, and the retries decide."""
    with FakeLLM(latency_s=0.3) as server, Bystander(server, fault="reset") as good:
        provider = provider_of(server.url, sleep=good.wait_for)
        good.ask(provider)
        # asked once in the other's company: after that a loss is its own
        asked = provider.ask(question("bad", losses=2))
        assert asked.attempts[0].lost
        assert len(asked.attempts) > 1


def test_a_bystander_on_another_replica_proves_nothing() -> None:
    """Each server that dies over a document is a loss, however well the others do."""
    with FakeLLM(restart_s=30.0) as a, FakeLLM(latency_s=0.3, restart_s=30.0) as b, Bystander(b, fault="kill") as good:
        a.faults = only("bad", "kill")
        provider = provider_of(a.url, b.url, sleep=good.wait_for)
        provider.replicas[0].in_flight = 1
        good.ask(provider)
        provider.replicas[0].in_flight = 0
        asked = provider.ask(question("bad"))
        assert (asked.unavailable, asked.losses, provider.available) == (True, 2, False)


class Bystander:
    """A good document in flight at a server while the bad one is asked; the bad one meets `fault` there."""

    def __init__(self, server: FakeLLM, *, fault: str) -> None:
        self._arrived, self._done = threading.Event(), threading.Event()
        strikes = only("bad", fault)

        def faults(seen: Seen, n: int) -> Fault | None:
            if seen.document == "good":
                self._arrived.set()
            return strikes(seen, n)

        server.faults = faults

    def __enter__(self) -> Bystander:
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leaves nothing in flight."""
        assert self._done.wait(60)

    def ask(self, provider: Provider) -> None:
        """Asks about the good document in a thread; returns when the server has it."""
        threading.Thread(target=self._ask, args=(provider,), daemon=True).start()
        assert self._arrived.wait(60)

    def _ask(self, provider: Provider) -> None:
        provider.ask(question("good"))
        self._done.set()

    def wait_for(self, _: float) -> None:
        """A back-off that lasts until the good document is done."""
        assert self._done.wait(60)


@pytest.mark.parametrize("retries", [0, 3])
def test_a_server_that_is_killed_is_a_loss_and_an_outage(retries: int) -> None:
    """The document goes back with its loss, however few retries it has: else it would kill servers for ever."""
    with FakeLLM(faults=only("bad", "kill"), restart_s=30.0) as server:
        provider = provider_of(server.url, max_retries=retries)
        asked = provider.ask(question("bad"))
        assert (asked.unavailable, asked.losses) == (True, 1)
        assert not provider.available


def test_a_server_that_dies_over_a_kept_connection_is_a_loss() -> None:
    """It looks like one that was closed while idle, but then there is nobody to send it to again."""
    with FakeLLM(faults=only("bad", "kill"), restart_s=30.0) as server:
        provider = provider_of(server.url)
        assert provider.ask(question("good")).attempts[-1].ok
        asked = provider.ask(question("bad"))
        assert (asked.unavailable, asked.losses, provider.available) == (True, 1, False)


def dying(*, afterwards: bytes) -> RawServer:
    """A server that says to each document that its engine died, and this to tiny completions."""
    last_words = reply({"error": {"message": "EngineCore encountered an issue. See stack trace", "code": 500}}, 500)

    def talk(line: object) -> None:
        while (got := line.read()) is not None:  # type: ignore[attr-defined]
            line.send(last_words if b"[[doc:" in got.body else afterwards)  # type: ignore[attr-defined]

    return RawServer(talk)


def test_last_words_of_a_dead_engine_are_a_loss() -> None:
    """vLLM answers 500 to what it worked on and is gone: that counts like a closed connection."""
    with dying(afterwards=reply({"error": "EngineDeadError"}, 500)) as server:
        asked = provider_of(server.url).ask(question("bad"))
        assert (asked.unavailable, asked.losses) == (True, 1)


def test_last_words_of_an_engine_that_lives_on_are_a_server_error() -> None:
    """The tiny completion succeeds, so the retries decide as for any other 500."""
    message = {"role": "assistant", "content": "ok"}
    alive = reply({"choices": [{"message": message, "finish_reason": "stop"}]})
    with dying(afterwards=alive) as server:
        asked = provider_of(server.url).ask(question("bad"))
        assert (asked.unavailable, asked.losses, len(asked.attempts)) == (False, 0, 4)


@pytest.mark.parametrize("retries", [0, 3])
def test_a_server_that_hangs_for_good_is_lost(retries: int) -> None:
    """Not even a tiny completion comes back: without a loss the document would wedge servers for ever."""
    with FakeLLM(faults=lambda _seen, _n: Fault("hang")) as server:
        asked = provider_of(server.url, max_retries=retries, timeout=0.3).ask(question("bad"))
        assert (asked.unavailable, asked.losses, len(asked.attempts)) == (True, 1, 1)


def test_a_timeout_of_a_server_that_lives_is_no_loss() -> None:
    """The tiny completion succeeds: the document takes too long, and its retries decide."""
    with FakeLLM(faults=only("bad", "hang")) as server:
        asked = provider_of(server.url, timeout=1.0).ask(question("bad"))
        assert (asked.unavailable, asked.losses, len(asked.attempts)) == (False, 0, 2)
