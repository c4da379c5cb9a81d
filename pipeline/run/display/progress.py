"""The progress of a run: a live block on a terminal, a log line from time to time elsewhere.

It must not start a thread or change a number: the main thread passes in the state.
"""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Literal, Protocol, TextIO

from pipeline.logs import LineHandler, active_handler, visible
from pipeline.run.display.rates import ProgressState, Rates, RateWindow

ProgressMode = Literal["auto", "bar", "plain", "none"]

PLAIN_EVERY_S = 30.0
BAR_EVERY_S = 0.2
_BAR_CELLS = 20
_BAR_FROM_WIDTH = 60
_MESSAGE_LINES = 3
"""Lines of the block that the message of an outage may take."""


class Progress(Protocol):
    """The display of a run; called by the main thread as often as it likes; never raises for a closed terminal."""

    def update(self, state: ProgressState) -> None:
        """Take the state and show it when an update is due."""

    def close(self) -> None:
        """Show the last state and release the terminal; later updates are not allowed."""


def make_progress(
    mode: ProgressMode,
    *,
    stream: TextIO,
    clock: Callable[[], float],
    log: logging.Logger,
    environ: Mapping[str, str],
) -> Progress:
    """Return the progress of a mode; `auto` is the bar on a terminal with cursor movement, else plain."""
    if mode == "auto":
        mode = "bar" if stream.isatty() and environ.get("TERM", "") not in ("", "dumb") else "plain"
    if mode == "bar":
        return BarProgress(stream, clock=clock, environ=environ)
    return PlainProgress(log, clock) if mode == "plain" else NoProgress()


class NoProgress:
    """Progress of a run that shows none."""

    def update(self, state: ProgressState) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class PlainProgress:
    """A log line every 30 s, for files, pods and cron."""

    def __init__(self, log: logging.Logger, clock: Callable[[], float]) -> None:
        self._log = log
        self._clock = clock
        self._next = clock() + PLAIN_EVERY_S
        self._window = RateWindow()

    def update(self, state: ProgressState) -> None:
        """Log a line when 30 s have passed since the last."""
        self._window.add(state)
        now = self._clock()
        if now >= self._next:
            self._next = now + PLAIN_EVERY_S
            self._log.info("progress", extra=_fields(state, self._window.rates(state)))

    def close(self) -> None:
        """Do nothing: the summary follows."""


def _fields(state: ProgressState, rates: Rates) -> dict[str, Any]:
    values = {name: getattr(state, name) for name in ProgressState.__slots__ if name != "long"}
    fields = {
        name: value for name, value in {**values, "long_documents": state.long.text}.items() if value not in (None, "")
    }
    fields["elapsed_s"] = round(state.elapsed_s)
    if state.queue_s is not None:
        fields["queue_s"] = round(state.queue_s, 2)
    fields["documents_per_s"] = round(rates.documents, 2)
    return {**fields, "eta_s": round(rates.eta_s)} if rates.eta_s is not None else fields


def block_lines(state: ProgressState, rates: Rates, *, width: int, cells: str = "#-") -> list[tuple[str, str]]:
    """Return the live block as (style, line) pairs of at most `width - 1` columns; a narrow block has more lines.

    `cells` draws the bar: a full cell and an empty one.
    """
    finished = state.asked + state.skipped
    share = f"{finished:,} of {state.total:,}" if state.total is not None else f"{finished:,} of {state.found:,}+"
    head = [
        _bar(finished, state.total if width >= _BAR_FROM_WIDTH else None, cells),
        share,
        f"{state.done:,} done",
        f"{state.failed:,} failed",
    ]
    head += [f"{state.skipped:,} skipped"] if state.skipped else []
    speed = [f"{rates.documents:.2f}/s", f"after {_clock_text(state.elapsed_s)}"]
    speed += [f"{_clock_text(rates.eta_s)} left"] if rates.eta_s is not None else []
    speed.append(f"{state.in_flight} of {state.limit} in flight")
    speed += [f"({state.limit_reason})"] if state.limit_reason not in ("", "set") else []
    speed.append(f"tokens/s {rates.tokens_in:,.0f} in, {rates.tokens_out:,.0f} out")
    speed += [f"server queue {state.queue_s:.1f} s"] if state.queue_s is not None else []
    lines = [("bold", line) for line in _flow(head, width - 1)] + [("", line) for line in _flow(speed, width - 1)]
    if state.long.text:
        lines += [("", line) for line in _flow([f"long documents: {state.long.text}"], width - 1)]
    if state.waiting_for:
        lines += [("yellow", line) for line in _wrapped(f"waiting: {state.waiting_for}", width - 1)]
    if state.last_reason:
        failure = [f"last failure: {state.last_reason}", state.last_failed or ""]
        lines += [("red", line) for line in _flow(failure, width - 1)]
    return lines


