"""Identical requests are sent once, within a run and across runs, also under a changed document id."""

from __future__ import annotations

import json
import os
import resource
import signal
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from conftest import HOUR_AGO, Place
from fake_llm import ReceivedRequest
from fake_llm.faults import Fault
from s3_server import S3Server

from pipeline.agents import load_agent, resolve
from pipeline.config import AppConfig
from pipeline.output import Index
from pipeline.output.copies import Copies
from pipeline.output.record_keys import RecordKey, question_number
from pipeline.records import Document, Entry
from pipeline.run.plan import VariantQuery
from pipeline.run.selection.copies import copy_of, question_sha256

LENIENT = ("--set", "runner.max_error_rate=1")


def chats(place: Place) -> int:
    """Return the number of documents sent to the server since the last call."""
    return len(place.sent_documents())


def write_lines(place: Place, texts: list[str]) -> None:
    """Write a JSONL archive with these texts, each with a marker that the server can read."""
    lines = (json.dumps({"text": f"[[doc:{text}.txt]] {text}"}) + "\n" for text in texts)
    (place.folder / "inbox" / "all.jsonl").write_text("".join(lines), encoding="utf-8")


def record(place: Place, document_id: str) -> Any:
    """Return the last result of a document."""
    return [line for line in place.lines("results.jsonl") if line["id"] == document_id][-1]


def test_row_inserted_at_the_front_sends_one_request(place: Place) -> None:
    """All ids shift, but the known texts get new records from their old results without a request."""
    texts = [f"text {n}" for n in range(30)]
    write_lines(place, texts)
    place.run()
    assert chats(place) == 30
    write_lines(place, ["new", *texts])
    place.run()
    assert chats(place) == 1
    assert place.last_run()["counts"]["done"] + place.last_run()["counts"]["skipped"] == 31
    last_row = record(place, "all.jsonl#31")
    assert (last_row["attempts"], last_row["latency_s"]) == (0, 0.0)
    assert last_row["notes"] == ["reused:all.jsonl#30"]
    place.run()
    assert chats(place) == 0


def test_input_under_another_root_reuses_results_unless_redo_all(place: Place) -> None:
    """Under the parent folder the ids had another prefix."""
    place.documents({f"sub/d{n}.txt": f"text {n}" for n in range(5)})
    place.run()
    assert chats(place) == 5
    place.run("--input", "inbox/sub")
    assert chats(place) == 0
    assert record(place, "d3.txt")["notes"] == ["reused:sub/d3.txt"]
    place.run("--input", "inbox/sub", "--redo", "all")
    assert chats(place) == 5


def test_identical_documents_in_a_run_send_one_request(place: Place) -> None:
    """Five copies send one request and get five records, with the latency of that request."""
    write_lines(place, ["same"] * 5 + ["other"])
    place.run()
    assert chats(place) == 2
    notes = sorted(str(line["notes"]) for line in place.lines("results.jsonl"))
    assert sum("shared:all.jsonl#" in note for note in notes) == 4
    assert place.last_run()["counts"]["done"] == 6
    stats = place.last_run()["stats"]
    assert sum(stats["total"]["latency"]["buckets"].values()) == 2
    assert stats["notes"]["shared"] == 4


def test_duplicates_ask_sends_every_copy(place: Place) -> None:
    """With `runner.duplicates: ask` each copy is sent."""
    write_lines(place, ["same"] * 4)
    place.run("--set", "runner.duplicates=ask")
    assert chats(place) == 4


def test_changed_prompt_or_metadata_reuses_no_result(place: Place) -> None:
    """Metadata in the prompt, or another prompt, make a different request."""
    place.documents({"sub/d1.txt": "text"})
    place.run()
    place.configure(agent={"user_prompt": "$id $document"})
    place.run("--input", "inbox/sub")
    assert chats(place) == 2


def test_copies_share_a_rejection(place: Place) -> None:
    """One of the identical documents is sent; its rejection is recorded for all of them."""
    write_lines(place, ["[[fault:http_400]] bad"] * 3 + ["good one", "good two"])
    place.run(*LENIENT)
    errors = place.lines("errors.jsonl")
    assert sorted(line["attempts"] > 0 for line in errors) == [False, False, True]
    assert {line["reason"] for line in errors} == {"rejected"}


@pytest.mark.parametrize(("times", "done", "requests"), [("", 0, 3), ("*1", 2, 2)])
def test_copies_of_a_server_failure_are_sent_themselves(place: Place, times: str, done: int, requests: int) -> None:
    """The copies wait for an original that fails; the run sends them before it ends and leaves none."""
    write_lines(place, [f"[[fault:http_500{times}]] bad"] * 3 + ["good one", "good two"])
    place.run(*LENIENT, "--set", "vllm.max_retries=0")
    counts = place.last_run()["counts"]
    assert (counts["done"], counts["failed"], counts["left"]) == (2 + done, 3 - done, 0)
    assert adds_up(counts)
    assert sum(chat.document.startswith("[[fault") for chat in place.server.chats()) >= requests
    assert all(line["attempts"] for line in place.lines("errors.jsonl"))


