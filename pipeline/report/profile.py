"""The profile of the values in the report: over the current results, by variant, and against the run before.

It merges the profiles that runs have kept, and holds no text of a document but what their profiles may show.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.values.drift import FEWEST_DOCUMENTS, Drift, drift
from pipeline.values.sketches import Range
from pipeline.values.value_profile import DIGEST, EMPTY, FieldProfile, ValueProfile, from_json, merged, to_json

Run = Mapping[str, Any]
SHOWN_VALUES = 8
_RANGES = ("numbers", "dates", "lengths", "items")


@dataclass(frozen=True, slots=True)
class ProfileReport:
    """What the values look like. `exact`: each current result counts once.

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


def profiles_of(run: Run) -> dict[str, ValueProfile]:
    """Return the profiles of a run by variant; none for a run of an earlier version."""
    return {variant: from_json(kept) for variant, kept in run.get("profile", {}).items()}


def last_profiled(runs: Sequence[Run]) -> Run | None:
    """Return the newest of the runs with enough results to compare with, or None."""
    return next((run for run in reversed(runs) if of_runs([run]).documents >= FEWEST_DOCUMENTS), None)


def drift_of(current: Sequence[Run], history: Sequence[Sequence[Run]]) -> tuple[Drift | None, tuple[int, ...]]:
    """Return how the newest run of each shard moved against the one before, and the numbers of the latter.

    `history`: the earlier runs of each shard, oldest first.
    """
    previous = [run for runs in history if (run := last_profiled(runs)) is not None]
    now = of_runs(current)
    before = of_runs(previous)
    if not now.documents or not before.documents:
        return None, ()
    return drift(now, before), tuple(run["run"] for run in previous)


def profile_report(
    current: Sequence[Run],
    history: Sequence[Sequence[Run]],
    *,
    runs: Sequence[Run],
    output: Mapping[str, Any],
    exact: Mapping[str, ValueProfile] | None = None,
) -> ProfileReport:
    """Return the profile of an output.

    `current`: the newest run of each shard. `history`: the earlier runs of each. `runs`: all. `output`: the counts of
    its current results. `exact`: the profiles of the current results by variant, where they were read.
    """
    variants = dict(exact) if exact is not None else _of_runs(runs, output)
    whole = merged(variants.values())
    is_exact = exact is not None or whole.documents == output.get("done")
    return ProfileReport(whole, variants, is_exact, *drift_of(current, history))


def of_runs(runs: Sequence[Run]) -> ValueProfile:
    """Return the profile of the results of these runs."""
    return merged(profile for run in runs for profile in profiles_of(run).values())


def _of_runs(runs: Sequence[Run], output: Mapping[str, Any]) -> dict[str, ValueProfile]:
    """Return the profiles of all runs by variant, without those whose question has no current result.

    All runs count when the rest is fewer than the current results: a question may have been equated with a former one.
    """
    asked = {name for row in output.get("questions", {}).values() for name, count in row.items() if count}
    all_parts = [(variant, profile) for run in runs for variant, profile in profiles_of(run).items()]
    parts = [(variant, profile) for variant, profile in all_parts if profile.fingerprints & asked]
    if sum(profile.documents for _, profile in parts) < output.get("done", 0):
        parts = all_parts
    names = dict.fromkeys(variant for variant, _ in parts)
    return {name: merged(profile for variant, profile in parts if variant == name) for name in names}


def report_json(report: ProfileReport) -> dict[str, Any]:
    """Return the profile for report.json."""
    return {
        "documents": report.whole.documents,
        "exact": report.exact,
        "fields": _fields_json(report.whole),
        "variants": {
            name: {"documents": each.documents, "fields": _fields_json(each)} for name, each in report.variants.items()
        },
        "against": None if report.drift is None else _drift_json(report.drift, report.against_runs),
    }


def _fields_json(profile: ValueProfile) -> dict[str, Any]:
    return {name: _field_json(each, profile.documents) for name, each in profile.fields.items()}


def _field_json(each: FieldProfile, documents: int) -> dict[str, Any]:
    ranges = {name: _range_json(part) for name in _RANGES if (part := getattr(each, name)) is not None}
    return {
        "filled": _share(each.filled, documents),
        "distinct": each.distinct,
        "values": [
            {"value": value_of(label), "documents": count, "share": _share(count, documents)}
            for label, count in most_frequent(each)[:SHOWN_VALUES]
        ],
        **ranges,
    }


def most_frequent(each: FieldProfile) -> list[tuple[str, int]]:
    """Return (label, documents) of the values of a field, the most frequent first; none that occur once only."""
    ordered = sorted(each.values.items(), key=lambda item: (-item[1], item[0]))
    return [(label, count) for label, count in ordered if count > 1 or not label.startswith(DIGEST)]


def value_of(label: str) -> Any:
    """Return the value of a label; None for a text that is not shown."""
    return None if label.startswith(DIGEST) else json.loads(label)


def _range_json(part: Range) -> dict[str, Any]:
    return {"least": part.least, "median": part.median, "greatest": part.greatest}


def _drift_json(found: Drift, runs: tuple[int, ...]) -> dict[str, Any]:
    return {
        "runs": list(runs),
        "documents": found.documents,
        "documents_before": found.documents_before,
        "compared": found.compared,
        "moved": [
            {
                "field": move.field,
                "what": "filled" if move.is_filled else "value",
                "value": None if move.is_filled else value_of(move.value),
                "share": round(move.share, 4),
                "share_before": round(move.share_before, 4),
                "p": move.p,
            }
            for move in found.moves
        ],
    }


def _share(count: int, documents: int) -> float:
    return round(count / documents, 4) if documents else 0.0
