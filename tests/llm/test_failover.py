"""Failover: which provider gets the next request, and why."""

from __future__ import annotations

import logging

import pytest
from fake_llm import FakeLLM
from provider_setup import MODEL, Clock, failover_of, only, question, request_count
from raw_server import refusing_url

from pipeline.llm.replica import at_once


def test_first_provider_answers_while_available() -> None:
    """The fallback gets no request."""
    with FakeLLM() as first, FakeLLM() as second:
        outcome = failover_of((first.url,), second=second.url).ask(question("d"))
        assert [attempt.model.provider for attempt in outcome.attempts] == ["vllm"]
        assert second.chats() == []


def test_unavailable_provider_is_skipped() -> None:
    """Each attempt names its provider; later requests go to the fallback at once."""
    with FakeLLM() as second:
        failover = failover_of((refusing_url(),), second=second.url)
        outcome = failover.ask(question("a"))
        assert [(attempt.model.provider, attempt.ok) for attempt in outcome.attempts] == [
            ("vllm", False),
            ("ollama", True),
        ]
        assert (outcome.unavailable, failover.available) == (False, True)
        assert [attempt.model.provider for attempt in failover.ask(question("b")).attempts] == ["ollama"]


def test_requests_return_to_the_first_provider() -> None:
    """They return as soon as one of its replicas answers again."""
    clock = Clock()
    with FakeLLM() as first, FakeLLM() as second:
        failover = failover_of((first.url,), second=second.url, clock=clock)
        first.down()
        assert failover.ask(question("a")).attempts[-1].model.provider == "ollama"
        first.up()
        clock.now += 60
        failover.recover(at_once)
        assert failover.ask(question("b")).attempts[-1].model.provider == "vllm"


