"""Log lines on stderr, one per event, as text or JSON, safe to show on a terminal.

It must not block a run, and must never write a document's text, a model's output or a secret.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Literal, TextIO

from pipeline.config.redaction import SECRETS
from pipeline.records import utc_now

LogFormat = Literal["text", "json"]

REPEAT_S = 30.0
QUIET_LINES = 200
_KEPT_WARNINGS = 500

TALKATIVE = ("pypdfium2", "trafilatura", "htmldate", "justext", "chardet", "charset_normalizer")
"""Libraries that log long warnings that quote the document; they are silenced, as a failure has its record."""

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_RESERVED = frozenset({"severity", "time", "message", "logger", "stack_trace"})
_NAMED = {0x09: "\\t", 0x0A: "\\n", 0x0D: "\\r"}
_BIDI = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_ESCAPES: Mapping[int, str] = {
    **{code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))},
    **{code: f"\\u{code:04x}" for code in (0x2028, 0x2029, 0xFEFF, *_BIDI, *range(0xD800, 0xE000))},
    **_NAMED,
}
_ESCAPES_BUT_LF: Mapping[int, str] = {code: text for code, text in _ESCAPES.items() if code != 0x0A}


def visible(text: str) -> str:
    """Return the text on one line with every control, escape and bidi character escaped (`\\x1b`)."""
    return text.translate(_ESCAPES)


@dataclass(slots=True)
class _Seen:
    """A warning that was written, and the number of repetitions since."""

    written_at: float
    last: logging.LogRecord
    held: int = 0


class Repeats:
    """Passes a warning once in REPEAT_S; the next one passed carries the number of suppressed ones as `repeated`.

    After `rest`, the number of written lines plus the sum of their `repeated` is the number of warnings.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: dict[tuple[str, ...], _Seen] = {}

    def pass_on(self, record: logging.LogRecord) -> list[logging.LogRecord]:
        """Return the records to write now: this one, none, or also an old one that is removed to make room."""
        if record.levelno != logging.WARNING:
            return [record]
        key = _key(record)
        now = self._clock()
        repeated = self._seen.get(key)
        if repeated is not None and now - repeated.written_at < REPEAT_S:
            repeated.held = repeated.held + 1
            repeated.last = record
            return []
        self._seen.pop(key, None)
        room = [self._seen.pop(next(iter(self._seen)))] if len(self._seen) >= _KEPT_WARNINGS else []
        self._seen[key] = _Seen(now, record)
        return [*_held(room), _counted(record, repeated.held if repeated else 0)]

    def rest(self) -> list[logging.LogRecord]:
        """Return the last record of each suppressed warning with its count, and forget all warnings."""
        repeats = list(self._seen.values())
        self._seen = {}
        return _held(repeats)


def _held(seen: list[_Seen]) -> list[logging.LogRecord]:
    return [_counted(repeat.last, repeat.held - 1) for repeat in seen if repeat.held]


def _counted(record: logging.LogRecord, count: int) -> logging.LogRecord:
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


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return the fields given as `extra={…}`, escaped and converted for JSON."""
    return {key: _plain(value) for key, value in vars(record).items() if key not in _OWN}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {visible(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    return visible(str(value))


def text_line(record: logging.LogRecord) -> str:
    """Return `TIME LEVEL message key=value …`; a traceback follows, indented so that it cannot imitate a log line."""
    parts = [_time(record), record.levelname, visible(record.getMessage())]
    parts += [f"{visible(key)}={_text_value(value)}" for key, value in fields_of(record).items()]
    trace = _trace(record)
    indented = "".join("\n    " + line for line in trace.split("\n")) if trace else ""
    return " ".join(parts) + indented


def json_line(record: logging.LogRecord, bound: Mapping[str, Any]) -> str:
    """Return one JSON object: severity, time, message, logger, bound fields (run_id, …), then the record's fields."""
    named = {(f"{key}_" if key in _RESERVED else visible(key)): v for key, v in fields_of(record).items()}
    severity = record.levelname if record.levelno % 10 == 0 else "DEFAULT"
    line: dict[str, Any] = {
        "severity": severity,
        "time": _time(record),
        "message": visible(record.getMessage()),
        "logger": record.name,
        **{key: _plain(value) for key, value in bound.items()},
        **named,
    }
    trace = _trace(record)
    return json.dumps({**line, "stack_trace": trace} if trace else line, ensure_ascii=False)


def _time(record: logging.LogRecord) -> str:
    return utc_now(datetime.fromtimestamp(record.created, timezone.utc))


