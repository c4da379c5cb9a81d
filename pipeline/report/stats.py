"""The counts of a run, updated outcome by outcome in bounded memory, and the merged counts of several runs.

It must not grow with the archive, and must be updated by one thread only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

from pipeline.config.texts import shorten
from pipeline.errors import REASKED, cause_of
from pipeline.output.copies import COPY_NOTES
from pipeline.records import ExtractionAttempt, Failure, Result, Unchanged, Usage
from pipeline.report import plain, timeline
from pipeline.report.merging import EXAMPLES, LATENCY_MIN_S, LATENCY_STEP, TOP, derived, sum_at, sum_of
from pipeline.report.numbers import Example, RunNumbers, Step

_KEPT_NAMES = 60
STEPS = 6
"""Number of the last requests that are kept of an example."""
_OTHERS = "(others)"
_LATENCY_MAX_S = 1e6

Numbers = dict[str, Any]
"""Counts that are added to in place, with the keys of `RunNumbers`; they leave this module as frozen values only."""


class RunStats:
    """Counts of one run; `add` each outcome once, and `merge` the snapshots of several runs.

    `same_questions`: fingerprint → the fingerprint of the same question under which it is counted.
    """

    def __init__(
        self,
        schema: Mapping[str, Any] | None,
        clock: Callable[[], float],
        *,
        same_questions: Mapping[str, str] | None = None,
    ) -> None:
        self._same_questions = same_questions or {}
        self._clock = clock
        self._started = clock()
        self._data = _empty_data(schema)
        self._spans = timeline.Spans()

    def add(self, outcome: Result | Failure | Unchanged) -> None:
        """Count one outcome."""
        if isinstance(outcome, Unchanged):
            self._data["outcomes"]["unchanged"] += 1
            return
        elapsed_s = self._clock() - self._started
        variant = _entry(self._data["variants"], outcome.variant, self._new_variant)
        tally_in(variant, outcome)
        _count_notes(self._data["notes"], outcome.notes)
        self._spans.count(elapsed_s, outcome=outcome)
        if isinstance(outcome, Result):
            self._add_result(outcome)
            _count_fields(variant["fields"], outcome.output)
        else:
            self._add_failure(outcome)
            _bump(variant["reasons"], outcome.reason)

    def add_attempts(self, attempts: Iterable[ExtractionAttempt], *, variant: str) -> None:
        """Count the requests sent, their errors, and the prompt tokens found in servers' caches.

        Called for each attempt at a document, including those that no server could finish.
        """
        cache = self._data["prompt_cache"]
        for attempt in attempts:
            self._count_request(attempt, variant=variant)
            if attempt.cached_tokens is not None:
                cache["prompt_tokens"] += attempt.prompt_tokens or 0
                cache["cached_tokens"] += attempt.cached_tokens

    def _count_request(self, attempt: ExtractionAttempt, *, variant: str) -> None:
        provider = _entry(self._data["providers"], attempt.model.provider, _new_provider)
        provider["attempts"] += attempt.sent
        _entry(self._data["variants"], variant, self._new_variant)["attempts"] += attempt.sent
        error = attempt.error or attempt.rejection
        if error is not None and error not in REASKED:
            _bump(provider["errors"], error.partition(":")[0])

    def snapshot(self) -> RunNumbers:
        """Return the numbers so far, with percentiles, shares and means."""
        data = deepcopy({**self._data, "elapsed_s": round(self._clock() - self._started, 3)})
        for variant in data["variants"].values():
            for counts in variant["fields"].values():
                counts["documents"] = variant["done"]
            data["total"] = {name: sum_at(data["total"], variant, name) for name in data["total"]}
            data["fields"] = sum_of(data["fields"], variant["fields"])
        return derived(replace(plain.from_json(RunNumbers, data), timeline=self._spans.snapshot()))

    def _new_variant(self) -> Numbers:
        return {**_new_tally(), "reasons": {}, "fields": _new_fields(self._data["fields"])}

    def _question(self, fingerprint: str) -> str:
        return self._same_questions.get(fingerprint, fingerprint)

    def _add_result(self, result: Result) -> None:
        data = self._data
        data["outcomes"]["done"] += 1
        _bump(_entry(data["questions"], result.variant, dict), self._question(result.fingerprint))
        if not result.attempts:
            return
        provider = _entry(data["providers"], result.model.provider, _new_provider)
        tally_in(provider, result)
        _bump(provider["models"], result.model.name)
        _keep_top(data["slowest"], result.id, "latency_s", round(result.latency_s, 3))
        _keep_top(data["largest"], result.id, "chars", result.document_chars)

    def _add_failure(self, failure: Failure) -> None:
        data = self._data
        data["outcomes"]["failed"] += 1
        reason = _entry(data["reasons"], failure.reason, lambda: {"count": 0, "examples": []})
        reason["count"] += 1
        if cause := cause_of(failure.reason, error=failure.error, notes=failure.notes):
            _bump(reason.setdefault("causes", {}), cause)
        if len(reason["examples"]) < EXAMPLES:
            reason["examples"].append(plain.to_json(_example(failure)))


def _empty_data(schema: Mapping[str, Any] | None) -> Numbers:
    properties = list((schema or {}).get("properties", {}))[: 2 * _KEPT_NAMES]
    return {
        "elapsed_s": 0.0,
        "outcomes": {"done": 0, "failed": 0, "unchanged": 0},
        "total": _new_tally(),
        "prompt_cache": {"prompt_tokens": 0, "cached_tokens": 0},
        "reasons": {},
        "variants": {},
        "questions": {},
        "providers": {},
        "notes": {},
        "fields": _new_fields(properties),
        "slowest": [],
        "largest": [],
    }


def _example(failure: Failure) -> Example:
    steps = (
        Step(step.provider, step.endpoint, step.error and shorten(step.error, 200), round(step.latency_s, 3))
        for step in failure.history[-STEPS:]
    )
    message = shorten(failure.message, 300)
    return Example(failure.id, message, failure.stage, failure.attempts, failure.runs, tuple(steps))


def _new_fields(names: Iterable[str]) -> Numbers:
    return {name: {"documents": 0, "empty": 0, "lists": 0, "items": 0} for name in names}


def _new_tally() -> Numbers:
    return {
        "done": 0,
        "failed": 0,
        "attempts": 0,
        "reasks": 0,
        "repaired": 0,
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "tokens_unknown": 0,
        "latency": {"max_s": 0.0, "sum_s": 0.0, "buckets": {}},
    }


def _new_provider() -> Numbers:
    return {**_new_tally(), "models": {}, "errors": {}}


def tally_in(tally: Numbers, outcome: Result | Failure) -> None:
    """Add an outcome to a tally; latency counts done documents only."""
    tally["reasks"] += outcome.reasks
    if outcome.attempts:
        _count_tokens(tally, outcome.usage)
    if isinstance(outcome, Failure):
        tally["failed"] += 1
        return
    tally["done"] += 1
    if not outcome.attempts:
        return
    tally["repaired"] += outcome.repaired
    latency = tally["latency"]
    latency["max_s"] = max(latency["max_s"], outcome.latency_s)
    latency["sum_s"] += outcome.latency_s
    _bump(latency["buckets"], str(_bucket_of(outcome.latency_s)), limit=1000)


def _count_tokens(tally: Numbers, usage: Usage) -> None:
    tally["prompt_tokens"] += usage.prompt_tokens or 0
    tally["completion_tokens"] += usage.completion_tokens or 0
    tally["tokens_unknown"] += usage.prompt_tokens is None or usage.completion_tokens is None


def _bucket_of(latency_s: float) -> int:
    bounded = min(max(latency_s, LATENCY_MIN_S), _LATENCY_MAX_S)
    return math.ceil(math.log(bounded / LATENCY_MIN_S) / LATENCY_STEP)


def _count_notes(notes: Numbers, names: Sequence[str]) -> None:
    for name in names:
        kind = name.partition(":")[0]
        _bump(notes, kind if kind in COPY_NOTES else name)


def _count_fields(table: Numbers, output: Any) -> None:
    """Count the values of each field of an output; called once for each document."""
    values = output if isinstance(output, dict) else {}
    for name, counts in table.items():
        value: Any = values.get(name)
        kind = type(value)
        if kind is str:
            is_empty = not value or value.isspace()
        elif kind is list:
            is_empty = not value
            counts["lists"] += 1
            counts["items"] += len(value)
        else:
            is_empty = value is None or value == {}
        if is_empty:
            counts["empty"] += 1


def _entry(table: Numbers, name: str, new: Callable[[], Numbers]) -> Numbers:
    """Return the row of a name, created if needed; one common row once there are too many names."""
    key = name if name in table or len(table) < _KEPT_NAMES else _OTHERS
    if key not in table:
        table[key] = new()
    row: Numbers = table[key]
    return row


def _bump(table: Numbers, name: str, *, limit: int = _KEPT_NAMES) -> None:
    key = name if name in table or len(table) < limit else _OTHERS
    table[key] = table.get(key, 0) + 1


def _keep_top(rows: list[Numbers], document_id: str, sort_key: str, value: float) -> None:
    if len(rows) == TOP and value < rows[-1][sort_key]:
        return
    rows.append({"id": document_id, sort_key: value})
    rows.sort(key=lambda row: (-row[sort_key], row["id"]))
    del rows[TOP:]
