"""Sharded runs: scheduler variables, changing numbers of shards, and one report of all."""

from __future__ import annotations

import json
import tarfile
import zipfile
from collections import Counter

import pytest
from conftest import Place, json_log


def ids_of(place: Place, pattern: str = "results*.jsonl") -> Counter[str]:
    """Return the number of lines of each document in the files of this pattern."""
    paths = sorted((place.folder / "out").glob(pattern))
    return Counter(record["id"] for path in paths for record in place.lines(path.name))


def indexed(index: int, count: int) -> dict[str, str]:
    """Return the environment of a pod of an Indexed Job."""
    return {"JOB_COMPLETION_INDEX": str(index), "PIPELINE_SHARDS": str(count)}


def test_shards_of_a_job_do_each_document_once(place: Place) -> None:
    """Each shard writes its own files, and the report of the last one covers all."""
    names = place.documents(30)
    for index in range(3):
        place.run(env=indexed(index, 3))
        assert place.report()["missing_shards"] == list(range(index + 1, 3))
    assert ids_of(place) == Counter(names)
    assert len(list((place.folder / "out").glob("results-*-of-00003.jsonl"))) == 3
    assert place.report()["run"]["counts"] == {
        "found": 30, "done": 30, "failed": 0, "skipped": 0, "ignored": 0, "left": 0
    }  # fmt: skip
    assert [row["shard"] for row in place.report()["shards"]] == ["0/3", "1/3", "2/3"]


def test_another_number_of_shards_repeats_no_document(place: Place) -> None:
    """Finished documents are found in the files of all shards, whatever their names."""
    names = place.documents(30)
    for index in range(4):
        place.run(env=indexed(index, 4))
    place.sent_documents()
    for index in range(3):
        place.run(env=indexed(index, 3))
    place.run()
    assert place.sent_documents() == []
    assert ids_of(place) == Counter(names)
    assert place.report()["output"]["done"] == 30


def test_report_names_missing_shards(place: Place) -> None:
    """`pipeline report` also names them in words."""
    place.documents(12)
    for index in (0, 2):
        place.run(env=indexed(index, 4))
    (place.folder / "out" / "report.json").unlink()
    ran = place.call("report", "out")
    assert place.report()["missing_shards"] == [1, 3]
    assert "results-*-of-00004.jsonl out/results-*-of-00004.jsonl" in ran.out
    assert "SHARDS ARE MISSING" in ran.out


def test_report_of_all_shards_has_each_shards_failures(place: Place) -> None:
    """They are counted whichever shard ends last."""
    place.documents({f"d{n}.txt": "[[fault:http_400]]" if n == 3 else "Plain." for n in range(12)})
    lenient = ("--set", "runner.max_error_rate=1")
    for index in range(3):
        place.run(*lenient, env=indexed(index, 3))
    assert ids_of(place, "errors*.jsonl") == Counter(["d3.txt"])
    assert (place.report()["run"]["counts"]["done"], place.report()["run"]["counts"]["failed"]) == (11, 1)


def test_file_ignored_by_every_shard_is_counted_once(place: Place) -> None:
    """The counts of all shards still add up, and the report names every file."""
    place.documents({**{f"d{n}.txt": "Plain." for n in range(12)}, "a.png": "x", "b.png": "x"})
    for index in range(3):
        place.run(env=indexed(index, 3))
    run = place.report()["run"]
    assert run["ignored"] == {".png": 2}
    assert (run["counts"]["found"], run["counts"]["done"], run["counts"]["ignored"]) == (14, 12, 2)
    assert {f"results-{index:05d}-of-00003.jsonl" for index in range(3)} < set(run["files"])
    assert "out/results-*-of-00003.jsonl" in place.call("report", "out", "--text").out


def test_log_names_the_source_of_the_shard(place: Place) -> None:
    """An error in a manifest is then visible in the log."""
    place.documents(2)
    ran = place.run("--log-format", "json", env=indexed(1, 2))
    line = next(line for line in json_log(ran.err) if line["message"] == "one shard of the documents")
    assert (line["shard"], line["from"]) == ("1/2", "JOB_COMPLETION_INDEX and PIPELINE_SHARDS")