def _text_value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    bare = isinstance(value, str) and text and not any(char in text for char in ' "=')
    return text if bare or not isinstance(value, str) else json.dumps(text, ensure_ascii=False)


def _trace(record: logging.LogRecord) -> str:
    formatter = logging.Formatter()
    parts = [formatter.formatException(record.exc_info)] if record.exc_info and record.exc_info[0] else []
    parts += [formatter.formatStack(record.stack_info)] if record.stack_info else []
    return "\n".join(parts).translate(_ESCAPES_BUT_LF)


class LineHandler(logging.Handler):
    """Writes each record as a line: to the stream, to a live display, or (quiet) to a bounded buffer.

    Its lock (`acquire`, `release`) orders everything that is written to the terminal.
    """

    def __init__(self, stream: TextIO, *, format: LogFormat, quiet: bool, clock: Callable[[], float]) -> None:
        super().__init__()
        self.stream = stream
        self._format = format
        self._quiet = quiet
        self._buffer: deque[str] = deque(maxlen=QUIET_LINES)
        self._dropped = 0
        self._newest = 0.0
        self._repeats = Repeats(clock)
        self._bound: Mapping[str, Any] = {}
        self._diverted: Callable[[str], None] | None = None

    def bind(self, fields: Mapping[str, Any]) -> None:
        """Add fields (run_id, shard) to every later JSON line."""
        self._bound = {**self._bound, **fields}

    @property
    def is_open_terminal(self) -> bool:
        """True when lines go to a terminal, where a person reads them."""
        return not self._quiet and self.stream.isatty()

    def write(self, text: str) -> None:
        """Write text that is no log line, masked like one."""
        self.acquire()
        try:
            with suppress(OSError, ValueError):  # the stream may be closed
                self._put(SECRETS.redact(text), logging.ERROR)
        finally:
            self.release()

    def divert(self, write: Callable[[str], None] | None) -> None:
        """Pass every later line (without its LF) to `write`; None: to the stream again."""
        self.acquire()
        self._diverted = write
        self.release()

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record unless it is suppressed as a repetition; a closed stream never stops a run."""
        try:
            for due in self._repeats.pass_on(record):
                self._put(self._line(due), due.levelno)
        except OSError:
            pass  # the terminal or pipe is closed: there is no reader
        except (ValueError, TypeError, KeyError):
            self.handleError(record)

    def flush_quiet(self) -> None:
        """Write the lines that quiet mode kept; for a run that did not exit with 0."""
        self.flush()
        lines = list(self._buffer)
        dropped = self._dropped
        self._buffer.clear()
        self._quiet = False
        self._dropped = 0
        if dropped:
            lines.insert(0, f"({dropped} earlier lines were not kept)")
        for line in lines:
            self._put(line, logging.CRITICAL)

    def close(self) -> None:
        """Write the counts of suppressed warnings, and close the handler."""
        self.flush()
        logging.captureWarnings(False)
        super().close()

    def flush(self) -> None:
        """Write the counts of suppressed warnings."""
        self.acquire()
        try:
            with suppress(OSError, ValueError):  # the stream may be closed
                for record in self._repeats.rest():
                    self._put(self._line(record), record.levelno)
        finally:
            self.release()

    def _line(self, record: logging.LogRecord) -> str:
        # times must not decrease, also for a suppressed warning or after the clock was set back
        record.created = self._newest = max(self._newest, record.created)
        return SECRETS.redact(json_line(record, self._bound) if self._format == "json" else text_line(record))

    def _put(self, line: str, level: int) -> None:
        if self._quiet:
            if level >= logging.WARNING:
                self._dropped += len(self._buffer) == QUIET_LINES
                self._buffer.append(line)
        elif self._diverted is not None:
            self._diverted(line)
        else:
            self.stream.write(line + "\n")
            self.stream.flush()


def setup(
    level: str,
    *,
    format: LogFormat = "text",
    stream: TextIO | None = None,
    quiet: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> LineHandler:
    """Install and return the handler for all log lines; an earlier one is closed and replaced.

    `level` is for the loggers of this program; those of libraries log from WARNING. Close the handler at the end.
    """
    root = logging.getLogger()
    for earlier in [existing for existing in root.handlers if isinstance(existing, LineHandler)]:
        root.removeHandler(earlier)
        earlier.close()
    handler = LineHandler(stream or sys.stderr, format=format, quiet=quiet, clock=clock)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    logging.getLogger("pipeline").setLevel(level.upper())
    logging.captureWarnings(True)
    return handler


def active_handler() -> LineHandler | None:
    """Return the handler that `setup` installed, or None."""
    return next((handler for handler in logging.getLogger().handlers if isinstance(handler, LineHandler)), None)
