"""The summaries of an output's runs, `runs/RUN_ID.json`: written last, never changed.

It must not decide what a summary holds, beyond who wrote it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import OutputError
from pipeline.output.lines import sync_folder
from pipeline.records import RECORD_VERSION, Stamp
from pipeline.stores import write_atomic

_log = logging.getLogger(__name__)


def read_runs(folder: Path) -> list[dict[str, Any]]:
    """The summaries of the runs that came to their end, newest last; a file that is none is passed over."""
    summaries = [(path.name, _read(path)) for path in sorted((folder / "runs").glob("*.json"))]
    found = [(summary["run"], name, summary) for name, summary in summaries if summary is not None]
    return [summary for _, _, summary in sorted(found, key=lambda item: item[:2])]


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_bytes())
    except OSError as exc:
        raise OutputError(f"{path}: cannot be read: {exc.strerror or exc}") from exc
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict) and isinstance(value.get("run"), int):
        return value
    _log.warning(f"{path.name} is not the summary of a run and was passed over")
    return None


def write_run(folder: Path, summary: Mapping[str, Any], *, stamp: Stamp, suffix: str) -> Path:
    """The new file. It carries the run's number when an earlier run with this run id came to its end, too.

    OutputError when it cannot be written, or when this very run has written it already.
    """
    runs = folder / "runs"
    path = runs / f"{stamp.run_id}{suffix}.json"
    if path.exists():
        path = runs / f"{stamp.run_id}{suffix}.run{stamp.run}.json"
    if path.exists():
        raise OutputError(f"{path}: is there already, and a run's summary is never changed")
    head = {"v": RECORD_VERSION, "run": stamp.run, "run_id": stamp.run_id, "shard": stamp.shard}
    try:
        text = json.dumps({**summary, **head}, ensure_ascii=False, allow_nan=False, indent=1)
        runs.mkdir(exist_ok=True)
        write_atomic(path, text.encode("utf-8", "backslashreplace") + b"\n")
        sync_folder(folder)
    except OSError as exc:
        raise OutputError(f"{path}: cannot be written: {exc.strerror or exc}") from exc
    return path
