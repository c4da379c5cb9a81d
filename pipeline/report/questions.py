"""Results by question: how many documents each fingerprint of a variant has, and which variants were asked two ways.

One variant of one run, or of one set of shards, is expected to ask one question. Where it asked two, somebody changed
the agent or its settings while the work went on, and the archive is made of halves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

SHOWN_CHARS = 12
"""Characters of a fingerprint that people are shown."""


def question_rows(run: Mapping[str, Any], output: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each question: its variant, its fingerprint, and the documents done with it in this run and in all."""
    now, whole = _counts(run["stats"]), _counts(output)
    keys = sorted({**now, **whole}, key=lambda key: (key[0], -whole.get(key, 0), -now.get(key, 0), key[1]))
    names = ("variant", "fingerprint")
    return [
        {**dict(zip(names, key, strict=True)), "done": now.get(key, 0), "done_in_output": whole.get(key)}
        for key in keys
    ]


def _counts(table: Mapping[str, Any]) -> dict[tuple[str, str], int]:
    questions: Mapping[str, Mapping[str, int]] = table.get("questions", {})
    return {(variant, name): count for variant, row in questions.items() for name, count in row.items()}


def mixed_variants(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """A warning for each variant that these runs (one, or the newest of all shards) asked in more than one way.

    What a run with `runner.refresh: all` changed by itself is no accident and is not warned of.
    """
    variants = sorted({variant for run in runs for variant in run["stats"].get("questions", {})})
    return [told for variant in variants if (told := _mixed(variant, runs))]


def _mixed(variant: str, runs: Sequence[Mapping[str, Any]]) -> str:
    counts: dict[str, int] = {}
    meant: list[set[str]] = []
    for run in runs:
        asked = run["stats"].get("questions", {}).get(variant, {})
        for name, count in asked.items():
            counts[name] = counts.get(name, 0) + count
        if run["config"].get("runner", {}).get("refresh") == "all":
            meant.append(set(asked))
    if len(_joined([{name} for name in counts], meant)) < 2:
        return ""
    ordered = sorted(counts, key=lambda name: (-counts[name], name))
    parts = ", ".join(f"{counts[name]:,} of {name[:SHOWN_CHARS]}" for name in ordered)
    advice = "run again to redo the older ones, or --redo none to keep them"
    return f"variant {variant} has results of {len(counts)} questions ({parts}): it changed on the way; {advice}"


def _joined(groups: Iterable[set[str]], meant: Iterable[set[str]]) -> list[set[str]]:
    """The groups, with those joined that a run has changed on purpose."""
    joined = list(groups)
    for together in meant:
        touched = [group for group in joined if group & together]
        joined = [group for group in joined if not group & together]
        joined += [set().union(*touched)] if touched else []
    return joined
