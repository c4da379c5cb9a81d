"""Warnings about results that a switch to a fallback would repeat; reads an output and writes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

from pipeline.agents import fingerprint
from pipeline.agents.fingerprints import model_name
from pipeline.config import AppConfig, ResolvedAgentConfig
from pipeline.errors import PipelineError
from pipeline.output import RunIndex, backend_of
from pipeline.run.plan import ExtractionPlan
from pipeline.run.selection.redoing import equate_former
from pipeline.shards import WHOLE
from pipeline.terminal import plural


def switch_warnings(app: AppConfig, plan: ExtractionPlan) -> list[str]:
    """Return a warning for each fallback with another model name, as a switch to it would repeat results."""
    warnings: dict[str, None] = {}
    for query in plan.queries.values():
        first_model = model_name(query.resolved, app.provider_config(query.resolved.provider))
        for name in query.resolved.fallback:
            switched = _with_provider(query.resolved, name)
            config = app.provider_config(name)
            other_name = model_name(switched, config)
            if other_name != first_model and fingerprint(switched, config) != query.fingerprint:
                provider = query.resolved.provider
                warnings[f"provider {provider} names the model {first_model!r} and fallback {name} {other_name!r}"] = (
                    None
                )
    if not warnings:
        return []
    documents = _done_documents(app, plan)
    advice = f"a switch of the first provider would redo {documents}; set model_id where it is the same model"
    return [f"{names}: {advice}" for names in warnings]


def _with_provider(resolved: ResolvedAgentConfig, name: str) -> ResolvedAgentConfig:
    """Return the agent's settings with this fallback as the first provider."""
    overrides = resolved.settings_for(name)
    return replace(
        resolved,
        provider=name,
        fallback=(),
        model=overrides.get("model"),
        max_tokens=overrides.get("max_tokens"),
        temperature=overrides.get("temperature"),
    )


def _done_documents(app: AppConfig, plan: ExtractionPlan) -> str:
    """Return the number of the output's documents that are done with the current question, in words."""
    try:
        return plural(sum(1 for _ in _ids_done_now(app, plan)), "document")
    except PipelineError:
        return "all done documents"


def _ids_done_now(app: AppConfig, plan: ExtractionPlan) -> Iterator[str]:
    backend = backend_of(app.output)
    with closing(backend.read()) as index:
        equate_former(app, plan, index=index, backend=backend, runs=RunIndex(backend, WHOLE))
        for document_id, fingerprint in index.done():
            if plan.query_for(document_id).present(fingerprint, failed=False) == fingerprint:
                yield document_id
