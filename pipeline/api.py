"""`classify_global_event`: classify one text with a client, without a run.

Reading, validation and re-asks are those of a run (process.py); it must not write a file.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.agents import fingerprint, load_agent, resolve
from pipeline.config import AppConfig, OllamaConfig, ProviderConfig, VLLMConfig
from pipeline.llm.failover import Failover
from pipeline.llm.protocol import LLMClient
from pipeline.llm.provider import AskResult, ExtractionRequest
from pipeline.llm.retry import RetryPolicy, call_with_retries
from pipeline.records import Entry, Failure, Postponed, Result
from pipeline.run.plan import ExtractionPlan, VariantQuery
from pipeline.run.process import process

AGENT = "event_classifier"


@dataclass(frozen=True, slots=True)
class OneClient:
    """A single client: no replicas, no fallback, no waiting for an outage."""

    client: LLMClient
    policy: RetryPolicy
    sleep: Callable[[float], object]
    rng: random.Random

    def ask(self, question: ExtractionRequest) -> AskResult:
        """Send a request, with the retries of the policy, and return the result."""
        attempts = call_with_retries(
            self.client,
            question.prompts,
            json_schema=question.json_schema,
            document_text=question.document_text,
            policy=self.policy,
            sleep=self.sleep,
            rng=self.rng,
        )
        return AskResult(tuple(attempts))


def classify_global_event(
    text: str,
    client: LLMClient,
    *,
    document_id: str = "text",
    agents_dir: str | None = None,
    sleep: Callable[[float], object] = time.sleep,
    rng: random.Random | None = None,
) -> Result | Failure:
    """Classify the global event in a text; return a Result with a valid `output`, or a Failure with the reason.

    Retries follow the client's own config. `model` of the result names the provider that answered.
    """
    config = _config_of(client)
    agent = load_agent(AGENT, agents_dir=agents_dir)
    resolved = resolve(agent, AppConfig(), variant="default")
    asking = VariantQuery(resolved, fingerprint(resolved, config), agent.compiled)
    plan = ExtractionPlan(agent, {"default": asking}, Failover({}))
    data = text.encode("utf-8", "replace")
    entry = Entry(document_id, document_id, None, len(data), "text", lambda: data)
    asker = OneClient(client, RetryPolicy.of(config), sleep, rng or random.Random())
    outcome = process(entry, plan, client=asker).outcome
    if isinstance(outcome, Postponed):
        return outcome.failure
    assert isinstance(outcome, (Result, Failure))
    return outcome


def _config_of(client: LLMClient) -> ProviderConfig:
    """Return the client's own settings; for any other LLMClient, settings without retries."""
    config = getattr(client, "config", None)
    return config if isinstance(config, (OllamaConfig, VLLMConfig)) else VLLMConfig(max_retries=0)
