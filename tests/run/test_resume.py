"""The same command again processes only the remaining documents, and how flags change which those are."""

from __future__ import annotations

import gzip
import os
import shlex

import pytest
from conftest import HOUR_AGO, Place

LENIENT = ("--set", "runner.max_error_rate=1")


def test_second_run_sends_no_request(place: Place) -> None:
    """All documents are skipped, and no line is added."""
    names = place.documents(5)
    place.run()
    assert sorted(place.sent_documents()) == names
    place.run()
    assert place.sent_documents() == []
    assert place.last_run()["counts"] == {"found": 5, "done": 0, "failed": 0, "skipped": 5, "ignored": 0, "left": 0}
    assert place.done() == dict.fromkeys(names, 1)


def test_file_with_unchanged_size_and_mtime_is_not_read(place: Place) -> None:
    """Changed bytes with the same size and mtime go unnoticed, which shows that the file was not read."""
    place.documents({"a.txt": "text"})
    place.run()
    place.sent_documents()
    path = place.folder / "inbox" / "a.txt"
    path.write_bytes(path.read_bytes().replace(b"text", b"TEXT"))
    os.utime(path, (HOUR_AGO, HOUR_AGO))
    place.run()
    assert place.sent_documents() == []


def test_touched_file_is_read_but_not_sent(place: Place) -> None:
    """The hash decides, not the mtime."""
    place.documents({"a.txt": "text"})
    place.run()
    place.sent_documents()
    os.utime(place.folder / "inbox" / "a.txt")
    place.run()
    assert place.sent_documents() == []
    assert place.last_run()["counts"]["skipped"] == 1


def test_changed_document_is_done_again(place: Place) -> None:
    """The last line of an id is its result; a deleted document keeps its line."""
    place.documents({"changed.txt": "text", "deleted.txt": "text", "same.txt": "text"})
    place.run()
    place.sent_documents()
    place.change("changed.txt", "another text")
    (place.folder / "inbox" / "deleted.txt").unlink()
    place.run()
    assert place.sent_documents() == ["changed.txt"]
    lines = [line for line in place.lines("results.jsonl") if line["id"] == "changed.txt"]
    assert [line["run"] for line in lines] == [1, 2]
    assert lines[0]["sha256"] != lines[1]["sha256"]
    assert place.done()["deleted.txt"] == 1


def test_failure_of_a_changed_document_keeps_the_old_result(place: Place) -> None:
    """Result and error have different hashes, and the report counts the result as stale."""
    place.documents({"a.txt": "text", "b.txt": "text"})
    place.run()
    place.change("a.txt", "[[fault:http_400]] other")
    place.run(*LENIENT)
    (error,) = place.lines("errors.jsonl")
    (result,) = [line for line in place.lines("results.jsonl") if line["id"] == "a.txt"]
    assert (error["id"], error["reason"]) == ("a.txt", "rejected")
    assert error["sha256"] != result["sha256"]
    assert place.report()["output"]["stale"] == 1
    assert place.report()["output"]["failed"] == 1


def test_repaired_document_removes_its_error(place: Place) -> None:
    """The errors file has only the current failures."""
    place.documents({"a.txt": "[[fault:http_400]]", "b.txt": "text"})
    place.run(*LENIENT)
    place.change("a.txt", "a good text")
    place.run()
    assert place.failed() == {}
    assert place.done() == {"a.txt": 1, "b.txt": 1}


def test_changed_prompt_redoes_documents_unless_redo_none(place: Place) -> None:
    """`--redo none` keeps the finished documents."""
    names = place.documents(3)
    place.run()
    place.sent_documents()
    place.configure(agent={"system_prompt": "Sum the text up in one sentence.\n"})
    place.run("--redo", "none")
    assert place.sent_documents() == []
    place.run()
    assert sorted(place.sent_documents()) == names


def test_interrupted_redo_all_is_resumed_by_run_id(place: Place) -> None:
    """The command that it prints does only the remaining documents; without the run id it would start over."""
    names = place.documents(5)
    place.run()
    place.sent_documents()
    out = place.run("--redo", "all", "--limit", "2").out
    first = place.sent_documents()
    command = " ".join(out.partition("Resume with:")[2].replace("\\\n", " ").split())
    program, verb, *flags = shlex.split(command)[: shlex.split(command).index("--run-id") + 2]
    assert (program, verb, len(first)) == ("pipeline", "run", 2)
    place.run(*flags)
    assert sorted([*first, *place.sent_documents()]) == names
    assert "Resume" not in place.run(*flags).out


def test_max_redo_stops_a_run_that_would_redo_too_many(place: Place) -> None:
    """It is exit 2 before any document and names the changed settings; --redo changed overrides it."""
    place.documents(3)
    place.run()
    place.sent_documents()
    place.configure({"runner.max_redo": 0.5, "vllm.temperature": 0.5}, agent={"system_prompt": "Other.\n"})
    ran = place.run(code=2)
    assert "3 of 3" in ran.err
    assert "system_prompt, temperature" in ran.err
    assert place.sent_documents() == []
    place.run("--redo", "changed")
    assert len(place.sent_documents()) == 3


def test_redo_all_resumes_after_a_kill_with_the_same_run_id(place: Place) -> None:
    """Documents already redone under this run id are skipped."""
    names = place.documents(12)
    place.run()
    place.server.latency_s = 0.15
    child = place.start("run", "--redo", "all", "--run-id", "again", "--concurrency", "2")
    place.wait_for_results(12 + 4)
    child.end(9)
    place.server.latency_s = 0.0
    place.sent_documents()
    before = place.done()
    place.run("--redo", "all", "--run-id", "again")
    assert sorted(place.sent_documents()) == [name for name in names if before[name] == 1]
    assert place.done() == dict.fromkeys(names, 2)


