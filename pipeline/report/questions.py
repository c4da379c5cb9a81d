"""Results by fingerprint: documents per fingerprint of a variant, and the variants with more than one question.

One variant of one run, or of one set of shards, is expected to have one question. Two mean that the agent or its
settings changed during the work, so that the results are not comparable.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pipeline.report.contents import QuestionRow
from pipeline.report.run_summary import OutputCounts, RunSummary

SHOWN_CHARS = 12
"""Characters of a fingerprint that are displayed."""


def question_rows(run: RunSummary, output: OutputCounts | None) -> tuple[QuestionRow, ...]:
    """Return a row per question: variant, fingerprint, and documents done in this run and in all runs."""
    now = _by_question(run.stats.questions)
    all_documents = _by_question(output.questions if output is not None else None)
    keys = sorted(
        {**now, **all_documents}, key=lambda key: (key[0], -all_documents.get(key, 0), -now.get(key, 0), key[1])
    )
    return tuple(QuestionRow(*key, now.get(key, 0), all_documents.get(key)) for key in keys)


def _by_question(questions: Mapping[str, Mapping[str, int]] | None) -> dict[tuple[str, str], int]:
    return {(variant, name): count for variant, row in (questions or {}).items() for name, count in row.items()}


def mixed_variants(runs: Sequence[RunSummary]) -> list[str]:
    """Return a warning for each variant with several questions in these runs (one, or the newest of all shards).

    Changes that a run with `runner.refresh: all` made itself are intended and cause no warning.
    """
    variants = sorted({variant for run in runs for variant in run.stats.questions})
    return [warning for variant in variants if (warning := _mixed_question(variant, runs))]


def _mixed_question(variant: str, runs: Sequence[RunSummary]) -> str:
    counts: dict[str, int] = {}
    intended: list[set[str]] = []
    for run in runs:
        question_counts = run.stats.questions.get(variant, {})
        for name, count in question_counts.items():
            counts[name] = counts.get(name, 0) + count
        if run.config.get("runner", {}).get("refresh") == "all":
            intended.append(set(question_counts))
    if len(_merge_groups([{name} for name in counts], intended)) < 2:
        return ""
    ordered = sorted(counts, key=lambda name: (-counts[name], name))
    parts = ", ".join(f"{counts[name]:,} of {name[:SHOWN_CHARS]}" for name in ordered)
    change = "its prompts, schema or model changed during the work"
    advice = "run again to repeat the older ones, or use --redo none to keep them"
    return f"variant {variant} has results of {len(counts)} fingerprints ({parts}): {change}; {advice}"


def _merge_groups(groups: Iterable[set[str]], intended: Iterable[set[str]]) -> list[set[str]]:
    """Return the groups, joining those that one run changed intentionally."""
    merged_groups = list(groups)
    for together in intended:
        touched = [group for group in merged_groups if group & together]
        merged_groups = [group for group in merged_groups if not group & together]
        merged_groups += [set().union(*touched)] if touched else []
    return merged_groups
