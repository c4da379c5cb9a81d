"""A log record as a line of text or JSON, without control characters.

It must not write anything.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, Literal

from pipeline.records import utc_now

LogFormat = Literal["text", "json"]

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
    fields = {(f"{key}_" if key in _RESERVED else visible(key)): v for key, v in fields_of(record).items()}
    severity = record.levelname if record.levelno % 10 == 0 else "DEFAULT"
    line: dict[str, Any] = {
        "severity": severity,
        "time": _time(record),
        "message": visible(record.getMessage()),
        "logger": record.name,
        **{key: _plain(value) for key, value in bound.items()},
        **fields,
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
