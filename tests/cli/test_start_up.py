"""Imports at start-up: a command loads no heavy library that it does not need."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from timing import has_signal, until

HEAVY = {
    *("rich", "requests", "urllib3", "jsonschema", "referencing", "yaml", "obstore", "zstandard", "charset_normalizer"),
    "chardet",
    "jinja2",
    *("pypdfium2", "trafilatura", "lxml", "prometheus_client", "sqlite3", "ssl", "http", "email", "asyncio"),
}
CODE = """
import sys
import time
from pathlib import Path
sys.argv = ["pipeline", *{arguments!r}]
from pipeline.cli import main
try:
    main()
except SystemExit:
    pass
sys.stderr.write("\\n" + " ".join(sys.modules))
"""


def modules_of(*arguments: str) -> list[str]:
    """Return the modules that are imported when the command has ended."""
    code = CODE.format(arguments=list(arguments))
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return child.stderr.splitlines()[-1].split()


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"]], ids=" ".join)
def test_help_imports_no_heavy_library(arguments: list[str]) -> None:
    """It imports few modules of the standard library as well."""
    modules = modules_of(*arguments)
    assert {name.split(".")[0] for name in modules} & HEAVY == set()
    assert len(modules) < 200


def test_run_imports_only_needed_libraries() -> None:
    """These exclude the live display, object stores and readers of unused formats."""
    code = "import sys, pipeline.run.session, pipeline.run.runner; print(' '.join(sys.modules))"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"rich", "obstore", "pypdfium2", "trafilatura", "lxml", "prometheus_client", "asyncio"}
    assert {name.split(".")[0] for name in child.stdout.split()} & heavy == set()


@pytest.mark.parametrize("first", ["", "import pipeline.cli.run"])
def test_no_open_file_left_for_an_import_is_exit_3(first: str) -> None:
    """The shortage may be temporary, so it is no internal error and has no traceback."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))"
    lines = ("import sys, encodings.idna", "from pipeline.cli import main", first, limit, "sys.exit(main(['run']))")
    ran = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
    assert ran.returncode == 3, ran.stderr
    assert "short of open files" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows which signals a process catches")
@pytest.mark.parametrize("after_s", [0.0, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6])
def test_interrupt_during_start_up_prints_no_traceback(tmp_path: Path, after_s: float) -> None:
    """During the imports the signal ends the process at once, later the run ends as interrupted.

    The time counts from when the program handles signals, because earlier the interpreter decides.
    """
    (tmp_path / "a.txt").write_text("A text.", encoding="utf-8")
    # a background job of a shell begins with SIGINT ignored, and so would this child of it
    usual = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)"
    start = f"{usual}; from pipeline.cli import main; sys.exit(main(sys.argv[1:]))"
    arguments = ["run", "--input", str(tmp_path), "--output", str(tmp_path / "out"), "--set", "provider=vllm"]
    with subprocess.Popen(
        [sys.executable, "-c", start, *arguments, "--set", "vllm.base_url=http://127.0.0.1:9"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        until(lambda: has_signal(child.pid, "SigCgt", signal.SIGTERM), pause_s=0.001)
        time.sleep(after_s)  # the moment of the signal is the subject of the test
        child.send_signal(signal.SIGINT)
        try:
            _, stderr = child.communicate(timeout=60)
        finally:
            child.kill()
    assert b"Traceback" not in stderr
    assert child.returncode in (130, -signal.SIGINT)


INTERRUPTED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from pipeline.cli import main  # the test above covers the import of the program itself
left = [{at}]
def interrupt(event, arguments):
    if event == "import" and left[0] >= 0:
        if not left[0]:
            os.kill(os.getpid(), signal.SIGINT)
        left[0] -= 1
sys.addaudithook(interrupt)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("at", range(0, 60, 4))
def test_interrupt_during_any_import_prints_no_traceback(tmp_path: Path, at: int) -> None:
    """The signal comes with the import of a given number, so the speed of the machine does not matter."""
    (tmp_path / "a.txt").write_text("A text.", encoding="utf-8")
    arguments = ["run", "--input", str(tmp_path), "--output", str(tmp_path / "out"), "--dry-run"]
    code = [sys.executable, "-c", INTERRUPTED.format(at=at), *arguments]
    child = subprocess.run(code, capture_output=True, text=True, check=False)
    assert "Traceback" not in child.stderr
    assert child.returncode in (130, -signal.SIGINT)


SHORT = """
import os, resource, sys
left = [{at}]
def shorten(event, arguments):
    if event == "import":
        left[0] -= 1
        if left[0] == 0:
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
from pipeline_command import main
sys.addaudithook(shorten)
sys.exit(main())
"""


@pytest.mark.parametrize("at", [5, 60, 160, *(pytest.param(at, marks=pytest.mark.slow) for at in range(200, 480, 4))])
def test_no_open_file_left_at_any_import_is_exit_3(tmp_path: Path, at: int) -> None:
    """It may happen in the program, in a command's module, or in a shared library whose error contains no errno."""
    (tmp_path / "a.txt").write_text("A text.", encoding="utf-8")
    arguments = ["run", "--input", str(tmp_path), "--output", str(tmp_path / "out"), "--dry-run"]
    code = [sys.executable, "-c", SHORT.format(at=at), *arguments]
    child = subprocess.run(code, capture_output=True, text=True, check=False)
    assert "Traceback" not in child.stderr
    assert child.returncode in (0, 3), child.stderr  # 0: no import was left that needed a file
    if at <= 60:
        assert child.returncode == 3
        assert "short of open files" in child.stderr
