"""The summaries of an output's runs, `runs/RUN_ID.json`: written last, never changed.

It must not decide what a summary holds, beyond who wrote it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from pipeline.config.redaction import SECRETS
from pipeline.errors import OutputError
from pipeline.output.backend import OutputBackend
from pipeline.records import RECORD_VERSION, Stamp

_log = logging.getLogger(__name__)
RUNS = "runs"


def read_runs(backend: OutputBackend) -> list[dict[str, Any]]:
    """The summaries of the runs that came to their end, newest last; a file that is none is passed over."""
    summaries = [(name, _parse(name, data)) for name, data in backend.files(RUNS) if name.endswith(".json")]
    found = [(summary["run"], name, summary) for name, summary in summaries if summary is not None]
    return [summary for _, _, summary in sorted(found, key=lambda item: item[:2])]


def _parse(name: str, data: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict) and isinstance(value.get("run"), int):
        return value
    _log.warning("%s is not the summary of a run and was passed over", name)
    return None


def write_run(backend: OutputBackend, summary: Mapping[str, Any], *, stamp: Stamp, suffix: str) -> str:
    """The new file's name. It carries the run's number when an earlier run with this run id came to its end, too.

    OutputError when it cannot be written, or when this very run has written it already.
    """
    head = {"v": RECORD_VERSION, "run": stamp.run, "run_id": stamp.run_id, "shard": stamp.shard}
    text = json.dumps({**summary, **head}, ensure_ascii=False, allow_nan=False, indent=1)
    data = SECRETS.redact(text).encode("utf-8", "backslashreplace") + b"\n"
    path = f"{RUNS}/{stamp.run_id}{suffix}"
    for name in (f"{path}.json", f"{path}.run{stamp.run}.json"):
        if backend.create(name, data):
            return name
    raise OutputError(f"{backend.where}/{name}: is there already, and a run's summary is never changed")
