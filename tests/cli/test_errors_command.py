"""`pipeline errors`: what failed, grouped; what to type; and the story of one document."""

from __future__ import annotations

import json
import os
import re
import shlex

import pytest
from conftest import Place
from fake_llm import FakeLLM, Fault

LENIENT = ("--set", "runner.max_error_rate=1", "--set", "vllm.max_retries=1")
FAILING = {
    "good.txt": "text",
    "bad1.txt": "[[fault:http_400]]",
    "bad2.txt": "[[fault:http_400]]",
    "down.txt": "[[fault:http_500]]",
    "full.txt": "[[fault:http_429]]",
    "wrong.txt": "[[fault:wrong_type]]",
}


def failed(place: Place) -> None:
    """An output with one document done and five failed."""
    place.documents(FAILING)
    place.run(*LENIENT)


def test_failures_are_grouped_by_reason_the_most_frequent_first(place: Place) -> None:
    """With their number, examples, what to do and what to type."""
    failed(place)
    ran = place.call("errors", "out")
    assert ran.code == 0, ran.err
    assert "5 failed documents in out; 1 document is done" in ran.out
    groups = re.findall(r"^ +(\d+)  (\w+)$", ran.out, re.MULTILINE)
    assert groups == [("2", "rejected"), ("1", "overloaded"), ("1", "schema_invalid"), ("1", "server_error")]
    assert "bad1.txt" in ran.out and "HTTP 400" in ran.out and "the server refuses these documents" in ran.out


def test_a_request_that_is_too_large_is_no_matter_of_the_input(place: Place) -> None:
    """A 413 comes from the server or its proxy: the run, `errors`, its story and `try` advise to raise that limit."""
    place.documents({"big.txt": "[[fault:http_413]]", "good.txt": "text"})
    outputs = [place.run(*LENIENT).out]
    outputs += [place.call(*words).out for words in (["errors"], ["errors", "--show", "big.txt"], ["try", "big.txt"])]
    for text in outputs:
        words = " ".join(text.split())
        assert "a proxy in front of it, refuses requests of this size: raise its limit" in words
        assert "max_document_bytes" not in words


def test_the_command_of_a_group_tries_that_group_again(place: Place, server: FakeLLM) -> None:
    """Pasted as it stands, it asks those documents and no others; so does the one for all of the server's failures."""
    failed(place)
    told = json.loads(place.call("errors", "out", "--json").out)
    commands = {group["reason"]: group["command"] for group in told["groups"]}
    place.asked()
    place.call(*shlex.split(commands["rejected"])[1:])
    assert set(place.asked()) == {"bad1.txt", "bad2.txt"}
    place.call(*shlex.split(told["commands"]["backend"])[1:])
    assert set(place.asked()) == {"down.txt", "full.txt"}
    assert "--only-failed overloaded,server_error" in told["commands"]["backend"]


def test_only_what_stands_is_counted(place: Place, server: FakeLLM) -> None:
    """A document that was done later is no failure any more, and an output without failures says so."""
    failed(place)
    place.documents(dict.fromkeys(FAILING, "all is well"))
    place.run(*LENIENT)
    assert "No failed documents in out; 6 documents are done" in place.call("errors", "out").out


def test_the_json_counts_all_and_shows_as_many_examples_as_asked(place: Place) -> None:
    """Examples carry id, uri, stage and message."""
    failed(place)
    told = json.loads(place.call("errors", "out", "--json", "--examples", "1").out)
    assert (told["done"], told["failed"]) == (1, 5)
    rejected = told["groups"][0]
    assert (rejected["reason"], rejected["class"], rejected["count"]) == ("rejected", "document", 2)
    assert [example["uri"] for example in rejected["examples"]] in (["inbox/bad1.txt"], ["inbox/bad2.txt"])


def test_the_story_of_a_failed_document(place: Place) -> None:
    """Each request, the complaint, what the model said, what to do and what to type."""
    failed(place)
    ran = place.call("errors", "out", "--show", "wrong.txt")
    assert ran.code == 0, ran.err
    assert "FAILED wrong.txt" in ran.out
    assert "schema_invalid (validate): $.summary: expected" in ran.out
    assert ran.out.count("an answer, schema_invalid") == 2, "it was asked again once"
    assert '{"unexpected": true}' in ran.out
    assert "--only-failed schema_invalid" in ran.out


def test_the_story_tells_of_failed_requests_and_of_earlier_results(place: Place, server: FakeLLM) -> None:
    """Newest first, whatever happened to the document."""
    place.documents({"a.txt": "first"})
    place.run()
    place.change("a.txt", "second [[fault:http_500]]")
    place.run(*LENIENT)
    ran = place.call("errors", "out", "--show", "a.txt")
    assert "FAILED a.txt" in ran.out.partition("before: DONE a.txt")[0]
    assert "http_500" in ran.out and '"summary"' in ran.out.partition("before: DONE")[2]
    place.change("a.txt", "third")
    server.faults = lambda _, n: Fault("wrong_type") if n == 1 else None
    place.run()
    told = json.loads(place.call("errors", "out", "--show", "a.txt", "--json").out)
    assert (told["state"], told["command"]) == ("done", None)
    assert [record["run"] for record in told["records"]] == [3, 1]


