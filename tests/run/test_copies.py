"""Identical questions are asked once: within a run, and across runs under a changed id."""

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
from fake_llm.faults import Fault
from fake_llm.server import Seen
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
    """How many documents the server was asked since the last call."""
    return len(place.asked())


def write_lines(place: Place, texts: list[str]) -> None:
    """An archive of lines, each with a name of its own for the server."""
    lines = (json.dumps({"text": f"[[doc:{text}.txt]] {text}"}) + "\n" for text in texts)
    (place.folder / "inbox" / "all.jsonl").write_text("".join(lines), encoding="utf-8")


def record(place: Place, document_id: str) -> Any:
    """The last result of a document."""
    return [line for line in place.lines("results.jsonl") if line["id"] == document_id][-1]


def test_a_line_put_in_front_asks_one_document(place: Place) -> None:
    """All ids are others, and all bytes but one are known: their records are written anew without a request."""
    texts = [f"text {n}" for n in range(30)]
    write_lines(place, texts)
    place.run()
    assert chats(place) == 30
    write_lines(place, ["new", *texts])
    place.run()
    assert chats(place) == 1
    assert place.last_run()["counts"]["done"] + place.last_run()["counts"]["skipped"] == 31
    one = record(place, "all.jsonl#31")
    assert (one["attempts"], one["latency_s"]) == (0, 0.0)
    assert one["notes"] == ["reused:all.jsonl#30"]
    place.run()
    assert chats(place) == 0


def test_another_root_asks_nothing_and_redo_all_asks(place: Place) -> None:
    """The ids have another folder in front."""
    place.documents({f"sub/d{n}.txt": f"text {n}" for n in range(5)})
    place.run()
    assert chats(place) == 5
    place.run("--input", "inbox/sub")
    assert chats(place) == 0
    assert record(place, "d3.txt")["notes"] == ["reused:sub/d3.txt"]
    place.run("--input", "inbox/sub", "--redo", "all")
    assert chats(place) == 5


def test_identical_documents_of_one_run_are_asked_once(place: Place) -> None:
    """Five copies: one request, five records; the latency is that of the one."""
    write_lines(place, ["same"] * 5 + ["other"])
    place.run()
    assert chats(place) == 2
    notes = sorted(str(line["notes"]) for line in place.lines("results.jsonl"))
    assert sum("shared:all.jsonl#" in note for note in notes) == 4
    assert place.last_run()["counts"]["done"] == 6
    stats = place.last_run()["stats"]
    assert sum(stats["total"]["latency"]["buckets"].values()) == 2
    assert stats["notes"]["shared"] == 4


def test_duplicates_ask(place: Place) -> None:
    """Each copy is asked."""
    write_lines(place, ["same"] * 4)
    place.run("--set", "runner.duplicates=ask")
    assert chats(place) == 4


def test_another_question_reuses_nothing(place: Place) -> None:
    """Metadata in the prompt, or another prompt, make the question another one."""
    place.documents({"sub/d1.txt": "text"})
    place.run()
    place.configure(agent={"user_prompt": "$id $document"})
    place.run("--input", "inbox/sub")
    assert chats(place) == 2


def test_a_failure_of_the_document_is_shared(place: Place) -> None:
    """A rejected document is rejected for its copies, too: one of them is asked."""
    write_lines(place, ["[[fault:http_400]] bad"] * 3 + ["good one", "good two"])
    place.run(*LENIENT)
    errors = place.lines("errors.jsonl")
    assert sorted(line["attempts"] > 0 for line in errors) == [False, False, True]
    assert {line["reason"] for line in errors} == {"rejected"}


@pytest.mark.parametrize(("times", "done", "requests"), [("", 0, 3), ("*1", 2, 2)])
def test_copies_of_what_failed_for_a_server_are_asked_themselves(
    place: Place, times: str, done: int, requests: int
) -> None:
    """They wait in vain: the run asks them before it ends, and none is left behind a green exit code."""
    write_lines(place, [f"[[fault:http_500{times}]] bad"] * 3 + ["good one", "good two"])
    place.run(*LENIENT, "--set", "vllm.max_retries=0")
    counts = place.last_run()["counts"]
    assert (counts["done"], counts["failed"], counts["left"]) == (2 + done, 3 - done, 0)
    assert adds_up(counts)
    assert sum(seen.document.startswith("[[fault") for seen in place.server.chats()) >= requests
    assert all(line["attempts"] for line in place.lines("errors.jsonl"))


def test_copies_that_are_asked_count_once_for_the_limit(place: Place) -> None:
    """They were counted when they began to wait."""
    write_lines(place, ["good", *["[[fault:http_500*1]] bad"] * 3])
    place.run(*LENIENT, "--limit", "4", "--set", "vllm.max_retries=0")
    counts = place.last_run()["counts"]
    assert (counts["done"], counts["failed"], counts["left"]) == (3, 1, 0)


def test_a_record_is_copied_only_when_the_whole_digest_is_equal(place: Place) -> None:
    """The index finds by 60 bits; here the other bits of one line differ, and its document is asked."""
    write_lines(place, ["one", "two"])
    place.run()
    path = place.folder / "out" / "results.jsonl"
    first, second = path.read_text(encoding="utf-8").splitlines(keepends=True)
    digest = json.loads(first)["question_sha256"]
    path.write_text(first.replace(digest, digest[:40] + "0" * 24) + second, encoding="utf-8")
    (place.folder / "inbox" / "all.jsonl").rename(place.folder / "inbox" / "moved.jsonl")
    place.asked()
    place.run()
    assert chats(place) == 1
    assert sorted(record(place, f"moved.jsonl#{n}")["attempts"] for n in (1, 2)) == [0, 1]
    assert adds_up(place.last_run()["counts"])


