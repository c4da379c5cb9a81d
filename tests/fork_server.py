"""Commands that start at once: forks of a process that has imported the program already.

A start of Python and its imports are most of what a short command costs, and the tests start more than a thousand. A
fork is a process like any other, with files, a folder, an environment, signals and an exit code of its own; `can_fork`
says where it would differ from a new process. What forks has one thread, and a guard waits for each command.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[1]
READ_AT_THE_START = ("PYTHON", "LC_", "LANG", "TZ", "LD_", "MALLOC_")
"""Beginnings of names that Python or its libraries read once, as they start."""
WIDTH = 12
"""The number of bytes of a number from a guard: two numbers may be in the pipe together."""


def can_fork(env: Mapping[str, str]) -> bool:
    """True where a fork of a process with our environment is the same as a new process with this one."""
    if sys.platform != "linux":
        return False
    early = [{name: at[name] for name in at if name.startswith(READ_AT_THE_START)} for at in (env, os.environ)]
    return early[0] == early[1]


class ForkedProcess:
    """The part of `subprocess.Popen` that tests use; all streams are text."""

    def __init__(self, args: Sequence[str], pid: int, status: int, *, stdout: IO[str] | None, stderr: IO[str]) -> None:
        self.args = args
        self.pid = pid
        self.stdout = stdout
        self.stderr = stderr
        self.returncode: int | None = None
        self._status = status

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while the command runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code when the command has ended."""
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(list(self.args), timeout or 0.0)
            self.returncode = int(os.read(self._status, WIDTH))
            os.close(self._status)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Return the rest of both streams, and wait for the end."""
        texts = {"stdout": "", "stderr": ""}

        def drain(name: str, stream: IO[str]) -> None:
            if not stream.closed:
                with stream:
                    texts[name] = stream.read()

        streams = {"stdout": self.stdout, "stderr": self.stderr}
        readers = [threading.Thread(target=drain, args=item, daemon=True) for item in streams.items() if item[1]]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(timeout)
            if reader.is_alive():
                raise subprocess.TimeoutExpired(list(self.args), timeout or 0.0)
        self.wait(timeout)
        return texts["stdout"], texts["stderr"]

    def send_signal(self, number: int) -> None:
        """Send a signal to the command, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End the command with SIGKILL."""
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """Starts commands of the program; its process ends with this one."""

    def __init__(self) -> None:
        self._control, control_of_server = socket.socketpair()
        with control_of_server:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(control_of_server.fileno())],
                cwd="/",
                pass_fds=[control_of_server.fileno()],
                stdin=subprocess.DEVNULL,
            )

    def start(
        self, command: Sequence[str], *, cwd: Path, env: Mapping[str, str], stdout: str | None = None
    ) -> ForkedProcess:
        """Start a command line, whose first word is the program; `stdout`: a file instead of a pipe."""
        out, out_end = (None, os.open(stdout, os.O_WRONLY | os.O_CREAT)) if stdout else os.pipe()
        err, err_end = os.pipe()
        status, status_end = os.pipe()
        order = {"command": list(command), "cwd": str(cwd), "env": dict(env)}
        ends = [out_end, err_end, status_end]
        socket.send_fds(self._control, [json.dumps(order).encode() + b"\n"], ends)
        for end in ends:
            os.close(end)
        pid = int(os.read(status, WIDTH))
        streams = {
            "stdout": None if out is None else os.fdopen(out, encoding="utf-8"),
            "stderr": os.fdopen(err, encoding="utf-8"),
        }
        return ForkedProcess(command, pid, status, **streams)

    def close(self) -> None:
        """End the process that forks; commands that run are not ended."""
        self._control.close()
        self._process.wait()


def _orders(control: socket.socket) -> Iterator[tuple[dict[str, Any], list[int]]]:
    """Yield each order with its descriptors, until the other side closes the connection."""
    while True:
        data, ends, *_ = socket.recv_fds(control, 1 << 16, 3)
        while data and not data.endswith(b"\n"):
            data += control.recv(1 << 16)
        if not data:
            return
        yield json.loads(data), ends


def _serve(control: socket.socket) -> bool:
    """Fork for each order; return True in a process that is to be the command, False at the end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the end of `control` ends it after an interrupt of the tests
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the guards
    for order, ends in _orders(control):
        if os.fork():
            for end in ends:
                os.close(end)
            continue
        control.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        pid = os.fork()
        if not pid:
            _become(order, ends)
            return True
        _guard(pid, ends)
    return False


def _guard(pid: int, ends: Sequence[int]) -> None:
    """Report the number of the command's process, then how it ended; never return."""
    for end in (0, 1, 2, *ends[:2]):
        os.close(end)
    with suppress(OSError):
        os.write(ends[2], b"%*d" % (WIDTH, pid))
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with suppress(OSError):
        os.write(ends[2], b"%*d" % (WIDTH, code))
    os._exit(0)


def _become(order: Mapping[str, Any], ends: Sequence[int]) -> None:
    """Put this process into the state of a new one for the command."""
    for end, number in zip(ends[:2], (1, 2), strict=True):
        os.dup2(end, number)
    for end in ends:
        os.close(end)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    sys.argv = order["command"]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    sys.stdout = sys.__stdout__ = _reopened(sys.stdout)
    sys.stderr = sys.__stderr__ = _reopened(sys.stderr)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _reopened(stream: Any) -> Any:
    """Return a stream as a new Python opens it, which checks again whether it can seek or is a terminal."""
    number = stream.fileno()
    by_line = os.isatty(number) or number == 2
    new = os.fdopen(number, "w", 1 if by_line else -1, encoding=stream.encoding, errors=stream.errors, closefd=False)
    new.reconfigure(write_through=stream.write_through)
    return new


def _load() -> None:
    """Import the whole program, without the libraries that only some documents or stores need."""
    import pipeline

    for module in pkgutil.walk_packages(pipeline.__path__, "pipeline."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    _compile_templates()
    gc.freeze()


def _compile_templates() -> None:
    """Compile the pages' templates, which jinja2 keeps: most of the CPU of a short run."""
    from jinja2 import UndefinedError

    from pipeline.report.page_template import render

    for template in sorted((ROOT / "pipeline" / "report").glob("*.jinja")):
        with suppress(UndefinedError):  # it is rendered without its values
            render(template.name, {})


def _run() -> int:
    """Run the command and end as Python does, but leave the memory to the kernel; return the exit code to Python's end.

    To take apart all modules of the program costs as much CPU as a short command.
    """
    from pipeline_command import main

    try:
        code = main()
    except SystemExit as end:
        if not isinstance(end.code, int):
            raise
        code = end.code
    if all(thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        with suppress(OSError, ValueError):  # Python's own end reports a stream that cannot be written
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return code


def _main() -> int:
    sys.path.insert(1, str(ROOT))
    _load()
    assert threading.active_count() == 1
    return _run() if _serve(socket.socket(fileno=int(sys.argv[1]))) else 0


if __name__ == "__main__":
    sys.exit(_main())