def test_retry_runs_limits_how_often_a_failure_is_retried(place: Place) -> None:
    """It counts the runs after the first failure that try the same document again."""
    place.documents({"a.txt": "[[fault:wrong_type]]", "b.txt": "text"})
    arguments = (*LENIENT, "--set", "runner.retry_runs=2")
    for runs in (1, 2, 3, 3):
        place.run(*arguments)
        assert [line["runs"] for line in place.lines("errors.jsonl")] == [runs]
    assert place.sent_documents().count("a.txt") == 6
    place.run(*LENIENT, "--only-failed")
    assert [line["runs"] for line in place.lines("errors.jsonl")] == [4]


def test_no_retry_failed_skips_failures_even_with_a_changed_prompt(place: Place) -> None:
    """With --no-retry-failed a changed setting redoes only documents that were done."""
    place.documents({"a.txt": "[[fault:wrong_type]]", "b.txt": "text"})
    place.run(*LENIENT)
    place.sent_documents()
    place.run(*LENIENT, "--no-retry-failed", "--set", "vllm.temperature=0.5")
    assert place.sent_documents() == ["b.txt"]


def test_unlisted_documents_are_reported_as_at_least(place: Place) -> None:
    """A run that stops early reports a lower bound, and does not fail `min_documents`."""
    place.documents(600)
    ran = place.run("--limit", "2", "--set", "runner.concurrency=2", "--set", "input.min_documents=600")
    assert "at least" in ran.out.splitlines()[0] and "At least" in ran.out
    assert "at least " in (place.folder / "out" / "report.html").read_text()
    assert place.last_run()["listed_whole"] is False


def test_rejected_document_is_retried_only_when_named(place: Place) -> None:
    """`rejected` remains until the document changes; --only-failed with that reason sends it anyway."""
    place.documents({"a.txt": "[[fault:http_400]]", "b.txt": "[[fault:wrong_type]]", "c.txt": "text"})
    place.run(*LENIENT)
    place.sent_documents()
    place.run(*LENIENT)
    assert set(place.sent_documents()) == {"b.txt"}
    place.documents({"new.txt": "text"})
    place.run(*LENIENT, "--only-failed", "rejected,timeout")
    assert place.sent_documents() == ["a.txt"] * 2
    counts = place.last_run()["counts"]
    assert (counts["failed"], counts["skipped"], counts["left"]) == (1, 2, 1)


def test_no_retry_failed_sends_only_new_documents(place: Place) -> None:
    """Failed documents are skipped."""
    place.documents({"b.txt": "[[fault:wrong_type]]"})
    place.run(*LENIENT)
    place.documents({"new.txt": "text"})
    place.sent_documents()
    place.run(*LENIENT, "--no-retry-failed")
    assert place.sent_documents() == ["new.txt"]


def test_broken_last_line_is_removed(place: Place) -> None:
    """The incomplete line of a power cut is removed and logged, and its document is done again."""
    names = place.documents(3)
    place.run()
    path = place.folder / "out" / "results.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    ran = place.run()
    assert "removed broken lines from results.jsonl" in ran.err
    assert place.done() == dict.fromkeys(names, 1)


@pytest.mark.parametrize("how", ["another agent", "another file"])
def test_output_of_another_agent_or_program_is_refused(place: Place, how: str) -> None:
    """It is exit 2 before any request, and the foreign file is not changed."""
    place.documents(1)
    if how == "another agent":
        place.run()
        (place.folder / "agents" / "small.yaml").rename(place.folder / "agents" / "other.yaml")
        place.run("--agent", "other", code=2)
    else:
        (place.folder / "out").mkdir()
        (place.folder / "out" / "results.jsonl").write_text('{"mine": 1}\n', encoding="utf-8")
        place.run(code=2)
        assert (place.folder / "out" / "results.jsonl").read_text(encoding="utf-8") == '{"mine": 1}\n'


def test_changed_variant_weights_count_towards_max_redo(place: Place) -> None:
    """`max_redo` compares each document's current variant with the one in its record."""
    names = place.documents(20)
    weights = {"variants": {"a": {"weight": 1}, "b": {"weight": 1, "temperature": 0.5}}}
    place.configure(agent=weights)
    place.run()
    place.sent_documents()
    place.configure(agent={"variants": {"a": {"weight": 1}, "b": {"weight": 10**6, "temperature": 0.5}}})
    assert "of 20 done documents" in place.run("--set", "runner.max_redo=0.1", code=2).err
    place.run("--set", "runner.max_redo=0.1", "--only-failed")
    assert place.sent_documents() == []
    place.run("--set", "runner.max_redo=0.1", "--redo", "changed")
    assert 0 < len(place.sent_documents()) < len(names)


def test_repaired_archive_is_no_longer_failed(place: Place) -> None:
    """The archive's own id never has a result: reading it to its end resolves the failure."""
    lines = "".join(f'{{"text": "[[doc:{number}.txt]] a text"}}\n' for number in range(40))
    whole, path = gzip.compress(lines.encode()), place.folder / "inbox" / "a.jsonl.gz"
    path.write_bytes(whole[:-9])
    place.run("--set", "runner.max_error_rate=1")
    assert place.failed() == {"a.jsonl.gz": "document_unreadable"}
    place.run("--set", "runner.max_error_rate=1")
    assert place.failed() == {"a.jsonl.gz": "document_unreadable"}
    path.write_bytes(whole)
    place.run()
    assert place.failed() == {}
    assert place.report()["output"]["failed"] == 0
    assert len(place.done()) == 40