def test_a_file_that_is_gone_before_its_copy_is_asked(place: Place) -> None:
    """Its original failed for a server, and the second listing no longer has it: it is left, and the exit code is 3."""
    waiting = place.folder / "inbox" / "c.txt"

    def broken(seen: Seen, _: int) -> Fault | None:
        if seen.document != "bad.txt":
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
    """Files of the same bytes, an hour old."""
    for name in names:
        path = place.folder / "inbox" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        os.utime(path, (HOUR_AGO, HOUR_AGO))


def adds_up(counts: dict[str, int]) -> bool:
    """Every document found is in exactly one other number."""
    return counts["found"] == sum(number for name, number in counts.items() if name != "found")


def test_a_line_in_front_with_one_worker(place: Place) -> None:
    """Each document is done before the next one is looked at: the record that its id had is still found."""
    texts = [f"text {n}" for n in range(8)]
    write_lines(place, texts)
    place.run("--concurrency", "1")
    assert chats(place) == 8
    write_lines(place, ["new", *texts])
    place.run("--concurrency", "1")
    assert chats(place) == 1
    assert record(place, "all.jsonl#2")["notes"] == ["reused:all.jsonl#1"]


def test_copies_under_another_root_are_reused_at_once(place: Place) -> None:
    """None of them waits for another one of the same run, whose record is a copy itself."""
    names = [f"sub/c{n}.txt" for n in range(5)]
    write_files(place, names, "[[doc:same.txt]] the same")
    place.run()
    place.run("--input", "inbox/sub")
    assert chats(place) == 1
    counts = place.last_run()["counts"]
    assert (counts["done"], counts["left"]) == (5, 0)


def test_the_same_bytes_in_another_format_are_another_question(place: Place) -> None:
    """Marks are taken out of a page, and are text of a text."""
    write_files(place, ["a.txt"], "[[doc:same.txt]] <p>one</p> <b>two</b>")
    place.run()
    write_files(place, ["a.html"], "[[doc:same.txt]] <p>one</p> <b>two</b>")
    place.run()
    assert (record(place, "a.html")["attempts"], record(place, "a.html")["notes"]) == (1, [])


def test_the_summary_says_how_many(place: Place) -> None:
    """In the words of the setting; the speed is that of what was asked."""
    write_lines(place, ["same"] * 4 + ["other"])
    out = place.run().out
    assert "3 documents identical to another one of this run" in " ".join(out.split())
    (place.folder / "inbox" / "all.jsonl").rename(place.folder / "inbox" / "moved.jsonl")
    out = place.run().out
    assert "5 documents done before under another id" in " ".join(out.split())
    assert "per second" not in out


def test_limit_counts_copies(place: Place) -> None:
    """A copy is a document that was tried."""
    write_lines(place, ["same"] * 6 + ["other"])
    place.run("--limit", "3")
    counts = place.last_run()["counts"]
    assert counts["done"] == 3
    assert adds_up(counts)
    place.run()
    assert sum(place.done().values()) == 7
    assert chats(place) <= 3


def test_many_copies_of_one(place: Place) -> None:
    """More than one page of them; each has a line, once."""
    write_lines(place, ["same"] * 450)
    place.run()
    assert chats(place) == 1
    assert place.done() == Counter(f"all.jsonl#{n}" for n in range(1, 451))
    assert adds_up(place.last_run()["counts"])


def test_kill_9_loses_no_copy(place: Place) -> None:
    """Copies that waited are done by the next run, without a request."""
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


def test_an_output_that_fills_up_while_copies_are_written(place: Place) -> None:
    """The numbers add up, and the next run does the rest."""

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


def test_an_output_in_a_store(place: Place, s3: S3Server, bucket: str) -> None:
    """Originals are in a written part before their copies are made."""
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
    """What is asked with a user prompt."""

    def made(prompt: str) -> VariantQuery:
        agent = load_agent("extractor", agents_dir=None)
        resolved = resolve(agent, AppConfig(), variant="default")
        object.__setattr__(resolved, "user_prompt", prompt)
        return VariantQuery(resolved, "f" * 64, agent.compiled)

    return made


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
def test_what_is_looked_up(
    query: Callable[[str], VariantQuery], prompt: str, doubtful: dict[str, int], reused: bool
) -> None:
    """No result that is to be asked again is reused, and none that was asked with other metadata in the prompt."""
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


def test_another_text_of_the_same_bytes_is_another_question(place: Place) -> None:
    """The reading settings decide which text is sent: a line that is read by another field is asked again."""
    line = json.dumps({"text": "[[doc:one.txt]] one", "body": "[[doc:two.txt]] two"})
    (place.folder / "inbox" / "a.jsonl").write_text(line + "\n", encoding="utf-8")
    place.run()
    (place.folder / "inbox" / "a.jsonl").rename(place.folder / "inbox" / "b.jsonl")
    place.run("--set", "input.text_field=body")
    assert place.asked() == ["one.txt", "two.txt"]
    assert record(place, "b.jsonl#1")["attempts"] == 1
