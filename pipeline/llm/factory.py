"""Build clients from the configuration: dialect, servers, settings. It sends no request, but resolves host names."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

from pipeline.config import AppConfig, OllamaConfig, ProviderConfig, ResolvedAgentConfig, VLLMConfig
from pipeline.config.keys import provider_key
from pipeline.config.request import merged, split_for_ollama
from pipeline.errors import SettingError
from pipeline.llm.failover import Failover
from pipeline.llm.ollama import OllamaClient
from pipeline.llm.overhead import VerifierRegistry
from pipeline.llm.protocol import access_of
from pipeline.llm.provider import Provider
from pipeline.llm.replica import Client, Replica, Tools
from pipeline.llm.retry import RetryPolicy
from pipeline.llm.transport.addresses import at_address
from pipeline.llm.transport.http import Endpoint
from pipeline.llm.vllm import VLLMClient

logger = logging.getLogger(__name__)


def build_config_from_resolved(
    resolved: ResolvedAgentConfig, ollama: OllamaConfig | None = None, vllm: VLLMConfig | None = None
) -> ProviderConfig:
    """Return the settings of the agent's provider, with the agent's model, max_tokens and temperature.

    `ollama`, `vllm`: the settings to start from; None: the defaults. An unknown provider causes a warning and means
    Ollama; an empty one means Ollama without a warning.
    """
    name = resolved.provider or "ollama"
    if name not in ("ollama", "vllm"):
        logger.warning("unknown provider %r, using ollama", name, extra={"accepted": "ollama, vllm"})
        name = "ollama"
    base: ProviderConfig = (ollama or OllamaConfig()) if name == "ollama" else (vllm or VLLMConfig())
    return _config_with_agent(base, resolved, name=name)


def build_llm_client(
    resolved: ResolvedAgentConfig, ollama: OllamaConfig | None = None, vllm: VLLMConfig | None = None
) -> Client:
    """Return the client of the agent's provider (build_config_from_resolved); it connects with the first request."""
    return _client(build_config_from_resolved(resolved, ollama, vllm))


def client_of(app: AppConfig, resolved: ResolvedAgentConfig) -> Client:
    """Return the client of the agent's first provider, whatever its name; of several replicas, the first one."""
    name = resolved.provider or "ollama"
    client = _client(_config_with_agent(app.provider_config(name), resolved, name=name), name=name)
    client.from_reasoning = app.answers.from_reasoning
    return client


def build_failover(
    app: AppConfig, variants: Mapping[str, ResolvedAgentConfig], *, tools: Tools, pool_size: int
) -> Failover:
    """Return the agent's providers in order, each with its replicas; a replica has a client for each variant."""
    chains = {variant: _chain(resolved) for variant, resolved in variants.items()}
    names = dict.fromkeys(name for chain in chains.values() for name in chain)
    providers = {
        name: _provider(
            name,
            app.provider_config(name),
            variants={variant: variants[variant] for variant, chain in chains.items() if name in chain},
            tools=tools,
            pool_size=pool_size,
            from_reasoning=app.answers.from_reasoning,
        )
        for name in names
    }
    orders = {variant: [providers[name] for name in chain] for variant, chain in chains.items()}
    return Failover(orders, clock=tools.clock)


def _config_with_agent(base: ProviderConfig, resolved: ResolvedAgentConfig, *, name: str) -> ProviderConfig:
    """Return a provider's settings, overridden by those of the agent; its `request` comes last."""
    config = replace(base, **resolved.settings_for(name))
    if isinstance(config, OllamaConfig):
        options, body = split_for_ollama(resolved.request)
        return replace(config, options=merged(config.options, options), extra_body=merged(config.extra_body, body))
    return replace(config, extra_body=merged(config.extra_body, resolved.request))


def _chain(resolved: ResolvedAgentConfig) -> tuple[str, ...]:
    first = resolved.provider or "ollama"
    return (first, *(name for name in resolved.fallback if name != first))


def _provider(
    name: str,
    base: ProviderConfig,
    *,
    variants: Mapping[str, ResolvedAgentConfig],
    tools: Tools,
    pool_size: int,
    from_reasoning: bool,
) -> Provider:
    configs = {variant: _config_with_agent(base, resolved, name=name) for variant, resolved in variants.items()}

    def make(url: str, address: str | None) -> Replica:
        clients = _clients(configs, name=name, base_url=url, address=address, pool_size=pool_size)
        for client in clients.values():
            client.from_reasoning = from_reasoning
            _share(client, name=name, registry=tools.registry)
        return Replica(name, clients, tools=tools)

    def find(former: list[Replica]) -> list[Replica]:
        replicas: list[Replica] = []
        for url in base.base_urls:
            by_endpoint = {
                replica.client.model.endpoint: replica
                for replica in former
                if replica.client.config.base_urls[0] == url
            }
            places = {at_address(url, address): address for address in tools.look_up(url)}
            new_replicas = [by_endpoint.get(place) or make(url, address) for place, address in places.items()]
            replicas += new_replicas or list(by_endpoint.values()) or [make(url, None)]
        return replicas

    policy = RetryPolicy.of(base)
    if base.resolve_replicas:
        return Provider(name, find([]), policy=policy, tools=tools, find=find)
    return Provider(name, [make(url, None) for url in base.base_urls], policy=policy, tools=tools)


def _clients(
    configs: Mapping[str, ProviderConfig], *, name: str, base_url: str, address: str | None, pool_size: int
) -> dict[str, Client]:
    """Return a client for each variant; all share connections to `address`, or to the URL's host name."""
    first = next(iter(configs.values()))
    try:
        endpoint = Endpoint(base_url, access_of(first, pool_size=pool_size, address=address))
    except SettingError as cause:  # a file that it names
        raise SettingError(provider_key(name, cause.key), cause.message) from cause
    clients: dict[str, Client] = {}
    for variant, config in configs.items():
        client = _client(replace(config, base_url=base_url), name=name, endpoint=endpoint)
        if address is not None:
            client.model = replace(client.model, endpoint=at_address(base_url, address))
        clients[variant] = client
    return clients


def _share(client: Client, *, name: str, registry: VerifierRegistry) -> None:
    """Give all clients of one model at one endpoint the same verifier, so that they share its findings."""
    config = client.config
    endpoint = str(client.model.endpoint)
    client.overhead = registry.overhead
    client.verifier = registry.verifier_of(name, endpoint, config.model, limit_is_set=config.context_length is not None)


def _client(config: ProviderConfig, *, name: str | None = None, endpoint: Endpoint | None = None) -> Client:
    if isinstance(config, OllamaConfig):
        return OllamaClient(config, provider=name, endpoint=endpoint)
    return VLLMClient(config, provider=name, endpoint=endpoint)