def test_copies_sent_after_waiting_count_once_towards_limit(place: Place) -> None:
    """A copy counts when it begins to wait, and not again when it is sent."""
    write_lines(place, ["good", *["[[fault:http_500*1]] bad"] * 3])
    place.run(*LENIENT, "--limit", "4", "--set", "vllm.max_retries=0")
    counts = place.last_run()["counts"]
    assert (counts["done"], counts["failed"], counts["left"]) == (3, 1, 0)


def test_copy_requires_the_whole_digest_to_match(place: Place) -> None:
    """The index looks up 60 bits; a document whose other bits differ is sent."""
    write_lines(place, ["one", "two"])
    place.run()
    path = place.folder / "out" / "results.jsonl"
    first, second = path.read_text(encoding="utf-8").splitlines(keepends=True)
    digest = json.loads(first)["question_sha256"]
    path.write_text(first.replace(digest, digest[:40] + "0" * 24) + second, encoding="utf-8")
    (place.folder / "inbox" / "all.jsonl").rename(place.folder / "inbox" / "moved.jsonl")
    place.sent_documents()
    place.run()
    assert chats(place) == 1
    assert sorted(record(place, f"moved.jsonl#{n}")["attempts"] for n in (1, 2)) == [0, 1]
    assert adds_up(place.last_run()["counts"])


def test_copy_removed_before_it_is_sent_is_left(place: Place) -> None:
    """Its original failed for a server and the second listing lacks the copy, so the run exits with 3."""
    waiting = place.folder / "inbox" / "c.txt"

    def broken(request: ReceivedRequest, _: int) -> Fault | None:
        if request.document != "bad.txt":
            return None
        if waiting.exists() and threading.Event().wait(1.5) is False:  # the other worker has read it long before
            waiting.unlink()
        return Fault("http_500")

    write_files(place, ["a.txt", "c.txt"], "[[doc:bad.txt]] bad")
    write_files(place, ["b.txt"], "[[doc:good.txt]] good")
    place.server.faults = broken
    ran = place.run(*LENIENT, "--concurrency", "2", "--set", "vllm.max_retries=0", code=3)
    assert "1 document waiting for the result of an identical one got none" in ran.err
    counts = place.last_run()["counts"]
    assert (counts["done"], counts["failed"], counts["left"]) == (1, 1, 1)
    assert adds_up(counts)


def write_files(place: Place, names: list[str], text: str) -> None:
    """Write files with the same bytes and an mtime one hour ago."""
    for name in names:
        path = place.folder / "inbox" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        os.utime(path, (HOUR_AGO, HOUR_AGO))


def adds_up(counts: dict[str, int]) -> bool:
    """Return whether `found` is the sum of all other counts."""
    return counts["found"] == sum(number for name, number in counts.items() if name != "found")


def test_row_inserted_at_the_front_reuses_results_with_one_worker(place: Place) -> None:
    """With one worker each row is done before the next is read, and the former record of its id is still found."""
    texts = [f"text {n}" for n in range(8)]
    write_lines(place, texts)
    place.run("--concurrency", "1")
    assert chats(place) == 8
    write_lines(place, ["new", *texts])
    place.run("--concurrency", "1")
    assert chats(place) == 1
    assert record(place, "all.jsonl#2")["notes"] == ["reused:all.jsonl#1"]


def test_copies_under_another_root_do_not_wait(place: Place) -> None:
    """None of them waits for another document of the same run whose record is itself a copy."""
    names = [f"sub/c{n}.txt" for n in range(5)]
    write_files(place, names, "[[doc:same.txt]] the same")
    place.run()
    place.run("--input", "inbox/sub")
    assert chats(place) == 1
    counts = place.last_run()["counts"]
    assert (counts["done"], counts["left"]) == (5, 0)


def test_same_bytes_in_another_format_are_sent_again(place: Place) -> None:
    """HTML tags are removed from a page but kept in a plain text."""
    write_files(place, ["a.txt"], "[[doc:same.txt]] <p>one</p> <b>two</b>")
    place.run()
    write_files(place, ["a.html"], "[[doc:same.txt]] <p>one</p> <b>two</b>")
    place.run()
    assert (record(place, "a.html")["attempts"], record(place, "a.html")["notes"]) == (1, [])


def test_summary_counts_copies(place: Place) -> None:
    """The summary counts copies; the rate counts only documents that were sent."""
    write_lines(place, ["same"] * 4 + ["other"])
    out = place.run().out
    assert "3 documents identical to another one of this run" in " ".join(out.split())
    (place.folder / "inbox" / "all.jsonl").rename(place.folder / "inbox" / "moved.jsonl")
    out = place.run().out
    assert "5 documents done before under another id" in " ".join(out.split())
    assert "per second" not in out


