"""The client against a real server of the OpenAI protocol; opt-in, see docs/troubleshooting.md ("A real vLLM").

REAL_VLLM_BASE_URL names the server; REAL_VLLM_TYPE is vllm (default) or openai.
"""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from pipeline.config import VLLMConfig
from pipeline.llm.preflight.preflight import PreflightSample, examine
from pipeline.llm.vllm import VLLMClient, check_vllm_health
from pipeline.records import ExtractionAttempt

BASE_URL = os.environ.get("REAL_VLLM_BASE_URL", "")
pytestmark = pytest.mark.skipif(not BASE_URL, reason="REAL_VLLM_BASE_URL is not set")

SCHEMA = {
    "type": "object",
    "properties": {"mood": {"type": "string", "enum": ["good", "bad"]}, "score": {"enum": [0, 1, 2]}},
    "required": ["mood", "score"],
    "additionalProperties": False,
}
PROMPTS = {"system": "You judge texts.", "user": "The bank cut its rate and shares rose. Judge it as JSON."}


@pytest.fixture(scope="module")
def client() -> VLLMClient:
    """Return a client that has run a preflight."""
    kind: Any = os.environ.get("REAL_VLLM_TYPE", "vllm")
    client = VLLMClient(VLLMConfig(base_url=BASE_URL, type=kind, max_tokens=64))
    preflight = examine(client, sample=PreflightSample(PROMPTS, SCHEMA), full=True, canary=True)
    assert (preflight.status, preflight.enforcement) == ("ok", "enforced"), preflight.message
    assert preflight.context_length
    assert preflight.prompt_tokens
    return client


def ask(client: VLLMClient, user: str, *, max_tokens: int = 64) -> ExtractionAttempt:
    """Send one request for a mood."""
    return client.short_client(max_tokens=max_tokens, timeout_s=120).call_llm(
        {"system": "", "user": user}, SCHEMA, user
    )


def test_health_check_passes() -> None:
    """GET /v1/models answers."""
    assert check_vllm_health(BASE_URL)


def test_answer_matches_the_schema(client: VLLMClient) -> None:
    """The server enforces the schema and reports its tokens."""
    attempt = ask(client, PROMPTS["user"])
    assert attempt.ok, attempt.message
    assert set(json.loads(attempt.raw_text or "")) == {"mood", "score"}
    assert attempt.prompt_tokens
    assert attempt.completion_tokens


def test_truncated_answer_is_refused(client: VLLMClient) -> None:
    """Three tokens are too few for an object."""
    assert ask(client, PROMPTS["user"], max_tokens=3).reason == "output_truncated"


def test_too_long_prompt_is_context_length(client: VLLMClient) -> None:
    """The server answers with an honest 400."""
    assert ask(client, "The fox jumped. " * 20_000).reason == "context_length"


def test_lone_surrogate_is_replaced_before_sending(client: VLLMClient) -> None:
    """vLLM would refuse it."""
    assert ask(client, "A broken emoji \ud83d. " + PROMPTS["user"]).reason in (None, "output_truncated")
