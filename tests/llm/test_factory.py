"""Building clients from the configuration."""

from __future__ import annotations

import logging
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import AppConfig, OllamaConfig, ResolvedAgentConfig, VLLMConfig
from pipeline.llm.capabilities import Preflight
from pipeline.llm.factory import build_config_from_resolved, build_failover, build_llm_client
from pipeline.llm.ollama import OllamaClient
from pipeline.llm.replica import Tools
from pipeline.llm.vllm import VLLMClient

LOGGER = "pipeline.llm.factory"


def resolved(provider: Any, **more: Any) -> ResolvedAgentConfig:
    return ResolvedAgentConfig(agent="a", variant="default", provider=provider, **more)


def tools() -> Tools:
    """Return tools that the test does not use."""
    return Tools(lambda: 0.0, random.Random(1), lambda _: None, lambda _client, **_: Preflight("ok"))


@pytest.mark.parametrize(
    ("provider", "kind"), [("ollama", OllamaClient), ("vllm", VLLMClient), ("", OllamaClient), (None, OllamaClient)]
)
def test_each_provider_name_gives_its_client(provider: Any, kind: type, caplog: pytest.LogCaptureFixture) -> None:
    """An empty or missing name means Ollama, without a warning."""
    client = build_llm_client(resolved(provider))
    assert type(client) is kind
    assert client.model.provider == ("vllm" if kind is VLLMClient else "ollama")
    assert caplog.records == []


@settings(deadline=None)
@given(name=st.text(min_size=1).filter(lambda name: name not in ("ollama", "vllm")))
def test_unknown_provider_name_means_ollama_with_a_warning(name: str) -> None:
    """The call still returns a client."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logger = logging.getLogger(LOGGER)
    logger.addHandler(handler)
    try:
        assert type(build_llm_client(resolved(name))) is OllamaClient
    finally:
        logger.removeHandler(handler)
    assert [record.levelname for record in records] == ["WARNING"]
    assert repr(name) in records[0].getMessage()


@pytest.mark.parametrize("name", ["openai", "VLLM", " vllm"])
def test_provider_names_are_exact(name: str) -> None:
    """A type is not a provider name, and neither is a name in other case."""
    assert type(build_llm_client(resolved(name))) is OllamaClient


def test_agent_overrides_model_tokens_and_temperature() -> None:
    """All other settings come from the provider's config."""
    base = VLLMConfig(base_url="http://x:1", model="base", timeout=7.0, max_tokens=5)
    agent = resolved("vllm", model="mine", max_tokens=77, temperature=0.5)
    assert build_config_from_resolved(agent, vllm=base) == replace(base, model="mine", max_tokens=77, temperature=0.5)
    assert build_config_from_resolved(resolved("vllm"), vllm=base) == base


def test_temperature_zero_counts_as_set() -> None:
    """A temperature of 0 does not mean "not given"."""
    assert (
        build_config_from_resolved(resolved("ollama", temperature=0.0), OllamaConfig(temperature=1.0)).temperature == 0
    )


def test_each_provider_uses_its_own_settings() -> None:
    """Ollama's settings never reach vLLM."""
    ollama, vllm = OllamaConfig(model="o"), VLLMConfig(model="v")
    assert build_config_from_resolved(resolved("ollama"), ollama, vllm) == ollama
    assert build_config_from_resolved(resolved("vllm"), ollama, vllm) == vllm


def test_providers_are_built_in_order_with_replicas() -> None:
    """The first comes before the fallbacks, each once; several base URLs are several replicas."""
    big = VLLMConfig(base_url=("http://a:1", "http://b:1/v1"), model="m", type="openai")
    app = AppConfig(provider="big", providers={"big": big})
    agent = resolved("big", fallback=("ollama", "big", "vllm"), model="agents", max_tokens=9)
    failover = build_failover(app, {"default": agent}, tools=tools(), pool_size=4)
    assert [provider.name for provider in failover.providers] == ["big", "ollama", "vllm"]
    assert [provider.name for provider in failover.orders["default"]] == ["big", "ollama", "vllm"]
    first = failover.first_provider.replicas
    assert [replica.client.model.endpoint for replica in first] == ["http://a:1", "http://b:1"]
    assert [replica.client.model.provider for replica in first] == ["big", "big"]
    models = [provider.replicas[0].client.config.model for provider in failover.providers]
    assert models == ["agents", "llama3.1", ""]
    assert failover.providers[1].replicas[0].client.config.max_tokens == 9


def test_variants_share_the_connections_of_a_replica() -> None:
    """Each variant has its own settings over one pool."""
    variants = {"a": resolved("vllm", model="one"), "b": replace(resolved("vllm", model="two"), variant="b")}
    replica = build_failover(AppConfig(), variants, tools=tools(), pool_size=4).first_provider.replicas[0]
    assert {name: client.config.model for name, client in replica.clients.items()} == {"a": "one", "b": "two"}
    assert replica.clients["a"].endpoint is replica.clients["b"].endpoint
