"""SIGTERM in the first moments of a container, where the program, or its init, is PID 1 of a namespace.

The kernel drops a signal for PID 1 that has no handler: a pod that gets SIGTERM would run on until SIGKILL.
"""

from __future__ import annotations

import functools
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import COMMAND, WAIT_S, Place
from fake_llm import FakeLLM
from timing import has_signal, until

NAMESPACES = (["unshare"], ["unshare", "--user", "--map-root-user"])


@functools.cache
def namespace() -> list[str]:
    """The command that makes a process PID 1 of a namespace; skips where none may be made."""
    for words in NAMESPACES:
        command = [*words, "--fork", "--pid", "--kill-child"]
        if (
            shutil.which("unshare")
            and subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0
        ):
            return command
    pytest.skip("no PID namespace may be made here")


def needs_tini() -> list[str]:
    """The init of the image, as a prefix of a command; skips where it is not installed."""
    return ["tini", "--"] if shutil.which("tini") else pytest.skip("tini is not installed")


@contextmanager
def as_pid_1(place: Place, init: Sequence[str]) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A run whose server is away, and its PID 1 as this namespace sees it, once that can take a SIGTERM."""
    command = [*namespace(), *init, *COMMAND, "run", "--quiet", "--set", "runner.startup_wait_s=60"]
    with subprocess.Popen(
        command,
        cwd=place.folder,
        env={"PATH": "/usr/bin:/bin", "PIPELINE_CONFIG": "pipeline.yaml"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as child:
        try:
            children = Path(f"/proc/{child.pid}/task/{child.pid}/children")
            until(lambda: bool(children.read_text().split()), pause_s=0.001)
            pid = int(children.read_text().split()[0])
            # tini ignores SIGTTOU once it has blocked the signals that it waits for; the program catches SIGTERM
            ready = ("SigIgn", signal.SIGTTOU) if init else ("SigCgt", signal.SIGTERM)
            until(lambda: has_signal(pid, *ready), pause_s=0.001)
            yield child, pid
        finally:
            child.kill()


def ended(place: Place, *, init: Sequence[str], after_s: float) -> int:
    """The exit code of a run that got one SIGTERM at this time after its PID 1 could take it."""
    with as_pid_1(place, init) as (child, pid):
        time.sleep(after_s)  # the moment of the signal is what is tried
        subprocess.run(["kill", "-TERM", str(pid)], check=True)
        return child.wait(WAIT_S)


@pytest.fixture
def away(place: Place, server: FakeLLM) -> Place:
    """A place whose server does not answer: the run waits for it until a signal ends it."""
    place.documents(1)
    server.down()
    return place


@pytest.mark.slow
@pytest.mark.parametrize("after_s", [step / 19 for step in range(20)])
def test_the_image_ends_at_a_signal_in_any_of_its_first_moments(away: Place, after_s: float) -> None:
    """The init of the image passes it on, whatever the program has loaded by then."""
    assert ended(away, init=needs_tini(), after_s=after_s) in (143, -signal.SIGTERM)


@pytest.mark.parametrize("after_s", [0.0, 0.15, 0.5])
def test_the_program_alone_ends_at_a_signal_as_pid_1(away: Place, after_s: float) -> None:
    """Without an init its own handler takes the signal, also while modules are being imported."""
    assert ended(away, init=[], after_s=after_s) == 143
