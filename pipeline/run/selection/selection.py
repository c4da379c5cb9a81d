"""Selection of the listed entries to process: by shard, sample, and their records in the output.

It reads the index and decides; it reads no document and counts nothing itself.
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
from pipeline.records import Entry, Known, changed
from pipeline.shards import Shard, hash_fraction

Redo = Literal["changed", "none", "all"]
Choice = Literal["do", "skip", "leave"]


@dataclass(frozen=True, slots=True)
class SelectionRules:
    """The rules for processing documents again (docs/reruns.md).

    `only_failed`: None, or the reasons whose failures alone are processed (empty: all reasons). `ask_again`: ids of
    results that may have been cut, each with the number of the run that wrote it. `sample_below`: only documents whose
    stable fraction in [0, 1) is at most this; None: all. `ids`: only these documents; None: all.
    """

    run_id: str
    redo: Redo | None = None
    only_failed: frozenset[str] | None = None
    retry_failed: bool = True
    retry_runs: int = 3
    sample_below: float | None = None
    ids: frozenset[str] | None = None
    ask_again: Mapping[str, int] = field(default_factory=dict)

    def is_doubtful(self, document_id: str, known: Known) -> bool:
        """Return True when an earlier run marked the stored result for another request."""
        return not known.failed and self.ask_again.get(document_id) == known.run

    def stands(self, known: Known, fingerprint: str, decided_by: str | None) -> bool:
        """Return True when the stored record remains valid as long as the bytes are the same.

        `decided_by`: the current digest of the settings that the failure's reason depends on. A line without one is of
        an older version: its document is tried once, and the next line has one.
        """
        if self.redo == "all":
            return known.run_id == self.run_id
        if known.failed and not self.retry_failed:
            return True
        if known.fingerprint != fingerprint and self.redo != "none":
            return False
        if not known.failed:
            return True
        if known.decided_by != decided_by:
            return False
        if known.accepted:
            return True
        return kind_of(known.reason or "") == "document" or known.runs > self.retry_runs

    def names(self, known: Known | None) -> bool:
        """Return True when --only-failed includes the stored failure."""
        reasons = self.only_failed
        return known is not None and known.failed and (not reasons or known.reason in reasons)


class Selection:
    """Decides on each entry, in the order of the listing; used by the reader thread only."""

    def __init__(
        self,
        index: Index,
        rules: SelectionRules,
        *,
        shard: Shard,
        fingerprint: Callable[[str, Known], str],
        decided_by: Callable[[str, Known], str | None],
    ) -> None:
        """`fingerprint`: the one to compare an id's stored record with; `decided_by`: the digest for a failure."""
        self._index = index
        self._rules = rules
        self._shard = shard
        # the entries of a chunk come from its own rows of the plan
        self._owns_all = shard.is_chunk or shard.count <= 1
        self._fingerprint = fingerprint
        self._decided_by = decided_by

    def wants(self, document_id: str) -> bool:
        """Return True when the document is this shard's, in the sample, and among the named ones."""
        below = self._rules.sample_below
        ids = self._rules.ids
        if ids is not None and document_id not in ids:
            return False
        is_own = self._owns_all or self._shard.owns(document_id)
        return is_own and (below is None or hash_fraction("sample", document_id) <= below)

    def judge(self, entry: Entry) -> tuple[Choice, Entry]:
        """Return the choice for an entry, and the entry with its stored record."""
        if self._index.seen(entry.id):
            entry = changed(entry, id=self._free_id(fallback_id(entry)), duplicate_of=entry.id, known=None)
        # the listing has already looked up some
        known = entry.known or self._index.known(entry.id)
        if self._rules.only_failed is not None:
            if self._rules.names(known):
                return "do", changed(entry, known=known)
            return ("leave" if known is None else "skip"), entry
        if known is None:
            return "do", entry
        was_duplicate = known.reason == "duplicate_id"
        is_duplicate = entry.duplicate_of is not None
        stands = was_duplicate == is_duplicate and self._is_valid(entry.id, known)
        stands = stands and not self._rules.is_doubtful(entry.id, known)
        if stands and _is_as_known(entry, known):
            return "skip", entry
        return "do", changed(entry, known=known, stands=stands)

    def _is_valid(self, document_id: str, known: Known) -> bool:
        decided_by = self._decided_by(document_id, known) if known.failed else None
        return self._rules.stands(known, self._fingerprint(document_id, known), decided_by)

    def counts_as_failed(self, document_id: str, known: Known) -> bool:
        """Return True for a failure of the current query, or one that this run does not try with any query."""
        rules = self._rules
        passes_over = rules.redo == "none" or not rules.retry_failed or rules.only_failed is not None
        return passes_over or known.fingerprint == self._fingerprint(document_id, known)

    def _free_id(self, id: str) -> str:
        """Return the id, with a number behind it when this run has met it already."""
        candidates = itertools.chain([id], (f"{id}!{number}" for number in itertools.count(2)))
        return next(candidate for candidate in candidates if not self._index.seen(candidate))


def _is_as_known(entry: Entry, known: Known) -> bool:
    """Return True when the bytes are certainly the same, without reading them."""
    if entry.version is not None and entry.version == known.version:
        return True
    return known.sha256 is not None and held_sha256(entry) == known.sha256


def sample_threshold(ids: Iterable[str], size: int) -> float:
    """Return the fraction that selects the `size` documents with the smallest ones; 0 documents: below all."""
    smallest = heapq.nsmallest(size, (hash_fraction("sample", document_id) for document_id in ids))
    return smallest[-1] if smallest else -1.0
