"""Spark distributes chunks: a real spark-submit on this machine, with Python workers that are killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import PACKAGE_PARENT, WAIT_S, Place
from timing import until

from pipeline.engines import ChunkResult
from pipeline.engines.spark import attempts_of, exit_code_of

EXAMPLE = PACKAGE_PARENT / "config" / "spark" / "extract.py"
SETTINGS = {
    "spark.ui.enabled": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.python.worker.reuse": "false",
}
needs_spark = pytest.mark.skipif(
    find_spec("pyspark") is None or shutil.which("java") is None,
    reason="needs pyspark (the extra `spark`) and Java 17 (Debian: openjdk-17-jre-headless)",
)


def submit(place: Place, script: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start spark-submit with two task slots and four attempts of each task."""
    from pyspark import find_spark_home

    command = [str(Path(find_spark_home._find_spark_home()) / "bin" / "spark-submit"), "--master", "local[2,4]"]
    command += [word for name, value in SETTINGS.items() for word in ("--conf", f"{name}={value}")]
    environ = {
        **os.environ,
        "PYSPARK_PYTHON": sys.executable,
        "PYTHONPATH": str(PACKAGE_PARENT),
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    return subprocess.Popen(
        [*command, str(script), *arguments],
        cwd=place.folder,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=(place.folder / "spark.log").open("w"),
        text=True,
    )


def ended(place: Place, process: subprocess.Popen[str]) -> str:
    """Return the output of spark-submit, which must end with 0."""
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, (place.folder / "spark.log").read_text(encoding="utf-8")[-5000:]
    return out


def workers(place: Place) -> dict[int, int]:
    """Return the processes that run chunks of this place, each with its parent, a task's Python worker."""
    collected = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if b"--chunk" in words and (folder / "cwd").readlink() == place.folder:
                collected[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # ended meanwhile
            continue
    return collected


@pytest.mark.slow
@needs_spark
def test_killed_python_workers_lose_and_duplicate_no_record(place: Place) -> None:
    """After SIGKILL Spark restarts the task, and each document has one record."""
    place.configure({"runner.lock_wait_s": 60, "runner.fail_fast": 0})
    ids = place.documents(40)
    assert place.call("plan", "--chunks", "4").code == 0
    waiting: list[str] = []
    opened = threading.Event()

    def hold(document: str) -> None:
        if document in (ids[5], ids[15]):
            waiting.append(document)
            opened.wait(WAIT_S)

    place.server.faults = lambda request, _: hold(request.document)
    process = submit(place, EXAMPLE, "pipeline.yaml")
    try:
        until(lambda: len(waiting) == 2 or process.poll() is not None, "two requests", pause_s=0.05)
        killed = set(workers(place).values())
        assert killed
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        opened.set()
        out = ended(place, process)
    finally:
        opened.set()
        process.kill()
        process.wait()
    assert "by 4 chunks" in out
    paths = (place.folder / "out").glob("results-chunk-*.jsonl")
    lines = Counter(json.loads(line)["id"] for path in paths for line in path.read_text("utf-8").splitlines())
    assert lines == Counter(ids)
    assert Counter(place.sent_documents()) == Counter(ids)
    counts = place.report()["run"]["counts"]
    assert (counts["found"], counts["done"] + counts["skipped"], counts["left"]) == (40, 40, 0)


FRAME = """
from pyspark.sql import SparkSession
from pipeline.engines.spark_frame import extract_frame

session = SparkSession.builder.getOrCreate()
rows = [(f"d{n}.txt", f"[[doc:d{n}.txt]] A text.") for n in range(6)] + [("none.txt", None)]
frame = session.createDataFrame(rows, "name string, text string").repartition(2)
done = extract_frame(frame, "small", agents_dir="agents", document_id="name")
with open("rows.tsv", "w") as stream:
    for row in sorted(done.collect()):
        stream.write("\\t".join(map(str, row)) + "\\n")
session.stop()
"""


@pytest.mark.slow
@needs_spark
@pytest.mark.skipif(find_spec("pandas") is None, reason="mapInArrow needs pandas (the extra `spark`)")
def test_answers_become_columns_of_a_frame(place: Place) -> None:
    """Each row keeps its columns; a row without a text has a reason."""
    (place.folder / "frame.py").write_text(FRAME, encoding="utf-8")
    ended(place, submit(place, place.folder / "frame.py"))
    rows = [line.split("\t") for line in (place.folder / "rows.tsv").read_text(encoding="utf-8").splitlines()]
    assert [row[0] for row in rows] == [*(f"d{n}.txt" for n in range(6)), "none.txt"]
    assert all(set(json.loads(row[2])) == {"summary"} for row in rows[:6])
    assert rows[6][1:4] == ["None", "None", "document_empty"]
    assert sorted(place.sent_documents()) == [f"d{n}.txt" for n in range(6)]


def test_attempts_follow_the_spark_master() -> None:
    """A task must know its last attempt, because one that fails too often ends the whole job."""
    assert attempts_of("local[2]", "9") == 1
    assert attempts_of("local", None) == 1
    assert attempts_of("local[*, 3]", None) == 3
    assert attempts_of("local-cluster[2,1,512]", None) == 4
    assert attempts_of("yarn", "7") == 7


def test_driver_exit_code_is_the_largest_of_its_chunks() -> None:
    """It is 0 only if every chunk has ended with 0."""
    assert exit_code_of([]) == 0
    assert exit_code_of([ChunkResult(0, 0), ChunkResult(1, 3), ChunkResult(2, 1)]) == 3