def test_limit_counts_copies(place: Place) -> None:
    """A copy counts towards --limit like any document that was tried."""
    write_lines(place, ["same"] * 6 + ["other"])
    place.run("--limit", "3")
    counts = place.last_run()["counts"]
    assert counts["done"] == 3
    assert adds_up(counts)
    place.run()
    assert sum(place.done().values()) == 7
    assert chats(place) <= 3


def test_450_copies_get_one_record_each(place: Place) -> None:
    """The copies fill more than one page of the queue."""
    write_lines(place, ["same"] * 450)
    place.run()
    assert chats(place) == 1
    assert place.done() == Counter(f"all.jsonl#{n}" for n in range(1, 451))
    assert adds_up(place.last_run()["counts"])


def test_kill_9_loses_no_copy(place: Place) -> None:
    """Copies that were waiting at a kill are recorded by the next run without a request."""
    write_lines(place, ["same"] * 20 + ["[[fault:slow]] slow"])
    child = place.start("run")
    place.wait_for_results(1)
    place.wait_for(lambda: len(place.server.chats()) >= 2, "both questions")
    child.end(signal.SIGKILL)
    assert 1 <= len(place.lines("results.jsonl")) < 21
    place.server.requests.clear()
    place.run()
    assert place.done() == Counter(f"all.jsonl#{n}" for n in range(1, 22))
    assert chats(place) <= 1


def test_full_disk_while_copies_are_written(place: Place) -> None:
    """The counts add up, and the next run writes the remaining copies."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    write_lines(place, ["same"] * 300)
    ran = place.start("run", limits=limit).end()
    assert ran.code == 3, ran.err
    counts = place.last_run()["counts"]
    assert 0 < counts["done"] < 300
    assert adds_up(counts)
    place.run()
    assert place.done() == Counter(f"all.jsonl#{n}" for n in range(1, 301))
    assert chats(place) == 1


def test_copies_in_a_remote_output(place: Place, s3: S3Server, bucket: str) -> None:
    """Originals are in an uploaded part before their copies are written."""
    place.env = dict(s3.env)
    place.configure({"output.uri": f"s3://{bucket}"})
    write_lines(place, ["same"] * 5 + ["other"])
    assert "4 documents identical" in place.run().out
    assert chats(place) == 2
    (place.folder / "inbox" / "all.jsonl").rename(place.folder / "inbox" / "moved.jsonl")
    assert "6 documents done before" in place.run().out
    place.run()
    assert chats(place) == 0


@pytest.fixture
def query() -> Callable[[str], VariantQuery]:
    """Return a function that makes the query for a user prompt."""

    def build(prompt: str) -> VariantQuery:
        agent = load_agent("extractor", agents_dir=None)
        resolved = resolve(agent, AppConfig(), variant="default")
        object.__setattr__(resolved, "user_prompt", prompt)
        return VariantQuery(resolved, "f" * 64, agent.compiled)

    return build


@pytest.mark.parametrize(
    ("prompt", "doubtful", "reused"),
    [
        ("$document", {}, True),
        ("$document", {"old.txt": 3}, False),
        ("$document $title", {}, True),
        ("$document $source", {}, False),
        ("$id $document", {}, False),
    ],
)
def test_copy_lookup_ignores_doubtful_and_different_requests(
    query: Callable[[str], VariantQuery], prompt: str, doubtful: dict[str, int], reused: bool
) -> None:
    """A result is not reused if it must be extracted again or if the prompt contained other metadata."""
    index = Index()
    old = Document("old.txt", "file:///old.txt", "a" * 64, "text", {"title": "T", "source": "one"})
    new = Document("new.txt", "file:///new.txt", "b" * 64, "text", {"title": "T", "source": "another"})
    number = question_number(question_sha256(old, prompt))
    fields = ("old.txt", 3, "a" * 64, "extractor", "default", "f" * 64, None, None, 1, "r3", None)
    index.record(RecordKey(*fields, number))
    entry = Entry("new.txt", "file:///new.txt", None, 1, "text", bytes)
    copies = Copies(index, run=4, doubtful=doubtful)
    copy = copy_of(entry, new, query(prompt), question=question_sha256(new, prompt), copies=copies)
    assert (copy is not None) == reused
    listed = index.rows("SELECT 1 FROM sqlite_master WHERE name = 'answered'")
    assert bool(listed) == (prompt != "$id $document")
    index.close()


def test_changed_text_field_sends_the_row_again(place: Place) -> None:
    """The reading settings decide which text is sent."""
    line = json.dumps({"text": "[[doc:one.txt]] one", "body": "[[doc:two.txt]] two"})
    (place.folder / "inbox" / "a.jsonl").write_text(line + "\n", encoding="utf-8")
    place.run()
    (place.folder / "inbox" / "a.jsonl").rename(place.folder / "inbox" / "b.jsonl")
    place.run("--set", "input.text_field=body")
    assert place.sent_documents() == ["one.txt", "two.txt"]
    assert record(place, "b.jsonl#1")["attempts"] == 1
