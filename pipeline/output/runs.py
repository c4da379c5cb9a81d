"""The summaries of an output's runs, `runs/RUN_ID.json`: written at the end of a run, never changed.

`pipeline compact` moves older ones into one file, a line for each (folded_runs.py).

It must not define the content of a summary, except the fields that identify the run.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pipeline.config.redaction import SECRETS
from pipeline.errors import OutputError
from pipeline.output.backend import OutputBackend, ReadableOutput
from pipeline.records import RECORD_VERSION, Stamp

_log = logging.getLogger(__name__)
RUNS = "runs"
FOLDED = f"{RUNS}/earlier.jsonl"
"""The summaries of older runs, one a line; readers of an earlier version skip it."""

ASK_AGAIN = "ask_again"
"""The key of a summary with the ids of results that the next run requests again."""


def read_runs(backend: ReadableOutput) -> list[dict[str, Any]]:
    """Return the summaries of completed runs, newest last; other files are skipped.

    An output may have thousands: a run must use the index of runs (run_index.py).
    """
    return ordered(named_runs(backend.files(RUNS)))


def runs_in(backend: ReadableOutput, paths: Iterable[str]) -> list[dict[str, Any]]:
    """Return the summaries in these files, newest last."""
    files = ((path, data) for path in paths if (data := backend.content(path)) is not None)
    return ordered(named_runs(files))


def named_runs(files: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each summary with the name of its file, or of its line as `runs/earlier.jsonl:1`."""
    for name, data in files:
        if name == FOLDED:
            for number, line in enumerate(data.splitlines(), start=1):
                if (summary := _parse(f"{name}:{number}", line)) is not None:
                    yield f"{name}:{number}", summary
        elif name.endswith(".json") and (summary := _parse(name, data)) is not None:
            yield name, summary


def ordered(named_summaries: Iterable[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return named summaries, newest last; a folded summary whose file still exists counts once."""
    runs = sorted(named_summaries, key=lambda item: (item[1]["run"], item[0]))
    return list({identity_of(run): run for _, run in runs}.values())


def identity_of(run: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the values that identify a run: shards that run at the same time may share number and id."""
    return run["run"], run.get("run_id"), run.get("shard"), run.get("finished_at")


def _parse(name: str, data: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict) and isinstance(value.get("run"), int):
        return value
    _log.warning("skipped %s: not the summary of a run", name)
    return None


def identity(stamp: Stamp) -> dict[str, Any]:
    """Return the fields of a summary that identify its run."""
    return {"v": RECORD_VERSION, "run": stamp.run, "run_id": stamp.run_id, "shard": stamp.shard}


def write_run(backend: OutputBackend, summary: Mapping[str, Any], *, stamp: Stamp, suffix: str) -> str:
    """Write the summary; return the file's name, which has the run's number if this run id was used before.

    OutputError when it cannot be written, or when this run has already written it.
    """
    text = json.dumps({**summary, **identity(stamp)}, ensure_ascii=False, allow_nan=False, indent=1)
    data = SECRETS.redact_whole(text).encode("utf-8", "backslashreplace") + b"\n"
    path = f"{RUNS}/{stamp.run_id}{suffix}"
    for name in (f"{path}.json", f"{path}.run{stamp.run}.json"):
        if backend.create(name, data):
            return name
    raise OutputError(f"{backend.where}/{name}: exists already, and a run's summary is never changed")
