"""`run_chunk`: `pipeline run --chunk I` as a child process of a task of any engine, and its result as a value.

A run needs a process of its own: it takes over signals, which only a main thread may do, while tasks run in any thread;
its metrics and its log exist once in a process, while engines run several tasks in one; and the memory that it has
used goes back to the machine. This module does not interpret the exit code: the caller does.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from pipeline.child_python import child_command
from pipeline.report.run_summary import Counts

_TURN_S = 0.2
"""Ray interrupts a task only between two steps of Python, so each wait must be short."""
_MESSAGE_CHARS = 1000


@dataclass(frozen=True, slots=True)
class ChunkResult:
    """End of one run of a chunk. `exit_code`: as of `pipeline run`; 128 + N when signal N killed the process.

    `counts`: documents of this run; all 0 when it ended before it had any. `message`: why it did not end with 0.
    """

    index: int
    exit_code: int
    counts: Counts = field(default_factory=Counts)
    message: str = ""


def run_chunk(
    config: str | os.PathLike[str] | None,
    plan: str | None,
    index: int,
    *,
    flags: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    folder: str | os.PathLike[str] | None = None,
    write: Callable[[str], object] | None = None,
) -> ChunkResult:
    """Run one chunk to its end, in a child process, and return how it ended; it may be called in any thread.

    `config`: the config file; None: as `pipeline run` finds it. `plan`: the output that holds the plan; None:
    output.uri. `flags`: more flags of `pipeline run`. `environ`: variables to set or replace in the environment.
    `folder`: the base of relative paths; the current folder where it does not exist on this machine. `write` gets
    each line of the JSON log, and by default passes it to stderr.

    When the call is interrupted (KeyboardInterrupt, SystemExit), or its process is killed, the child receives SIGTERM:
    its requests in flight finish within `runner.grace_s`, and nothing that it has completed is lost.
    """
    words = ["run", "--chunk", str(index), "--log-format", "json", "--progress", "none", *flags]
    words += ["--config", os.fspath(config)] if config is not None else []
    words += ["--output", plan] if plan is not None else []
    log = _Log(write or _to_stderr)
    process = _start(words, environ=environ or {}, folder=folder)
    assert process.stdin is not None
    assert process.stderr is not None
    with process.stderr as stream:
        try:
            log.read(stream, process)
        finally:
            process.stdin.close()  # after an interrupt, this ends the child
            log.read(stream, process)
            code = _wait(process)
    return log.result(index, 128 - code if code < 0 else code)


def _start(
    words: Sequence[str], *, environ: Mapping[str, str], folder: str | os.PathLike[str] | None
) -> subprocess.Popen[bytes]:
    """Start the command line in a session of its own: a Ctrl-C must reach only the process that hands out chunks."""
    return subprocess.Popen(
        child_command("pipeline.engines.end_with_parent", *words),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, **environ},
        cwd=folder if folder is not None and Path(folder).is_dir() else None,
        start_new_session=True,
        bufsize=0,
    )


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Return the exit status; a wait in turns can be interrupted between two of them."""
    while True:
        with suppress(subprocess.TimeoutExpired):
            return process.wait(_TURN_S)


def _to_stderr(line: str) -> None:
    sys.stderr.write(line + "\n")


class _Log:
    """A reader of the child's log, which passes the lines on and keeps the last event and the last error."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._end: dict[str, Any] = {}
        self._error = ""
        self._plain = ""
        self._partial_line = b""

    def read(self, stream: IO[bytes], process: subprocess.Popen[bytes]) -> None:
        """Read until the child has ended, also where a process that it has started holds the stream open."""
        with selectors.DefaultSelector() as selector:
            selector.register(stream, selectors.EVENT_READ)
            while True:
                has_ended = process.poll() is not None
                if selector.select(0 if has_ended else _TURN_S):
                    data = os.read(stream.fileno(), 1 << 16)
                    if not data:
                        break
                    *lines, self._partial_line = (self._partial_line + data).split(b"\n")
                    for line in lines:
                        self._add(line.decode("utf-8", "replace"))
                elif has_ended:
                    break

    def _add(self, line: str) -> None:
        """Process one line: JSON, or a text that the interpreter or a library has printed."""
        self._write(line)
        event = _event(line)
        if event is None:
            self._plain = line.strip() or self._plain
        elif event.get("message") == "run ends":
            self._end = event
        elif event.get("severity") in ("ERROR", "CRITICAL"):
            self._error = str(event["message"])

    def result(self, index: int, exit_code: int) -> ChunkResult:
        """Return the result of the process that has ended."""
        names = [name for name, _ in Counts().items()]
        counts = Counts(**{name: int(self._end.get(name, 0)) for name in names})
        message = (self._error or str(self._end.get("verdict", "")) or self._plain) if exit_code else ""
        return ChunkResult(index, exit_code, counts, message[:_MESSAGE_CHARS])


def _event(line: str) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "message" in event else None
