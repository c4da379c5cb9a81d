"""Which entries of the listing are to be done: by shard, sample, and what the output says of them already.

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
    """What is done again (docs/reruns.md).

    `only_failed`: None, or the reasons whose failures alone are done (empty: all of them).
    `ask_again`: ids of results that may have been cut, each with the number of the run that wrote it.
    `sample_below`: only documents whose stable fraction in [0, 1) is at most this; None: all.
    `ids`: only these documents; None: all.
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
        """True when the result that is known is one that an earlier run left to be asked for again."""
        return not known.failed and self.ask_again.get(document_id) == known.run

    def stands(self, known: Known, fingerprint: str, decided_by: str | None) -> bool:
        """True when what is known need not be done again as long as the bytes are the same.

        `decided_by`: the digest of the settings that the known failure's reason depends on, as they are now. A line
        without one is of an older version: its document is tried once, and the next line has one.
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
        """True when --only-failed names what is known."""
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
        """`fingerprint`: the one that an id's known record is compared with; `decided_by`: the digest for a failure."""
        self._index = index
        self._rules = rules
        self._shard = shard
        # the entries of a chunk come from its own rows of the plan
        self._owns_all = shard.is_chunk or shard.count <= 1
        self._fingerprint = fingerprint
        self._decided_by = decided_by

    def wants(self, document_id: str) -> bool:
        """True when the document is this shard's, of the sample, and among those that were named."""
        below = self._rules.sample_below
        ids = self._rules.ids
        if ids is not None and document_id not in ids:
            return False
        is_own = self._owns_all or self._shard.owns(document_id)
        return is_own and (below is None or hash_fraction("sample", document_id) <= below)

    def judge(self, entry: Entry) -> tuple[Choice, Entry]:
        """What to do with an entry, and the entry with what is known of it."""
        if self._index.seen(entry.id):
            entry = changed(entry, id=self._free_id(fallback_id(entry)), duplicate_of=entry.id, known=None)
        # the listing has looked up some
        known = entry.known or self._index.known(entry.id)
        if self._rules.only_failed is not None:
            if self._rules.names(known):
                return "do", changed(entry, known=known)
            return ("leave" if known is None else "skip"), entry
        if known is None:
            return "do", entry
        was_duplicate = known.reason == "duplicate_id"
        is_duplicate = entry.duplicate_of is not None
        stands = was_duplicate == is_duplicate and self._stands(entry.id, known)
        stands = stands and not self._rules.is_doubtful(entry.id, known)
        if stands and _is_as_known(entry, known):
            return "skip", entry
        return "do", changed(entry, known=known, stands=stands)

    def _stands(self, document_id: str, known: Known) -> bool:
        decided_by = self._decided_by(document_id, known) if known.failed else None
        return self._rules.stands(known, self._fingerprint(document_id, known), decided_by)

    def counts_as_failed(self, document_id: str, known: Known) -> bool:
        """True when a failure is one of the current question, or this run does not try it whatever was asked."""
        rules = self._rules
        passes_over = rules.redo == "none" or not rules.retry_failed or rules.only_failed is not None
        return passes_over or known.fingerprint == self._fingerprint(document_id, known)

    def _free_id(self, wanted: str) -> str:
        """The id, with a number behind it when this run has met it already."""
        tries = itertools.chain([wanted], (f"{wanted}!{number}" for number in itertools.count(2)))
        return next(each for each in tries if not self._index.seen(each))


def _is_as_known(entry: Entry, known: Known) -> bool:
    """True when it can be told without reading that the bytes are the same."""
    if entry.version is not None and entry.version == known.version:
        return True
    return known.sha256 is not None and held_sha256(entry) == known.sha256


def sample_threshold(ids: Iterable[str], size: int) -> float:
    """The fraction up to which the `size` documents with the smallest ones lie; 0 documents: below all."""
    smallest = heapq.nsmallest(size, (hash_fraction("sample", document_id) for document_id in ids))
    return smallest[-1] if smallest else -1.0
