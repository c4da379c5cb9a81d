"""The documents that a run processes again: rules from the flags, and former fingerprints that still match."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from itertools import islice
from typing import Any

from pipeline.agents import former_fingerprints, question
from pipeline.agents.fingerprints import digest_of
from pipeline.config import AppConfig
from pipeline.config.constraints import nearest_hint
from pipeline.config.loading import masked
from pipeline.documents import ListingCounts, NamedDocuments
from pipeline.errors import REASONS, ConfigError
from pipeline.output import Index, Output, ReadableOutput, RunIndex
from pipeline.output.copies import Copies
from pipeline.run.listing import InputListing
from pipeline.run.options import RunOptions
from pipeline.run.plan import ExtractionPlan
from pipeline.run.selection.selection import SelectionRules, sample_threshold
from pipeline.shards import Shard


def rules_of(
    options: RunOptions, app: AppConfig, *, run_id: str, shard: Shard, listing: InputListing
) -> SelectionRules:
    """Return the rules of the flags; ConfigError for an unknown reason or document.

    With --sample the whole input is listed, with --ids until every document is found.
    """
    _check_reasons(options.only_failed or frozenset())
    below = None
    if options.sample:
        ids = (entry.id for entry in listing(ListingCounts()))
        below = sample_threshold((id for id in ids if shard.is_chunk or shard.owns(id)), options.sample)
    return SelectionRules(
        run_id=run_id,
        redo=options.redo,
        only_failed=options.only_failed,
        retry_failed=options.retry_failed,
        retry_runs=app.runner.retry_runs,
        sample_threshold=below,
        ids=_named_ids(options.ids, app, listing) if options.ids else None,
    )


def _named_ids(names: Sequence[str], app: AppConfig, listing: InputListing) -> frozenset[str]:
    """Return the ids of the named documents; ConfigError, with the nearest id, for one that the input does not have."""
    documents = NamedDocuments(names, app.input)
    ids = frozenset(entry.id for entry in documents.pick(listing(ListingCounts())))
    for name in documents.names_not_found():
        raise ConfigError(f"--ids: got {name!r}, which is not a document of the input{documents.hint(name)}")
    return ids


def _check_reasons(names: frozenset[str]) -> None:
    for name in sorted(names - set(REASONS)):
        expected = nearest_hint(name, REASONS) or f", need one or more of {', '.join(REASONS)}"
        raise ConfigError(f"--only-failed: got {name!r}{expected}")


def copies_of(options: RunOptions, app: AppConfig, *, output: Output) -> Copies | None:
    """Return the table that finds documents with the same request; None when each document is to be sent."""
    if app.runner.duplicates == "ask" or options.redo == "all":
        return None
    return Copies(output.index, run=output.stamp.run, doubtful=output.run_index.ask_again())


_LINES_READ = 5000
"""Enough to meet every fingerprint of an output whose runs all ended before they could write their summary."""


def equate_former(
    app: AppConfig, plan: ExtractionPlan, *, index: Index, backend: ReadableOutput, runs: RunIndex
) -> None:
    """Treat records with a fingerprint of the former formula as answers to the current query, if both are equal.

    That formula included the context size: first the sizes of the configured providers are tried, then those in the
    output itself, from its runs and its first records.
    """
    fingerprints = plan.fingerprints

    def other_queries(sizes: Collection[int]) -> set[str]:
        for query in plan.queries.values():
            index.equate(former_fingerprints(query.resolved, app, contexts=sizes), query.fingerprint)
        return index.other_fingerprints(fingerprints)

    if not other_queries(()):
        return
    earlier = runs.questions()
    contexts = {question["num_ctx"] for question in earlier if isinstance(question.get("num_ctx"), int)}
    if other_queries(contexts) - {digest_of(question) for question in earlier}:
        other_queries(contexts | _contexts_of_records(backend))


def _contexts_of_records(backend: ReadableOutput) -> set[int]:
    lines = (json.loads(line) for line, _ in islice(backend.records("results"), _LINES_READ))
    return {line["context_length"] for line in lines if isinstance(line.get("context_length"), int)}


def questions(app: AppConfig, plan: ExtractionPlan) -> dict[str, dict[str, Any]]:
    """Return the query of each variant as the run's summary stores it: without parameters that may be secret."""
    by_variant = {
        name: question(query.resolved, app.provider_config(query.resolved.provider))
        for name, query in plan.queries.items()
    }
    return {name: {**own, **_masked(own)} for name, own in by_variant.items()}


def _masked(question: dict[str, Any]) -> dict[str, Any]:
    return {key: masked(question[key]) for key in ("parameters",) if key in question}