def _bar(finished: int, total: int | None, cells: str) -> str:
    if not total:
        return ""
    full = min(_BAR_CELLS, finished * _BAR_CELLS // total)
    return cells[0] * full + cells[1] * (_BAR_CELLS - full)


def _flow(parts: list[str], width: int) -> list[str]:
    """Return the parts on as few lines as possible; a part that is wider than a line is cut."""
    lines: list[str] = []
    for part in filter(None, map(visible, parts)):
        if lines and len(lines[-1]) + 2 + len(part) <= width:
            lines[-1] += f"  {part}"
        else:
            lines.append(part[:width])
    return lines


def _wrapped(message: str, width: int) -> list[str]:
    """Return the message on up to _MESSAGE_LINES lines; the log has all of it."""
    return textwrap.wrap(visible(message), max(width, 1), max_lines=_MESSAGE_LINES, placeholder="…")


def _clock_text(seconds: float) -> str:
    minutes, seconds_part = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds_part:02d}" if hours else f"{minutes}:{seconds_part:02d}"


class BarProgress:
    """A live block at the bottom of the terminal; log lines scroll by above it.

    The log handler's lock orders the drawing of this thread and the log lines of the workers.
    """

    def __init__(self, stream: TextIO, *, clock: Callable[[], float], environ: Mapping[str, str]) -> None:
        from rich.console import Console  # slow to import, and useless without a terminal
        from rich.live import Live

        self._clock = clock
        self._next = clock()
        self._window = RateWindow()
        self._last: ProgressState | None = None
        self._console = Console(file=stream, force_terminal=True, highlight=False, emoji=False, _environ=environ)
        self._cells = "█░" if self._console.encoding.startswith("utf") else "#-"
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )
        self._handler = _on_the_same_terminal(stream)
        with _locked(self._handler), suppress(OSError):
            self._live.start()
        if self._handler is not None:
            self._handler.divert(self._print)

    def update(self, state: ProgressState) -> None:
        """Redraw the block, at most five times a second."""
        self._window.add(state)
        self._last = state
        now = self._clock()
        if now >= self._next:
            self._next = now + BAR_EVERY_S
            self._draw(state)

    def close(self) -> None:
        """Remove the block and restore the cursor and the log lines."""
        if self._handler is not None:
            self._handler.divert(None)
        with _locked(self._handler), suppress(OSError):
            self._live.stop()

    def _draw(self, state: ProgressState) -> None:
        from rich.text import Text

        lines = block_lines(state, self._window.rates(state), width=self._console.width, cells=self._cells)
        block = Text("\n", no_wrap=True, overflow="crop").join(Text(line, style=style) for style, line in lines)
        with _locked(self._handler), suppress(OSError):
            self._live.update(block, refresh=True)

    def _print(self, line: str) -> None:
        self._console.out(line, highlight=False)


@contextmanager
def _locked(handler: LineHandler | None) -> Iterator[None]:
    if handler is None:
        yield
        return
    handler.acquire()
    try:
        yield
    finally:
        handler.release()


def _on_the_same_terminal(stream: TextIO) -> LineHandler | None:
    """Return the log handler if its lines go to the same terminal as the block; None for a log in a file."""
    handler = active_handler()
    return handler if handler is not None and (handler.stream is stream or handler.stream.isatty()) else None
