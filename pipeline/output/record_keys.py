"""The fields of a record's line that the index needs, extracted without parsing the whole line where that is safe.

It must not accept a truncated line: a recent line, or one not in the layout of record_lines.to_line, is parsed in full.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Literal, NamedTuple

from pipeline.errors import ConfigError, TryLaterError
from pipeline.output.lines import parse
from pipeline.records import RECORD_VERSION, Failure, Result, Stamp

Kind = Literal["results", "errors"]
KINDS: tuple[Kind, Kind] = ("results", "errors")
Stream = Literal["results", "errors", "windows"]
"""The streams of a run: two kinds of record, and the windows of unfinished documents (window_lines.py)."""
STREAMS: tuple[Stream, ...] = (*KINDS, "windows")

_TEXT_OR_NULL = (str, type(None))
_SHA256 = re.compile(r"[0-9a-f]{64}")
# record_lines.to_line writes a result's keys in this order, and the last ones in the order of _END
_KEYS = ["id", "uri", "sha256", "agent", "variant", "fingerprint"]
_BETWEEN = ["{", f":{RECORD_VERSION},", *[":", ","] * 5, ":"]
_START = f'{{"v":{RECORD_VERSION},"id":'
_END_KEY = '"finished_at":"'
_END = re.compile(
    r'"finished_at":"[^"\\]*","version":(?:"([^"\\]*)"|null),(?:"history":\[\],)?'
    r'(?:"question_sha256":(?:"([0-9a-f]{64})"|null),)?"run":([0-9]{1,18}),"run_id":"([^"\\]*)",'
    r'"shard":(?:"[^"\\]*"|null)\}\n'
)
_QUESTION_DIGITS = 15

_BATCH = 5000
"""Keys between two checks for a stop: about ten milliseconds."""


class RecordKey(NamedTuple):
    """The index fields of a record; `reason` and `decided_by` are None for a result.

    `question`: the first 60 bits of its `question_sha256`, enough to find a candidate and small enough for every row.
    """

    id: str
    run: int
    sha256: str | None
    agent: str
    variant: str
    fingerprint: str
    version: str | None
    reason: str | None
    runs: int
    run_id: str
    decided_by: str | None = None
    question: int | None = None


Records = Iterator[tuple[bytes, RecordKey]]
"""Lines of records, which end in LF, with their keys."""


def question_number(question_sha256: str | None) -> int | None:
    """Return the `question` of a record's key."""
    return int(question_sha256[:_QUESTION_DIGITS], 16) if question_sha256 else None


def key_of_outcome(outcome: Result | Failure, stamp: Stamp) -> RecordKey:
    """Return the key of the line that an outcome is written as."""
    failure = outcome if isinstance(outcome, Failure) else None
    reason, runs, decided_by = (failure.reason, failure.runs, failure.decided_by) if failure else (None, 0, None)
    question = question_number(outcome.question_sha256) if isinstance(outcome, Result) else None
    # fmt: off
    return RecordKey(outcome.id, stamp.run, outcome.sha256, outcome.agent, outcome.variant, outcome.fingerprint,
                     outcome.version, reason, runs, stamp.run_id, decided_by, question)
    # fmt: on


def key_reader(kind: Kind, where: str) -> Callable[[bytes, bool], RecordKey | None]:
    """Return a function that extracts the key of a line of this file or part; it returns None for a broken line.

    It raises ConfigError for JSON that is not a record: the file is not an output of this program and must be kept.
    """
    is_results = kind == "results"

    def take(line: bytes, recent: bool) -> RecordKey | None:
        key = None if recent or not is_results else _key_at_a_glance(line)
        if key is None and (value := parse(line)) is not None:
            key = key_of(value, where)
        return key

    return take


def key_of(line: Mapping[str, Any], where: str) -> RecordKey:
    """Return the key of a parsed line; ConfigError when it is not a record of this version."""
    get = line.get
    if get("v") != RECORD_VERSION:
        raise ConfigError(
            f"{where}: a line has v={get('v')!r}, need {RECORD_VERSION}: is it a file of another program or version?"
        )
    # fmt: off
    key = RecordKey(get("id"), get("run"), get("sha256"), get("agent"), get("variant"), get("fingerprint"),  # type: ignore[arg-type]
                get("version"), get("reason"), get("runs", 0), get("run_id"), get("decided_by"),  # type: ignore[arg-type]
                _question_in(get("question_sha256")))
    # fmt: on
    texts = (key.id, key.agent, key.variant, key.fingerprint, key.run_id)
    texts_or_null = (key.sha256, key.version, key.reason, key.decided_by)
    if not (
        all(type(text) is str for text in texts)
        and all(type(text) in _TEXT_OR_NULL for text in texts_or_null)
        and type(key.run) is type(key.runs) is int
        and 0 <= key.run < 1 << 62
    ):
        raise ConfigError(f"{where}: a line is not a record of this program; it has the keys {sorted(line)[:20]}")
    return key


def _question_in(value: object) -> int | None:
    """Return the number of a digest in a line; None for any other value, which matches no request."""
    return question_number(value) if isinstance(value, str) and _SHA256.fullmatch(value) else None


def _key_at_a_glance(line: bytes) -> RecordKey | None:
    """Return the key of a line that starts and ends like a result, without a second start or a NUL; else None."""
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return None
    parts = text.split('"', 26)
    if parts[3:27:4] != _KEYS or parts[0:26:2] != _BETWEEN or "\0" in text or text.find(_START, 1) >= 0:
        return None
    end = _END.fullmatch(text, text.rfind(_END_KEY))
    document_id, _, sha256, agent, variant, fingerprint = parts[5:27:4]
    if end is None or "\\" in document_id or "\\" in variant or "\\" in agent:
        return None
    version, question, run, run_id = end.groups()
    # fmt: off
    return RecordKey(document_id, int(run), sha256, agent, variant, fingerprint, version, None, 0, run_id, None,
                     question_number(question))
    # fmt: on


def until_stopped(record_keys: Iterable[RecordKey], is_stopped: Callable[[], bool]) -> Iterator[RecordKey]:
    """Yield the keys; TryLaterError once `is_stopped` returns True, as reading an output may take minutes."""
    keys = iter(record_keys)
    while batch := list(islice(keys, _BATCH)):
        if is_stopped():
            raise TryLaterError("interrupted while the output was read")
        yield from batch
