"""Decoder processes (helpers): the limits on a document's cost, and how a helper ends."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import InputConfig
from pipeline.config.limits import InputLimits, limits_of
from pipeline.documents.helpers.pool import HelperPool
from pipeline.errors import ConfigError, DocumentError
from pipeline.run.shortage import shortage_of
from pipeline.stores import MachineTroubleError, is_trouble

MAIL = b"Subject: Rates\nFrom: a@b.c\n\nThe bank held rates.\n"
RATES = "Subject: Rates\nFrom: a@b.c\n\nThe bank held rates.\n"
PAGE = (
    b"<html><head><title>T</title></head><body><p>"
    + b"The bank held its rates on Tuesday. " * 9
    + b"</p></body></html>"
)
SLOW = b'Content-Type: text/plain; a="' + b";" * 800_000 + b'"\n\nx\n'
LARGE = b"<html><body>" + b"<p>a b c</p>" * 600_000 + b"</body></html>"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def pool() -> Iterator[HelperPool]:
    new_pool = HelperPool(1)
    yield new_pool
    new_pool.close()


def decode(pool: HelperPool, form: str, data: bytes, **limits: Any) -> str:
    return pool.decode(form, data, text_field="text", limits=limits_of(limits)).text


def pids(pool: HelperPool) -> list[int]:
    return [helper._process.pid for helper in pool._helpers]


def children() -> set[int]:
    """Return the child processes of this one, zombies included."""
    collected = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == os.getpid():
            collected.add(int(path.parent.name))
    return collected


def wait_until_gone(pid: int) -> None:
    """Wait for a process of another parent to end."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], 20)[0], f"process {pid} still runs"
    finally:
        os.close(descriptor)


def test_document_over_its_cpu_time_fails(pool: HelperPool) -> None:
    """The helper is ended by CPU time, not by the clock, and another one decodes the next document."""
    with pytest.raises(DocumentError, match=r"more than 0.5 s of CPU time \(input.limits.cpu_s\)") as error:
        decode(pool, "mail", SLOW, cpu_s=0.5)
    assert (error.value.reason, error.value.is_transient) == ("document_too_expensive", False)
    assert decode(pool, "mail", MAIL) == RATES


def test_document_over_its_memory_fails(pool: HelperPool) -> None:
    """The helper reports it and continues or is replaced, and the next document is decoded."""
    with pytest.raises(DocumentError, match=r"more than 60 MB of memory \(input.limits.memory_mb\)") as error:
        decode(pool, "html", LARGE, memory_mb=60)
    assert error.value.reason == "document_too_expensive"
    assert decode(pool, "html", PAGE, memory_mb=60).startswith("The bank held its rates")


def test_helper_is_reused(pool: HelperPool) -> None:
    """Documents in a row of any heavy format go to one process, and their failures do not end it."""
    decode(pool, "mail", MAIL)
    (first,) = pids(pool)
    for form, data in (("pdf", b"%PDF-1.4\n"), ("html", b" "), ("mail", b"\0")):
        with pytest.raises(DocumentError) as error:
            decode(pool, form, data)
        assert error.value.reason in ("document_unreadable", "document_empty")
    assert decode(pool, "html", PAGE).startswith("The bank")
    assert pids(pool) == [first]


def test_killed_helper_is_replaced(pool: HelperPool) -> None:
    """The document is decoded by another helper."""
    decode(pool, "mail", MAIL)
    os.kill(pids(pool)[0], signal.SIGKILL)
    assert decode(pool, "mail", MAIL) == RATES


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_for_the_run_do_not_end_a_helper(pool: HelperPool, number: int) -> None:
    """A signal to the whole process group lets documents in flight finish; the run ends its helpers."""
    decode(pool, "mail", MAIL)
    (first,) = pids(pool)
    os.kill(first, number)
    assert decode(pool, "mail", MAIL) == RATES
    assert pids(pool) == [first]


def test_many_threads_share_the_helpers() -> None:
    """There are no more helpers than allowed, replies reach the right thread, and no zombie or descriptor is left."""
    pool, result = HelperPool(2), []
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    def work(number: int) -> None:
        if number % 5 == 0:
            with pytest.raises(DocumentError):
                decode(pool, "mail", SLOW, cpu_s=0.2)
        result.append(decode(pool, "mail", MAIL + b"%d" % number) == f"{RATES}{number}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert result == [True] * 20
    assert len(pids(pool)) <= 2
    mine = set(pids(pool))
    pool.close()
    assert not mine & children()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_forked_process_starts_its_own_helpers(pool: HelperPool) -> None:
    """It does not use the helpers of its parent."""
    decode(pool, "mail", MAIL)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if not pids(pool) and decode(pool, "mail", MAIL) == RATES else 1
            pool.close()
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert decode(pool, "mail", MAIL) == RATES


def script(code: str, **environment: str) -> subprocess.Popen[str]:
    start = f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(Path(__file__).parent)!r}]\n"
    return subprocess.Popen(
        [sys.executable, "-c", start + code], stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )  # fmt: skip


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_helper_ends_with_its_parent(busy: bool, number: int) -> None:
    """This holds whether it waits or decodes, and whatever ends the parent."""
    code = (
        "import threading, test_helpers as t; from pipeline.documents.helpers.pool import HelperPool\n"
        "pool = HelperPool(1); t.decode(pool, 'mail', t.MAIL)\n"
        "work = threading.Thread(target=t.decode, args=(pool, 'mail', t.SLOW), kwargs={'cpu_s': 600}, daemon=True)\n"
        f"if {busy}: work.start()\n"
        "print(*t.pids(pool), flush=True); threading.Event().wait()\n"
    )
    parent = script(code)
    assert parent.stdout is not None
    helper = int(parent.stdout.readline())
    if busy:
        wait_for_cpu(helper)
    parent.send_signal(number)
    parent.wait(60)
    parent.stdout.close()
    wait_until_gone(helper)


