"""The limits of the servers that the next request goes to, for code that sizes a prompt before it is sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.llm.failover import Failover
from pipeline.llm.replica import Client
from pipeline.llm.vllm import VLLMClient


@dataclass(frozen=True, slots=True)
class Serving:
    """The provider that the next request goes to.

    `context_length`: the smallest of its replicas in tokens, None when none reports it. `prompt_tokens`: of the prompt
    with an empty document, by the preflight. `count`: counts a text's tokens with its tokenizer; None when it has none.
    """

    endpoint: str
    context_length: int | None
    max_tokens: int
    prompt_tokens: int | None
    count: Callable[[str], int | None] | None


def serving(client: Failover, variant: str) -> Serving | None:
    """Return the provider that a request of this variant goes to now, with its limits; None when there is none."""
    provider = next((one for one in client.orders.get(variant, ()) if one.available), None)
    replicas = [one for one in provider.replicas if one.state == "up"] if provider is not None else []
    if not replicas:
        return None
    clients = [one.clients[variant] for one in replicas]
    lengths = [tokens for one in clients for tokens in _contexts(one) if tokens]
    counts = [one.found[variant].prompt_tokens for one in replicas if variant in one.found]
    first = clients[0]
    return Serving(
        endpoint=replicas[0].endpoint,
        context_length=min(lengths, default=None),
        max_tokens=first.config.max_tokens,
        prompt_tokens=max((tokens for tokens in counts if tokens is not None), default=None),
        count=first.count_text if isinstance(first, VLLMClient) else None,
    )


def _contexts(client: Client) -> tuple[int | None, ...]:
    """Return the context lengths that limit a prompt: the reported, the configured, and the detected one."""
    return client.context_length, client.config.context_length, client.verifier.context_length
