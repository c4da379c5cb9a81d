"""Selection of the listed entries to process: by shard, sample, and their records in the output.

It reads the index only: no document, and it keeps no counts.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from pipeline.documents import fallback_id, held_sha256
from pipeline.errors import kind_of
from pipeline.output.index import Index
from pipeline.records import Entry, LatestRecord, changed
from pipeline.shards import Shard, hash_fraction

Redo = Literal["changed", "none", "all"]
Choice = Literal["do", "skip", "leave"]


@dataclass(frozen=True, slots=True)
class SelectionRules:
    """The rules for processing documents again (docs/reruns.md).

    `only_failed`: None, or the reasons whose failures alone are processed (empty: all reasons). `ask_again`: ids of
    results that may have been cut, each with the number of the run that wrote it. `sample_threshold`: only documents
    whose stable fraction in [0, 1) is at most this; None: all. `ids`: only these documents; None: all.
    """

    run_id: str
    redo: Redo | None = None
    only_failed: frozenset[str] | None = None
    retry_failed: bool = True
    retry_runs: int = 3
    sample_threshold: float | None = None
    ids: frozenset[str] | None = None
    ask_again: Mapping[str, int] = field(default_factory=dict)

    def is_doubtful(self, document_id: str, latest: LatestRecord) -> bool:
        """Return True when an earlier run marked the stored result for another request."""
        return not latest.failed and self.ask_again.get(document_id) == latest.run

    def is_valid(self, latest: LatestRecord, fingerprint: str, decided_by: str | None) -> bool:
        """Return True when the stored record remains valid as long as the bytes are the same.

        `decided_by`: the current digest of the settings that the failure's reason depends on. A line without a digest
        was written by an older version: its document is tried once, and its next line has a digest.
        """
        if self.redo == "all":
            return latest.run_id == self.run_id
        if latest.failed and not self.retry_failed:
            return True
        if latest.fingerprint != fingerprint and self.redo != "none":
            return False
        if not latest.failed:
            return True
        if latest.decided_by != decided_by:
            return False
        if latest.accepted:
            return True
        return kind_of(latest.reason or "") == "document" or latest.runs > self.retry_runs

    def includes_failure(self, latest: LatestRecord | None) -> bool:
        """Return True when --only-failed includes the stored failure."""
        reasons = self.only_failed
        return latest is not None and latest.failed and (not reasons or latest.reason in reasons)


class Selection:
    """The choice for each entry, in the order of the listing; used by the reader thread only."""

    def __init__(
        self,
        index: Index,
        rules: SelectionRules,
        *,
        shard: Shard,
        fingerprint: Callable[[str, LatestRecord], str],
        decided_by: Callable[[str, LatestRecord], str | None],
    ) -> None:
        """`fingerprint`: returns the one to compare with an id's record; `decided_by`: returns a failure's digest."""
        self._index = index
        self._rules = rules
        self._shard = shard
        # the entries of a chunk come from its own rows of the plan
        self._owns_all = shard.is_chunk or shard.count <= 1
        self._fingerprint = fingerprint
        self._decided_by = decided_by

    def wants(self, document_id: str) -> bool:
        """Return True when the document is this shard's, in the sample, and among the named ones."""
        threshold = self._rules.sample_threshold
        ids = self._rules.ids
        if ids is not None and document_id not in ids:
            return False
        is_own = self._owns_all or self._shard.owns(document_id)
        return is_own and (threshold is None or hash_fraction("sample", document_id) <= threshold)

    def judge(self, entry: Entry) -> tuple[Choice, Entry]:
        """Return the choice for an entry, and the entry with its stored record."""
        if self._index.mark_met(entry.id):
            entry = changed(entry, id=self._free_id(fallback_id(entry)), duplicate_of=entry.id, latest=None)
        # the listing has already looked up some
        latest = entry.latest or self._index.latest(entry.id)
        if self._rules.only_failed is not None:
            if self._rules.includes_failure(latest):
                return "do", changed(entry, latest=latest)
            return ("leave" if latest is None else "skip"), entry
        if latest is None:
            return "do", entry
        was_duplicate = latest.reason == "duplicate_id"
        is_duplicate = entry.duplicate_of is not None
        is_valid = was_duplicate == is_duplicate and self._is_valid(entry.id, latest)
        is_valid = is_valid and not self._rules.is_doubtful(entry.id, latest)
        if is_valid and _has_same_bytes(entry, latest):
            return "skip", entry
        return "do", changed(entry, latest=latest, latest_is_valid=is_valid)

    def _is_valid(self, document_id: str, latest: LatestRecord) -> bool:
        decided_by = self._decided_by(document_id, latest) if latest.failed else None
        return self._rules.is_valid(latest, self._fingerprint(document_id, latest), decided_by)

    def counts_as_failed(self, document_id: str, latest: LatestRecord) -> bool:
        """Return True for a failure of the current query, or one that this run does not try with any query."""
        rules = self._rules
        skips_failures = rules.redo == "none" or not rules.retry_failed or rules.only_failed is not None
        return skips_failures or latest.fingerprint == self._fingerprint(document_id, latest)

    def _free_id(self, id: str) -> str:
        """Return the id, with a number behind it when this run has met it already."""
        candidates = itertools.chain([id], (f"{id}!{number}" for number in itertools.count(2)))
        return next(candidate for candidate in candidates if not self._index.mark_met(candidate))


def _has_same_bytes(entry: Entry, latest: LatestRecord) -> bool:
    """Return True when the bytes are certainly the same, without reading them."""
    if entry.version is not None and entry.version == latest.version:
        return True
    return latest.sha256 is not None and held_sha256(entry) == latest.sha256


def sample_threshold(ids: Iterable[str], size: int) -> float:
    """Return the fraction up to which `size` documents are selected; -1.0 when there are no documents."""
    fractions = heapq.nsmallest(size, (hash_fraction("sample", document_id) for document_id in ids))
    return fractions[-1] if fractions else -1.0
