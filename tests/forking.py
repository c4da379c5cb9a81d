"""Commands as real processes without the half second of imports: a parent that has loaded the pipeline, and forks.

It must not run a command in its own process: each is a child that can be killed at any instant.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


class Forker:
    """Starts commands in one folder; `close` it. `log` is what the last command has written."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self.log = folder / "log"
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("VLLM_", "OLLAMA_", "PIPELINE_"))}
        self._parent = subprocess.Popen(
            [sys.executable, __file__],
            cwd=folder,
            env={**clean, "PYTHONPATH": str(ROOT), **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, arguments: Sequence[str], started: Callable[[int], None] = lambda _: None) -> int:
        """The exit code, negative for a signal; `started` is told the process id as soon as there is one."""
        assert self._parent.stdin and self._parent.stdout
        self._parent.stdin.write(json.dumps([*arguments]) + "\n")
        self._parent.stdin.flush()
        started(int(self._parent.stdout.readline()))
        return int(self._parent.stdout.readline())

    def close(self) -> None:
        """Ends the parent; its last command has ended."""
        assert self._parent.stdin and self._parent.stdout
        self._parent.stdin.close()
        self._parent.wait(60)
        self._parent.stdout.close()


def serve() -> None:
    """Forks a command for each line of standard input."""
    from pipeline.cli import main, report, run  # noqa: F401 (loaded once, for all children)
    from pipeline.run import session  # noqa: F401

    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _command(json.loads(line), main)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _command(arguments: list[str], main: Callable[[list[str]], int]) -> None:
    """Never returns."""
    code = 70
    try:
        target = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number in (1, 2):
            os.dup2(target, number)
        code = main(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


if __name__ == "__main__":
    serve()
