"""The counts of a run as frozen values: the numbers that its summary keeps and that reports sum.

It must not count or add anything: `stats` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.report import plain


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Documents of this run by outcome; `unchanged`: read, and the same as before."""

    done: int = 0
    failed: int = 0
    unchanged: int = 0


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds of done documents over all their requests; a percentile is at most 5 % too high, None without any.

    `buckets`: documents by logarithmic bucket, to add up several runs.
    """

    max_s: float = 0.0
    sum_s: float = 0.0
    buckets: Mapping[str, int] = field(default_factory=dict)
    p50_s: float | None = None
    p95_s: float | None = None


@dataclass(frozen=True, slots=True)
class Tally:
    """Documents and the requests they took.

    `attempts`: requests. `reasks`: those that asked for a corrected answer. `repaired`: answers that were not clean
    JSON. `tokens_unknown`: documents whose server reported no tokens.
    """

    done: int = 0
    failed: int = 0
    attempts: int = 0
    reasks: int = 0
    repaired: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    tokens_unknown: int = 0
    latency: Latency = Latency()


@dataclass(frozen=True, slots=True)
class FieldCounts:
    """Number of results in which a field was empty, and of the items in its lists."""

    documents: int = 0
    empty: int = 0
    lists: int = 0
    items: int = 0
    empty_share: float | None = None
    mean_items: float | None = None


@dataclass(frozen=True, slots=True)
class VariantNumbers(Tally):
    """The documents of one variant; `reasons`: failures by reason."""

    reasons: Mapping[str, int] = field(default_factory=dict)
    fields: Mapping[str, FieldCounts] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ProviderNumbers(Tally):
    """The documents of one provider; `models`: done documents by model. `errors`: failed requests by their error."""

    models: Mapping[str, int] = field(default_factory=dict)
    errors: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """One request for a document that failed; `error`: the wire-level text, or why its answer was rejected."""

    provider: str = ""
    endpoint: str | None = None
    error: str | None = None
    latency_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Example:
    """A failed document. `runs`: in how many runs it has failed this way. `history`: its last requests."""

    id: str = ""
    message: str = ""
    stage: str | None = field(default=None, metadata=plain.LEFT_OUT)
    attempts: int | None = field(default=None, metadata=plain.LEFT_OUT)
    runs: int | None = field(default=None, metadata=plain.LEFT_OUT)
    history: tuple[Step, ...] | None = field(default=None, metadata=plain.LEFT_OUT)


@dataclass(frozen=True, slots=True)
class ReasonNumbers:
    """The failures of one reason, with a few examples. `causes`: how many have one of its particular causes."""

    count: int = 0
    examples: tuple[Example, ...] = ()
    causes: Mapping[str, int] | None = field(default=None, metadata=plain.LEFT_OUT)

    @property
    def all_causes(self) -> frozenset[str]:
        """All causes of these failures; "" stands for the usual one."""
        causes = self.causes or {}
        return frozenset(causes) | (frozenset() if sum(causes.values()) == self.count else {""})


@dataclass(frozen=True, slots=True)
class PromptCache:
    """Prompt tokens of the requests whose server reports its cache, and those that were found there."""

    prompt_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class LongDocumentNumbers:
    """The documents that were cut into windows and have a record of this run, done or failed.

    `windows`: answered in this run or in an earlier one (`reused`); `most`: of one document; `divided`: into smaller
    ones. `conflicts`, `dropped`: values that differed and items that were left out when the answers were merged.
    `merge_failed`: documents whose answers could not be merged.
    """

    documents: int = 0
    windows: int = 0
    most: int = 0
    reused: int = 0
    divided: int = 0
    conflicts: int = 0
    dropped: int = 0
    merge_failed: int = 0

    @property
    def sent(self) -> int:
        """The windows that were answered in this run."""
        return self.windows - self.reused


@dataclass(frozen=True, slots=True)
class SlowDocument:
    """One of the documents that took longest."""

    id: str = ""
    latency_s: float = 0.0


@dataclass(frozen=True, slots=True)
class LargeDocument:
    """One of the longest documents."""

    id: str = ""
    chars: int = 0


@dataclass(frozen=True, slots=True)
class Timeline:
    """Counts per equal time span since the start.

    `bucket_s`: seconds of a span. `rows`: done, failed, prompt tokens, completion tokens, seconds of the done
    documents. `reasons`: failures by reason, a count per span up to the last span with such a failure.
    """

    bucket_s: float = 1.0
    rows: tuple[tuple[float, ...], ...] = ()
    reasons: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunNumbers:
    """The counts of a run. `notes`: documents by note. `questions`: done documents by variant and fingerprint.

    `long_documents`: None for a run that read nothing in windows.
    """

    elapsed_s: float = 0.0
    outcomes: Outcomes = Outcomes()
    total: Tally = Tally()
    prompt_cache: PromptCache = PromptCache()
    reasons: Mapping[str, ReasonNumbers] = field(default_factory=dict)
    variants: Mapping[str, VariantNumbers] = field(default_factory=dict)
    questions: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    providers: Mapping[str, ProviderNumbers] = field(default_factory=dict)
    notes: Mapping[str, int] = field(default_factory=dict)
    fields: Mapping[str, FieldCounts] = field(default_factory=dict)
    slowest: tuple[SlowDocument, ...] = ()
    largest: tuple[LargeDocument, ...] = ()
    timeline: Timeline = Timeline()
    long_documents: LongDocumentNumbers | None = field(default=None, metadata=plain.LEFT_OUT)
