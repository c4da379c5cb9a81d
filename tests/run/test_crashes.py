"""kill -9 after each single step that a run or a compaction performs on the files of an output.

The steps are counted by the interpreter itself: nothing of the pipeline is replaced.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from test_output import CHILD_ENV, failure, ids, opened, result

from pipeline.config import OutputConfig
from pipeline.output import scan
from pipeline.output.compaction import compact
from pipeline.shards import CHUNKED, Shard

DYING = """
import os, shutil, signal, sys
from pathlib import Path
from test_crashes import DEEDS
from pipeline.output import checkpoint

STEPS = {"write", "pwrite", "ftruncate", "replace", "unlink", "mkdir", "open", "flush", "writelines"}
template, deed = Path(sys.argv[1]), DEEDS[sys.argv[2]]
checkpoint.WORTH_BYTES = 1

def child(folder, last):
    acks, steps = os.open(folder / "acks", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 0
    def die(frame, event, function):
        nonlocal steps
        if event == "c_return" and function.__name__ in STEPS:
            steps += 1
            if steps == last:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.setprofile(die)
    deed(folder / "out", lambda id: os.write(acks, f"{id} ".encode()))
    sys.setprofile(None)
    os._exit(0)

for last in range(1, 1000):
    folder = template.with_name(f"step-{last:03}")
    shutil.copytree(template, folder)
    pid = os.fork()
    if pid == 0:
        try:
            child(folder, last)
        finally:
            os._exit(70)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code != -signal.SIGKILL:
        sys.exit(code)
"""
NEW = {"n1": result("n1"), "n2": failure("n2"), "retried": result("retried"), "n3": failure("n3"), "n4": result("n4")}
EARLIER = {"done", "retried", "failing", "twice", "planned"}
CHUNK = Shard(3, CHUNKED, 9, lambda id: id == "planned")


def a_run(out: Path, acknowledge: Callable[[str], object]) -> None:
    """Repair the output, write each missing record, and finish as a run does."""
    with opened(out, run_id="new") as output:
        for id, record in NEW.items():
            latest = output.index.latest(id)
            if latest is None or (id == "retried" and latest.failed):
                output.write(record)
                acknowledge(id)
        output.finish()
        output.write_run({"stats": {}})
        output.backend.replace("report.json", b'{"whole": true}')


def a_compaction(out: Path, acknowledge: Callable[[str], object]) -> None:
    """Compact the output to the last line of each document."""
    with opened(out, run_id="compaction") as output:
        compact(output.backend, output.index)
    acknowledge("all")


DEEDS = {"run": a_run, "compaction": a_compaction}


def wreck(out: Path) -> None:
    """Leave the files of a power cut and two killed runs: broken lines, an outdated error, half-written files."""
    for run in ("first", "second"):
        with opened(out, run_id=run) as output:
            output.write(result("twice", output=run))
            if run == "first":
                for record in (result("done"), failure("retried"), failure("failing"), failure("twice")):
                    output.write(record)
        with opened(out, run_id=f"{run}-chunk", shard=CHUNK) as output:
            output.write(result("planned", output=run))
    first, second, *others = (out / "results.jsonl").read_bytes().splitlines(keepends=True)
    (out / "results.jsonl").write_bytes(b"".join([first, b"\0" * 40 + b"\n", second, *others]) + b'{"v":1,"id":"to')
    with (out / "errors.jsonl").open("ab") as file:
        file.write(b'{"v":1,"i')
    for name in (".errors.jsonl", ".report.json"):
        (out / f"{name}.0123456789ab.tmp").write_bytes(b"half")


@pytest.mark.parametrize("deed", ["run", "compaction"])
def test_kill_after_any_step_loses_and_duplicates_no_record(tmp_path: Path, deed: str) -> None:
    """Acknowledged records remain; the next run adds the missing ones once and removes half-written files."""
    template = tmp_path / "template"
    wreck(template / "out")
    ran = subprocess.run([sys.executable, "-c", DYING, template, deed], env=CHILD_ENV, timeout=120, check=False)
    assert ran.returncode == 0
    folders = sorted(tmp_path.glob("step-*"))
    assert len(folders) > 30
    for folder in folders:
        out, acknowledged = folder / "out", set((folder / "acks").read_text().split()) - {"all"}
        with closing(scan(OutputConfig(str(out)))) as index:
            latest = {id: record for id in (*EARLIER, *NEW) if (record := index.latest(id)) is not None}
        assert latest.keys() >= EARLIER | acknowledged, folder.name
        assert len(latest.keys() - EARLIER - acknowledged) <= 1, folder.name
        failed = {id for id in EARLIER if latest[id].failed} - {"retried"}
        assert failed == {"failing"}, folder.name
        a_run(out, lambda _: None)
        with closing(scan(OutputConfig(str(out)), shard=CHUNK)) as index:
            assert index.latest("planned") is not None, folder.name
        planned = ids(out / "results-chunk-00003.jsonl")
        assert planned == ["planned"] * (len(planned) if deed == "compaction" else 2), folder.name
        done = {"done": 1, "retried": 1, "twice": 2, "n1": 1, "n4": 1}
        if deed == "compaction" and Counter(ids(out / "results.jsonl"))["twice"] == 1:
            done["twice"] = 1
        assert Counter(ids(out / "results.jsonl")) == done, folder.name
        assert sorted(ids(out / "errors.jsonl")) == ["failing", "n2", "n3"], folder.name
        assert list(out.rglob("*.tmp")) == [], folder.name
        assert all(json.loads(path.read_bytes()) for path in out.rglob("*.json")), folder.name
