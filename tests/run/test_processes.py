"""Worker processes: the same records as with one process, whatever fails and whichever process is killed."""

from __future__ import annotations

import os
import signal
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import HOUR_AGO, Child, Place, json_log, line_with
from fake_llm import FakeLLM

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc")

TWO = {"runner.processes": 2, "runner.concurrency": 8, "runner.max_error_rate": 1, "runner.fail_fast": 0}
FAULTS = ("", "[[fault:http_500*1]]", "[[fault:http_400]]", "[[fault:invalid_json*1]]", "[[fault:half_body*1]]")


def workers_of(pid: int) -> list[int]:
    """Return the PIDs of a run's worker processes."""
    collected = []
    for folder in Path("/proc").iterdir():
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            is_worker = parent == pid and b"run.workers.process" in (folder / "cmdline").read_bytes()
        except (OSError, ValueError, IndexError):
            continue
        if is_worker:
            collected.append(int(folder.name))
    return collected


def is_gone(pid: int) -> bool:
    """Return whether a process has ended."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def started(place: Place, *, documents: int, latency_s: float) -> tuple[Child, list[int]]:
    """Start a run and wait until both worker processes are at work."""
    place.documents(documents)
    place.configure(TWO)
    place.server.latency_s = latency_s
    child = place.start("run")
    place.wait_for_results(4)
    return child, workers_of(child.process.pid)


def outcome_of(line: dict[str, Any]) -> dict[str, Any]:
    """Return a record without the fields that differ from run to run."""
    left_out = {"finished_at", "run", "run_id", "latency_s", "message"}
    record = {name: value for name, value in line.items() if name not in left_out}
    record["history"] = [{**attempt, "latency_s": 0, "endpoint": ""} for attempt in record.get("history", ())]
    return {**record, "model": {**record.get("model", {}), "endpoint": ""}}


@pytest.fixture
def second_server() -> Iterator[FakeLLM]:
    """Yield a server with its own count of requests per document."""
    with FakeLLM(("llama3.1",)) as running:
        yield running


def test_two_processes_write_the_records_of_one(place: Place, second_server: FakeLLM) -> None:
    """Attempts, notes and reasons are equal for answers, retries, refusals, re-asks and lost connections."""
    texts = {f"d{n:03}.txt": f"A text, number {n}. {FAULTS[n % len(FAULTS)]}" for n in range(40)}
    place.documents({**texts, "empty.txt": "", "same-1.txt": "twice"})
    result = [records_of(place, server, processes) for processes, server in ((1, place.server), (2, second_server))]
    assert result[0] == result[1]
    assert Counter(line.get("reason") for line in result[0])["rejected"] == 8


def records_of(place: Place, server: FakeLLM, processes: int) -> list[dict[str, Any]]:
    """Return the records of a run with this many processes, by id."""
    settings = {"runner.processes": processes, "output.uri": f"out{processes}", "vllm.base_url": server.url}
    place.configure({**TWO, **settings})
    place.run()
    folder = place.folder / f"out{processes}"
    lines = [outcome_of(line) for name in ("results.jsonl", "errors.jsonl") for line in _lines(folder / name)]
    sent = Counter(chat.document for chat in server.chats())
    return [{**line, "asked": sent[line["id"]]} for line in sorted(lines, key=lambda line: str(line["id"]))]


def _lines(path: Path) -> list[dict[str, Any]]:
    return json_log(path.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_copies_and_archive_members_with_two_processes(place: Place) -> None:
    """Identical requests are sent once over both processes; the main process handles unpicklable entries."""
    for name in ("a", "b", "c"):
        (place.folder / "inbox" / f"{name}.txt").write_text("[[doc:same.txt]] the same", encoding="utf-8")
    with zipfile.ZipFile(place.folder / "inbox" / "more.zip", "w") as archive:
        for number in range(5):
            archive.writestr(f"m{number}.txt", f"[[doc:m{number}.txt]] member {number}")
    for path in (place.folder / "inbox").iterdir():
        os.utime(path, (HOUR_AGO, HOUR_AGO))
    place.configure(TWO)
    place.run()
    assert sorted(place.sent_documents()) == ["m0.txt", "m1.txt", "m2.txt", "m3.txt", "m4.txt", "same.txt"]
    assert len(place.done()) == 8
    assert set(place.done().values()) == {1}


def test_killed_worker_process_loses_and_duplicates_no_record(place: Place) -> None:
    """After kill -9 of each worker, new processes replace them and their documents are sent again."""
    child, workers = started(place, documents=60, latency_s=1.0)
    assert len(workers) == 2
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
        line_with(child, "a worker process was lost")
    place.wait_for(lambda: len(workers_of(child.process.pid)) == 2, "two new worker processes")
    place.server.latency_s = 0.02
    ran = child.end()
    assert ran.code == 0, ran.err
    assert len(place.done()) == 60
    assert set(place.done().values()) == {1}
    sent = place.sent_documents()
    assert len(sent) - len(set(sent)) <= 2 * 8


@pytest.mark.slow
def test_worker_processes_end_with_the_main_process(place: Place) -> None:
    """After kill -9 of the main process no worker is left, and the next run does the remaining documents."""
    child, workers = started(place, documents=40, latency_s=1.0)
    before = set(place.done())
    child.end(signal.SIGKILL)
    for pid in workers:
        while not is_gone(pid):
            os.sched_yield()
    place.sent_documents()
    place.server.latency_s = 0.0
    place.run()
    assert not before & set(place.sent_documents())
    assert len(place.done()) == 40
    assert set(place.done().values()) == {1}


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_lets_requests_in_flight_finish(place: Place, number: int, code: int) -> None:
    """Signals to worker processes have no effect; one to the main process leaves the unsent documents."""
    child, workers = started(place, documents=60, latency_s=1.0)
    for pid in workers:
        os.kill(pid, number)
    ran = child.end(number)
    assert ran.code == code, ran.err
    assert sorted(place.done()) == sorted(set(place.sent_documents()))
    assert "a worker process was lost" not in ran.err
    counts = place.last_run()["counts"]
    assert counts["found"] == counts["done"] + counts["left"]
    place.server.latency_s = 0.0
    place.run()
    assert len(place.done()) == 60
    assert set(place.done().values()) == {1}


DEADLY = """
import os, signal
_open = os.open
with open("/proc/self/cmdline") as file:
    is_worker = "run.workers.process" in file.read()
