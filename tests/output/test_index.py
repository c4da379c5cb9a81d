"""The index has the last line of every id, in whatever order the lines came."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_output import CHILD_ENV, failure, result

from pipeline.config import OutputConfig
from pipeline.errors import OutputError
from pipeline.output import scan
from pipeline.output.index import Index
from pipeline.output.record_keys import key_of_outcome
from pipeline.record_lines import to_line
from pipeline.records import Failure, LatestRecord, Result, Stamp
from pipeline.shards import Shard

FILES = ["", "-00000-of-00002", "-00001-of-00002"]
Step = tuple[str, str, str, str]  # id, sha256, reason or "" for a result, file
steps = st.tuples(
    st.sampled_from(["a", "b", 'ü/"c\\', "d\x00e"]),
    st.sampled_from(["s1", "s2"]),
    st.sampled_from(["", "timeout", "rejected"]),
    st.sampled_from(FILES),
)
# a run meets an id once; whole runs may be in any order in the files
runs_of_steps = st.lists(st.lists(steps, max_size=6, unique_by=lambda step: step[0]), max_size=6)


def record(step: Step) -> Result | Failure:
    """Return the record of a step."""
    id, sha256, reason, _ = step
    return failure(id, sha256=sha256, reason=reason) if reason else result(id, sha256=sha256)


def write(folder: Path, runs: list[tuple[int, list[Step]]]) -> None:
    """Append the line of each step to its file."""
    for run, steps in runs:
        for step in steps:
            kind = "errors" if step[2] else "results"
            with (folder / f"{kind}{step[3]}.jsonl").open("ab") as stream:
                stream.write(to_line(record(step), Stamp(run, f"run-{run}")))


def model(runs: list[tuple[int, list[Step]]]) -> dict[str, tuple[int, str, str, bool]]:
    """Return id → (run, sha256, reason, stale) by the contract: the highest run wins."""
    last: dict[str, tuple[int, str, str, bool]] = {}
    results: dict[str, str] = {}
    for run, steps in sorted(runs, key=lambda item: item[0]):
        for id, sha256, reason, _ in steps:
            if not reason:
                results[id] = sha256
            last[id] = (run, sha256, reason, bool(reason) and results.get(id, sha256) != sha256)
    return last


def entry_of(index: Index, id: str) -> tuple[int, str | None, str, bool] | None:
    """Return the entry of the index in the form of the model."""
    latest = index.latest(id)
    if latest is None:
        return None
    assert latest.failed == (latest.reason is not None)
    assert latest.run_id == f"run-{latest.run}"
    return latest.run, latest.sha256, latest.reason or "", index.has_stale_result(id)


@settings(max_examples=150, deadline=None)
@given(runs=runs_of_steps, order=st.randoms(use_true_random=False))
def test_index_of_any_lines_equals_the_model(runs: list[list[Step]], order: Any) -> None:
    """The lines come from several runs and shards, in any order of runs."""
    numbered = list(enumerate(runs, start=1))
    expected = model(numbered)
    order.shuffle(numbered)
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), numbered)
        index = scan(OutputConfig(str(folder)))
    assert {id: entry_of(index, id) for id in expected} == expected
    failed = {id: last for id, last in expected.items() if last[2]}
    assert {id for id, _ in index.failed()} == set(failed)
    assert {id for id, _ in index.failed(["timeout"])} == {id for id, last in failed.items() if last[2] == "timeout"}
    counts = index.counts()
    assert counts["done"] == len(expected) - len(failed) == len(list(index.done()))
    assert counts["failed"] == len(failed) == index.failed_count() == sum(counts["reasons"].values())
    assert counts["stale"] == sum(last[3] for last in failed.values())
    assert index.highest_run == max((run for run, steps in numbered if steps), default=0)
    index.close()


@settings(max_examples=50, deadline=None)
@given(runs=runs_of_steps)
def test_recorded_outcomes_equal_an_index_of_their_lines(runs: list[list[Step]]) -> None:
    """`record` during a run gives the same index as building it afterwards."""
    numbered = list(enumerate(runs, start=1))
    index = Index()
    for run, steps in numbered:
        for step in steps:
            index.record(key_of_outcome(record(step), Stamp(run, f"run-{run}")))
    expected = model(numbered)
    assert {id: entry_of(index, id) for id in expected} == expected
    index.close()


@settings(max_examples=50, deadline=None)
@given(runs=runs_of_steps, after=st.lists(steps, max_size=2))
def test_records_looked_up_together_are_those_read_one_by_one(runs: list[list[Step]], after: list[Step]) -> None:
    """So are those that get a new line after the look-up, and ids that were not looked up."""
    one = Index()
    together = Index()
    ids = ["a", "b", 'ü/"c\\', "d\x00e", *(f"file {number}" for number in range(10))]
    first = [(id, "s", "", "") for id in ids[4:]]
    for run, run_steps in enumerate([first, *runs], start=1):
        for step in run_steps:
            for index in (one, together):
                index.record(key_of_outcome(record(step), Stamp(run, f"run-{run}")))
    together.look_up([*ids, "unknown"])
    for step in after:
        for index in (one, together):
            index.record(key_of_outcome(record(step), Stamp(99, "run-99")))
    assert [entry_of(together, id) for id in [*ids, "unknown"]] == [entry_of(one, id) for id in [*ids, "unknown"]]
    one.close()
    together.close()


def test_result_wins_over_an_error_of_the_same_run(tmp_path: Path) -> None:
    """Within a run the error counts as the earlier line."""
    write(tmp_path, [(1, [("a", "s", "", ""), ("a", "s", "timeout", "")])])
    index = scan(OutputConfig(str(tmp_path)))
    assert entry_of(index, "a") == (1, "s", "", False)
    assert (index.counts()["done"], index.failed_count()) == (1, 0)


def test_later_line_of_the_same_run_and_file_wins(tmp_path: Path) -> None:
    """The position in the file decides."""
    write(tmp_path, [(1, [("a", "old", "", ""), ("a", "new", "", "")])])
    assert entry_of(scan(OutputConfig(str(tmp_path))), "a") == (1, "new", "", False)


def test_index_has_all_fields_needed_to_skip(tmp_path: Path) -> None:
    """These are sha256, fingerprint, version, and for a failure its reason and runs."""
    line = to_line(replace(failure("a", sha256=None), runs=3), Stamp(7, "job-7", "0/2"))
    (tmp_path / "errors.jsonl").write_bytes(line)
    latest = scan(OutputConfig(str(tmp_path))).latest("a")
    assert latest == LatestRecord(None, "f", "7-8", True, "timeout", 3, 7, "job-7")


def test_shard_index_has_its_own_ids_and_the_highest_run(tmp_path: Path) -> None:
    """The index reads its own ids from an unsharded file, and only the run number from a sibling's file."""
    names = [str(number) for number in range(20)]
    write(tmp_path, [(1, [(name, "s", "", "") for name in names])])
    write(tmp_path, [(9, [("of the sister", "s", "", "-00001-of-00002")])])
    index = scan(OutputConfig(str(tmp_path)), shard=Shard(0, 2))
    assert [name for name in names if index.latest(name)] == [name for name in names if Shard(0, 2).owns(name)]
    assert index.counts()["done"] == sum(Shard(0, 2).owns(name) for name in names)
    assert index.highest_run == 9


