"""Results and failures as lines of JSON, and without secrets.

It must not change the `output` of a result.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pipeline.records import RECORD_VERSION, Failure, ModelMetadata, Result, Stamp, Try, Usage, changed


def to_line(record: Result | Failure, stamp: Stamp) -> bytes:
    """Return the record as one line of UTF-8 JSON with its LF; ValueError on NaN or Infinity."""
    values = {"v": RECORD_VERSION, **record.__dict__, **_plain(stamp)}
    return (_ENCODER.encode(values) + "\n").encode("utf-8")


def redacted(record: Result | Failure, redact: Callable[[Any], Any], *, own: Callable[[Any], Any]) -> Result | Failure:
    """Return the record with `redact` applied to all text of servers, `own` to that of documents, but not `output`."""
    history = tuple(replace(step, error=redact(step.error)) for step in record.history)
    if isinstance(record, Result):
        model = ModelMetadata(*(redact(value) for value in _plain(record.model).values()))
        changes = {"notes": redact(record.notes), "metadata": own(record.metadata), "history": history}
        if record.windows is not None:
            changes["windows"] = {**record.windows, "models": redact(record.windows["models"])}
        return changed(record, model=model, **changes)
    message = redact(record.message)
    raw = redact(record.raw)
    error = redact(record.error)
    return changed(record, error=error, message=message, raw=raw, history=history, notes=redact(record.notes))


def _plain(value: Any) -> dict[str, Any]:
    """Return a part of a record as a mapping for JSON; TypeError for anything else."""
    if isinstance(value, (ModelMetadata, Usage, Try, Stamp)):
        return {name: getattr(value, name) for name in value.__slots__}
    raise TypeError(f"{type(value).__name__} cannot be part of a record")


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)
