"""How long is waited, how often is tried, and when not."""

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
    """Chance that always takes the largest value."""

    def uniform(self, a: float, b: float) -> float:
        return b


def test_a_policy_is_what_the_settings_say() -> None:
    """The five settings of a provider, of either kind."""
    settings: Any = {"max_retries": 5, "retry_base_delay": 0.5, "retry_max_delay": 9.0, "retry_backoff_multiplier": 3.0}
    for config in (VLLMConfig(**settings), OllamaConfig(**settings)):
        assert RetryPolicy.of(config) == RetryPolicy(5, 0.5, 9.0, 3.0)


def test_the_back_off_doubles_up_to_its_cap() -> None:
    """1, 2, 4, … seconds at most, never more than the cap."""
    delays = [POLICY.delay_s([failed()] * n, Top()) for n in range(1, 8)]
    assert delays == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


@settings(deadline=None)
@given(n=st.integers(1, 50), seed=st.integers())
def test_jitter_is_full(n: int, seed: int) -> None:
    """Any delay from nothing to the ceiling, so that clients do not come back together."""
    ceiling = min(30.0, 2.0 ** (n - 1))
    assert 0.0 <= POLICY.delay_s([failed()] * n, random.Random(seed)) <= ceiling


def test_jitter_reaches_both_ends() -> None:
    """Of many delays some are close to nothing and some close to the ceiling."""
    rng = random.Random(7)
    delays = [POLICY.delay_s([failed()] * 5, rng) for _ in range(300)]
    assert min(delays) < 1.0
    assert max(delays) > 15.0


@pytest.mark.parametrize(("asked_s", "delay_s"), [(0.0, 0.0), (7.0, 7.0), (3600.0, 30.0)])
def test_what_the_server_asks_for_is_waited_and_capped(asked_s: float, delay_s: float) -> None:
    """Retry-After counts exactly, without jitter, and never more than the cap."""
    assert POLICY.delay_s([failed(), failed("overloaded", retry_after_s=asked_s)], Top()) == delay_s


def test_an_earlier_retry_after_is_over() -> None:
    """Only the last answer says how long to wait now."""
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
def test_retry_after_is_read_as_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    """RFC 9110; what is neither is as good as none."""
    assert retry_after_s(value, now=lambda: NOW) == seconds


@settings(deadline=None)
@given(st.text(max_size=40))
def test_no_retry_after_raises(value: str) -> None:
    """Whatever a header holds."""
    found = retry_after_s(value, now=lambda: NOW)
    assert found is None or found >= 0


@pytest.mark.parametrize("kind", KINDS)
def test_retry_after_comes_with_the_attempt(kind: str) -> None:
    """Both clients hand it on."""
    with responses.RequestsMock() as wire:
        wire.post(CHATS[kind], status=429, json={"error": "slow"}, headers={"Retry-After": "12"})
        attempt = client_of(kind).call_llm(PROMPTS, None, "x")
    assert (attempt.reason, attempt.retry_after_s) == ("overloaded", 12.0)


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_only_a_backend_failure_is_tried_again(reason: str) -> None:
    """By the table of reasons, and by nothing else."""
    assert POLICY.allows([failed(reason)]) is is_retryable(reason)


def test_max_retries_and_one_are_the_most() -> None:
    """Four requests for three retries; one for none."""
    assert [POLICY.allows([failed()] * n) for n in (1, 2, 3, 4)] == [True, True, True, False]
    assert RetryPolicy(0, 1.0, 2.0, 2.0).allows([failed()]) is False


def test_a_timeout_is_tried_again_once() -> None:
    """It is dear for both sides; other failures in between do not make it cheaper."""
    slow = failed("timeout")
    assert POLICY.allows([slow]) is True
    assert POLICY.allows([slow, slow]) is False
    assert POLICY.allows([slow, failed(), slow]) is False


def retried(*answers: tuple[int, Any], sleep: Any) -> list[ExtractionAttempt]:
    """The attempts at one ask with these answers, through a real client."""
    with responses.RequestsMock(assert_all_requests_are_fired=False) as wire:
        for status, body in answers:
            wire.post(CHATS["vllm"], status=status, json=body)
        return call_with_retries(
            client_of("vllm"), PROMPTS, json_schema=None, document_text="x", policy=POLICY, sleep=sleep, rng=Top()
        )


def test_it_is_asked_until_there_is_an_answer() -> None:
    """Two failures, two waits, then the answer."""
    slept: list[float] = []
    attempts = retried((500, {}), (503, {}), (200, body_of("vllm", "ok")), sleep=slept.append)
    assert [attempt.error for attempt in attempts] == ["http_500", "http_503", None]
    assert slept == [1.0, 2.0]


def test_it_is_given_up_after_max_retries() -> None:
    """Nothing is waited for after the last request."""
    slept: list[float] = []
    assert len(retried(*[(500, {})] * 9, sleep=slept.append)) == 4
    assert slept == [1.0, 2.0, 4.0]


def test_a_refusal_is_final() -> None:
    """A 400 is not asked twice."""
    slept: list[float] = []
    assert len(retried((400, {}), (200, body_of("vllm", "ok")), sleep=slept.append)) == 1
    assert slept == []


def test_a_stop_cuts_the_back_off_short() -> None:
    """`sleep` returning True ends the tries."""
    assert len(retried((500, {}), (200, body_of("vllm", "ok")), sleep=lambda _: True)) == 1
