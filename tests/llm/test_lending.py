"""A replica lent to another process: its copy sends the same requests, and its answers count as the lender's."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
from fake_llm import FakeLLM
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import OllamaConfig, VLLMConfig
from pipeline.llm.lending import LentClients, settings_of
from pipeline.llm.ollama import OllamaClient
from pipeline.llm.overhead import Overhead
from pipeline.llm.prompt_length.repetition import Finding, Probe, TruncatedCounts
from pipeline.llm.prompt_length.verification_case import PromptMeasurements, VerificationCase
from pipeline.llm.prompt_length.verifier import PromptVerifier
from pipeline.llm.vllm import VLLMClient

PROMPTS = {"system": "s", "user": "u"}
CONFIGS = (
    VLLMConfig(api_key="key-of-a-server-0123456789", max_tokens=7, extra_body={"seed": 7}),
    OllamaConfig(num_ctx=2048, options={"top_p": 0.5}, think="auto"),
    OllamaConfig(num_ctx="auto"),
)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("is_adopted", [False, True])
def test_copy_sends_the_same_requests(config: VLLMConfig | OllamaConfig, *, is_adopted: bool) -> None:
    """This holds before and after a preflight has determined the server's capabilities."""
    with FakeLLM(("llama3.1",)) as server:
        config = replace(config, base_url=server.url, model="llama3.1")
        client = OllamaClient(config) if isinstance(config, OllamaConfig) else VLLMClient(config)
        if is_adopted:
            client.adopt(model="llama3.1", think=False, digest="d", context_length=1024, server="0.33")
        sent = pickle.loads(pickle.dumps(settings_of(client, endpoint=1)))
        copy = LentClients(Overhead()).client(sent)
        for sender in (client, copy):
            assert sender.call_llm(PROMPTS, {"type": "object"}, "u").ok
        first, second = server.requests
        assert (first.body, first.headers.get("authorization")) == (second.body, second.headers.get("authorization"))
        assert (copy.model, copy.context_length) == (client.model, client.context_length)


def test_changed_key_is_sent_to_the_copy() -> None:
    """The copy uses it on the same connections."""
    with FakeLLM(("llama3.1",)) as server:
        config = VLLMConfig(base_url=server.url, model="llama3.1")
        lent = LentClients(Overhead())
        for key in ("first-key-0123456789", "second-key-0123456789"):
            client = lent.client(replace(settings_of(VLLMClient(config), endpoint=1), key=key))
            assert client.call_llm(PROMPTS, None, "u").ok
            assert server.requests[-1].headers["authorization"] == f"Bearer {key}"
        assert server.connections == 1


FINDINGS = st.builds(
    Finding,
    verified_tokens=st.sampled_from([0, 1000, 100_000]),
    refuses=st.booleans(),
    truncation=st.sampled_from([None, TruncatedCounts(700, 710, 100, 800)]),
    unverified=st.sampled_from(["", "it reports no prompt tokens"]),
)
PROMPT = st.tuples(st.integers(1, 5000), st.sampled_from([None, 0, 100, 600, 705, 3000]))


@settings(max_examples=200)
@given(FINDINGS, st.lists(PROMPT, max_size=8), st.booleans())
def test_verify_without_request_agrees_with_verify(
    finding: Finding, prompts: list[tuple[int, int | None]], limit_is_set: bool
) -> None:
    """It accepts a prompt only if `verify` does, with the same notes, and sends no request."""
    quick = PromptVerifier("q", limit_is_set=limit_is_set)
    slow = PromptVerifier("s", limit_is_set=limit_is_set)
    quick.finding = slow.finding = finding

    def refuse(*_: object) -> Probe:
        raise AssertionError("a request was sent")

    for chars, tokens in prompts:
        result = quick.verify_without_request(PromptMeasurements(chars, tokens, chars, 100))
        if result is not None:
            case = VerificationCase("x" * chars, tokens, chars, 100, refuse, refuse)
            assert slow.verify(case, may_wait=lambda: False) == result
