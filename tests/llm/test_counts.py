"""Reported token counts are accepted only in a plausible range, so that the sums of a run stay finite."""

from __future__ import annotations

from typing import Any

import pytest
import responses
from hypothesis import given, settings
from hypothesis import strategies as st
from test_clients import CHATS, KINDS, PROMPTS, body_of, client_of

from pipeline.llm.protocol import MAX_TOKENS
from pipeline.records import ExtractionAttempt

NAMES = {"vllm": ("prompt_tokens", "completion_tokens"), "ollama": ("prompt_eval_count", "eval_count")}
COUNTS = (
    st.integers(-(10**20), 10**20)
    | st.integers(1, 4000).map(lambda digits: 10**digits)
    | st.sampled_from([None, True, 1.5, "many", [], {}])
)


def answered(kind: str, first: Any, second: Any) -> ExtractionAttempt:
    """Return the attempt of a complete reply with these two counts."""
    body = body_of(kind, "{}")
    usage = body["usage"] if kind == "vllm" else body
    usage |= dict(zip(NAMES[kind], (first, second), strict=True))
    with responses.RequestsMock() as wire:
        wire.post(CHATS[kind], json=body)
        return client_of(kind).call_llm(PROMPTS, None, "The document.")


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=60)
@given(first=COUNTS, second=COUNTS)
def test_implausible_token_counts_are_unknown(kind: str, first: Any, second: Any) -> None:
    """Other values are recorded as unknown, and too large ones are noted."""
    attempt = answered(kind, first, second)
    for count in (attempt.prompt_tokens, attempt.completion_tokens):
        assert count is None or 0 <= count <= MAX_TOKENS
    too_large = any(type(count) is int and count > MAX_TOKENS for count in (first, second))
    if attempt.ok:
        assert ("implausible_usage" in attempt.notes) == too_large
