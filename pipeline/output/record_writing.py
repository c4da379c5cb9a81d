"""Write outcomes as lines and index them: several results in one call of the backend, anything else one by one.

An outcome is indexed after its line was passed to the backend. This module must not decide what is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.config.redaction import SECRETS
from pipeline.errors import InternalError
from pipeline.output.backend import OutputBackend
from pipeline.output.index import Index
from pipeline.output.record_keys import RecordKey, key_of_outcome
from pipeline.record_lines import redacted, to_line
from pipeline.records import Failure, Result, Stamp


def write_all(
    outcomes: Sequence[Result | Failure], stamp: Stamp, *, backend: OutputBackend, index: Index
) -> Iterator[RecordKey]:
    """Write the outcomes in order, and yield the key of each one as soon as it is written.

    OutputError for one that cannot be written, InternalError for one that is no JSON; those before it are written.
    """
    if len(outcomes) > 1 and (records := _results(outcomes, stamp)) and backend.append_results(records):
        for _, key in records:
            index.record(key)
        yield from (key for _, key in records)
        return
    for outcome in outcomes:
        line, key = _record(outcome, stamp)
        backend.append(line, key)
        index.record(key)
        yield key


def _results(outcomes: Sequence[Result | Failure], stamp: Stamp) -> list[tuple[bytes, RecordKey]]:
    """Return the lines and keys of results; none when one of the outcomes is a failure or no JSON."""
    if any(isinstance(outcome, Failure) for outcome in outcomes):
        return []
    try:
        return [_record(outcome, stamp) for outcome in outcomes]
    except InternalError:
        return []


def _record(outcome: Result | Failure, stamp: Stamp) -> tuple[bytes, RecordKey]:
    try:
        redact = SECRETS.redact_values
        own = SECRETS.redact_whole_values
        masked = outcome if SECRETS.are_none else redacted(outcome, redact, own=own)
        return to_line(masked, stamp), key_of_outcome(outcome, stamp)
    except ValueError as exc:
        raise InternalError(f"{outcome.id!r}: the record is not JSON in UTF-8: {exc}") from exc
