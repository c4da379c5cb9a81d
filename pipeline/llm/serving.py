"""The limits of the servers that get the next request, for code that sizes a prompt before it is sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.llm.failover import Failover
from pipeline.llm.replica import Client
from pipeline.llm.vllm import VLLMClient


@dataclass(frozen=True, slots=True)
class Serving:
    """The provider that gets the next request.

    `context_length`: the smallest of its replicas in tokens, None when none reports it. `prompt_tokens`: those of
    the prompt with an empty document, from the preflight. `count`: returns a text's tokens; None without a tokenizer.
    """

    endpoint: str
    context_length: int | None
    max_tokens: int
    prompt_tokens: int | None
    count: Callable[[str], int | None] | None


def serving(client: Failover, variant: str) -> Serving | None:
    """Return the provider that would get a request of this variant now, with its limits; None without one."""
    provider = next((candidate for candidate in client.orders.get(variant, ()) if candidate.available), None)
    replicas = [replica for replica in provider.replicas if replica.state == "up"] if provider is not None else []
    if not replicas:
        return None
    clients = [replica.clients[variant] for replica in replicas]
    lengths = [tokens for variant_client in clients for tokens in _contexts(variant_client) if tokens]
    counts = [replica.preflights[variant].prompt_tokens for replica in replicas if variant in replica.preflights]
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
