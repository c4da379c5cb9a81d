"""SIGTERM in the first moments of a container, where the program or its init is PID 1 of a namespace.

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
    """Return the command that makes a process PID 1 of a namespace; skip the test where it is not permitted."""
    for words in NAMESPACES:
        command = [*words, "--fork", "--pid", "--kill-child"]
        if (
            shutil.which("unshare")
            and subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0
        ):
            return command
    pytest.skip("no PID namespace may be made here")


def needs_tini() -> list[str]:
    """Return the image's init as a command prefix; skip the test where it is not installed."""
    return ["tini", "--"] if shutil.which("tini") else pytest.skip("tini is not installed")


@contextmanager
def as_pid_1(place: Place, init: Sequence[str]) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Yield a run waiting for its server, and its PID 1 as seen from here, once that can handle SIGTERM."""
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
    """Return the exit code of a run that got one SIGTERM this long after its PID 1 could handle it."""
    with as_pid_1(place, init) as (child, pid):
        time.sleep(after_s)  # the moment of the signal is the subject of the test
        subprocess.run(["kill", "-TERM", str(pid)], check=True)
        return child.wait(WAIT_S)


@pytest.fixture
def away(place: Place, server: FakeLLM) -> Place:
    """Return a place whose server is down, so that the run waits until a signal ends it."""
    place.documents(1)
    server.down()
    return place


@pytest.mark.slow
@pytest.mark.parametrize("after_s", [step / 19 for step in range(20)])
def test_sigterm_ends_the_image_at_any_time_during_start_up(away: Place, after_s: float) -> None:
    """The image's init forwards the signal, however much of the program is loaded."""
    assert ended(away, init=needs_tini(), after_s=after_s) in (143, -signal.SIGTERM)


@pytest.mark.parametrize("after_s", [0.0, 0.15, 0.5])
def test_sigterm_ends_the_program_as_pid_1(away: Place, after_s: float) -> None:
    """Without an init the program's own handler takes the signal, even during imports."""
    assert ended(away, init=[], after_s=after_s) == 143
