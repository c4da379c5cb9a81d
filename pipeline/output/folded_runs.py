"""Changes of all run summaries, under the lock of the whole output: fold old ones, and remove documents.

A kill at any time must lose no summary: a line is written before its file is removed, and a duplicate summary counts
once. The index of runs is rebuilt after each change.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.errors import OutputError
from pipeline.output.backend import OutputBackend
from pipeline.output.purged_runs import RemovalTest, rewritten, without_documents
from pipeline.output.run_index import drop, rebuild
from pipeline.output.runs import FOLDED, RUNS, identity_of, named_runs, ordered

_log = logging.getLogger(__name__)

KEPT_FILES = 30
"""The number of newest summaries that keep files of their own, because people read them."""


def fold(backend: OutputBackend) -> int:
    """Move the summaries of all but the newest runs into one file; return how many were moved."""
    summaries = sorted(named_runs(backend.files(RUNS)), key=lambda item: (item[1]["run"], item[0]))
    files = [name for name, _ in summaries if not name.startswith(FOLDED)]
    old_names = set(files[:-KEPT_FILES])
    if old_names:
        lines = {identity_of(run): run for name, run in summaries if name in old_names or name not in files}
        backend.replace(FOLDED, _lines(lines.values()))
    rebuild(backend, ordered(summaries), [name for name in files if name not in old_names])
    for name in sorted(old_names):
        try:
            backend.remove(name)
        except OutputError as error:
            _log.warning("Cannot delete folded summaries in %s; they are read twice: %s", RUNS, error)
            break
    return len(old_names)


def remove_documents(backend: OutputBackend, is_removed: RemovalTest) -> None:
    """Remove documents from all summaries and drop the index, which `fold` rebuilds."""
    drop(backend)
    runs = dict(named_runs(backend.files(RUNS)))
    changed_runs = without_documents(runs, lambda: (line for line, _ in backend.records("results")), is_removed)
    for name, summary in changed_runs.items():
        if name in runs and not name.startswith(FOLDED):
            backend.replace(name, rewritten(summary))
    if any(name.startswith(FOLDED) for name in changed_runs):
        folded = {name: run for name, run in {**runs, **changed_runs}.items() if name.startswith(FOLDED)}
        backend.replace(FOLDED, _lines(folded.values()))


def _lines(runs: Any) -> Iterator[bytes]:
    return (_line(run) for run in runs)


def _line(run: Mapping[str, Any]) -> bytes:
    return json.dumps(run, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace") + b"\n"
