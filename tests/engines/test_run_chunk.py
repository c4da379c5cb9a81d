"""`run_chunk` behaves like `pipeline run --chunk I`, works in any thread, and its child ends with the parent."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from conftest import Place
from timing import Gate, until

from pipeline.engines import ChunkResult, run_chunk
from pipeline.report.run_summary import Counts


def planned(place: Place, documents: int = 6, *, chunks: int = 2) -> None:
    """Write documents and their plan."""
    place.documents(documents)
    assert place.call("plan", "--chunks", str(chunks)).code == 0


def lines_of(place: Place, pattern: str = "results-chunk-*.jsonl") -> Counter[str]:
    """Return the number of lines of each document."""
    return Counter(
        json.loads(line)["id"]
        for path in (place.folder / "out").glob(pattern)
        for line in path.read_text(encoding="utf-8").splitlines()
    )


def holder_of(place: Place) -> int:
    """Return the process that holds the lock of chunk 0."""
    lock = place.folder / "out" / ".lock-chunk-00000"
    return int(json.loads(lock.read_text(encoding="utf-8"))["pid"])


def sent(place: Place) -> int:
    """Return the number of requests with a document; those of the preflight do not count."""
    return sum(chat.document.endswith(".txt") for chat in place.server.chats())


def is_running(pid: int) -> bool:
    """Return False for a process that has ended, whether or not its parent has noticed."""
    state = Path(f"/proc/{pid}/stat")
    return state.exists() and state.read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"


def test_chunks_run_in_parallel_threads(place: Place) -> None:
    """Each result has the exit code and counts of its run, and can be pickled."""
    planned(place)
    log: list[str] = []

    def run(index: int) -> ChunkResult:
        return run_chunk("pipeline.yaml", "out", index, folder=place.folder, write=log.append)

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(run, range(2)))
    assert [result.index for result in results] == [0, 1]
    assert [result.exit_code for result in results] == [0, 0]
    assert sum(result.counts.done for result in results) == 6
    assert results[0].message == ""
    assert lines_of(place) == Counter({f"d{n:03}.txt": 1 for n in range(6)})
    assert pickle.loads(pickle.dumps(results)) == results
    assert all(json.loads(line)["severity"] for line in log)


def test_run_chunk_returns_the_exit_code_of_the_run(place: Place) -> None:
    """A chunk with too many failures is 1, one without a plan 2, and the message contains the cause."""
    place.documents({f"d{n}.txt": "[[fault:invalid_json]] Plain." for n in range(3)})
    missing = run_chunk("pipeline.yaml", None, 0, folder=place.folder, write=lambda _: None)
    assert (missing.exit_code, missing.counts) == (2, Counts())
    assert "has no plan.json" in missing.message
    assert place.call("plan", "--chunks", "1").code == 0
    failed = run_chunk("pipeline.yaml", None, 0, folder=place.folder, write=lambda _: None)
    assert (failed.exit_code, failed.counts.failed) == (1, 3)
    assert "failed" in failed.message


def test_flags_and_variables_reach_the_run(place: Place) -> None:
    """Flags are those of `pipeline run`; variables replace those of this process."""
    planned(place, 2, chunks=1)
    environ = {"PIPELINE_RUNNER_CONCURRENCY": "0"}
    refused = run_chunk("pipeline.yaml", None, 0, folder=place.folder, environ=environ, write=lambda _: None)
    assert refused.exit_code == 2
    assert "runner.concurrency" in refused.message
    flags = ("--run-id", "night")
    run_chunk("pipeline.yaml", None, 0, flags=flags, folder=place.folder, write=lambda _: None)
    assert (place.folder / "out" / "runs" / "night-chunk-00000.json").exists()


def start(place: Place) -> subprocess.Popen[str]:
    """Start a process that runs chunk 0, as a task does."""
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from pipeline.engines import run_chunk; run_chunk('pipeline.yaml', None, 0)"
    )
    return subprocess.Popen([sys.executable, "-c", code], cwd=place.folder, stderr=subprocess.PIPE, text=True)


def test_interrupted_call_loses_no_record(place: Place) -> None:
    """Requests in flight finish and are written; the next run does the rest once."""
    planned(place, 12, chunks=1)
    place.server.faults = gate = Gate(after=3)
    with start(place) as parent:
        until(lambda: sent(place) == 7, "four requests in flight")
        parent.send_signal(signal.SIGINT)
        assert parent.stderr is not None
        assert any("SIGTERM" in line for line in parent.stderr)
        gate.open()
        log = parent.stderr.read()
    assert '"exit_code": 143' in log
    assert "KeyboardInterrupt" in log
    assert len(lines_of(place)) == 7
    assert run_chunk("pipeline.yaml", None, 0, folder=place.folder, write=lambda _: None).exit_code == 0
    assert lines_of(place) == Counter({f"d{n:03}.txt": 1 for n in range(12)})
    assert set(Counter(place.sent_documents()).values()) == {1}


def test_child_ends_with_its_killed_parent(place: Place) -> None:
    """The server does not answer, so it ends after `runner.grace_s`."""
    place.configure({"runner.grace_s": 0.2})
    planned(place, 12, chunks=1)
    place.server.faults = gate = Gate(after=3)
    with start(place) as parent:
        until(lambda: sent(place) == 7, "four requests in flight")
        child = holder_of(place)
        parent.kill()
        until(lambda: not is_running(child), "the end of the child")
    assert len(lines_of(place)) == 3
    gate.open()
    assert run_chunk("pipeline.yaml", None, 0, folder=place.folder, write=lambda _: None).exit_code == 0
    assert lines_of(place) == Counter({f"d{n:03}.txt": 1 for n in range(12)})


def test_killed_child_is_reported_with_its_signal(place: Place) -> None:
    """The code is that of a shell: 137 after an out-of-memory kill."""
    planned(place, 6, chunks=1)
    place.server.faults = gate = Gate(after=0)
    results: list[ChunkResult] = []

    def run() -> None:
        results.append(run_chunk("pipeline.yaml", None, 0, folder=place.folder, write=lambda _: None))

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: len(place.server.chats()) >= 1, "a request")
    os.kill(holder_of(place), signal.SIGKILL)
    thread.join()
    gate.open()
    assert [(result.exit_code, result.counts.done) for result in results] == [(137, 0)]


def test_engine_libraries_are_imported_only_by_their_adapters() -> None:
    """Neither a run nor `run_chunk` imports one."""
    code = "import sys, pipeline.engines, pipeline.run.session; print(' '.join(sys.modules))"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {name.split(".")[0] for name in child.stdout.split()} & {"ray", "pyspark"} == set()
