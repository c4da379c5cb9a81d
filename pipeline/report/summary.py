"""The report of an output over all shards, and the files it is written to.

It must not call a model or read a document: everything here is computed from the counts of runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from pipeline.config.redaction import SECRETS
from pipeline.errors import REASONS
from pipeline.output import ReadableOutput, read_runs
from pipeline.report.contents import Comparison, FieldRow, Report
from pipeline.report.history import NO_EARLIER_RUNS, EarlierRuns, history_rows
from pipeline.report.html import page
from pipeline.report.merging import merge
from pipeline.report.numbers import FieldCounts
from pipeline.report.profile import profile_of, profile_report
from pipeline.report.questions import mixed_variants, question_rows
from pipeline.report.run_summary import OutputCounts, RunSummary
from pipeline.report.shard_runs import (
    added_outputs,
    age,
    last_with_results,
    merged_runs,
    runs_by_shard,
    runs_of_set,
    shard_row,
)
from pipeline.terminal import percent_text
from pipeline.values.value_profile import ValueProfile

_REWRITES = 10
"""Limit of rewrites: while shards end faster than a report is written, a later shard writes the final report."""

COMPARED_DOCUMENTS = 10
"""Documents that both runs need before a field is compared: with fewer, a difference is chance."""


def build_report(
    runs: Sequence[RunSummary],
    output_counts: OutputCounts | None = None,
    *,
    awaits_shards: bool = False,
    exact: Mapping[str, ValueProfile] | None = None,
    earlier: EarlierRuns = NO_EARLIER_RUNS,
) -> Report:
    """Return the report of the newest run, over all shards when that run was a shard.

    `runs`: in any order, all of them or those that the index of runs keeps; `earlier`: what it keeps of the others.
    `output_counts`: of the whole output; None: the sum of the counts that each shard wrote at its end.
    `awaits_shards`: shards without a run may still be waiting or at work, so they are not reported as missing.
    `exact`: profiles of the current results by variant, where those were read. Raise ValueError without a run.
    """
    if not runs:
        raise ValueError("runs: got none, need the summary of at least one run")
    ordered = sorted(runs, key=age)
    history = runs_by_shard(ordered)
    of = len(history)
    newest = [shard_runs[-1] for shard_runs in history if shard_runs]
    previous = [before for shard_runs in history if (before := last_with_results(shard_runs[:-1])) is not None]
    missing_shards = tuple(index for index, shard_runs in enumerate(history) if not shard_runs)
    awaits_shards = awaits_shards and bool(missing_shards)
    if output_counts is None:
        output_counts = added_outputs(newest)
    profiled = [*earlier.profiles, *ordered]
    profile = profile_report(newest, [row[:-1] for row in history], runs=profiled, output=output_counts, exact=exact)
    run = newest[0] if of == 1 else merged_runs(newest, missing_shards, awaits_shards=awaits_shards)
    return Report(
        verdict=run.verdict,
        exit_code=run.exit_code,
        run=run,
        shards=tuple(shard_row(shard_run) for shard_run in newest) if of > 1 else (),
        missing_shards=missing_shards,
        awaits_shards=awaits_shards,
        output=output_counts,
        questions=question_rows(run, output_counts),
        mixed_questions=tuple(mixed_variants(newest)),
        compared=_compared(run, previous),
        history=history_rows(earlier.history or runs_of_set(ordered), of=of),
        profile=profile_of(profile),
        advice={name: _advice(run, name) for name in _reasons(run) if name in REASONS},
        long_documents=run.stats.long_documents,
    )


def read_summaries(backend: ReadableOutput) -> list[RunSummary]:
    """Return the summaries of the completed runs of an output, newest last."""
    return [RunSummary.from_json(run) for run in read_runs(backend)]


def _advice(run: RunSummary, reason: str) -> str:
    """Return the advice for the failures of a reason; the causes of those of earlier runs are not known."""
    row = run.stats.reasons.get(reason)
    earlier = run.remaining.reasons.get(reason)
    causes = row.all_causes if row is not None and not (earlier and earlier.untried) else frozenset[str]()
    return REASONS[reason].advice_for(run.agent_file, causes)


def _reasons(run: RunSummary) -> dict[str, None]:
    """Return the reasons of this run's failures and of the remaining ones, each once."""
    return dict.fromkeys([*run.stats.reasons, *run.remaining.reasons])


def report_files(report: Report) -> dict[str, bytes]:
    """Return the bytes of report.json and report.html, by name."""
    text = json.dumps(report.to_json(), ensure_ascii=False, allow_nan=False, indent=1) + "\n"
    return {
        "report.json": SECRETS.redact_whole(text).encode("utf-8", errors="backslashreplace"),
        "report.html": SECRETS.redact_whole(page(report)).encode("utf-8", errors="backslashreplace"),
    }


def write_report(replace: Callable[[str, bytes], None], report: Report) -> None:
    """Write report.json and report.html with `replace`, which replaces the file of a name."""
    for name, data in report_files(report).items():
        replace(name, data)


def write_newest(
    replace: Callable[[str, bytes], None],
    *,
    runs: Callable[[], Sequence[RunSummary]],
    counts: Callable[[], OutputCounts] | None = None,
    awaits_shards: bool = False,
    exact: Mapping[str, ValueProfile] | None = None,
    earlier: Callable[[], EarlierRuns] = lambda: NO_EARLIER_RUNS,
) -> Report:
    """Write the report of all runs, again while further runs have ended meanwhile; return the last one written.

    Two shards may end at the same time. Checking for new runs after the write, not before it, keeps the slower shard
    from replacing a complete report with one that lacks the faster shard.
    """
    summaries = runs()
    for _ in range(_REWRITES):
        output_counts = counts() if counts is not None else None
        report = build_report(summaries, output_counts, awaits_shards=awaits_shards, exact=exact, earlier=earlier())
        write_report(replace, report)
        if not report.shards:  # a run without shards has no siblings
            break
        written_ages = {age(run) for run in summaries}
        summaries = runs()
        if {age(run) for run in summaries} <= written_ages:
            break
    return report


def _compared(run: RunSummary, previous: Sequence[RunSummary]) -> Comparison:
    """Return each field compared with the run before, and a warning for each that lost at least half of its values."""
    before = merge([run_before.stats for run_before in previous]).fields
    fields = {name: _field_row(now, before.get(name)) for name, now in run.stats.fields.items()}
    warnings = tuple(warning for name, row in fields.items() for warning in _drops(name, row))
    return Comparison(tuple(run_before.run for run_before in previous), fields, warnings)


def _field_row(now: FieldCounts, before: FieldCounts | None) -> FieldRow:
    has_enough = before is not None and min(now.documents, before.documents) >= COMPARED_DOCUMENTS
    old = before if has_enough and before is not None else FieldCounts()
    return FieldRow(_filled(now), _filled(old), now.mean_items, old.mean_items)


def _filled(counts: FieldCounts) -> float | None:
    return None if counts.empty_share is None else round(1 - counts.empty_share, 4)


def _drops(name: str, row: FieldRow) -> list[str]:
    """Return at most one warning about a field: fewer filled values explain fewer items."""
    now = row.filled or 0.0
    before = row.filled_before
    if before and now <= before / 2:
        return [
            f"{name} is filled in {percent_text(now)} of the results; in the run before it was {percent_text(before)}"
        ]
    now = row.mean_items or 0.0
    before = row.mean_items_before
    if before and now <= before / 2:
        return [f"{name} has {now:.1f} items on average; in the run before it had {before:.1f}"]
    return []
