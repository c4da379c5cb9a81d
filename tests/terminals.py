"""A pseudo-terminal of a given width for a command, whose stdout and stderr are one there."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import termios
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path


def until_closed(ours: int) -> str:
    """Return what is written to the other end of a terminal until that is closed, and close this one."""
    parts: list[bytes] = []
    with suppress(OSError):  # Linux says EIO where the last writer has gone
        while part := os.read(ours, 65536):
            parts.append(part)
    os.close(ours)
    return b"".join(parts).decode()


def on_columns(command: Sequence[str], *, folder: Path, columns: int) -> tuple[int, str]:
    """Return the exit code of a command in a folder, and what it wrote to a terminal of so many columns."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    env = {**os.environ, "TERM": "xterm", "NO_COLOR": "1", "PIPELINE_CONFIG": "pipeline.yaml"}
    env.pop("COLUMNS", None)
    process = subprocess.Popen(command, cwd=folder, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    text = until_closed(ours)
    return process.wait(), text.replace("\r\n", "\n")
