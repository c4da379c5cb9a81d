"""Providers over fake servers, for the tests of replicas and failover: a clock to move, and no waiting."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from fake_llm import FakeLLM, Fault, Seen

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
    """Moves on by a millisecond at each look, and by as much as it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Returns the time, which never stands still."""
        self.now += 0.001
        return self.now


def looked_at(client: Client, *, variant: str, full: bool, known: Preflight | None) -> Preflight:
    """An examination with the sample, without a canary."""
    assert variant
    return examine(client, sample=SAMPLE, full=full, canary=False, known=known)


def failover_of(
    first: tuple[str, ...],
    *,
    second: str | None = None,
    clock: Clock | None = None,
    sleep: Callable[[float], object] = lambda _: None,
    **settings: Any,
) -> Failover:
    """A vLLM provider of these replicas, and an Ollama one behind it."""
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
    """One provider of these replicas."""
    return failover_of(urls, **more).first


def question(name: str, text: str = "", *, losses: int = 0, alone: bool = False) -> ExtractionRequest:
    """What is asked about a document of this name."""
    document = f"[[doc:{name}]] {text}"
    return ExtractionRequest("default", {"system": "s", "user": document}, SCHEMA, document, losses=losses, alone=alone)


def asked_for(server: FakeLLM, name: str) -> int:
    """How many requests the server saw for this document."""
    return sum(seen.document == name for seen in server.chats())


def only(name: str, fault: str) -> Callable[[Seen, int], Fault | None]:
    """A `faults` function that strikes one document, each time."""
    return lambda seen, _n: Fault(fault) if seen.document == name else None
