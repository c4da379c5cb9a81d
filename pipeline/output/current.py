"""The current record of each document of an output: its last result, or its failure when it has none.

It must not change an output, and needs no lock: a run may write to it at the same time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.output.backend import ReadableOutput
from pipeline.output.compaction import last_lines
from pipeline.output.newest_prompt import Prompt, newest_prompt

Status = Literal["done", "stale", "failed"]


@dataclass(frozen=True, slots=True)
class Record:
    """A document's current record. `stale`: the document failed later, and this is its earlier result.

    `output` is None for a failed document and `reason` None for a result; `raw` is the whole line. `prompt`: `earlier`
    for a record of an earlier prompt, schema or model than that of the newest run.
    """

    id: str
    status: Status
    output: Mapping[str, Any] | None
    reason: str | None
    raw: Mapping[str, Any]
    prompt: Prompt = "current"

    @property
    def is_current(self) -> bool:
        """False for a record of an earlier prompt, and for a result whose document failed later."""
        return self.status != "stale" and self.prompt == "current"


class CurrentRecords:
    """The current records of an output, read line by line. `without_result`: failed documents, after the last line."""

    def __init__(self, backend: ReadableOutput) -> None:
        self.without_result = 0
        self._backend = backend

    def read(self, *, failed: bool) -> Iterator[Record]:
        """Yield the last result of each document in line order; with `failed`, then the documents without a result."""
        self.without_result = 0
        with closing(self._backend.read()) as index:
            newest = newest_prompt(self._backend, index)
            for line, key in last_lines(self._backend):
                index.mark_met(key.id)
                entry = index.latest(key.id)
                raw = json.loads(line)
                status: Status = "stale" if entry is not None and entry.failed else "done"
                yield Record(key.id, status, raw["output"], None, raw, newest.of(key.variant, key.fingerprint))
            for line, key in self._backend.records("errors"):
                # mark the id as met, so that one failure is not read twice
                if index.is_current_failure(key.id, key.run) and not index.mark_met(key.id):
                    self.without_result += 1
                    if failed:
                        prompt = newest.of(key.variant, key.fingerprint)
                        yield Record(key.id, "failed", None, key.reason, json.loads(line), prompt)