def test_an_unknown_id_is_exit_code_2_and_names_what_looks_like_it(place: Place) -> None:
    """People remember a part of a name."""
    failed(place)
    ran = place.call("errors", "out", "--show", "bad")
    assert ran.code == 2
    assert "there is 'bad1.txt', 'bad2.txt'" in ran.err


@pytest.mark.parametrize("folder", ["nowhere", "inbox"])
def test_a_place_that_no_run_wrote_to_is_exit_code_2(place: Place, folder: str) -> None:
    """A misspelt output must not look like one without failures."""
    place.documents(1)
    ran = place.call("errors", folder)
    assert (ran.code, ran.out) == (2, "")
    assert f"'{folder}', which holds no record" in ran.err


def test_a_name_of_any_bytes_has_its_story(place: Place) -> None:
    """By the bytes, as the shell completes them, and as records spell them."""
    place.documents(1)
    name = os.fsdecode(b"bad\xff.txt")
    (place.folder / "inbox" / name).write_text("text", encoding="utf-8")
    place.run()
    for typed in (name, r"bad\xff.txt"):
        ran = place.call("errors", "out", "--show", typed)
        assert ran.code == 0, ran.err
        assert r"DONE bad\xff.txt" in ran.out


@pytest.mark.parametrize("lines", [1, 2])
def test_a_killed_run_has_its_failures_too(place: Place, lines: int) -> None:
    """No run has come to its end, and the last line may be cut: what stands whole is told."""
    failed(place)
    for path in (place.folder / "out" / "runs").iterdir():
        path.unlink()
    errors = place.folder / "out" / "errors.jsonl"
    errors.write_bytes(b"".join(errors.read_bytes().splitlines(keepends=True)[:lines]) + b'{"v":1,"id":"cut')
    told = json.loads(place.call("errors", "out", "--json").out)
    assert told["failed"] == lines
    assert told["groups"][0]["command"].startswith("pipeline run --output out --only-failed ")


def test_shards_are_told_together(place: Place) -> None:
    """Failures of all shards are grouped as one output's."""
    place.documents({f"d{n}.txt": "[[fault:http_400]]" for n in range(8)})
    for shard in ("0/2", "1/2"):
        place.run(*LENIENT, "--shard", shard)
    told = json.loads(place.call("errors", "out", "--json").out)
    assert told["failed"] == 8
    assert "--shard" not in told["groups"][0]["command"]


def test_nothing_that_came_from_outside_reaches_the_terminal_as_an_escape(place: Place) -> None:
    """Ids, messages and answers, also as JSON: 0x9b is an escape of its own."""
    name = "a\x1b[2J\x9b2J\u202e.txt"
    place.documents({name: "[[fault:http_400]]"})
    place.run(*LENIENT)
    shown = place.call("errors", "out").out + place.call("errors", "out", "--show", name).out
    assert "a\\x1b[2J\\x9b2J\\u202e.txt" in shown
    told = place.call("errors", "out", "--json").out
    assert json.loads(told)["groups"][0]["examples"][0]["id"] == name
    assert [each for each in "\x1b\x9b\u202e" if each in shown + told] == []


def test_an_output_that_is_not_there_is_no_good_news(place: Place) -> None:
    """A mistyped folder is exit code 2, and is not made; one whose run found nothing is an output."""
    place.documents({})
    ran = place.call("errors", "oot")
    assert (ran.code, "'oot', which holds no record" in ran.err) == (2, True), ran.out + ran.err
    assert not (place.folder / "oot").exists()
    place.configure({"input.min_documents": 0})
    (place.folder / "inbox").mkdir(exist_ok=True)
    place.run()
    assert "No failed documents in out; 0 documents are done" in place.call("errors", "out").out


def test_a_missing_quote_is_shown_beside_the_nearest_text(place: Place) -> None:
    """In the story alone: the error line, the report and the run's output hold no text of the document."""
    schema = {"type": "object", "properties": {"q": {"type": "string", "x-quote": True}}, "required": ["q"]}
    sentence = "The harbour of Lindvik opened again on Monday after four days of storm."
    place.configure(agent={"schema": schema})
    place.documents({"a.txt": f"Another text stands before it. {sentence} And one after it."})
    place.server.answer = lambda _prompt, _schema: json.dumps({"q": "harbour opened on Monday again after 4 days"})
    ran = place.run(*LENIENT)
    story = " ".join(place.call("errors", "out", "--show", "a.txt").out.split())
    assert "no quote $.q: harbour opened on Monday again after 4 days" in story
    assert f"nearest text {sentence} to do" in story
    written = [path.read_text(encoding="utf-8") for path in (place.folder / "out").rglob("*") if path.is_file()]
    assert not any("of Lindvik" in text for text in (ran.out, ran.err, *written))
    place.documents({"a.txt": f"It has changed. {sentence}"})
    assert "nearest text" not in place.call("errors", "out", "--show", "a.txt").out
