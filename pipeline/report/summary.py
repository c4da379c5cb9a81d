"""A run and an output in numbers: the run's summary, the report over all shards, and the files they go to.

It must not call a model or read a document: everything here is computed from the counts of runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipeline.config.redaction import SECRETS
from pipeline.errors import REASONS
from pipeline.report.headlines import COUNTS, headline
from pipeline.report.html import page
from pipeline.report.profile import profile_report, report_json
from pipeline.report.questions import mixed_variants, question_rows
from pipeline.report.remaining import NONE_REMAIN, RemainingFailures
from pipeline.report.shard_runs import (
    added_outputs,
    age,
    last_with_results,
    merged_runs,
    runs_by_shard,
    shard_of,
    shard_row,
)
from pipeline.report.stats import Numbers, RunStats, merge
from pipeline.values.value_profile import ValueProfile

REPORT_VERSION = 1
_REWRITES = 10
"""Shards may end faster than a report is written: the last of them writes it last anyway."""

COMPARED_DOCUMENTS = 10
"""Documents that both runs need before a field is compared: with fewer, a difference is chance."""


def run_summary(
    stats: RunStats,
    *,
    counts: Mapping[str, int],
    exit_code: int,
    started_at: str,
    finished_at: str,
    run_id: str,
    run: int,
    shard: str | None,
    agent: str,
    config: Mapping[str, Any],
    verdict: str | None = None,
    message: str = "",
    command: str = "pipeline run",
    files: Mapping[str, str] | None = None,
    parts: Sequence[str] = (),
    ignored: Mapping[str, int] | None = None,
    remaining: RemainingFailures = NONE_REMAIN,
) -> dict[str, Any]:
    """Return the content of runs/RUN_ID.json.

    `verdict` None: that of `headline`. `command`: the user's command, without secrets and --only-failed. `files`:
    label → path or URI. `config`: resolved, masked. `ignored`: by extension. `remaining`: documents that remain failed.
    """
    return {
        "v": REPORT_VERSION,
        "run": run,
        "run_id": run_id,
        "shard": shard,
        "agent": agent,
        "exit_code": exit_code,
        "verdict": verdict or headline(counts, exit_code, remaining=remaining.failed),
        "message": message,
        "started_at": started_at,
        "finished_at": finished_at,
        "command": command,
        "counts": {name: counts[name] for name in COUNTS},
        "ignored": dict(ignored or {}),
        "remaining": remaining.to_json(),
        "files": dict(files or {}),
        "parts": list(parts),
        "stats": stats.snapshot(),
        "config": dict(config),
    }


def build_report(
    runs: Sequence[dict[str, Any]],
    output_counts: Mapping[str, Any] | None = None,
    *,
    awaits_shards: bool = False,
    exact: Mapping[str, ValueProfile] | None = None,
) -> dict[str, Any]:
    """Return the content of report.json for the newest run, over all shards when that run was a shard.

    `runs`: the contents of runs/*.json in any order. `output_counts`: of the whole output; None: what each shard has
    counted at its end, added up. `awaits_shards`: shards without a run may still be waiting or at work, so that it is
    no error that they are missing. `exact`: profiles of the current results by variant, where those were read. Raises
    ValueError when there is no run.
    """
    if not runs:
        raise ValueError("runs: got none, need the summary of at least one run")
    ordered = sorted(runs, key=age)
    of = shard_of(ordered[-1])[1]
    history = runs_by_shard(ordered, of)
    current = [shard_runs[-1] for shard_runs in history if shard_runs]
    previous = [earlier for shard_runs in history if (earlier := last_with_results(shard_runs[:-1])) is not None]
    missing = [index for index, shard_runs in enumerate(history) if not shard_runs]
    awaits_shards = awaits_shards and bool(missing)
    if output_counts is None:
        output_counts = added_outputs(current)
    profile = profile_report(current, [each[:-1] for each in history], runs=ordered, output=output_counts, exact=exact)
    run = current[0] if of == 1 else merged_runs(current, missing, awaits_shards=awaits_shards)
    return {
        "v": REPORT_VERSION,
        "verdict": run["verdict"],
        "exit_code": run["exit_code"],
        "run": {name: value for name, value in run.items() if name != "profile"},
        "shards": [shard_row(shard_run) for shard_run in current] if of > 1 else [],
        "missing_shards": missing,
        "awaits_shards": awaits_shards,
        "output": dict(output_counts),
        "questions": question_rows(run, output_counts),
        "mixed_questions": mixed_variants(current),
        "compared": _compared(run, previous),
        "profile": report_json(profile),
        "advice": {name: REASONS[name].advice_for(run.get("agent_file")) for name in _reasons(run) if name in REASONS},
    }


def _reasons(run: Mapping[str, Any]) -> dict[str, None]:
    """Return the reasons of this run's failures and of the remaining ones, each once."""
    return dict.fromkeys([*run["stats"]["reasons"], *run.get("remaining", {}).get("reasons", {})])


def report_files(report: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the bytes of report.json and report.html, by name."""
    text = json.dumps(report, ensure_ascii=False, allow_nan=False, indent=1) + "\n"
    return {
        "report.json": SECRETS.redact_whole(text).encode("utf-8", errors="backslashreplace"),
        "report.html": SECRETS.redact_whole(page(report)).encode("utf-8", errors="backslashreplace"),
    }


def write_report(replace: Callable[[str, bytes], None], report: Mapping[str, Any]) -> None:
    """Write report.json and report.html with `replace`, which replaces the file of a name."""
    for name, data in report_files(report).items():
        replace(name, data)


def write_newest(
    replace: Callable[[str, bytes], None],
    *,
    runs: Callable[[], Sequence[dict[str, Any]]],
    counts: Callable[[], Mapping[str, Any]] | None = None,
    awaits_shards: bool = False,
    exact: Mapping[str, ValueProfile] | None = None,
) -> dict[str, Any]:
    """Write the report of all runs, again while further runs have ended meanwhile; return the last one written.

    Two shards may end at the same time. Checking for new runs after the write, not before it, keeps the slower shard
    from replacing a complete report with one that lacks the faster shard.
    """
    summaries = runs()
    for _ in range(_REWRITES):
        output_counts = counts() if counts is not None else None
        report = build_report(summaries, output_counts, awaits_shards=awaits_shards, exact=exact)
        write_report(replace, report)
        if not report["shards"]:  # no run can be beside a run without shards
            break
        known = {age(run) for run in summaries}
        summaries = runs()
        if {age(run) for run in summaries} <= known:
            break
    return report


def _compared(run: Mapping[str, Any], previous: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return each field compared with the run before, and a warning for each that lost at least half of its values."""
    before = merge([run_before["stats"] for run_before in previous])["fields"]
    fields = {name: _field_row(now, before.get(name)) for name, now in run["stats"]["fields"].items()}
    warnings = [text for name, row in fields.items() for text in _drops(name, row)]
    return {"with_runs": [run_before["run"] for run_before in previous], "fields": fields, "warnings": warnings}


def _field_row(now: Numbers, before: Numbers | None) -> Numbers:
    enough = before is not None and min(now["documents"], before["documents"]) >= COMPARED_DOCUMENTS
    old = before if enough and before is not None else {}
    return {
        "filled": _filled(now),
        "filled_before": _filled(old),
        "mean_items": now["mean_items"],
        "mean_items_before": old.get("mean_items"),
    }


def _filled(counts: Numbers) -> float | None:
    empty_share = counts.get("empty_share")
    return None if empty_share is None else round(1 - empty_share, 4)


def _drops(name: str, row: Numbers) -> list[str]:
    """Return at most one warning about a field: fewer filled values explain fewer items."""
    now = row["filled"] or 0.0
    before = row["filled_before"]
    if before and now <= before / 2:
        return [f"{name} is filled in {now:.0%} of the results; in the run before it was {before:.0%}"]
    now = row["mean_items"] or 0.0
    before = row["mean_items_before"]
    if before and now <= before / 2:
        return [f"{name} has {now:.1f} items on average; in the run before it had {before:.1f}"]
    return []