def wait_for_cpu(pid: int) -> None:
    """Wait until a process has used some CPU time in a decoder."""
    until = time.monotonic() + 60
    used = ticks(pid)
    while ticks(pid) < used + 30:
        assert time.monotonic() < until
        os.sched_yield()


def ticks(pid: int) -> int:
    values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(values[11]) + int(values[12])


def test_helper_environment_has_no_secret() -> None:
    """A library exploited by hostile bytes finds no key there."""
    code = (
        "import test_helpers as t; from pipeline.documents.helpers.pool import HelperPool\n"
        "pool = HelperPool(1); t.decode(pool, 'mail', t.MAIL)\n"
        "print(open(f'/proc/{t.pids(pool)[0]}/environ').read())\n"
    )
    output = script(code, VLLM_API_KEY="sk-secret-1", AWS_SECRET_ACCESS_KEY="secret-2", HTTPS_PROXY="secret-3")
    shown = output.communicate(timeout=60)[0]
    assert "PATH=" in shown
    assert "secret" not in shown


def test_light_formats_start_no_helper() -> None:
    """Text, JSON, JSON Lines and CSV import no library of the heavy formats."""
    code = (
        "import json, os, tempfile; from pathlib import Path\n"
        "from pipeline.config import InputConfig, InputSource\n"
        "from pipeline.documents import ListingCounts, decode, load_entries\n"
        "from pipeline.documents.helpers.pool import POOL\n"
        "os.chdir(tempfile.mkdtemp()); Path('in').mkdir()\n"
        "texts = {'a.txt': 'x', 'b.json': '{\"text\":\"x\"}', 'c.jsonl': '{\"text\":\"x\"}', 'd.csv': 'text\\nx'}\n"
        "for name, text in texts.items():\n"
        "    Path('in', name).write_text(text)\n"
        "config = InputConfig(uri=(InputSource('in'),))\n"
        "for entry in load_entries(config, output=None, counts=ListingCounts()):\n"
        "    assert decode(entry, entry.read(), text_field='text').text == 'x'\n"
        "heavy = {'trafilatura', 'lxml', 'pypdfium2', 'pipeline.documents.helpers.process'} & set(sys.modules)\n"
        "print(json.dumps([len(POOL._helpers), *sorted(heavy)]))\n"
    )
    assert json.loads(script(code).communicate(timeout=60)[0]) == [0]


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"cpu": 1}, "limits.cpu: unknown key, the nearest is cpu_s; got 1, need one of cpu_s, memory_mb"),
        ({"cpu_s": 0}, "limits.cpu_s: got 0, need a number of seconds from 0.1"),
        ({"columns": 1.5}, "limits.columns: got 1.5, need a whole number"),
        ({"memory_mb": 1}, "limits.memory_mb: got 1, need a number of MB from 16 to 1048576"),
    ],
)
def test_invalid_limit_is_refused(limits: dict[str, float], message: str) -> None:
    """An unknown name or a number out of range gets an error with the key and the accepted values."""
    with pytest.raises(ConfigError) as error:
        InputConfig(limits=limits)
    assert message in str(error.value)


def test_limits_have_defaults() -> None:
    """A limit that is not given has its default."""
    assert limits_of({}) == InputLimits()
    assert limits_of({"cpu_s": 5, "columns": 7}) == InputLimits(cpu_s=5.0, columns=7)


def test_helper_that_cannot_start_is_no_document_failure(pool: HelperPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """This holds for any errno; the next document is decoded once the machine has recovered."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/nonexistent/python")
        for _ in range(3):
            with pytest.raises(MachineTroubleError, match="cannot be started: No such file") as error:
                decode(pool, "mail", MAIL)
            assert is_trouble(error.value)
    assert decode(pool, "mail", MAIL) == RATES


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOENT])
def test_helper_start_failure_is_a_shortage(number: int) -> None:
    """A run repeats the document with no other in flight, and then leaves it."""
    assert "cannot be started" in (shortage_of(MachineTroubleError(number, "cannot be started")) or "")
