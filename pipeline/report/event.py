"""The summary of a run as the fields of one log event, for readers of JSON logs. It formats no text."""

from __future__ import annotations

from typing import Any

from pipeline.report import plain
from pipeline.report.contents import Report
from pipeline.report.run_summary import RunSummary


def summary_fields(run: RunSummary, report: Report) -> dict[str, Any]:
    """Return the numbers of a run, which may be one shard, and of the set of shards in its report."""
    total = run.stats.total
    remaining = run.remaining
    fields = {
        "exit_code": run.exit_code,
        "verdict": run.verdict,
        **dict(run.counts.items()),
        "elapsed_s": round(run.stats.elapsed_s, 1),
        "requests": total.attempts,
        "prompt_tokens": total.prompt_tokens,
        "completion_tokens": total.completion_tokens,
        "remaining_failures": remaining.failed,
        "accepted_failures": remaining.accepted,
        "reasons": {name: row.count for name, row in run.stats.reasons.items()},
        "warnings": [*report.mixed_questions, *report.compared.warnings],
        "report": run.files.get("report.html", ""),
    }
    if run.stats.long_documents is not None:
        fields["long_documents"] = plain.to_json(run.stats.long_documents)
    return {**fields, **_shards(report)} if report.shards else fields


def _shards(report: Report) -> dict[str, Any]:
    return {
        "all_shards": report.verdict,
        "missing_shards": list(report.lost_shards),
    }
