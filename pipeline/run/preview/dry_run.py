"""`pipeline run --dry-run`: the documents that a run would process, counted without a model, a lock or a write."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from hashlib import sha256

from pipeline.config import AppConfig
from pipeline.documents import ListingCounts
from pipeline.errors import EXIT_FAILURES, EXIT_OK, ConfigError, DocumentError
from pipeline.output import Index, RunIndex, backend_of, scan
from pipeline.records import Entry, LatestRecord
from pipeline.run.listing import InputListing
from pipeline.run.plan import ExtractionPlan
from pipeline.run.preview.answered_windows import AnsweredWindows
from pipeline.run.preview.estimate import Estimate, PromptSample, estimate, time_text
from pipeline.run.selection.deciding import current_digest
from pipeline.run.selection.prompt_change import PromptChange, check_redo, prompt_change
from pipeline.run.selection.redoing import equate_former
from pipeline.run.selection.selection import Selection, SelectionRules
from pipeline.shards import Shard
from pipeline.terminal import fitted, plural, unwrapped_or_width, write_out


def main(app: AppConfig, plan: ExtractionPlan, *, rules: SelectionRules, shard: Shard, listing: InputListing) -> int:
    """Print the counts; return 1 when there are fewer documents than input.min_documents, else 0."""
    listed = ListingCounts()
    index = scan(app.output, shard=shard)
    backend = backend_of(app.output, shard=shard)
    runs = RunIndex(backend, shard)
    try:
        equate_former(app, plan, index=index, backend=backend, runs=runs)
        selection = Selection(
            index,
            rules,
            shard=shard,
            fingerprint=lambda id, latest: plan.query_for(id).present(latest.fingerprint, failed=latest.failed),
            decided_by=partial(_decided_by, plan),
        )
        listed.latest_record = index.latest
        answered_windows = AnsweredWindows(plan) if rules.redo == "all" else AnsweredWindows.read(backend, plan)
        counts, sample = _count(listing(listed), selection, index, answered_windows)
        change = prompt_change(app, plan, index=index, runs=runs)
        cost_estimate = estimate(plan, sample)
    finally:
        index.close()
        plan.client.close()
    time = time_text(
        runs.recent(), documents=sample.documents, requests=cost_estimate.requests, per_hour=app.cost.per_hour
    )
    cost_lines = [*_cost_lines(sample, cost_estimate), f"That is {time}." if time else ""]
    lines = _lines(
        app, plan, counts=counts, listing=listed, cost_lines=[*cost_lines, *_refusal(change, app, rules)], change=change
    )
    width = unwrapped_or_width(sys.stdout, os.environ)
    write_out("\n".join(fitted([*lines, *_shard_lines(shard, listed)], width)))
    return EXIT_OK if shard.is_chunk or listed.listed >= app.input.min_documents else EXIT_FAILURES


def _decided_by(plan: ExtractionPlan, document_id: str, latest: LatestRecord) -> str | None:
    """Return the digest that decides a failure now, by settings alone: no server is asked for its context."""
    digest = plan.query_for(document_id).decided_by.get(latest.reason or "")
    return current_digest(digest, latest, context=lambda: None)


def _count(
    entries: Iterator[Entry], selection: Selection, index: Index, answered_windows: AnsweredWindows
) -> tuple[Counter[str], PromptSample]:
    """Return the documents by their state for a run, and a sample of those that would be sent."""
    counts: Counter[str] = Counter()
    sample = PromptSample()
    for entry in entries:
        if not selection.wants(entry.id):
            continue
        choice, entry = selection.judge(entry)
        kind = choice if choice != "do" else _kind(entry)
        if kind == "skip" and (latest := entry.latest or index.latest(entry.id)) and latest.failed:
            kind = "accepted" if latest.accepted else "failed, skipped"
        counts["found"] += 1
        counts[kind] += 1
        if kind in ("new", "changed", "failed", "question"):
            sample.add(entry, answered=answered_windows.count(entry))
    return counts, sample


def _cost_lines(sample: PromptSample, cost_estimate: Estimate) -> list[str]:
    size = f"{plural(sample.documents, 'document')}: {plural(sample.size_bytes, 'byte')}"
    windows = [f"overflow: split: {cost_estimate.windows}."] if cost_estimate.windows else []
    return [f"Would send {size}, {cost_estimate.tokens}.", *windows]


def _refusal(change: PromptChange, app: AppConfig, rules: SelectionRules) -> list[str]:
    """Return the error with which a run would refuse to start; empty when it would start."""
    try:
        check_redo(change, app, rules=rules)
    except ConfigError as error:
        return [f"A run would refuse this (exit code 2): {error}"]
    return []


def _kind(entry: Entry) -> str:
    """Return the reason to process an entry (new, changed, failed before, another prompt), or skip."""
    latest = entry.latest
    if latest is None:
        return "new"
    if entry.version is not None and entry.version == latest.version:
        is_unchanged = True
    else:
        try:
            is_unchanged = sha256(entry.read()).hexdigest() == latest.sha256
        except DocumentError:
            is_unchanged = latest.sha256 is None
    if not is_unchanged:
        return "changed"
    if entry.latest_is_valid:
        return "skip"
    return "failed" if latest.failed else "question"


def _lines(
    app: AppConfig,
    plan: ExtractionPlan,
    *,
    counts: Counter[str],
    listing: ListingCounts,
    cost_lines: list[str],
    change: PromptChange,
) -> Iterator[str]:
    yield f"Dry run of agent {plan.agent.name}: no model is called, nothing is written."
    yield f"  found            {counts['found']:>12,}"
    yield f"  done already     {counts['skip']:>12,}"
    yield f"  new              {counts['new']:>12,}"
    yield f"  changed          {counts['changed']:>12,}"
    failed = counts["failed"] + counts["failed, skipped"] + counts["accepted"]
    retried = f"{counts['failed']:,} to be retried"
    accepted = f", {counts['accepted']:,} accepted" if counts["accepted"] else ""
    yield f"  failed before    {failed:>12,}   ({retried}, {counts['failed, skipped']:,} skipped{accepted})"
    reason = (
        f"changed: {', '.join(change.parts)}" if change.parts else "prompts, schema or model changed, or --redo all"
    )
    yield f"  extracted again  {counts['question']:>12,}   ({reason})"
    if counts["leave"]:
        yield f"  left             {counts['leave']:>12,}   (not named by --only-failed)"
    if listing.ignored:
        kinds = ", ".join(f"{kind} {number:,}" for kind, number in listing.ignored.most_common(8))
        yield f"  ignored          {sum(listing.ignored.values()):>12,}   ({kinds})"
    yield from filter(None, cost_lines)
    yield f"Output: {app.output.uri}"


def _shard_lines(shard: Shard, listing: ListingCounts) -> Iterator[str]:
    """Return the lines about the share of this shard, and about work that every shard repeats."""
    if not shard.count:
        return
    if shard.is_chunk:
        yield f"Chunk {shard.index}: {plural(listing.listed, 'document')} in {plural(listing.files, 'file')}."
        return
    yield f"Shard {shard.label}: its share of {plural(listing.listed, 'document')} in {plural(listing.files, 'file')}."
    if listing.streamed and shard.count > 1:
        reading_text = (
            "every shard reads them from end to end" if listing.streamed > 1 else "every shard reads it from end to end"
        )
        yield f"Of these files {listing.streamed:,} hold many documents and no list of them: {reading_text}."