def test_shard_flag_overrides_the_environment(place: Place) -> None:
    """--shard takes precedence over the scheduler's variables."""
    place.documents(2)
    place.run("--shard", "0/2", env=indexed(1, 3))
    assert place.last_run()["shard"] == "0/2"


@pytest.mark.parametrize(
    "env",
    [
        {"PIPELINE_SHARDS": "4"},
        {"JOB_COMPLETION_INDEX": "4", "PIPELINE_SHARDS": "4"},
        {"JOB_COMPLETION_INDEX": "1"},
        {"AWS_BATCH_JOB_ARRAY_INDEX": "1"},
        {"CLOUD_RUN_TASK_INDEX": "1"},
        {
            "SLURM_ARRAY_TASK_ID": "3",
            "SLURM_ARRAY_TASK_MIN": "3",
            "SLURM_ARRAY_TASK_MAX": "7",
            "SLURM_ARRAY_TASK_COUNT": "2",
        },
    ],
)
def test_invalid_shard_variables_are_exit_2(place: Place, env: dict[str, str]) -> None:
    """The message names a variable, no request is sent, and no output is created."""
    place.documents(1)
    ran = place.run(code=2, env=env)
    assert any(name in ran.err for name in env)
    assert "need" in ran.err
    assert place.sent_documents() == []
    assert not (place.folder / "out").exists()


def test_pipeline_shards_is_not_read_as_a_setting(place: Place) -> None:
    """PIPELINE_SHARDS has the prefix of environment settings but is none."""
    ran = place.call("check", env={"PIPELINE_SHARDS": "4"})
    assert ran.code == 0, ran.err
    assert "SHARDS" not in ran.err


def test_suggested_retry_command_covers_all_shards(place: Place) -> None:
    """The command in the report names no shard, and works as printed."""
    place.documents({f"d{n}.txt": "[[fault:http_400*2]]" if n == 3 else "Plain." for n in range(12)})
    for index in range(2):
        place.run("--set", "runner.max_error_rate=1", env=indexed(index, 2))
    assert "--shard" not in json.loads((place.folder / "out" / "report.json").read_text())["run"]["command"]
    place.run("--only-failed")
    assert sum(ids_of(place).values()) == 12


def test_dry_run_reports_files_that_every_shard_reads(place: Place) -> None:
    """JSONL and tar files have no index; a zip has one, and a plain file is read by one shard."""
    place.documents(2)
    inbox = place.folder / "inbox"
    (inbox / "many.jsonl").write_text('{"text": "One."}\n{"text": "Two."}\n', encoding="utf-8")
    with tarfile.open(inbox / "more.tar", "w") as tar:
        tar.add(inbox / "d000.txt", "member.txt")
    with zipfile.ZipFile(inbox / "other.zip", "w") as archive:
        archive.writestr("a.txt", "A text.")
        archive.writestr("b.txt", "Another text.")
    output = place.run("--dry-run", "--shard", "1/3").out
    assert "Shard 1/3: its share of 7 documents in 5 files." in output
    assert "Of these files 2 hold many documents and no list of them: every shard reads them" in output
    assert "Shard" not in place.run("--dry-run").out


def test_shard_reads_only_its_own_zip_members(place: Place) -> None:
    """A broken member is reported by its own shard; the others do not read it."""
    with zipfile.ZipFile(place.folder / "inbox" / "all.zip", "w", zipfile.ZIP_STORED) as archive:
        for n in range(12):
            archive.writestr(f"d{n}.txt", f"[[doc:d{n}.txt]] The text of number {n}.")
    path = place.folder / "inbox" / "all.zip"
    path.write_bytes(path.read_bytes().replace(b"text of number 5.", b"TEXT of number 5."))
    lenient = ("--set", "runner.max_error_rate=1")
    failed = []
    for index in range(3):
        place.run(*lenient, "--shard", f"{index}/3")
        failed.append(place.last_run()["counts"]["failed"])
    assert sorted(failed) == [0, 0, 1]
    assert sum(ids_of(place).values()) == 11
    assert ids_of(place, "errors*.jsonl") == Counter(["all.zip!/d5.txt"])
