"""Failures that remain: documents of the input whose last line is an error, whether or not this run tried them.

It counts and merges; it must not read the output or decide the exit code: the run does that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class ReasonCount:
    """Documents that remain failed for one reason: `count` not accepted, of these `untried` in this run.

    `accepted`: documents whose failure a person has accepted. `examples`: ids of failures that are not accepted.
    """

    count: int = 0
    untried: int = 0
    accepted: int = 0
    examples: tuple[str, ...] = ()

    def plus(self, other: ReasonCount) -> ReasonCount:
        """Return the sum of both."""
        return ReasonCount(
            self.count + other.count,
            self.untried + other.untried,
            self.accepted + other.accepted,
            (self.examples + other.examples)[:EXAMPLES],
        )


@dataclass(frozen=True, slots=True)
class RemainingFailures:
    """The remaining failures of the documents in a run's input, by reason.

    `documents`: all documents they are a share of. `accepted_now`: failures of this run that are accepted.
    """

    documents: int = 0
    accepted_now: int = 0
    reasons: Mapping[str, ReasonCount] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        """Number of documents that remain failed and are not accepted."""
        return sum(reason.count for reason in self.reasons.values())

    @property
    def untried(self) -> int:
        """Number of these that failed in an earlier run and were not retried in this one."""
        return sum(reason.untried for reason in self.reasons.values())

    @property
    def accepted(self) -> int:
        """Number of documents that remain failed and are accepted."""
        return sum(reason.accepted for reason in self.reasons.values())

    def with_one(self, reason: str, *, document_id: str, tried: bool, accepted: bool) -> RemainingFailures:
        """Return these failures plus one."""
        before = self.reasons.get(reason, ReasonCount())
        added = ReasonCount(not accepted, not accepted and not tried, accepted, () if accepted else (document_id,))
        now = self.accepted_now + (tried and accepted)
        return replace(self, accepted_now=now, reasons={**self.reasons, reason: before.plus(added)})

    def of(self, documents: int) -> RemainingFailures:
        """Return these failures as a share of that many documents."""
        return replace(self, documents=documents)

    def to_json(self) -> dict[str, Any]:
        """Return the numbers in the form of a run's summary, the most frequent reason first."""
        ordered = sorted(self.reasons.items(), key=lambda item: (-item[1].count, item[0]))
        rows = {reason: _row(count) for reason, count in ordered}
        return {
            "documents": self.documents,
            "failed": self.failed,
            "untried": self.untried,
            "accepted": self.accepted,
            "reasons": rows,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any] | None) -> RemainingFailures:
        """Return the failures of a run's summary; none for a summary of a version that did not count them."""
        rows: Mapping[str, Any] = (value or {}).get("reasons", {})
        reasons = {
            reason: ReasonCount(
                row["count"], row["untried"], row["accepted"], tuple(example["id"] for example in row["examples"])
            )
            for reason, row in rows.items()
        }
        return cls((value or {}).get("documents", 0), reasons=reasons)


NONE_REMAIN = RemainingFailures()


def _row(count: ReasonCount) -> dict[str, Any]:
    examples = [{"id": document_id} for document_id in count.examples]  # purge finds documents by this key
    return {"count": count.count, "untried": count.untried, "accepted": count.accepted, "examples": examples}


def merged(several: Sequence[RemainingFailures]) -> RemainingFailures:
    """Return the remaining failures of several shards as one."""
    reasons: dict[str, ReasonCount] = {}
    for shard in several:
        for reason, count in shard.reasons.items():
            reasons[reason] = reasons.get(reason, ReasonCount()).plus(count)
    return RemainingFailures(sum(shard.documents for shard in several), reasons=reasons)


def untried_reasons(remaining: RemainingFailures) -> list[tuple[str, ReasonCount]]:
    """Return the reasons of failures that this run did not retry, the most frequent first."""
    rows = [(reason, count) for reason, count in remaining.reasons.items() if count.untried]
    return sorted(rows, key=lambda item: (-item[1].untried, item[0]))
