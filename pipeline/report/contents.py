"""The report of an output as a frozen value: the content of report.json, which text and page show.

It must compute only values that follow from its fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.report import plain
from pipeline.report.history import HistoryRow
from pipeline.report.numbers import LongDocumentNumbers
from pipeline.report.profiled import Profile
from pipeline.report.run_summary import REPORT_VERSION, Counts, OutputCounts, RunSummary

_SHOWN_RANGES = 10


@dataclass(frozen=True, slots=True)
class ShardRow:
    """The newest run of one shard."""

    shard: str | None = None
    run: int = 0
    run_id: str = ""
    exit_code: int = 0
    verdict: str = ""
    counts: Counts = field(default_factory=Counts)
    started_at: str = ""
    finished_at: str = ""
    elapsed_s: float = 0.0


@dataclass(frozen=True, slots=True)
class QuestionRow:
    """Documents done with one question in this run, and in the whole output; None: not known."""

    variant: str = ""
    fingerprint: str = ""
    done: int = 0
    done_in_output: int | None = None


@dataclass(frozen=True, slots=True)
class FieldRow:
    """The share of results with this field, and its mean items, now and before; None below 10 documents."""

    filled: float | None = None
    filled_before: float | None = None
    mean_items: float | None = None
    mean_items_before: float | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """The fields compared with the previous run. `warnings`: on fields with less than half of their former values."""

    with_runs: tuple[int, ...] = ()
    fields: Mapping[str, FieldRow] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The newest run of an output, merged over all shards when it was one of several.

    `missing_shards`: shards without a run; `awaits_shards`: they may still be waiting or at work. `output`: counts of
    the whole output; None when they are not known. `mixed_questions`: a warning for each variant asked in several ways.
    `history`: the last runs, oldest first. `advice`: what to do, by reason. `long_documents`: of this run; None without
    any.
    """

    v: int = REPORT_VERSION
    verdict: str = ""
    exit_code: int = 0
    run: RunSummary
    shards: tuple[ShardRow, ...] = ()
    missing_shards: tuple[int, ...] = ()
    awaits_shards: bool = False
    output: OutputCounts | None = None
    questions: tuple[QuestionRow, ...] = ()
    mixed_questions: tuple[str, ...] = ()
    compared: Comparison = Comparison()
    history: tuple[HistoryRow, ...] = ()
    profile: Profile = field(default_factory=Profile)
    advice: Mapping[str, str] = field(default_factory=dict)
    long_documents: LongDocumentNumbers | None = field(default=None, metadata=plain.LEFT_OUT)

    @property
    def lost_shards(self) -> tuple[int, ...]:
        """The missing shards that are no longer waiting or active."""
        return () if self.awaits_shards else self.missing_shards

    @property
    def name_of_shards(self) -> str:
        """`chunk` for the report of a plan's chunks."""
        return "shard" if self.run.chunks is None else "chunk"

    @property
    def lost_text(self) -> str:
        """`no run of chunk 3, 5 to 9 is in this output`: the missing shards, without naming hundreds."""
        ranges: list[list[int]] = []
        for index in self.lost_shards:
            if ranges and ranges[-1][-1] == index - 1:
                ranges[-1][1:] = [index]
            else:
                ranges.append([index])
        names = [" to ".join(map(str, span)) for span in ranges[:_SHOWN_RANGES]]
        names += [f"{len(ranges) - _SHOWN_RANGES} more ranges"] if len(ranges) > _SHOWN_RANGES else []
        return f"no run of {self.name_of_shards} {', '.join(names)} is in this output"

    @property
    def is_fair(self) -> bool:
        """True for a run with exit code 0 that has new or remaining failures, mixed questions or missing shards."""
        failed = self.run.counts.failed or self.run.remaining.failed
        return self.exit_code == 0 and bool(failed or self.lost_shards or self.mixed_questions)

    def to_json(self) -> dict[str, Any]:
        """Return the content of report.json; the kept profiles of the run are in its own file."""
        content = plain.fields_to_json(replace(self, run=replace(self.run, profile=None)))
        return {**content, "output": plain.to_json(self.output) or {}}
