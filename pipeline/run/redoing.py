"""Which documents a run does again: from flags to rules, and the guard against asking too much anew."""

from __future__ import annotations

from typing import Any

from pipeline.agents import question
from pipeline.config import AppConfig
from pipeline.config.constraints import nearest_hint
from pipeline.config.loading import masked
from pipeline.documents import ListingCounts, load_entries
from pipeline.errors import REASONS, ConfigError
from pipeline.output import Output, left_out
from pipeline.run.options import RunOptions
from pipeline.run.plan import ExtractionPlan
from pipeline.run.selection import SelectionRules, sample_threshold
from pipeline.shards import Shard


def rules_of(options: RunOptions, app: AppConfig, *, run_id: str, shard: Shard) -> SelectionRules:
    """What the flags choose; ConfigError for a reason that there is not. With --sample the whole input is listed."""
    _check_reasons(options.only_failed or frozenset())
    below = None
    if options.sample:
        listing = load_entries(app.input, output=left_out(app), counts=ListingCounts())
        below = sample_threshold((entry.id for entry in listing if shard.owns(entry.id)), options.sample)
    return SelectionRules(
        run_id=run_id,
        redo=options.redo,
        only_failed=options.only_failed,
        retry_failed=options.retry_failed,
        retry_runs=app.runner.retry_runs,
        sample_below=below,
    )


def _check_reasons(names: frozenset[str]) -> None:
    for name in sorted(names - set(REASONS)):
        hint = nearest_hint(name, REASONS)
        raise ConfigError(f"--only-failed: got {name!r}, need reasons of: {', '.join(REASONS)}{hint}")


def check_redo(app: AppConfig, plan: ExtractionPlan, *, output: Output, rules: SelectionRules) -> None:
    """ConfigError when a changed question would do more of the done documents again than `runner.max_redo` allows."""
    allowed = app.runner.max_redo
    if allowed is None or rules.redo is not None or rules.only_failed is not None:
        return
    total = changed = 0
    for document_id, fingerprint in output.index.done():
        total += 1
        changed += plan.query_for(document_id).fingerprint != fingerprint
    if total and changed / total > allowed:
        what = ", ".join(_changes(app, plan, output.runs())) or "the question"
        told = f"{changed} of {total} done documents would be asked again, because this changed: {what}"
        raise ConfigError(f"{told}; --redo changed does it, --redo none leaves them (runner.max_redo {allowed:g})")


def _changes(app: AppConfig, plan: ExtractionPlan, runs: list[dict[str, Any]]) -> list[str]:
    """Which parts of the question differ from those of the last run."""
    before: dict[str, Any] = next(
        (run["config"]["question"] for run in reversed(runs) if "question" in run.get("config", {})), {}
    )
    now = questions(app, plan)
    return sorted({key for name in now for key in now[name] if before.get(name, {}).get(key) != now[name][key]})


def questions(app: AppConfig, plan: ExtractionPlan) -> dict[str, dict[str, Any]]:
    """What each variant asks, as the run's own file keeps it: without what may be a secret in `extra_body`."""
    found = {
        name: question(each.resolved, app.provider_config(each.resolved.provider))
        for name, each in plan.queries.items()
    }
    return {name: {**asked, "extra_body": masked(asked["extra_body"])} for name, asked in found.items()}