def test_each_switch_is_logged_with_old_and_new_provider(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged at INFO in both directions, with models and variant."""
    caplog.set_level(logging.INFO, logger="pipeline.llm.failover")
    clock = Clock()
    with FakeLLM() as first, FakeLLM(("the-other",)) as second:
        failover = failover_of((first.url,), second=second.url, clock=clock)
        failover.providers[1].replicas[0].client.adopt(model="the-other", think=None, digest=None)
        first.down()
        failover.ask(question("a"))
        failover.recover(at_once)
        first.up()
        clock.now += 60
        for _ in range(3):
            failover.recover(at_once)
    records = [vars(record) for record in caplog.records if record.message == "provider switched"]
    keys = ("levelname", "old_provider", "new_provider", "old_model", "new_model", "variant")
    assert [tuple(fields[key] for key in keys) for fields in records] == [
        ("INFO", "vllm", "ollama", MODEL, "the-other", "default"),
        ("INFO", "ollama", "vllm", "the-other", MODEL, "default"),
    ]


def test_configuration_error_moves_to_the_fallback() -> None:
    """A refused key does not stop the run while another provider works."""
    with FakeLLM(api_key="right") as first, FakeLLM() as second:
        outcome = failover_of((first.url,), second=second.url, api_key="wrong").ask(question("d"))
        assert [attempt.reason for attempt in outcome.attempts] == ["unauthorized", None]
        assert outcome.attempts[-1].model.provider == "ollama"


@pytest.mark.parametrize(("fault", "requests"), [("context", 1), ("http_413", 2), ("http_400", 2)])
def test_document_error_does_not_move_to_the_fallback(fault: str, requests: int) -> None:
    """The document would fail at every provider."""
    with FakeLLM(faults=only("bad", fault)) as first, FakeLLM() as second:
        outcome = failover_of((first.url,), second=second.url).ask(question("bad"))
        assert (outcome.unavailable, len(outcome.attempts), second.chats()) == (False, requests, [])


@pytest.mark.parametrize("fault", ["truncated", "invalid_json", "repetition"])
def test_answer_error_does_not_move_to_the_fallback(fault: str) -> None:
    """The model has answered."""
    with FakeLLM(faults=only("bad", fault)) as first, FakeLLM() as second:
        outcome = failover_of((first.url,), second=second.url).ask(question("bad"))
        assert (outcome.unavailable, len(outcome.attempts), second.chats()) == (False, 1, [])


def test_failing_document_is_tried_at_each_provider() -> None:
    """Each provider gets at most `max_retries` + 1 requests."""
    with FakeLLM(faults=only("bad", "http_503")) as first, FakeLLM(faults=only("bad", "http_503")) as second:
        outcome = failover_of((first.url,), second=second.url, max_retries=2).ask(question("bad"))
        assert (outcome.unavailable, outcome.losses) == (False, 0)
        assert [attempt.model.provider for attempt in outcome.attempts] == ["vllm"] * 3 + ["ollama"] * 3
        assert (request_count(first, "bad"), request_count(second, "bad")) == (3, 3)


def test_document_that_killed_a_server_is_not_sent_to_the_fallback() -> None:
    """It must not take down the next provider as well."""
    with FakeLLM(faults=only("bad", "kill"), restart_s=30.0) as first, FakeLLM() as second:
        outcome = failover_of((first.url,), second=second.url).ask(question("bad"))
        assert (outcome.unavailable, outcome.losses, second.chats()) == (True, 1, [])


def test_document_is_returned_if_all_providers_are_unavailable() -> None:
    """An outage is not the document's fault, and may end."""
    failover = failover_of((refusing_url(),), second=refusing_url())
    outcome = failover.ask(question("d"))
    assert (outcome.unavailable, outcome.losses, failover.available) == (True, 0, False)
    assert failover.trouble is not None
    assert failover.trouble.dead_end is False
    assert failover.trouble.message.count("connection_error") == 2
    assert failover.ask(question("d")).attempts == ()


def test_all_providers_refusing_the_settings_is_a_configuration_error() -> None:
    """The message names each provider, its endpoint and its error, but no key."""
    with FakeLLM(("other",)) as first, FakeLLM(("another",)) as second:
        failover = failover_of((first.url,), second=second.url, api_key="sk-secret")
        assert failover.ask(question("d")).unavailable
        trouble = failover.trouble
    assert trouble is not None
    assert trouble.dead_end is True
    assert f"vllm ({first.url}): model 'llama3.1:latest' is not available; the server has 'other'" in trouble.message
    assert f"ollama ({second.url}): model 'llama3.1:latest' is not available" in trouble.message
    assert "sk-secret" not in trouble.message


def test_long_use_of_the_fallback_is_explained(caplog: pytest.LogCaptureFixture) -> None:
    """After a minute, and every ten minutes, a warning says why the first provider is not used, until it is back."""
    clock = Clock()
    with FakeLLM() as first, FakeLLM() as second:
        failover = failover_of((first.url,), second=second.url, clock=clock)
        first.down()
        failover.ask(question("a"))
        for seconds in (0, 50, 11, 300, 299, 2):
            clock.now += seconds
            failover.recover(at_once)
        first.up()
        clock.now += 600
        failover.recover(at_once)
        failover.recover(at_once)
    messages = [record.getMessage() for record in caplog.records if "is still unavailable" in record.getMessage()]
    assert len(messages) == 2
    assert messages[0].startswith("provider vllm is still unavailable, the fallback ollama answers: vllm (http://")
    assert "refused" in messages[0]


def test_empty_model_follows_a_renamed_model() -> None:
    """With an empty `model` a server may come back with another single model."""
    clock = Clock()
    with FakeLLM(("one",)) as server:
        failover = failover_of((server.url,), clock=clock, model="")
        failover.first_provider.examine(failover.first_provider.replicas[0])
        assert failover.ask(question("a")).attempts[-1].model.name == "one"
        server.down()
        assert failover.ask(question("b")).unavailable
        with FakeLLM(("two",), port=server.port):
            clock.now += 60
            failover.recover(at_once)
            assert failover.ask(question("b")).attempts[-1].model.name == "two"


def test_change_from_outage_to_refused_key_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The server is back and refuses the settings."""
    clock = Clock()
    with FakeLLM(api_key="right") as server:
        failover = failover_of((server.url,), clock=clock, api_key="right")
        server.down()
        assert failover.ask(question("a")).unavailable
        server.api_key = "wrong"
        server.up()
        clock.now += 60
        failover.recover(at_once)
        failover.recover(at_once)
    messages = [record.getMessage() for record in caplog.records if " unavailable: " in record.getMessage()]
    assert len(messages) == 2
    assert messages[1].startswith("server still unavailable: ")
    assert "401" in messages[1]
