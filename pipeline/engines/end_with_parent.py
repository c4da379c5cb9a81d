"""The child of `run_chunk`: the command line of `pipeline`, which ends when its parent does.

It must begin in the main thread, before anything else has opened a file.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal


def main() -> int:
    """Run the command line of sys.argv, and return its exit code."""
    end_with_parent()
    from pipeline_command import main as command  # import later, as it may take a second

    return command()


def end_with_parent() -> None:
    """Send this process SIGTERM when its standard input ends, which its parent holds open and never writes to.

    The kernel closes a pipe with the last process that holds its other end, so not even kill -9 leaves a child behind.
    A run then lets its requests in flight finish, as after any SIGTERM. Commands started from here get another input.
    """
    pipe = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGIO, _end)
    # workers of Ray start with blocked signals, which children inherit
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGIO, signal.SIGTERM))
    fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([pipe], [], [], 0)[0]:  # the parent ended before that call
        _end(signal.SIGIO, None)


def _end(number: int, frame: object) -> None:  # noqa: ARG001
    """Pass on one signal only: a second SIGTERM makes a run leave its requests."""
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    os.kill(os.getpid(), signal.SIGTERM)
