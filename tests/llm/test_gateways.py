"""Gateways recognised by their headers: their token counts prove nothing about the server behind them."""

from __future__ import annotations

from typing import Any

import pytest
from raw_server import answering, reply
from test_preflight import client_of, look

from pipeline.run.prompt_length import long_prompt_state

CHAT = "/v1/chat/completions"
ANSWER = {"choices": [{"message": {"content": "ok"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 9}}
HEADERS = {
    "LiteLLM": {"x-litellm-call-id": "b980db26", "x-litellm-version": "1.80.0", "x-litellm-model-api-base": "http://v"},
    "Portkey": {"x-portkey-trace-id": "f1", "x-portkey-cache-status": "DISABLED", "x-portkey-retry-attempt-count": "0"},
    "Cloudflare AI Gateway": {"cf-aig-cache-status": "MISS", "cf-aig-log-id": "01JADMCQQQBWH3NXZ5GCRN98DP"},
}
CASES = [(gateway, name, value) for gateway, headers in HEADERS.items() for name, value in headers.items()]


@pytest.mark.parametrize(("gateway", "name", "value"), CASES)
@pytest.mark.parametrize("shape", [str.lower, str.title])
def test_gateway_is_recognised_by_each_of_its_headers(gateway: str, name: str, value: str, shape: Any) -> None:
    """Case does not matter; the advice is to set the context length."""
    server = answering({"/v1/models": reply({"data": [{"id": "m"}]}), CHAT: reply(ANSWER, **{shape(name): value})})
    with server:
        client = client_of("openai", server.url, model="m")
        assert look(client).status == "ok"
    assert long_prompt_state(client).startswith(f"prompt_length_unverified: {gateway} may count a prompt before")
    assert "set the provider's `context_length`" in long_prompt_state(client)


def test_other_headers_are_not_taken_for_a_gateway() -> None:
    """A CDN, a proxy or a plain server has its counts verified."""
    others = {"cf-ray": "8", "cf-cache-status": "DYNAMIC", "x-request-id": "1", "via": "1.1 envoy", "x-portkeys": "1"}
    with answering({"/v1/models": reply({"data": [{"id": "m"}]}), CHAT: reply(ANSWER, **others)}) as server:
        client = client_of("openai", server.url, model="m")
        assert look(client).status == "ok"
    assert long_prompt_state(client).startswith("not verified yet")


def test_configured_context_length_resolves_the_doubt() -> None:
    """Longer prompts are not sent then."""
    name, value = "cf-aig-log-id", "01JADM"
    with answering({"/v1/models": reply({"data": [{"id": "m"}]}), CHAT: reply(ANSWER, **{name: value})}) as server:
        client = client_of("openai", server.url, model="m", context_length=4096)
        assert look(client).status == "ok"
    assert (
        long_prompt_state(client) == "not sent when they are longer than the configured context_length of 4096 tokens"
    )
