"""Handling of SIGINT and SIGTERM until a command has begun: they end the process at once, as in other programs."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def ends_at_once() -> Iterator[None]:
    """End the process by SIGINT within the block, for imports and the parsing of arguments.

    Python's own handler would raise in the middle of an import, which can turn it into another exception and another
    exit code. Only that handler is replaced, so a signal that is ignored stays ignored. SIGTERM ends the process from
    here until a run takes it over (run/display/observer.py): without a handler it is lost when this is PID 1 of a
    container.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    is_interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_interruptible:
        signal.signal(signal.SIGINT, _end)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        if is_interruptible:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(number: int, frame: object) -> None:  # noqa: ARG001
    """End the process by the signal itself; as PID 1, for which the kernel drops it, by its exit code."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)
