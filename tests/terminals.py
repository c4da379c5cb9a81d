"""Pseudo-terminals of a given width: for a command, whose stdout and stderr are one there, or for a stream."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import termios
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path


class Terminal:
    """A real pseudo-terminal; `text` is all that was written to it once it is closed."""

    def __init__(self, columns: int) -> None:
        self._leader, follower = os.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self.stream = os.fdopen(follower, "w", encoding="utf-8")
        self._read: list[bytes] = []
        self._reader = threading.Thread(target=self._drain)
        self._reader.start()

    def _drain(self) -> None:
        while True:
            try:
                data = os.read(self._leader, 65536)
            except OSError:  # Linux: the other end is closed
                return
            if not data:
                return
            self._read.append(data)

    def text(self) -> str:
        self.stream.close()
        self._reader.join(60)
        os.close(self._leader)
        return b"".join(self._read).decode("utf-8")


def until_closed(terminal: int) -> str:
    """Return the text written to the other end of a terminal until it is closed, and close this end."""
    parts: list[bytes] = []
    with suppress(OSError):  # Linux says EIO where the last writer has gone
        while part := os.read(terminal, 65536):
            parts.append(part)
    os.close(terminal)
    return b"".join(parts).decode()


def on_columns(command: Sequence[str], *, folder: Path, columns: int) -> tuple[int, str]:
    """Return the exit code of a command in a folder, and what it wrote to a terminal of so many columns."""
    terminal, terminal_of_command = os.openpty()
    fcntl.ioctl(terminal_of_command, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    env = {**os.environ, "TERM": "xterm", "NO_COLOR": "1", "PIPELINE_CONFIG": "pipeline.yaml"}
    env.pop("COLUMNS", None)
    process = subprocess.Popen(
        command, cwd=folder, env=env, stdin=terminal_of_command, stdout=terminal_of_command, stderr=terminal_of_command
    )
    os.close(terminal_of_command)
    text = until_closed(terminal)
    return process.wait(), text.replace("\r\n", "\n")
