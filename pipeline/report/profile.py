"""The profile of the values in the report: over the current results, by variant, and against the run before.

It merges the stored profiles of runs, and contains only those texts of documents that the profiles may show.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.report.profiled import MovedShare, Movement, Profile, ProfiledField, ProfiledVariant, Span, ValueShare
from pipeline.report.run_summary import OutputCounts, RunSummary
from pipeline.values.drift import FEWEST_DOCUMENTS, Drift, drift
from pipeline.values.sketches import Range
from pipeline.values.value_profile import DIGEST, EMPTY, FieldProfile, ValueProfile, from_json, merged, to_json

SHOWN_VALUES = 8


@dataclass(frozen=True, slots=True)
class ProfileReport:
    """The profile of the values. `exact`: each current result counts once.

    `whole`: the current results of the output; `variants`: by variant. `drift`: the newest run (of each shard) against
    the one before it, `against_runs`; None when there is none to compare with.
    """

    whole: ValueProfile = EMPTY
    variants: Mapping[str, ValueProfile] = field(default_factory=dict)
    exact: bool = True
    drift: Drift | None = None
    against_runs: tuple[int, ...] = ()


def kept_profiles(profiles: Mapping[str, ValueProfile]) -> dict[str, Any]:
    """Return the profiles of a run by variant, as they are kept in its file."""
    return {variant: to_json(profile) for variant, profile in profiles.items()}


def profiles_of(run: RunSummary) -> dict[str, ValueProfile]:
    """Return the profiles of a run by variant; none for a run of an earlier version."""
    return {variant: from_json(stored) for variant, stored in (run.profile or {}).items()}


def last_profiled(runs: Sequence[RunSummary]) -> RunSummary | None:
    """Return the newest of the runs with enough results to compare with, or None."""
    return next((run for run in reversed(runs) if of_runs([run]).documents >= FEWEST_DOCUMENTS), None)


def drift_of(
    current: Sequence[RunSummary], history: Sequence[Sequence[RunSummary]]
) -> tuple[Drift | None, tuple[int, ...]]:
    """Return the drift of each shard's newest run against the one before, and the latter's numbers.

    `history`: the earlier runs of each shard, oldest first.
    """
    previous = [run for runs in history if (run := last_profiled(runs)) is not None]
    now = of_runs(current)
    before = of_runs(previous)
    if not now.documents or not before.documents:
        return None, ()
    return drift(now, before), tuple(run.run for run in previous)


def profile_report(
    current: Sequence[RunSummary],
    history: Sequence[Sequence[RunSummary]],
    *,
    runs: Sequence[RunSummary],
    output: OutputCounts | None,
    exact: Mapping[str, ValueProfile] | None = None,
) -> ProfileReport:
    """Return the profile of an output.

    `current`: the newest run of each shard. `history`: the earlier runs of each. `runs`: all. `output`: the counts of
    its current results. `exact`: the profiles of the current results by variant, where they were read.
    """
    variants = dict(exact) if exact is not None else _of_runs(runs, output)
    whole_profile = merged(variants.values())
    is_exact = exact is not None or (output is not None and whole_profile.documents == output.done)
    return ProfileReport(whole_profile, variants, is_exact, *drift_of(current, history))


def of_runs(runs: Sequence[RunSummary]) -> ValueProfile:
    """Return the profile of the results of these runs."""
    return merged(profile for run in runs for profile in profiles_of(run).values())


def _of_runs(runs: Sequence[RunSummary], output: OutputCounts | None) -> dict[str, ValueProfile]:
    """Return the profiles of all runs by variant, without those whose question has no current result.

    All runs count if these hold fewer results than the output: a question may have been equated with a former one.
    """
    questions = (output.questions if output is not None else None) or {}
    used = {name for row in questions.values() for name, count in row.items() if count}
    all_parts = [(variant, profile) for run in runs for variant, profile in profiles_of(run).items()]
    parts = [(variant, profile) for variant, profile in all_parts if profile.fingerprints & used]
    if sum(profile.documents for _, profile in parts) < (output.done if output is not None else 0):
        parts = all_parts
    names = dict.fromkeys(variant for variant, _ in parts)
    return {name: merged(profile for variant, profile in parts if variant == name) for name in names}


def profile_of(report: ProfileReport) -> Profile:
    """Return the profile as report.json holds it."""
    return Profile(
        documents=report.whole.documents,
        exact=report.exact,
        fields=_fields(report.whole),
        variants={
            name: ProfiledVariant(variant.documents, _fields(variant)) for name, variant in report.variants.items()
        },
        against=None if report.drift is None else _movement(report.drift, report.against_runs),
    )


def _fields(profile: ValueProfile) -> dict[str, ProfiledField]:
    return {name: _field(field, profile.documents) for name, field in profile.fields.items()}


def _field(field: FieldProfile, documents: int) -> ProfiledField:
    frequent = most_frequent(field)[:SHOWN_VALUES]
    return ProfiledField(
        filled=_share(field.filled, documents),
        distinct=field.distinct,
        values=tuple(ValueShare(value_of(label), count, _share(count, documents)) for label, count in frequent),
        numbers=_span(field.numbers),
        dates=_span(field.dates),
        lengths=_span(field.lengths),
        items=_span(field.items),
    )


def most_frequent(field: FieldProfile) -> list[tuple[str, int]]:
    """Return (label, documents) of a field's values that occur more than once, the most frequent first."""
    ordered = sorted(field.values.items(), key=lambda item: (-item[1], item[0]))
    return [(label, count) for label, count in ordered if count > 1 or not label.startswith(DIGEST)]


def value_of(label: str) -> Any:
    """Return the value of a label; None for a text that is not shown."""
    return None if label.startswith(DIGEST) else json.loads(label)


def _span(part: Range | None) -> Span | None:
    return None if part is None else Span(part.least, part.median, part.greatest)


def _movement(drift: Drift, runs: tuple[int, ...]) -> Movement:
    moved_shares = tuple(
        MovedShare(
            field=move.field,
            what="filled" if move.is_filled else "value",
            value=None if move.is_filled else value_of(move.value),
            share=round(move.share, 4),
            share_before=round(move.share_before, 4),
            p=move.p,
        )
        for move in drift.moves
    )
    return Movement(runs, drift.documents, drift.documents_before, drift.compared, moved_shares)


def _share(count: int, documents: int) -> float:
    return round(count / documents, 4) if documents else 0.0
