"""The summaries of an output's runs, `runs/RUN_ID.json`: written at the end of a run, never changed.

It must not define the content of a summary, except the fields that identify the run.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from pipeline.config.redaction import SECRETS
from pipeline.errors import OutputError
from pipeline.output.backend import OutputBackend, ReadableOutput
from pipeline.records import RECORD_VERSION, Stamp

_log = logging.getLogger(__name__)
RUNS = "runs"

ASK_AGAIN = "ask_again"
"""The key of a summary that holds the ids of results that the next run asks for again."""


def read_runs(backend: ReadableOutput) -> list[dict[str, Any]]:
    """Return the summaries of completed runs, newest last; other files are skipped."""
    summaries = [(name, _parse(name, data)) for name, data in backend.files(RUNS) if name.endswith(".json")]
    valid = [(summary["run"], name, summary) for name, summary in summaries if summary is not None]
    return [summary for _, _, summary in sorted(valid, key=lambda item: item[:2])]


def _parse(name: str, data: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict) and isinstance(value.get("run"), int):
        return value
    _log.warning("skipped %s: it is not the summary of a run", name)
    return None


def write_run(backend: OutputBackend, summary: Mapping[str, Any], *, stamp: Stamp, suffix: str) -> str:
    """Write the summary; return the file's name, which has the run's number if this run id was used before.

    OutputError when it cannot be written, or when this run has already written it.
    """
    identity = {"v": RECORD_VERSION, "run": stamp.run, "run_id": stamp.run_id, "shard": stamp.shard}
    text = json.dumps({**summary, **identity}, ensure_ascii=False, allow_nan=False, indent=1)
    data = SECRETS.redact_whole(text).encode("utf-8", "backslashreplace") + b"\n"
    path = f"{RUNS}/{stamp.run_id}{suffix}"
    for name in (f"{path}.json", f"{path}.run{stamp.run}.json"):
        if backend.create(name, data):
            return name
    raise OutputError(f"{backend.where}/{name}: exists already, and a run's summary is never changed")
