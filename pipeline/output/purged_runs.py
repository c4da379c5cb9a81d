"""Run summaries without the documents that a purge removes: without their ids and their share of the profiles.

It must not change a summary's facts about other documents. As a value cannot be subtracted from a profile, the profile
is rebuilt from the lines of its run, without those that compacting has removed since.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from random import Random
from typing import Any, NamedTuple

from pipeline.output.lines import parse
from pipeline.output.runs import ASK_AGAIN
from pipeline.values.profiling import ProfileBuilder
from pipeline.values.value_profile import from_json, shows_texts, to_json

RemovalTest = Callable[[str, str], bool]
"""A function of id and time (RFC 3339) that returns True for a record to remove."""

Lines = Callable[[], Iterable[bytes]]
"""A function that reads the lines of all results."""

_BATCH = 25
"""Profiles built at a time: each takes up to some MB, and an output may have thousands of runs."""


class _RunKey(NamedTuple):
    """The run of a record or of a summary; the shards of one run may share number and id."""

    run: int
    run_id: str
    shard: str | None


def without_documents(
    runs: Mapping[str, dict[str, Any]], lines: Lines, is_removed: RemovalTest
) -> dict[str, dict[str, Any]]:
    """Return the changed summaries, by the names of `runs`; a second call with them returns none."""
    profiles = _profiles({name: run for name, run in runs.items() if run.get("profile")}, lines, is_removed)
    cleaned = {}
    for name, run in runs.items():
        at = str(run.get("finished_at", ""))
        ask_again = (
            {ASK_AGAIN: [document_id for document_id in run[ASK_AGAIN] if not is_removed(document_id, at)]}
            if ASK_AGAIN in run
            else {}
        )
        profile = {"profile": profiles[name]} if name in profiles else {}
        cleaned[name] = {**without_named(run, is_removed, at=at), **ask_again, **profile}
    return {name: run for name, run in cleaned.items() if run != runs[name]}


def without_named(value: Any, is_removed: RemovalTest, *, at: str) -> Any:
    """Return the value without list items that name a document to remove by their `id`."""
    if isinstance(value, dict):
        return {key: without_named(item, is_removed, at=at) for key, item in value.items()}
    if isinstance(value, list):
        return [without_named(item, is_removed, at=at) for item in value if not _names(item, is_removed, at)]
    return value


def _names(value: Any, is_removed: RemovalTest, at: str) -> bool:
    return isinstance(value, dict) and isinstance(value.get("id"), str) and is_removed(value["id"], at)


def _profiles(runs: Mapping[str, dict[str, Any]], lines: Lines, is_removed: RemovalTest) -> dict[str, Any]:
    """Return the profiles of runs that may include a value of a removed document, rebuilt from the other results."""
    affected = iter(list(_affected_runs(runs, lines, is_removed)) if runs else [])
    profiles: dict[str, Any] = {}
    while batch := list(islice(affected, _BATCH)):
        builders = {_key(runs[name]): _builder(runs[name]) for name in batch}
        for record in _records(lines):
            builder = builders.get(_key(record))
            if builder is not None and not _is_removed(record, is_removed):
                builder.add(record.get("output"), variant=str(record.get("variant")), fingerprint=record["fingerprint"])
        for name in batch:
            built = builders[_key(runs[name])].profiles()
            profiles[name] = {variant: to_json(profile) for variant, profile in built.items()}
    return profiles


def _affected_runs(runs: Mapping[str, dict[str, Any]], lines: Lines, is_removed: RemovalTest) -> Iterator[str]:
    """Yield the runs with a line to remove, and those whose compacted lines may have been of a removed document."""
    counts: dict[_RunKey, int] = {}
    losing: set[_RunKey] = set()
    newest = -1
    for record in _records(lines):
        key = _key(record)
        if _is_removed(record, is_removed):
            losing.add(key)
            newest = max(newest, key.run)
        else:
            counts[key] = counts.get(key, 0) + 1
    for name, run in runs.items():
        key = _key(run)
        profiled = sum(variant["documents"] for variant in run["profile"].values())
        if key in losing or (key.run <= newest and counts.get(key, 0) < profiled):
            yield name


def _builder(run: Mapping[str, Any]) -> ProfileBuilder:
    """Return the builder of a run's profile; it includes texts when that profile did."""
    questions = [
        question for question in run.get("config", {}).get("question", {}).values() if isinstance(question, dict)
    ]
    schema = questions[-1].get("schema") if questions else None
    texts = any(shows_texts(from_json(stored), schema) for stored in run["profile"].values())
    return ProfileBuilder(schema, random=Random(0).random, show_texts=texts)


def _records(lines: Lines) -> Iterator[dict[str, Any]]:
    return (record for line in lines() if (record := parse(line)) is not None)


def _key(record: Mapping[str, Any]) -> _RunKey:
    return _RunKey(int(record.get("run", 0)), str(record.get("run_id", "")), record.get("shard"))


def _is_removed(record: Mapping[str, Any], is_removed: RemovalTest) -> bool:
    return is_removed(str(record.get("id")), str(record.get("finished_at", "")))


def rewritten(value: Mapping[str, Any]) -> bytes:
    """Return a summary as the bytes of its file."""
    return json.dumps(value, ensure_ascii=False, indent=1).encode("utf-8", "backslashreplace") + b"\n"
