"""The windows of unfinished long documents that an earlier run has answered, for the numbers of a dry run.

It reads windows.jsonl without a lock and changes nothing.
"""

from __future__ import annotations

import time
from collections import defaultdict
from hashlib import sha256

from pipeline.errors import DocumentError
from pipeline.output.backend import OutputBackend
from pipeline.output.lines import parse
from pipeline.records import Entry
from pipeline.run.plan import ExtractionPlan


class AnsweredWindows:
    """The answered windows of each document, as far as the current queries of a plan can use them."""

    def __init__(self, plan: ExtractionPlan) -> None:
        self._plan = plan
        self._spans: defaultdict[str, set[tuple[str, int, int]]] = defaultdict(set)

    @classmethod
    def read(cls, backend: OutputBackend, plan: ExtractionPlan) -> AnsweredWindows:
        """Return the answered windows of an output; none for a plan without `overflow: split`."""
        windows = cls(plan)
        if any(query.split is not None for query in plan.queries.values()):
            for line in backend.windows(clock=time.monotonic).read():
                windows._add(line)
        return windows

    def count(self, entry: Entry) -> int:
        """Return how many windows of a document have an answer; a document that has changed since has none."""
        windows = self._spans.get(entry.id)
        if not windows:
            return 0
        try:
            digest = sha256(entry.read()).hexdigest()
        except DocumentError:
            return 0
        return sum(window[0] == digest for window in windows)

    def _add(self, line: bytes) -> None:
        record = parse(line)
        if record is None:
            return
        split = self._plan.query_for(record["id"]).split
        if split is not None and record["question"] == split.question:
            self._spans[record["id"]].add((record["sha256"], record["start"], record["end"]))
