"""A replica lent to another process for the first request of a document, and the client that this process builds.

    main process: lend ─▶ ClientSettings ─pipe─▶ worker process: LentClients ─▶ call_llm ─▶ attempt ─pipe─▶ settle

The state that answers change (health, verified prompt lengths, limits) stays in the main process; a worker process gets
only settings that a preflight has confirmed. This module sends no request.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from pipeline.config import OllamaConfig, ProviderConfig
from pipeline.config.redaction import SECRETS
from pipeline.llm.extraction_request import SentRequest
from pipeline.llm.failover import Failover
from pipeline.llm.ollama import OllamaClient
from pipeline.llm.overhead import Overhead
from pipeline.llm.prompt_length.verification import verified_without_request
from pipeline.llm.prompt_length.verification_case import PromptMeasurements
from pipeline.llm.provider import Provider
from pipeline.llm.replica import Client, Replica
from pipeline.llm.transport.http import Access, Endpoint
from pipeline.llm.vllm import VLLMClient
from pipeline.records import ExtractionAttempt, ModelMetadata

_LARGE_WEIGHT = 10**6


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """The settings with which another process sends a client's requests; clients of one `endpoint` share connections.

    `key` is the server's present key, `secrets` are all texts that the process must not show.
    """

    endpoint: int
    base_url: str
    access: Access
    key: str
    secrets: tuple[str, ...]
    config: ProviderConfig
    model: ModelMetadata
    context_length: int | None
    from_reasoning: bool
    think: bool | str | None = None
    num_ctx: int = 0
    detects_repetition: bool = False


def settings_of(client: Client, *, endpoint: int) -> ClientSettings:
    """Return the present settings of a client."""
    access, key = client.endpoint.access
    settings = ClientSettings(
        endpoint,
        client.endpoint.base_url,
        replace(access, read_key=str),
        key,
        SECRETS.texts,
        client.config,
        client.model,
        client.context_length,
        client.from_reasoning,
    )
    if isinstance(client, OllamaClient):
        return replace(settings, think=client.think, num_ctx=client.num_ctx)
    return replace(settings, detects_repetition=client.detects_repetition)


class LentClients:
    """The clients of a worker process; used by the thread that reads the messages of the main process."""

    def __init__(self, overhead: Overhead) -> None:
        self._endpoints: dict[int, tuple[Endpoint, list[str]]] = {}
        self._overhead = overhead

    def client(self, settings: ClientSettings) -> Client:
        """Return a client that sends the same as the lent one; ConfigError when a file of its settings is missing."""
        SECRETS.add(*settings.secrets)
        endpoint = self._endpoint(settings)
        config = settings.config
        provider = settings.model.provider
        reasoning = settings.from_reasoning
        client: Client
        if isinstance(config, OllamaConfig):
            client = OllamaClient(config, provider=provider, endpoint=endpoint, from_reasoning=reasoning)
            client.ask_for_context(settings.num_ctx)
        else:
            client = VLLMClient(config, provider=provider, endpoint=endpoint, from_reasoning=reasoning)
            client.detects_repetition = settings.detects_repetition
        client.adopt(
            model=config.model,
            think=settings.think,
            digest=settings.model.digest,
            context_length=settings.context_length,
        )
        client.model = settings.model
        client.overhead = self._overhead
        return client

    def _endpoint(self, settings: ClientSettings) -> Endpoint:
        if settings.endpoint not in self._endpoints:
            keys = [settings.key]
            access = replace(settings.access, read_key=lambda: keys[-1])
            self._endpoints[settings.endpoint] = (Endpoint(settings.base_url, access), keys)
        endpoint, keys = self._endpoints[settings.endpoint]
        keys.append(settings.key)
        endpoint.reload_key()
        return endpoint


@dataclass(frozen=True, slots=True)
class Loan:
    """A replica whose next request another process sends; `end` must be called once.

    `keys`: how often the key had changed. `tokens_per_weight`: the estimate for its server's prompts.
    """

    provider: Provider
    replica: Replica
    client: Client
    keys: int
    tokens_per_weight: float
    pending: AbstractContextManager[None]

    def end(self) -> None:
        """Count the request as no longer in flight."""
        self.pending.__exit__(None, None, None)
        self.provider.release(self.replica)

    def sent_request(self, attempt: ExtractionAttempt, *, started_at: float, ended_at: float) -> SentRequest:
        """Return the request of the other process as a request of this process."""
        return SentRequest(self.provider, self.replica, attempt, started_at, ended_at, self.keys)

    def final_attempt(
        self, attempt: ExtractionAttempt, prompt: PromptMeasurements, *, started_at: float
    ) -> ExtractionAttempt | None:
        """Record an answer and return its final attempt; None when its prompt must be verified first."""
        self.replica.mark_alive(started_at)
        return verified_without_request(self.client, prompt, attempt)


def lend(failover: Failover, *, variant: str) -> Loan | None:
    """Return the replica that a document of this variant is sent to first; None when no provider is available."""
    provider = next((candidate for candidate in failover.orders[variant] if candidate.available), None)
    replica = provider.take() if provider is not None else None
    if provider is None or replica is None:
        return None
    client = replica.clients[variant]
    pending = replica.sharing.pending(client)
    pending.__enter__()
    is_limited = client.config.context_length is not None
    ratio = client.verifier.estimate(_LARGE_WEIGHT) / _LARGE_WEIGHT if is_limited else 0.0
    return Loan(provider, replica, client, client.endpoint.key_changes, ratio, pending)
