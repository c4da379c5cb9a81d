"""Providers over fake servers, for tests of replicas and failover, with a clock that tests advance."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from fake_llm import FakeLLM, Fault, ReceivedRequest

from pipeline.config import AppConfig, OllamaConfig, ResolvedAgentConfig, VLLMConfig
from pipeline.llm.capabilities import Preflight
from pipeline.llm.factory import build_failover
from pipeline.llm.failover import Failover
from pipeline.llm.preflight.preflight import PreflightSample, examine
from pipeline.llm.provider import ExtractionRequest, Provider
from pipeline.llm.replica import Client, Tools

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
SAMPLE = PreflightSample({"system": "s", "user": ""}, SCHEMA)
MODEL = "llama3.1:latest"


class Clock:
    """A clock that advances by a millisecond per call, and by as much as a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time, which advances with every call."""
        self.now += 0.001
        return self.now


def looked_at(client: Client, *, variant: str, full: bool, earlier_facts: Preflight | None) -> Preflight:
    """Run a preflight with the sample, without a canary."""
    assert variant
    return examine(client, sample=SAMPLE, full=full, canary=False, earlier_facts=earlier_facts)


def failover_of(
    first: tuple[str, ...],
    *,
    second: str | None = None,
    clock: Clock | None = None,
    sleep: Callable[[float], object] = lambda _: None,
    **settings: Any,
) -> Failover:
    """Return a vLLM provider of these replicas, with an Ollama as fallback."""
    settings = {"max_retries": 3, "timeout": 60.0, "model": MODEL, **settings}
    vllm = VLLMConfig(base_url=first, **settings)
    ollama = OllamaConfig(base_url=second or "http://127.0.0.1:1", model=MODEL, max_retries=settings["max_retries"])
    resolved = ResolvedAgentConfig("a", "default", "vllm", fallback=("ollama",) if second else ())
    tools = Tools(
        clock=clock or Clock(),
        rng=random.Random(3),
        sleep=sleep,
        examine=looked_at,
    )
    return build_failover(AppConfig(vllm=vllm, ollama=ollama), {"default": resolved}, tools=tools, pool_size=16)


def provider_of(*urls: str, **more: Any) -> Provider:
    """Return one provider of these replicas."""
    return failover_of(urls, **more).first_provider


def question(name: str, text: str = "", *, losses: int = 0, alone: bool = False) -> ExtractionRequest:
    """Return the request for a document of this name."""
    document = f"[[doc:{name}]] {text}"
    return ExtractionRequest("default", {"system": "s", "user": document}, SCHEMA, document, losses=losses, alone=alone)


def request_count(server: FakeLLM, name: str) -> int:
    """Return how many requests the server received for this document."""
    return sum(chat.document == name for chat in server.chats())


def only(name: str, fault: str) -> Callable[[ReceivedRequest, int], Fault | None]:
    """Return a `faults` function that affects one document, each time."""
    return lambda request, _n: Fault(fault) if request.document == name else None
