"""Suppression of repeated warnings: each is written once in 30 s, with the number of repetitions.

It must not write a line.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.logs.lines import fields_of

REPEAT_S = 30.0
_KEPT_WARNINGS = 500


@dataclass(slots=True)
class _Repeat:
    """A warning that was written, and the number of repetitions since."""

    written_at: float
    last: logging.LogRecord
    suppressed: int = 0


class Repeats:
    """The filter that passes a warning once in REPEAT_S; the next one has the number of suppressed ones as `repeated`.

    After `rest`, the number of written lines plus the sum of their `repeated` is the number of warnings.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._repeats: dict[tuple[str, ...], _Repeat] = {}

    def pass_on(self, record: logging.LogRecord) -> list[logging.LogRecord]:
        """Return the records to write now: this one, none, or also an old one that is removed to make room."""
        if record.levelno != logging.WARNING:
            return [record]
        key = _key(record)
        now = self._clock()
        repeated = self._repeats.get(key)
        if repeated is not None and now - repeated.written_at < REPEAT_S:
            repeated.suppressed = repeated.suppressed + 1
            repeated.last = record
            return []
        self._repeats.pop(key, None)
        room = [self._repeats.pop(next(iter(self._repeats)))] if len(self._repeats) >= _KEPT_WARNINGS else []
        self._repeats[key] = _Repeat(now, record)
        return [*_summaries(room), _with_count(record, repeated.suppressed if repeated else 0)]

    def rest(self) -> list[logging.LogRecord]:
        """Return the last record of each suppressed warning with its count, and forget all warnings."""
        repeats = list(self._repeats.values())
        self._repeats = {}
        return _summaries(repeats)


def _summaries(repeats: list[_Repeat]) -> list[logging.LogRecord]:
    return [_with_count(repeat.last, repeat.suppressed - 1) for repeat in repeats if repeat.suppressed]


def _with_count(record: logging.LogRecord, count: int) -> logging.LogRecord:
    if count:
        record.repeated = count
    return record


def _key(record: logging.LogRecord) -> tuple[str, ...]:
    """Return the identity of a warning: event, reason and endpoint; without a reason, message and all fields."""
    if reason := _field(record, "reason"):
        return record.name, str(record.msg), reason, _field(record, "endpoint")
    return record.name, record.getMessage(), str(fields_of(record))


def _field(record: logging.LogRecord, name: str) -> str:
    return str(getattr(record, name, ""))
