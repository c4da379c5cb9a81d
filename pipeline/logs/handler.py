"""The handler of all log lines: to stderr, to a live display, or (quiet) to a bounded buffer.

It must not block a run, and must never write a document's text, a model's output or a secret.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TextIO

from pipeline.config.redaction import SECRETS
from pipeline.logs.lines import LogFormat, json_line, text_line
from pipeline.logs.repeats import Repeats
from pipeline.logs.wrapping import wrapped

QUIET_LINES = 200

TALKATIVE = ("pypdfium2", "trafilatura", "htmldate", "justext", "chardet", "charset_normalizer")
"""Libraries that log long warnings that quote the document; they are silenced, as a failure has its record."""


class LineHandler(logging.Handler):
    """The handler that writes each record as a line: to the stream, to a live display, or (quiet) to a bounded buffer.

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
        """Write a text that is not a log line, with secrets masked."""
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
            return
        if self._format == "text" and self.stream.isatty():
            line = wrapped(line, self.stream)
        if self._diverted is not None:
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
