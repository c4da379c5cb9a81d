"""The report at the end of a shard: made from each shard's counts, and never a reason to exit with 3."""

from __future__ import annotations

import json

import pytest
from conftest import Place
from fake_llm import Fault

from pipeline.report import RunSummary, plain
from pipeline.report.run_summary import OutputCounts
from pipeline.report.shard_runs import added_outputs


def test_output_counts_of_shards_are_added_up() -> None:
    """Reasons and variants are added by name; with a shard that has no counts the sum is unknown."""
    first = {"done": 3, "reasons": {"timeout": 1}, "variants": {"default": {"done": 3, "failed": 1}}}
    second = {
        "done": 4,
        "reasons": {"rejected": 2},
        "variants": {"default": {"done": 4, "failed": 2}, "b": {"done": 1}},
    }
    runs = [RunSummary(output=OutputCounts.from_json(counts)) for counts in (first, second)]
    added = added_outputs(runs)
    assert added is not None
    assert {name: value for name, value in plain.to_json(added).items() if value} == {
        "done": 7,
        "reasons": {"timeout": 1, "rejected": 2},
        "variants": {"default": {"done": 7, "failed": 3}, "b": {"done": 1, "failed": 0}},
    }
    assert added_outputs([runs[0], RunSummary()]) is None


def test_report_of_all_shards_equals_a_scan(place: Place) -> None:
    """The added counts, over two different numbers of shards, equal those of `pipeline report`."""
    place.documents({f"d{n}.txt": "[[fault:http_400]]" if n % 5 == 0 else "Plain." for n in range(20)})
    for shards in (2, 3):
        for index in range(shards):
            place.run("--shard", f"{index}/{shards}", "--set", "runner.max_error_rate=1")
        place.documents({f"more{shards}-{n}.txt": "Plain." for n in range(3)})
    counted = place.report()["output"]
    place.call("report", "out")
    assert place.report()["output"] == counted
    assert (counted["done"], counted["failed"]) == (19, 4)


@pytest.mark.parametrize("flags", [(), ("--shard", "0/2")])
def test_failed_report_does_not_change_the_exit_code(place: Place, flags: tuple[str, ...]) -> None:
    """All records are written, so the run has finished; the log names the command that builds the report."""
    place.documents(4)
    (place.folder / "out" / "report.html").mkdir(parents=True)
    ran = place.run(*flags)
    assert "pipeline report out" in ran.err
    assert "FINISHED" in ran.out or "1 of 2 shards has finished" in ran.out


def test_last_shard_of_a_large_set_reports_on_all(place: Place) -> None:
    """The other shards write only their own counts and do not read the records of the whole output."""
    place.documents(3)
    shards = 67
    place.run("--shard", f"0/{shards}")
    first = place.report()
    assert (len(first["shards"]), first["awaits_shards"]) == (1, True)
    out = place.folder / "out"
    (path,) = (out / ".runs").glob("run-*")
    entry = json.loads(path.read_text())
    for index in range(1, shards - 1):
        own = {**entry["newest"], "shard": f"{index}/{shards}", "run": index + 1, "run_id": "r"}
        name = f"run-{index:05d}-of-{shards:05d}.{index + 1:08d}.json"
        (out / ".runs" / name).write_text(json.dumps({**entry, "newest": own}))
    ran = place.run("--shard", f"0/{shards}")
    assert len(place.report()["shards"]) == 1
    assert ran.out.startswith("FINISHED: ")
    place.run("--shard", f"{shards - 1}/{shards}")
    assert (len(place.report()["shards"]), place.report()["missing_shards"]) == (shards, [])


def test_report_of_a_running_set_counts_finished_shards(place: Place) -> None:
    """While a shard holds its lock, `pipeline report` does not call the others missing."""
    place.documents(6)
    place.run("--shard", "0/3")
    place.server.faults = lambda request, _n: Fault("hang") if request.document.endswith(".txt") else None
    process = place.start("run", "--shard", "1/3").process
    place.sent_documents()
    place.wait_for(lambda: bool(place.sent_documents()), "a document in flight")
    assert place.call("report", "out", "--text").out.startswith("1 of 3 shards has finished")
    process.kill()
    process.wait()
    assert place.call("report", "out", "--text").out.startswith("SHARDS ARE MISSING")
