"""Retries: how long to wait, how often to retry, and when not to."""

from __future__ import annotations

import random
from email.utils import formatdate
from typing import Any

import pytest
import responses
from hypothesis import given, settings
from hypothesis import strategies as st
from test_clients import CHATS, KINDS, PROMPTS, body_of, client_of

from pipeline.config import OllamaConfig, VLLMConfig
from pipeline.errors import REASONS, is_retryable
from pipeline.llm.protocol import retry_after_s
from pipeline.llm.retry import RetryPolicy, call_with_retries
from pipeline.records import ExtractionAttempt, ModelMetadata

POLICY = RetryPolicy(max_retries=3, base_delay_s=1.0, max_delay_s=30.0, multiplier=2.0)
NOW = 1_800_000_000.0


def failed(reason: str = "server_error", **more: Any) -> ExtractionAttempt:
    return ExtractionAttempt(ModelMetadata("vllm", "m"), error="x", reason=reason, **more)


class Top(random.Random):
    """A random generator that always returns the largest value."""

    def uniform(self, a: float, b: float) -> float:
        return b


def test_policy_has_the_settings_of_its_provider() -> None:
    """There are five settings, equal for both kinds of provider."""
    settings: Any = {"max_retries": 5, "retry_base_delay": 0.5, "retry_max_delay": 9.0, "retry_backoff_multiplier": 3.0}
    for config in (VLLMConfig(**settings), OllamaConfig(**settings)):
        assert RetryPolicy.of(config) == RetryPolicy(5, 0.5, 9.0, 3.0)


def test_back_off_doubles_up_to_its_cap() -> None:
    """The ceilings are 1, 2, 4, … seconds."""
    delays = [POLICY.delay_s([failed()] * n, Top()) for n in range(1, 8)]
    assert delays == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


@settings(deadline=None)
@given(n=st.integers(1, 50), seed=st.integers())
def test_delay_is_between_zero_and_the_ceiling(n: int, seed: int) -> None:
    """Clients then do not return at the same time."""
    ceiling = min(30.0, 2.0 ** (n - 1))
    assert 0.0 <= POLICY.delay_s([failed()] * n, random.Random(seed)) <= ceiling


def test_delays_reach_both_ends_of_the_range() -> None:
    """Of many delays some are close to zero and some close to the ceiling."""
    rng = random.Random(7)
    delays = [POLICY.delay_s([failed()] * 5, rng) for _ in range(300)]
    assert min(delays) < 1.0
    assert max(delays) > 15.0


@pytest.mark.parametrize(("asked_s", "delay_s"), [(0.0, 0.0), (7.0, 7.0), (3600.0, 30.0)])
def test_retry_after_is_respected_up_to_the_cap(asked_s: float, delay_s: float) -> None:
    """It has no jitter."""
    assert POLICY.delay_s([failed(), failed("overloaded", retry_after_s=asked_s)], Top()) == delay_s


def test_only_the_last_retry_after_counts() -> None:
    """An earlier one does not prolong the wait."""
    assert POLICY.delay_s([failed("overloaded", retry_after_s=9.0), failed()], Top()) == 2.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 5 ", 5.0),
        (formatdate(NOW + 90, usegmt=True), 90.0),
        (formatdate(NOW - 90, usegmt=True), 0.0),
        ("", None),
        (None, None),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("²", None),
        ("Fri, 99 Foo 2027 00:00:00 GMT", None),
        ("9" * 400, 999999999.0),
    ],
)
def test_retry_after_accepts_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    """By RFC 9110; any other value is ignored."""
    assert retry_after_s(value, now=lambda: NOW) == seconds


@settings(deadline=None)
@given(st.text(max_size=40))
def test_any_retry_after_value_is_parsed_without_error(value: str) -> None:
    """This holds for any header value."""
    result = retry_after_s(value, now=lambda: NOW)
    assert result is None or result >= 0


@pytest.mark.parametrize("kind", KINDS)
def test_attempt_has_the_retry_after_of_its_reply(kind: str) -> None:
    """Both clients set it."""
    with responses.RequestsMock() as wire:
        wire.post(CHATS[kind], status=429, json={"error": "slow"}, headers={"Retry-After": "12"})
        attempt = client_of(kind).call_llm(PROMPTS, None, "x")
    assert (attempt.reason, attempt.retry_after_s) == ("overloaded", 12.0)


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_only_backend_failures_are_retried(reason: str) -> None:
    """The table of reasons alone decides."""
    assert POLICY.allows([failed(reason)]) is is_retryable(reason)


def test_requests_are_limited_to_max_retries_plus_one() -> None:
    """It is four requests for three retries, and one for none."""
    assert [POLICY.allows([failed()] * n) for n in (1, 2, 3, 4)] == [True, True, True, False]
    assert RetryPolicy(0, 1.0, 2.0, 2.0).allows([failed()]) is False


def test_timeout_is_retried_once() -> None:
    """It is expensive for both sides; other failures in between do not allow a second retry."""
    slow = failed("timeout")
    assert POLICY.allows([slow]) is True
    assert POLICY.allows([slow, slow]) is False
    assert POLICY.allows([slow, failed(), slow]) is False


def retried(*answers: tuple[int, Any], sleep: Any) -> list[ExtractionAttempt]:
    """Return the attempts for these replies in a row, through a real client."""
    with responses.RequestsMock(assert_all_requests_are_fired=False) as wire:
        for status, body in answers:
            wire.post(CHATS["vllm"], status=status, json=body)
        return call_with_retries(
            client_of("vllm"), PROMPTS, json_schema=None, document_text="x", policy=POLICY, sleep=sleep, rng=Top()
        )


def test_request_is_retried_until_it_is_answered() -> None:
    """Two failures cause two waits before the answer."""
    slept: list[float] = []
    attempts = retried((500, {}), (503, {}), (200, body_of("vllm", "ok")), sleep=slept.append)
    assert [attempt.error for attempt in attempts] == ["http_500", "http_503", None]
    assert slept == [1.0, 2.0]


def test_request_is_given_up_after_max_retries() -> None:
    """There is no wait after the last request."""
    slept: list[float] = []
    assert len(retried(*[(500, {})] * 9, sleep=slept.append)) == 4
    assert slept == [1.0, 2.0, 4.0]


def test_refusal_is_not_retried() -> None:
    """A 400 is sent once."""
    slept: list[float] = []
    assert len(retried((400, {}), (200, body_of("vllm", "ok")), sleep=slept.append)) == 1
    assert slept == []


def test_stop_ends_the_back_off() -> None:
    """`sleep` returning True ends the retries."""
    assert len(retried((500, {}), (200, body_of("vllm", "ok")), sleep=lambda _: True)) == 1
