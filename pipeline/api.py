"""The Python interface: extract from one text with a client, without a run; read the results of an output.

It reads, validates and re-asks as a run does (process.py). It must not write a file.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.agents import fingerprint, load_agent, resolve, variant_for
from pipeline.config import AppConfig, OllamaConfig, OutputConfig, ProviderConfig, VLLMConfig
from pipeline.config.loading import find_config, load_config
from pipeline.errors import ConfigError, OutputError
from pipeline.llm.factory import client_of
from pipeline.llm.failover import Failover
from pipeline.llm.preflight.tokenizer import SpecialTokens
from pipeline.llm.protocol import LLMClient
from pipeline.llm.provider import AskResult, ExtractionRequest
from pipeline.llm.retry import RetryPolicy, call_with_retries
from pipeline.llm.vllm import VLLMClient
from pipeline.output import backend_of, folder_of
from pipeline.output.current import CurrentRecords, Record
from pipeline.records import Entry, Failure, Postponed, Result
from pipeline.run.document.process import process
from pipeline.run.plan import ExtractionPlan, VariantQuery, used_variants
from pipeline.run.windows.cutting import CutDocument
from pipeline.run.windows.sequential import ask_all_windows
from pipeline.run.windows.split_query import split_query

AGENT = "event_classifier"
_TEXT_FIELD = "text"


@dataclass(frozen=True, slots=True)
class OneClient:
    """A single client without replicas, fallback or waits in an outage."""

    client: LLMClient
    policy: RetryPolicy
    sleep: Callable[[float], object]
    rng: random.Random
    tokens: SpecialTokens = field(default_factory=SpecialTokens)

    def special_tokens(self, candidates: Collection[str], *, variant: str) -> frozenset[str]:
        """Return which texts the tokenizer of the client's server takes for a special token."""
        del variant
        client = self.client
        return (
            self.tokens.special_candidates(candidates, client.is_special_token)
            if isinstance(client, VLLMClient)
            else frozenset()
        )

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


class Extractor:
    """An agent and a client that extract from one text after another; safe in threads.

    `agent`: a name, or the path of an agent file. `client` None: the agent's first provider, by load_config() and the
    environment; `close` closes it. A given client stays open. `variant` None: by the weights of the agent's variants.
    `sleep`, `rng`: for the pauses between retries. ConfigError for an agent, variant or setting that cannot be used.
    """

    def __init__(
        self,
        agent: str = "extractor",
        client: LLMClient | None = None,
        *,
        variant: str | None = None,
        agents_dir: str | None = None,
        sleep: Callable[[float], object] = time.sleep,
        rng: random.Random | None = None,
    ) -> None:
        app = load_config(find_config(os.environ), environ=os.environ) if client is None else AppConfig()
        name, folder = _agent_place(agent, agents_dir or app.agents_dir)
        self._agent = load_agent(name, agents_dir=folder)
        self._variant = variant if variant is not None else app.variant
        self._sleep = sleep
        self._rng = rng or random.Random()
        names = used_variants(self._agent, self._variant)
        resolved = {each: resolve(self._agent, app, variant=each) for each in names}
        self._owned = [] if client is not None else [client_of(app, own) for own in resolved.values()]
        clients: list[LLMClient] = [*self._owned] if client is None else [client] * len(names)
        self._clients = dict(zip(names, clients, strict=True))
        queries = {
            each: VariantQuery(
                own,
                fingerprint(own, _config_of(self._clients[each])),
                self._agent.compiled,
                split=split_query(self._agent, own, _config_of(self._clients[each])),
            )
            for each, own in resolved.items()
        }
        self._plan = ExtractionPlan(
            self._agent, queries, Failover({}), pinned=self._variant, text_field=_TEXT_FIELD, repair=app.answers.repair
        )

    def __call__(
        self, text: str, *, metadata: Mapping[str, Any] | None = None, document_id: str = "text"
    ) -> Result | Failure:
        """Return a Result with a valid `output`, or a Failure with `reason` and `message`.

        It sends as many requests as a run would: retries by the client's settings, complaints about invalid answers,
        and with `overflow: split` a request for each window. It never raises for a server or a model. `metadata` fills
        the prompt's placeholders, as the fields of a JSON document do in a run. `document_id` chooses the variant.
        """
        client = self._clients[variant_for(self._agent, document_id, pinned=self._variant)]
        asker = OneClient(client, RetryPolicy.of(_config_of(client)), self._sleep, self._rng)
        outcome = process(_entry(text, metadata, document_id), self._plan, client=asker).outcome
        if isinstance(outcome, CutDocument):
            outcome = ask_all_windows(outcome, self._plan, client=asker)
        if isinstance(outcome, Postponed):
            return outcome.failure
        assert isinstance(outcome, (Result, Failure))
        return outcome

    def close(self) -> None:
        """Close the clients that this object has built."""
        for client in self._owned:
            with suppress(OSError):
                client.close()

    def __enter__(self) -> Extractor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def extract(
    text: str,
    agent: str,
    client: LLMClient | None = None,
    *,
    variant: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    document_id: str = "text",
    agents_dir: str | None = None,
    sleep: Callable[[float], object] = time.sleep,
    rng: random.Random | None = None,
) -> Result | Failure:
    """Extract from one text; return a Result with a valid `output`, or a Failure with `reason` and `message`.

    Arguments and errors are those of Extractor, which loads the agent once for many texts.
    """
    with Extractor(agent, client, variant=variant, agents_dir=agents_dir, sleep=sleep, rng=rng) as extractor:
        return extractor(text, metadata=metadata, document_id=document_id)