def test_highest_run_of_a_sibling_with_a_long_or_broken_last_line(tmp_path: Path) -> None:
    """Its last whole line is found even if it exceeds the first read."""
    long = to_line(replace(result("x"), output="y" * 3_000_000), Stamp(8, "r"))
    (tmp_path / "results-00001-of-00002.jsonl").write_bytes(
        to_line(result("w"), Stamp(2, "r")) + long + long[:2_000_000]
    )
    assert scan(OutputConfig(str(tmp_path)), shard=Shard(0, 2)).highest_run == 8


def test_seen_returns_true_from_the_second_time_on() -> None:
    """It detects repeated ids in a run; earlier runs do not count."""
    index = Index()
    index.record(key_of_outcome(result("a"), Stamp(1, "r")))
    assert [index.mark_met(id) for id in ("a", "a", "b", "a")] == [False, True, False, True]


def test_index_counts_by_variant_and_reason(tmp_path: Path) -> None:
    """The report of the whole output uses these counts."""
    outcomes = [replace(result("a"), variant="terse"), result("b"), failure("c"), failure("d", reason="rejected")]
    for item in outcomes:
        name = "errors.jsonl" if isinstance(item, Failure) else "results.jsonl"
        with (tmp_path / name).open("ab") as stream:
            stream.write(to_line(item, Stamp(1, "r")))
    assert scan(OutputConfig(str(tmp_path))).counts() == {
        "done": 2,
        "failed": 2,
        "stale": 0,
        "accepted": 0,
        "reasons": {"rejected": 1, "timeout": 1},
        "variants": {"terse": {"done": 1, "failed": 0}, "default": {"done": 1, "failed": 2}},
        "questions": {"terse": {"f": 1}, "default": {"f": 1}},
    }


