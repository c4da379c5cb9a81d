"""What is seen while a run goes on: a live block on a terminal, a log line now and then elsewhere.

It must not start a thread or change a number: the main thread hands it the state, and it only shows it.
"""

from __future__ import annotations

import logging
import textwrap
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, TextIO

from pipeline.logs import LineHandler, active_handler, visible

ProgressMode = Literal["auto", "bar", "plain", "none"]

PLAIN_EVERY_S = 30.0
BAR_EVERY_S = 0.2
RATE_WINDOW_S = 60.0
_BAR_CELLS = 20
_BAR_FROM_WIDTH = 60
_MESSAGE_LINES = 3
"""Lines of the block that the message of an outage may take."""


@dataclass(frozen=True, slots=True)
class ProgressState:
    """The run at this moment. `total` is None until the listing has ended, `found` is what it gave so far.

    `queue_s`: how long requests waited in the server's queue lately, where it tells; `waiting_for` says what outage.
    `long_documents`: how many are open, and their windows.
    """

    done: int = 0
    failed: int = 0
    skipped: int = 0
    in_flight: int = 0
    limit: int = 0
    limit_reason: str = ""
    found: int = 0
    total: int | None = None
    queue_s: float | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    last_reason: str | None = None
    last_failed: str | None = None
    waiting_for: str | None = None
    long_documents: str | None = None
    elapsed_s: float = 0.0

    @property
    def asked(self) -> int:
        """Documents that a model was asked about, or that failed before."""
        return self.done + self.failed


class Progress(Protocol):
    """Shows a run; called from the main thread only, at any rate, and never raises for a terminal that is gone."""

    def update(self, state: ProgressState) -> None:
        """Takes the state and shows it when it is time to."""

    def close(self) -> None:
        """Shows the last state and gives the terminal back; nothing may be shown after."""


def make_progress(
    mode: ProgressMode,
    *,
    stream: TextIO,
    clock: Callable[[], float],
    log: logging.Logger,
    environ: Mapping[str, str],
) -> Progress:
    """What shows the run: auto is the bar on a terminal that can move its cursor, else plain."""
    if mode == "auto":
        mode = "bar" if stream.isatty() and environ.get("TERM", "") not in ("", "dumb") else "plain"
    if mode == "bar":
        return BarProgress(stream, clock=clock, environ=environ)
    return PlainProgress(log, clock) if mode == "plain" else NoProgress()


@dataclass(frozen=True, slots=True)
class Rates:
    """What the last minute gives: per second, and the seconds that the rest will take (None: not known)."""

    documents: float
    tokens_in: float
    tokens_out: float
    eta_s: float | None


class RateWindow:
    """The states of the last minute, some 60 at most, and the rates between the first and the last."""

    def __init__(self) -> None:
        self._states: deque[ProgressState] = deque(maxlen=120)

    def add(self, state: ProgressState) -> None:
        """Keeps the state, one for each second."""
        if not self._states or state.elapsed_s - self._states[-1].elapsed_s >= 1.0:
            self._states.append(state)
        while len(self._states) > 1 and state.elapsed_s - self._states[0].elapsed_s > RATE_WINDOW_S:
            self._states.popleft()

    def rates(self, state: ProgressState) -> Rates:
        """The rates up to this state; skipped documents cost no time and do not count."""
        first = self._states[0] if self._states else state
        seconds = state.elapsed_s - first.elapsed_s
        if seconds <= 0:
            return Rates(0.0, 0.0, 0.0, None)
        documents = (state.asked - first.asked) / seconds
        left = None if state.total is None else max(0, state.total - state.asked - state.skipped)
        return Rates(
            documents,
            (state.tokens_in - first.tokens_in) / seconds,
            (state.tokens_out - first.tokens_out) / seconds,
            left / documents if left is not None and documents > 0 else None,
        )


class NoProgress:
    """Shows nothing."""

    def update(self, state: ProgressState) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


class PlainProgress:
    """A log line every 30 s: fit for files, pods and cron."""

    def __init__(self, log: logging.Logger, clock: Callable[[], float]) -> None:
        self._log = log
        self._clock = clock
        self._next = clock() + PLAIN_EVERY_S
        self._window = RateWindow()

    def update(self, state: ProgressState) -> None:
        """Writes a line when 30 s have gone since the last."""
        self._window.add(state)
        now = self._clock()
        if now >= self._next:
            self._next = now + PLAIN_EVERY_S
            self._log.info("progress", extra=_fields(state, self._window.rates(state)))

    def close(self) -> None:
        """Writes nothing: the summary follows."""


def _fields(state: ProgressState, rates: Rates) -> dict[str, Any]:
    known = {key: value for key, value in asdict(state).items() if value not in (None, "")}
    known["elapsed_s"] = round(state.elapsed_s)
    if state.queue_s is not None:
        known["queue_s"] = round(state.queue_s, 2)
    known["documents_per_s"] = round(rates.documents, 2)
    return {**known, "eta_s": round(rates.eta_s)} if rates.eta_s is not None else known


def block_lines(state: ProgressState, rates: Rates, *, width: int, cells: str = "#-") -> list[tuple[str, str]]:
    """The live block: (style, line) pairs, each line at most `width - 1` columns; a narrow one has more lines.

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
    speed += [f"({state.limit_reason})"] if state.limit_reason else []
    speed.append(f"tokens/s {rates.tokens_in:,.0f} in, {rates.tokens_out:,.0f} out")
    speed += [f"server queue {state.queue_s:.1f} s"] if state.queue_s is not None else []
    lines = [("bold", line) for line in _flow(head, width - 1)] + [("", line) for line in _flow(speed, width - 1)]
    if state.long_documents:
        lines += [("", line) for line in _flow([f"long documents: {state.long_documents}"], width - 1)]
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
    """The parts on as few lines as hold them; one that is wider than a line is cut."""
    lines: list[str] = []
    for part in filter(None, map(visible, parts)):
        if lines and len(lines[-1]) + 2 + len(part) <= width:
            lines[-1] += f"  {part}"
        else:
            lines.append(part[:width])
    return lines


def _wrapped(message: str, width: int) -> list[str]:
    """The message on as many lines as it needs, up to a bound; the log has the whole."""
    return textwrap.wrap(visible(message), max(width, 1), max_lines=_MESSAGE_LINES, placeholder="…")


def _clock_text(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class BarProgress:
    """A live block at the foot of the terminal; log lines go through it and scroll by above.

    The log handler's lock orders what this thread draws and what the workers log, so that neither garbles the other.
    """

    def __init__(self, stream: TextIO, *, clock: Callable[[], float], environ: Mapping[str, str]) -> None:
        from rich.console import Console  # slow to import, and of no use without a terminal
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
        """Takes the block away and gives the cursor and the log lines back."""
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
    """The log handler, when its lines would land in the block; a log that goes to a file is left alone."""
    handler = active_handler()
    return handler if handler is not None and (handler.stream is stream or handler.stream.isatty()) else None