def classify_global_event(
    text: str,
    client: LLMClient,
    *,
    document_id: str = "text",
    agents_dir: str | None = None,
    sleep: Callable[[float], object] = time.sleep,
    rng: random.Random | None = None,
) -> Result | Failure:
    """Classify a text with the agent `event_classifier`: a Result with a valid `output`, or a Failure with the reason.

    Retries follow the client's own settings; it never raises for a server or a model. `model` of the result names the
    provider that answered. `agents_dir`: a folder whose event_classifier.yaml replaces the built-in one.
    """
    return extract(text, AGENT, client, document_id=document_id, agents_dir=agents_dir, sleep=sleep, rng=rng)


def read_results(output: str, *, failed: bool = False, storage: Mapping[str, Any] | None = None) -> Iterator[Record]:
    """Yield the current record of each document of an output: a folder, or s3://bucket/prefix, gs://…, az://….

    `failed`: those without a result too. `storage`: options of the object-store client. Results come in the order of
    their lines, one document at a time: memory does not grow with the output. It takes no lock, so a run may write
    meanwhile. OutputError when the output cannot be read.
    """
    folder = folder_of(output)
    if folder is not None and not folder.is_dir():
        raise OutputError(f"{folder}: is not a folder, need the output of a run")
    return CurrentRecords(backend_of(OutputConfig(output, storage=storage or {}))).read(failed=failed)


def _agent_place(agent: str, agents_dir: str | None) -> tuple[str, str | None]:
    """Return the name and the folder of an agent that is given by name or by the path of its file."""
    if not agent.endswith((".yaml", ".yml")):
        return agent, agents_dir
    path = Path(agent)
    if not path.is_file():
        raise ConfigError(f"agent: got {agent!r}, which is not a file")
    return path.stem, str(path.parent)


def _entry(text: str, metadata: Mapping[str, Any] | None, document_id: str) -> Entry:
    """Return the text as a document of a run: a .txt, or with metadata a .json."""
    if metadata is None:
        data = text.encode("utf-8", "replace")
        return Entry(document_id, document_id, None, len(data), "text", lambda: data)
    if _TEXT_FIELD in metadata:
        raise ConfigError(f"metadata: got the name {_TEXT_FIELD!r}, which is that of the text")
    fields = json.dumps({_TEXT_FIELD: text, **metadata}, default=str).encode("ascii")
    return Entry(document_id, document_id, None, len(fields), "json", lambda: fields)


def _config_of(client: LLMClient) -> ProviderConfig:
    """Return the client's own settings; for any other LLMClient, settings without retries."""
    config = getattr(client, "config", None)
    return config if isinstance(config, (OllamaConfig, VLLMConfig)) else VLLMConfig(max_retries=0)