def test_files_with_other_names_are_not_read(tmp_path: Path) -> None:
    """A copy kept beside the results does not belong to the output."""
    (tmp_path / "results-copy.jsonl").write_text("not ours")
    (tmp_path / "results.jsonl.bak").write_text("not ours")
    assert scan(OutputConfig(str(tmp_path))).counts()["done"] == 0


def test_invalid_run_file_is_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A warning names it, and the other run files count."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "a.json").write_text("{")
    (tmp_path / "runs" / "b.json").write_text(json.dumps({"run": 4}))
    assert scan(OutputConfig(str(tmp_path))).highest_run == 4
    assert "a.json" in caplog.text


LEAVE = """
import os, signal
from pipeline.output.index import Index
from pipeline.output.record_keys import RecordKey
index = Index()
for number in range(30000):
    index.record(RecordKey(f"{number:0100d}", 1, "s" * 64, "a", "default", "f", None, None, 0, "r"))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_process_leaves_no_index_file(tmp_path: Path) -> None:
    """The index file in TMPDIR disappears with its process."""
    subprocess.run([sys.executable, "-c", LEAVE], env={**CHILD_ENV, "TMPDIR": str(tmp_path)}, timeout=60, check=False)
    assert list(tmp_path.iterdir()) == []


SMALL_DISK = """
import resource
from pipeline.errors import OutputError
from pipeline.output.index import Index
from pipeline.output.record_keys import RecordKey
index = Index()
index.database._db.execute("PRAGMA cache_size=10")
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    for number in range(30000):
        index.record(RecordKey(f"{number:0100d}", 1, "s" * 64, "a", "default", "f", None, None, 0, "r"))
except OutputError as error:
    print(error)
"""


FITS_IN_MEMORY = """
import resource
from pipeline.errors import OutputError
from pipeline.output.index import Index
from pipeline.output.record_keys import RecordKey
index = Index()
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
for number in range(3000):
    index.record(RecordKey(f"{number:0100d}", 1, "s" * 64, "a", "default", "f", None, None, 0, "r"))
try:
    index.release_memory()
except OutputError as error:
    print(error)
"""


@pytest.mark.parametrize("code", [SMALL_DISK, FITS_IN_MEMORY])
def test_no_space_for_the_index_is_exit_3(tmp_path: Path, code: str) -> None:
    """The message names the folder and TMPDIR, at the start and not after all documents."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env={**CHILD_ENV, "TMPDIR": str(tmp_path)}, capture_output=True, text=True, timeout=60, check=False
    )
    assert str(tmp_path) in done.stdout
    assert "TMPDIR" in done.stdout


def test_unreadable_results_file_is_an_output_error(tmp_path: Path) -> None:
    """It ends the run before any request."""
    (tmp_path / "results.jsonl").mkdir()
    with pytest.raises(OutputError, match=r"results\.jsonl"):
        scan(OutputConfig(str(tmp_path)))