def open(path, *arguments, **named):
    if is_worker and not isinstance(path, int) and os.path.basename(os.fspath(path)).startswith("deadly"):
        os.kill(os.getpid(), signal.SIGKILL)
    return _open(path, *arguments, **named)
os.open = open
"""
"""A worker process with this as its sitecustomize is killed where it opens a file whose name begins with `deadly`."""


@pytest.mark.slow
def test_document_that_kills_its_process_fails(place: Place) -> None:
    """It is treated as exceeding the machine's memory: after three times it is sent alone, and then it fails."""
    place.documents({**{f"d{n:03}.txt": f"text {n}" for n in range(12)}, "deadly.md": "text"})
    (place.folder / "path").mkdir()
    (place.folder / "path" / "sitecustomize.py").write_text(DEADLY, encoding="utf-8")
    place.configure(TWO)
    ran = place.run(env={"PYTHONPATH": f"path{os.pathsep}{os.environ.get('PYTHONPATH', '')}"})
    assert place.failed() == {"deadly.md": "document_too_expensive"}
    assert len(place.done()) == 12
    assert "SIGKILL" in ran.err


@pytest.mark.slow
def test_lost_replica_is_marked_unavailable_once(place: Place) -> None:
    """The first replica dies, and the other does all remaining documents."""
    with FakeLLM(("llama3.1",), latency_s=0.05) as other:
        place.documents(60)
        place.configure({**TWO, "vllm.base_url": [place.server.url, other.url]})
        place.server.latency_s = 0.05
        child = place.start("run", "--log-format", "json")
        place.wait_for_results(8)
        place.server.down()
        ran = child.end()
    assert ran.code == 0, ran.err
    lost = [line for line in json_log(ran.err) if line["message"].startswith("server marked unavailable")]
    assert [line["endpoint"] for line in lost] == [place.server.url]
    assert len(place.done()) == 60
    assert set(place.done().values()) == {1}
