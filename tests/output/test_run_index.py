"""The index of runs: start and end of a run never read all earlier runs, and no run is lost or duplicated."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
from conftest import Place
from hypothesis import given, settings
from hypothesis import strategies as st
from s3_faults import FaultProxy
from s3_server import S3Server
from shard_end import add_nights
from test_output import opened, result

from pipeline.config import OutputConfig
from pipeline.errors import TryLaterError
from pipeline.output import Output
from pipeline.output.folded_runs import KEPT_FILES, fold, remove_documents
from pipeline.output.local import LocalBackend
from pipeline.output.run_entries import entries_of, entry_after, history_row
from pipeline.output.run_index import RunIndex, highest_run
from pipeline.output.runs import read_runs
from pipeline.report import RunStats, RunSummary, build_report
from pipeline.report.contents import Report
from pipeline.report.history import NO_EARLIER_RUNS, EarlierRuns
from pipeline.report.profile import kept_profiles
from pipeline.report.run_summary import OutputCounts
from pipeline.shards import WHOLE, Shard
from pipeline.stores import RemoteStore
from pipeline.values.profiling import ProfileBuilder

SCHEMA = {"type": "object", "properties": {"currency": {"enum": ["USD", "EUR"]}}}
"""Without numbers: their medians are estimated, and depend on the order in which profiles are merged."""

ALL = {"is_current": lambda _id, _run: True}


def summary(run: int, *, shard: str | None = None, done: int = 12, question: str = "f", **more: Any) -> dict[str, Any]:
    """Return the summary of a run with this many results."""
    stats: dict[str, Any] = RunSummary(stats=RunStats(SCHEMA, lambda: 0.0).snapshot()).to_json()["stats"]
    stats["outcomes"]["done"] = done
    stats["questions"] = {"default": {question: done}} if done else {}
    builder = ProfileBuilder(SCHEMA, random=Random(0).random, show_texts=False)
    for number in range(done):
        builder.add({"currency": ["USD", "EUR"][(number + run) % 2]}, variant="default", fingerprint=question)
    counts = dict.fromkeys(("found", "done", "failed", "skipped", "ignored", "left"), 0) | {"done": done, "found": done}
    config = {"question": {"default": {"model": question}}, "runner": {}}
    texts = dict.fromkeys(("message", "verdict", "command", "started_at"), "")
    return {
        "v": 1,
        "run": run,
        "run_id": f"r{run}",
        "shard": shard,
        "agent": "small",
        "exit_code": 0,
        **texts,
        "finished_at": f"2026-{run:05d}",
        "counts": counts,
        "ignored": {},
        "files": {},
        "parts": [],
        "stats": stats,
        "config": config,
        "profile": kept_profiles(builder.profiles()),
        "output": {"done": done, "questions": stats["questions"]},
        **more,
    }


def reported(
    runs: list[dict[str, Any]], counts: dict[str, Any] | None = None, *, earlier: EarlierRuns = NO_EARLIER_RUNS
) -> Report:
    """Return the report of these runs."""
    output = None if counts is None else OutputCounts.from_json(counts)
    return build_report(list(map(RunSummary.from_json, runs)), output, earlier=earlier)


def ended(folder: Path, run: dict[str, Any], shard: Shard = WHOLE) -> RunIndex:
    """End a run by writing its summary and its index entry; return the index that it used."""
    backend = LocalBackend(folder, shard=shard)
    index = RunIndex(backend, shard)
    index.check(run["run"] - 1)
    backend.replace(f"runs/{run['run_id']}{shard.suffix}.json", json.dumps(run).encode())
    index.write(backend, run, **ALL)
    return index


def index_of(folder: Path, shard: Shard = WHOLE) -> RunIndex:
    """Return the index as a further run reads it."""
    return RunIndex(LocalBackend(folder, shard=shard), shard)


def entries(folder: Path) -> list[str]:
    """Return the file names in the index."""
    return sorted(path.name for path in (folder / ".runs").iterdir())


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(st.sampled_from([0, 3, 12]), st.sampled_from("ab"), st.booleans()),
        min_size=1,
        max_size=7,
    )
)
def test_report_from_the_index_equals_one_from_all_runs(kinds: list[tuple[int, str, bool]]) -> None:
    """For any runs, an entry extended run by run equals one made from all summaries."""
    runs = [
        summary(number, done=done, question=question, ask_again=[f"d{number}"] if again else [])
        for number, (done, question, again) in enumerate(kinds, start=1)
    ]
    entry = None
    for run in runs:
        entry = entry_after(entry, run)
    assert entry is not None
    (whole,) = entries_of(runs).values()
    assert {**entry, "earlier": []} == {**whole, "earlier": []}
    run_names = [*entry["kept"], entry["newest"]]
    counts = {"done": sum(run["counts"]["done"] for run in runs)}
    counts["questions"] = {"default": {question: 1 for _, question, _ in kinds}}
    expected = reported(runs, counts)
    history = tuple(RunSummary.from_json(row) for row in [*entry["history"], history_row(runs[-1])])
    for parts in (entry["earlier"], whole["earlier"]):
        earlier = EarlierRuns(tuple(map(RunSummary.from_json, parts)), history)
        assert reported(run_names, counts, earlier=earlier).to_json() == expected.to_json()


def test_new_entry_replaces_the_previous_one(tmp_path: Path) -> None:
    """Its name has the run number; if a killed run left two entries, the higher number counts."""
    for number in (1, 2, 3):
        ended(tmp_path, summary(number, done=0))
    assert entries(tmp_path) == ["complete", "run.00000003.json"]
    (tmp_path / ".runs" / "run.00000002.json").write_bytes((tmp_path / ".runs" / "run.00000003.json").read_bytes())
    assert highest_run(LocalBackend(tmp_path, shard=WHOLE)) == 3
    ended(tmp_path, summary(4))
    assert entries(tmp_path) == ["complete", "run.00000004.json"]


def test_set_of_shards_reports_only_its_own_runs(tmp_path: Path) -> None:
    """Runs of another number of shards are left out; highest run and profiles cover all."""
    ended(tmp_path, summary(7))
    for index, of in ((0, 2), (1, 2), (0, 3)):
        ended(tmp_path, summary(index + 8, shard=f"{index}/{of}"), Shard(index, of))
    result = index_of(tmp_path, Shard(1, 2))
    assert [run["shard"] for run in result.of_all_shards()] == ["0/2", "1/2"]
    assert (result.highest_run, len(result.earlier()), len(result.history())) == (9, 2, 2)
    assert result.finished_shards() >= {Shard(0, 2), Shard(1, 2)}


def test_documents_to_send_again_are_kept_until_they_are_sent(tmp_path: Path) -> None:
    """They survive later runs and come from every shard; the file name shows which entries have any."""
    ended(tmp_path, summary(1, ask_again=["a", "b"]))
    assert index_of(tmp_path, Shard(0, 2)).ask_again() == {"a": 1, "b": 1}
    backend = LocalBackend(tmp_path, shard=WHOLE)
    RunIndex(backend, WHOLE).write(backend, summary(2), is_current=lambda document_id, _: document_id == "a")
    assert index_of(tmp_path).ask_again() == {"a": 1}
    RunIndex(backend, WHOLE).write(backend, summary(3), is_current=lambda *_: False)
    assert entries(tmp_path) == ["complete", "run.00000003.json"]


def test_runs_of_an_earlier_version_are_read_until_their_shards_have_entries(tmp_path: Path) -> None:
    """No summary is lost in any state of the change-over; after it `runs/` is no longer read."""
    (tmp_path / "runs").mkdir()
    old = [summary(1, shard="0/2", ask_again=["x"], question="q"), summary(2, shard="1/2"), summary(3, shard="0/2")]
    for run in old:
        index, of = map(int, run["shard"].split("/"))
        (tmp_path / "runs" / f"{run['run_id']}{Shard(index, of).suffix}.json").write_text(json.dumps(run))
    before = index_of(tmp_path, Shard(0, 2))
    assert (before.highest_run, before.ask_again()) == (3, {"x": 1})
    assert {"model": "q"} in before.questions() and before.answered() == {"q", "f"}
    ended(tmp_path, summary(4, shard="0/2"), Shard(0, 2))
    assert entries(tmp_path) == ["run-00000-of-00002.00000004.again.json"]
    between = index_of(tmp_path, Shard(1, 2))
    assert [run["run"] for run in between.of_all_shards()] == [2, 3, 4]
    ended(tmp_path, summary(5, shard="1/2"), Shard(1, 2))
    assert "complete" in entries(tmp_path)
    assert [run["run"] for run in index_of(tmp_path, Shard(0, 2)).of_all_shards()] == [3, 4, 2, 5]


@pytest.mark.parametrize("shard", [WHOLE, Shard(1, 2)])
def test_run_without_an_entry_is_found_at_the_next_start(tmp_path: Path, shard: Shard) -> None:
    """It is from an earlier version, or was killed before it wrote its entry."""
    ended(tmp_path, summary(1, shard=shard.label), shard)
    late = summary(2, shard=shard.label, ask_again=["x"])
    (tmp_path / "runs" / f"late{shard.suffix}.json").write_text(json.dumps(late))
    index = index_of(tmp_path, shard)
    index.check(2)
    assert (index.highest_run, index.ask_again(), len(index.of_this_shard())) == (2, {"x": 2}, 2)
    backend = LocalBackend(tmp_path, shard=shard)
    index.write(backend, summary(3, shard=shard.label), **ALL)
    assert [run["run"] for run in index_of(tmp_path, shard).of_this_shard()] == [2, 3]
    assert index_of(tmp_path, shard).history()[0]["run"] == 1


def test_damaged_entry_is_skipped(tmp_path: Path) -> None:
    """Its run is still in `runs/` and its number in the file name; foreign files are skipped."""
    ended(tmp_path, summary(5))
    (tmp_path / ".runs" / "run.00000005.json").write_text('{"v"')
    (tmp_path / ".runs" / "notes.txt").write_text("mine")
    assert (index_of(tmp_path).recent(), index_of(tmp_path).highest_run) == ([], 5)
    fold(LocalBackend(tmp_path, shard=WHOLE))
    assert [run["run"] for run in index_of(tmp_path).recent()] == [5]


def test_old_run_files_are_merged_without_loss(tmp_path: Path) -> None:
    """It works twice, with runs in between, and after a kill that left already merged files."""
    total = KEPT_FILES + 5
    for number in range(1, total + 1):
        ended(tmp_path, summary(number, ask_again=[f"d{number}"]))
    backend = LocalBackend(tmp_path, shard=WHOLE)
    before = read_runs(backend)
    report = reported(before).to_json()
    untouched = (tmp_path / "runs" / "r1.json").read_bytes()
    assert fold(backend) == 5
    (tmp_path / "runs" / "r1.json").write_bytes(untouched)
    assert read_runs(backend) == before
    assert len(list((tmp_path / "runs").glob("*.json"))) == KEPT_FILES + 1
    result = index_of(tmp_path)
    assert reported(result.of_all_shards(), earlier=EarlierRuns.of_index(result)).to_json() == report
    assert len(result.ask_again()) == total
    ended(tmp_path, summary(total + 1))
    assert fold(backend) == 2
    assert [run["run"] for run in read_runs(backend)] == list(range(1, total + 2))
    assert sorted(path.name for path in (tmp_path / "runs").glob("*.jsonl")) == ["earlier.jsonl"]


def test_purge_removes_a_document_from_merged_runs_and_the_index(tmp_path: Path) -> None:
    """This includes the history that the index keeps of older runs."""
    for number in range(1, KEPT_FILES + 4):
        ended(tmp_path, summary(number, done=0, ask_again=["secret", f"d{number}"]))
    backend = LocalBackend(tmp_path, shard=WHOLE)
    fold(backend)
    remove_documents(backend, lambda document_id, _: document_id == "secret")
    fold(backend)
    texts = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any("secret" in text for text in texts)
    assert set(index_of(tmp_path).ask_again()) == {f"d{number}" for number in range(1, KEPT_FILES + 4)}
    assert len(read_runs(backend)) == KEPT_FILES + 3


def test_purge_leaves_no_document_id_in_the_output(place: Place) -> None:
    """The index of runs has none either."""
    place.documents({"secret-name.txt": "[[fault:http_400]]", "b.txt": "A text."})
    for _ in range(2):
        place.run("--set", "runner.max_error_rate=1")
    (place.folder / "ids").write_text("secret-name.txt\n")
    assert place.call("purge", "out", "--ids", "ids").code == 0
    files = [path for path in (place.folder / "out").rglob("*") if path.is_file()]
    assert [path.name for path in files if b"secret-name" in path.read_bytes()] == []
    assert [row["run"] for row in index_of(place.folder / "out").history()] == [1, 2]


@pytest.mark.slow
def test_store_requests_of_a_run_do_not_grow_with_earlier_runs(place: Place, s3: S3Server, bucket: str) -> None:
    """Start and end read and write as much after many runs, each with a summary and a part."""
    place.documents({"a.txt": "A text."})
    with FaultProxy(s3.port) as tap:
        storage = {"region": "us-east-1", "access_key_id": "test-key", "secret_access_key": "test-secret"}
        uri = f"s3://{bucket}/out"
        place.configure({"output.uri": uri, "output.storage": {**storage, "endpoint": tap.endpoint}})
        place.run()
        store = RemoteStore.open(uri, storage={**storage, "endpoint": s3.endpoint})
        counted = []
        for nights, first in ((70, 100), (90, 300)):
            add_nights(store, nights, first=first)
            place.run()  # merges the manifests of these nights
            tap.seen.clear()
            place.run()
            # the lease is renewed every few seconds, so the number of its requests depends on the machine's speed
            counted.append(Counter(method for method, target in tap.seen if "lock" not in target))
        assert counted[0] == counted[1]
        assert counted[0]["GET"] < 20


def test_signal_interrupts_the_reading_of_an_output(tmp_path: Path) -> None:
    """A start does not read a large output to its end after a signal."""
    config = OutputConfig(uri=str(tmp_path))
    with opened(tmp_path) as output:
        output.write(result("a"))
    with pytest.raises(TryLaterError, match="interrupted"):
        Output.open(config, agent=None, shard=None, lock_wait_s=0, run_id="r", wait=lambda seconds: seconds == 0)


def test_interrupted_run_writes_no_checkpoint(tmp_path: Path) -> None:
    """A checkpoint takes time in proportion to the output; the next run that finishes writes it."""
    for settle in (False, True):
        with opened(tmp_path) as output:
            for number in range(10):
                output.write(result(f"{settle}{number}", output={"text": "x" * (1 << 20)}))
            output.finish(settle=settle)
        assert (tmp_path / ".manifests" / "results.jsonl").exists() == settle
