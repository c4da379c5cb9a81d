"""Failures that a person has accepted, `accepted.jsonl`: they are reported, but do not make a run exit with 1.

A line applies to one failure of one document, and is void when the document, its fingerprint or the reason changes.
The file is always rewritten as a whole, under the lock of the whole output.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

NAME = "accepted.jsonl"
VERSION = 1
_log = logging.getLogger(__name__)


class AcceptedFailure(NamedTuple):
    """A line of accepted.jsonl."""

    id: str
    sha256: str | None
    fingerprint: str
    reason: str
    accepted_at: str


def to_lines(failures: Iterable[AcceptedFailure]) -> Iterator[bytes]:
    """Yield the lines of the file."""
    for failure in failures:
        values = {"v": VERSION, **failure._asdict()}
        yield (json.dumps(values, ensure_ascii=False, separators=(",", ":")) + "\n").encode("utf-8", "backslashreplace")


def from_lines(data: bytes | None, *, where: str) -> Iterator[AcceptedFailure]:
    """Yield the accepted failures of a file (None: no file). Invalid lines are skipped with a warning."""
    skipped = 0
    for line in (data or b"").splitlines():
        failure = _parse(line)
        if failure is not None:
            yield failure
        elif line.strip():
            skipped += 1
    if skipped:
        _log.warning("%s/%s: skipped invalid lines", where, NAME, extra={"lines": skipped})


def _parse(line: bytes) -> AcceptedFailure | None:
    try:
        value: Any = json.loads(line)
        failure = AcceptedFailure(*(value.get(name) for name in AcceptedFailure._fields))
    except (ValueError, AttributeError, RecursionError):
        return None
    texts = (failure.id, failure.fingerprint, failure.reason)
    valid = all(isinstance(text, str) for text in texts) and isinstance(failure.sha256, (str, type(None)))
    return failure if valid and value.get("v") == VERSION else None
