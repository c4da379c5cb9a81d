"""Helper processes that decode HTML, mail, PDF, office and XML files, so that no document can block or end a run.

    worker thread ── format, bytes ──▶ helper process (helpers/process.py) ── text or problem ──▶ worker thread

A helper is started when a document needs one and all others are busy, up to MAX_HELPERS, and is reused. A helper that
dies, by its CPU limit or by a crash, is replaced. A helper does not get environment variables that may contain a
secret, and ends with this process.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Any

from pipeline.child_python import child_command
from pipeline.config.limits import InputLimits
from pipeline.documents.decode import Decoded
from pipeline.documents.helpers.messages import read_message, write_message
from pipeline.errors import DocumentError, InternalError
from pipeline.stores import MachineTroubleError

MAX_HELPERS = 4

_KEPT_VARIABLES = ("HOME", "LANG", "LD_LIBRARY_PATH", "PATH", "TMPDIR", "TZ")
_KEPT_PREFIXES = ("LC_", "DYLD_", "PYTHON")


class _DiedError(Exception):
    """The helper ended without a reply; `status` is its exit status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Helper:
    """One helper process, used by one thread at a time."""

    def __init__(self) -> None:
        """Start the process; MachineTroubleError when this machine cannot."""
        environment = {k: v for k, v in os.environ.items() if k in _KEPT_VARIABLES or k.startswith(_KEPT_PREFIXES)}
        try:
            # a session of its own: Ctrl-C must reach only the run, which completes documents in flight
            self._process = subprocess.Popen(
                child_command("pipeline.documents.helpers.process"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        except OSError as cause:  # too few descriptors (EMFILE), processes (EAGAIN) or memory, or no Python executable
            message = f"the process that decodes documents cannot be started: {cause.strerror or cause}"
            raise MachineTroubleError(cause.errno, message) from cause

    def send(self, request: dict[str, Any], data: bytes = b"") -> None:
        """Send a message, unless the process has ended."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            write_message(self._process.stdin, request, data)

    def receive(self) -> tuple[dict[str, Any], bytes] | None:
        """Return the next message; None when the process has ended."""
        assert self._process.stdout is not None
        return read_message(self._process.stdout)

    def ask(self, request: dict[str, Any], data: bytes) -> dict[str, Any]:
        """Send a request and return the reply; _DiedError when there is none."""
        self.send(request, data)
        reply = self.receive()
        if reply is None:
            raise _DiedError(self.end())
        return reply[0]

    def end(self) -> int:
        """End the process, by force if needed; return its exit status."""
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()
        if self._process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                return self._process.wait(0.5)
            self._process.kill()
        status = self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        return status


class HelperPool:
    """The helpers of this process; thread-safe."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._reset()
        atexit.register(self.close)
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        """Drop all helpers: after a fork they belong to the parent."""
        self._free = threading.Condition()
        self._idle: list[Helper] = []
        self._helpers: set[Helper] = set()
        self._starting = 0
        self.started = 0

    def decode(self, form: str, data: bytes, *, text_field: str, limits: InputLimits) -> Decoded:
        """Decode a document in a helper; DocumentError when it is invalid or exceeds a limit.

        Raise MachineTroubleError when this machine cannot start a helper.
        """
        request = {"format": form, "text_field": text_field, "cpu_s": limits.cpu_s, "memory_mb": limits.memory_mb}
        try:
            reply = self._ask(request, data)
        except _DiedError as first:
            if first.status == -signal.SIGPROF:
                raise over_cpu(limits) from first
            try:
                reply = self._ask(request, data)  # the helper may have died for another reason than this document
            except _DiedError as second:
                raise over_cpu(limits) if second.status == -signal.SIGPROF else crashed(second.status) from second
        return _decoded(reply, limits)

    def _ask(self, request: dict[str, Any], data: bytes) -> dict[str, Any]:
        helper = self.take()
        is_alive = False
        try:
            reply = helper.ask(request, data)
            is_alive = not reply["last"]
        finally:
            if not is_alive:
                helper.end()
            self.give_back(helper, is_alive=is_alive)
        return reply

    def take(self) -> Helper:
        """Return a free helper or a new one; wait while MAX_HELPERS helpers are busy."""
        with self._free:
            while not self._idle and len(self._helpers) + self._starting >= self._size:
                self._free.wait()
            if self._idle:
                return self._idle.pop()
            self._starting += 1
        helper = None
        try:
            helper = Helper()
        finally:
            with self._free:
                self._starting -= 1
                if helper is not None:
                    self.started += 1
                    self._helpers.add(helper)
                else:
                    self._free.notify()
        return helper

    def give_back(self, helper: Helper, *, is_alive: bool) -> None:
        """Return the helper to the pool, unless it is not alive."""
        with self._free:
            if is_alive:
                self._idle.append(helper)
            else:
                self._helpers.discard(helper)
            self._free.notify()

    def close(self) -> None:
        """End all idle helpers; busy helpers end with this process."""
        with self._free:
            idle = self._idle
            self._idle = []
            self._helpers.difference_update(idle)
        for helper in idle:
            helper.end()


def _decoded(reply: dict[str, Any], limits: InputLimits) -> Decoded:
    if "text" in reply:
        return Decoded(reply["text"], reply["metadata"], tuple(reply["notes"]), tuple(reply["pages"]))
    raise error_of(reply, limits)


def error_of(reply: dict[str, Any], limits: InputLimits) -> Exception:
    """Return the problem that a helper reports."""
    if "reason" in reply:
        return DocumentError(reply["reason"], reply["message"], stage=reply["stage"], is_transient=reply["again"])
    if "memory" in reply:
        message = f"decoding it takes more than {limits.memory_mb:g} MB of memory (input.limits.memory_mb)"
        return DocumentError("document_too_expensive", message)
    return InternalError(f"{reply['fault']} in the helper that decodes documents")


def over_cpu(limits: InputLimits) -> DocumentError:
    """Return the problem of a document whose helper reached its CPU limit."""
    message = f"decoding it takes more than {limits.cpu_s:g} s of CPU time (input.limits.cpu_s)"
    return DocumentError("document_too_expensive", message)


def crashed(status: int) -> Exception:
    """Return the problem of a document whose helper died, if possible twice."""
    if status >= 0:
        return InternalError(f"the helper that decodes documents exits with status {status} at its start")
    name = signal.Signals(-status).name
    if status == -signal.SIGKILL:
        return DocumentError("document_too_expensive", "the process that decodes it is killed: not enough memory here?")
    return DocumentError("document_unreadable", f"the library that decodes it crashes ({name})")


POOL = HelperPool(min(MAX_HELPERS, os.cpu_count() or 1))
"""The pool of this process."""

SPLITTERS = HelperPool(sys.maxsize)
"""The helpers that split files. If readers used POOL, a reader could wait for a worker that waits for the reader."""
