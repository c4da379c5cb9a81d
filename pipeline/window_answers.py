"""The answer about one window of a long document, and its line in windows.jsonl.

Plain frozen data; it must not do I/O.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from pipeline.evidence import Evidence
from pipeline.records import ModelMetadata, Stamp, Usage

WINDOW_VERSION = 1


@dataclass(frozen=True, slots=True)
class WindowAnswer:
    """The answer about text[start:end] of a document, valid against the schema of a window.

    `sha256` is of the document's bytes, `text_sha256` of its text, `question` of every window's question. `attempts` is
    0 for a blank window, which is not sent. `evidence`: the places of its quotes in the whole text, None in a line of
    an earlier version.
    """

    id: str
    sha256: str
    text_sha256: str
    question: str
    start: int
    end: int
    output: Any
    attempts: int
    reasks: int
    repaired: bool
    notes: tuple[str, ...]
    model: ModelMetadata | None
    usage: Usage
    context_length: int | None
    latency_s: float
    finished_at: str
    evidence: Sequence[Evidence] | None = None


_NAMES = tuple(each.name for each in fields(WindowAnswer))


def to_window_line(answer: WindowAnswer, stamp: Stamp) -> bytes:
    """Return the answer as one line of UTF-8 JSON with its LF; ValueError on NaN or Infinity."""
    # asdict() of the whole would copy the output, value by value
    record = {"v": WINDOW_VERSION, **{name: getattr(answer, name) for name in _NAMES}}
    record |= {"model": None if answer.model is None else asdict(answer.model), "usage": asdict(answer.usage)}
    record |= asdict(stamp)
    return (json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n").encode("utf-8")


def window_answer_of(record: Mapping[str, Any]) -> WindowAnswer:
    """Return the answer that a parsed line holds."""
    values = {name: record[name] for name in _NAMES if name in record}
    model = None if values["model"] is None else ModelMetadata(**values["model"])
    return WindowAnswer(
        **{**values, "model": model, "usage": Usage(**values["usage"]), "notes": tuple(values["notes"])}
    )


def is_window_record(record: Mapping[str, Any]) -> bool:
    """Return True for a parsed line that a run has written."""
    texts = (record.get(name) for name in ("id", "sha256", "text_sha256", "question", "run_id", "finished_at"))
    numbers = (record.get(name) for name in ("start", "end", "run"))
    return (
        record.get("v") == WINDOW_VERSION
        and "output" in record
        and all(type(text) is str for text in texts)
        and all(type(number) is int and 0 <= number < 1 << 62 for number in numbers)
    )
