"""From configuration to a plan: the variants, their prompts and schemas, and the clients for the requests.

It reads the agent's files and builds clients; it sends no request.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pipeline.agents import Agent, fingerprint, load_agent, render, resolve, variant_for
from pipeline.answers import repair_library
from pipeline.answers.lint import warnings_of
from pipeline.answers.merge_warnings import merge_warnings
from pipeline.answers.schema import CompiledSchema
from pipeline.config import AppConfig, ResolvedAgentConfig
from pipeline.config.limits import InputLimits, limits_of
from pipeline.errors import ConfigError, SettingError
from pipeline.llm.capabilities import Preflight
from pipeline.llm.factory import build_failover
from pipeline.llm.failover import Failover
from pipeline.llm.overhead import VerifierRegistry
from pipeline.llm.preflight.preflight import PreflightSample, examine
from pipeline.llm.replica import Client, Tools
from pipeline.records import Document
from pipeline.run.selection.deciding import deciding_digests
from pipeline.run.windows.split_query import SplitQuery, room_warning, split_query, window_schema_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class VariantQuery:
    """The prompts and the schema of one variant, with their fingerprint.

    `decided_by`: for each reason the digest of the settings that it depends on. `split`: the settings for long
    documents, None unless `overflow: split`.
    """

    resolved: ResolvedAgentConfig
    fingerprint: str
    schema: CompiledSchema
    decided_by: Mapping[str, str] = field(default_factory=dict)
    split: SplitQuery | None = None

    @property
    def failure_fingerprint(self) -> str:
        """The fingerprint of failures: where documents are split, no failure of a whole document remains."""
        return self.fingerprint if self.split is None else self.split.fingerprint

    @property
    def whole_fingerprint(self) -> str:
        """The fingerprint of results of documents sent whole."""
        return (
            self.fingerprint
            if self.split is None or self.split.settings.window_tokens is None
            else self.split.fingerprint
        )

    @property
    def result_fingerprints(self) -> tuple[str, str]:
        """The fingerprints of results: of documents sent whole, and of those merged from windows."""
        return self.whole_fingerprint, self.failure_fingerprint

    def present(self, fingerprint: str, *, failed: bool) -> str:
        """Return the fingerprint to compare with that of a stored record; the record's own if it is of this query."""
        if self.split is None:
            return self.fingerprint
        if failed:
            return self.failure_fingerprint
        return fingerprint if fingerprint in self.result_fingerprints else self.whole_fingerprint


@dataclass(frozen=True, slots=True)
class ExtractionPlan:
    """The variants of a run and their providers; a refresh replaces the plan for the documents that are sent later.

    `canaries`: the endpoints that were sent a canary in this run. `registry`: the verifiers of its servers. All plans
    of a run share both.
    """

    agent: Agent
    queries: Mapping[str, VariantQuery]
    client: Failover
    pinned: str | None = None
    text_field: str = "text"
    limits: InputLimits = field(default_factory=InputLimits)
    repair: str = "basic"
    raw_chars: int = 2000
    canaries: set[str | None] = field(default_factory=set, compare=False)
    registry: VerifierRegistry = field(default_factory=VerifierRegistry, compare=False)

    def query_for(self, document_id: str) -> VariantQuery:
        """Return the query of a document's variant; it is the same at each call."""
        return self.queries[variant_for(self.agent, document_id, pinned=self.pinned)]

    @property
    def fingerprints(self) -> frozenset[str]:
        """The fingerprints of all variants."""
        return frozenset(
            digest for query in self.queries.values() for digest in (query.fingerprint, query.failure_fingerprint)
        )

    @property
    def same_questions(self) -> dict[str, str]:
        """The fingerprint of merged documents → the fingerprint of the same query for documents sent whole."""
        return {
            query.split.fingerprint: query.fingerprint for query in self.queries.values() if query.split is not None
        }

    @property
    def splits(self) -> bool:
        """True when documents may be cut into windows."""
        return any(query.split is not None for query in self.queries.values())


@dataclass(slots=True)
class Examiner:
    """The examination of servers with a sample prompt of each variant; each server gets the canary once in a run."""

    samples: Mapping[str, PreflightSample]
    canaries: set[str | None]
    queries: Mapping[str, VariantQuery]
    logged_warnings: set[tuple[str | None, str]] = field(default_factory=set)

    def __call__(self, client: Client, *, variant: str, full: bool, earlier_facts: Preflight | None) -> Preflight:
        """Return the preflight; log each of its warnings once."""
        endpoint = client.model.endpoint
        is_first = full and endpoint not in self.canaries
        preflight = examine(
            client, sample=self.samples[variant], full=full, canary=is_first, earlier_facts=earlier_facts
        )
        if is_first and preflight.status == "ok":
            self.canaries.add(endpoint)
        if full and (complaint := room_warning(self.queries[variant], client, preflight)) is not None:
            preflight = replace(preflight, warnings=(*preflight.warnings, complaint))
        for warning in preflight.warnings:
            if (endpoint, warning) not in self.logged_warnings:
                self.logged_warnings.add((endpoint, warning))
                fields = {"provider": client.model.provider, "endpoint": endpoint}
                logger.warning("preflight: %s", warning, extra=fields)
        return preflight


def build_plan(
    app: AppConfig, *, stop: threading.Event, agent: Agent | None = None, former_plan: ExtractionPlan | None = None
) -> ExtractionPlan:
    """Return the plan of this configuration; ConfigError when the agent, a variant or a provider is invalid.

    `former_plan`: the present plan of this run; its endpoints get no second canary.
    """
    try:
        return _plan(app, stop=stop, agent=agent, former_plan=former_plan)
    except SettingError as cause:
        place = f" ({app.places[cause.key]})" if cause.key in app.places else ""
        raise ConfigError(f"{cause}{place}") from cause


def _plan(
    app: AppConfig, *, stop: threading.Event, agent: Agent | None, former_plan: ExtractionPlan | None
) -> ExtractionPlan:
    agent = agent or load_agent(app.agent, agents_dir=app.agents_dir)
    resolved = {name: resolve(agent, app, variant=name) for name in used_variants(agent, app.variant)}
    queries = {
        name: _query(
            agent,
            app,
            resolved_variant,
            former_query=former_plan.queries.get(name) if former_plan is not None else None,
        )
        for name, resolved_variant in resolved.items()
    }
    if app.answers.repair == "full":
        repair_library()
    empty_document = Document("", "", "", "")
    schema = agent.compiled.for_server
    samples = {
        name: PreflightSample(
            render(resolved_variant, empty_document), schema, window_schema=window_schema_of(queries[name].split)
        )
        for name, resolved_variant in resolved.items()
    }
    canaries = former_plan.canaries if former_plan is not None else set()
    examiner = Examiner(samples, canaries, queries)
    registry = former_plan.registry if former_plan is not None else VerifierRegistry()
    tools = Tools(clock=time.monotonic, rng=random.Random(), sleep=stop.wait, examine=examiner, registry=registry)
    concurrency = app.runner.concurrency
    pool_size = app.runner.max_concurrency if concurrency == "auto" else max(concurrency, app.runner.max_concurrency)
    client = build_failover(app, resolved, tools=tools, pool_size=pool_size)
    return ExtractionPlan(
        agent,
        queries,
        client,
        pinned=app.variant,
        text_field=app.input.text_field,
        limits=limits_of(app.input.limits),
        repair=app.answers.repair,
        raw_chars=app.output.raw_chars,
        canaries=canaries,
        registry=registry,
    )


def _query(
    agent: Agent, app: AppConfig, resolved: ResolvedAgentConfig, *, former_query: VariantQuery | None
) -> VariantQuery:
    config = app.provider_config(resolved.provider)
    return VariantQuery(
        resolved,
        fingerprint(resolved, config),
        agent.compiled,
        decided_by=deciding_digests(app, resolved),
        split=split_query(agent, resolved, config, former_query=former_query),
    )


def schema_warnings(plan: ExtractionPlan) -> list[str]:
    """Return warnings about values that the schema accepts and fields without a merge rule, for `check` and `try`."""
    warnings = [f"agent {plan.agent.name}: {warning}" for warning in warnings_of(plan.agent.compiled)]
    return [*warnings, *split_warnings(plan)]


def split_warnings(plan: ExtractionPlan) -> list[str]:
    """Return the warnings about fields without a rule for merging the answers about windows."""
    splits = [query.split for query in plan.queries.values() if query.split is not None]
    warnings = (
        line
        for split in splits
        for line in merge_warnings(plan.agent.compiled, overlap_tokens=split.settings.overlap_tokens)
    )
    return list(dict.fromkeys(warnings))


def address_warnings(app: AppConfig, plan: ExtractionPlan) -> list[str]:
    """Return a warning when VLLM_BASE_URL is set but no vllm provider is used, as a newcomer may set nothing else."""
    used = {name for query in plan.queries.values() for name in (query.resolved.provider, *query.resolved.fallback)}
    if app.origins.get("vllm.base_url") != "env" or "vllm" in used:
        return []
    remedy = "to use it, set `provider: vllm` in the config file, or PIPELINE_PROVIDER=vllm"
    return [f"VLLM_BASE_URL is set, but the provider is {', then '.join(sorted(used))}: {remedy}"]


def log_warnings(app: AppConfig, plan: ExtractionPlan) -> None:
    """Log an address that is set but not used, and the warnings about the agent's schema in one line."""
    for warning in address_warnings(app, plan):
        logger.warning(warning)
    if warnings := warnings_of(plan.agent.compiled):
        logger.warning("agent %s: %s", plan.agent.name, "; ".join(warnings))
    for warning in split_warnings(plan):
        logger.warning("%s", warning)


def used_variants(agent: Agent, pinned: str | None) -> list[str]:
    """Return the variants that documents can get: the pinned one, else those with a weight, else `default`."""
    if pinned is not None:
        return [pinned]
    return sorted(name for name, variant in agent.variants.items() if variant.weight) or ["default"]
