"""`pipeline errors`: failures grouped by reason, the commands to type, and the history of one document."""

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
    """Write an output with one document done and five failed."""
    place.documents(FAILING)
    place.run(*LENIENT)


def test_failures_are_grouped_by_reason(place: Place) -> None:
    """The most frequent comes first, with its count, examples, advice and command."""
    failed(place)
    ran = place.call("errors", "out")
    assert ran.code == 0, ran.err
    assert "5 failed documents in out; 1 document is done" in ran.out
    groups = re.findall(r"^ +(\d+)  (\w+)$", ran.out, re.MULTILINE)
    assert groups == [("2", "rejected"), ("1", "overloaded"), ("1", "schema_invalid"), ("1", "server_error")]
    assert "bad1.txt" in ran.out and "HTTP 400" in ran.out and "the server refuses these documents" in ran.out


def test_413_advises_to_raise_the_servers_limit(place: Place) -> None:
    """The run, `errors`, the history and `try` all give this advice."""
    place.documents({"big.txt": "[[fault:http_413]]", "good.txt": "text"})
    outputs = [place.run(*LENIENT).out]
    outputs += [place.call(*words).out for words in (["errors"], ["errors", "--show", "big.txt"], ["try", "big.txt"])]
    for text in outputs:
        words = " ".join(text.split())
        assert "a proxy in front of it, refuses requests of this size: raise its limit" in words
        assert "max_document_bytes" not in words


def test_command_of_a_group_retries_exactly_that_group(place: Place, server: FakeLLM) -> None:
    """It works as printed, and so does the command for all server failures."""
    failed(place)
    payload = json.loads(place.call("errors", "out", "--json").out)
    commands = {group["reason"]: group["command"] for group in payload["groups"]}
    place.sent_documents()
    place.call(*shlex.split(commands["rejected"])[1:])
    assert set(place.sent_documents()) == {"bad1.txt", "bad2.txt"}
    place.call(*shlex.split(payload["commands"]["backend"])[1:])
    assert set(place.sent_documents()) == {"down.txt", "full.txt"}
    assert "--only-failed overloaded,server_error" in payload["commands"]["backend"]


def test_resolved_failures_are_not_counted(place: Place, server: FakeLLM) -> None:
    """An output without remaining failures is reported as such."""
    failed(place)
    place.documents(dict.fromkeys(FAILING, "all is well"))
    place.run(*LENIENT)
    assert "No failed documents in out; 6 documents are done" in place.call("errors", "out").out


def test_json_limits_only_the_examples(place: Place) -> None:
    """--examples limits the examples, which have id, uri, stage and message; counts cover all failures."""
    failed(place)
    payload = json.loads(place.call("errors", "out", "--json", "--examples", "1").out)
    assert (payload["done"], payload["failed"]) == (1, 5)
    rejected = payload["groups"][0]
    assert (rejected["reason"], rejected["class"], rejected["count"]) == ("rejected", "document", 2)
    assert [example["uri"] for example in rejected["examples"]] in (["inbox/bad1.txt"], ["inbox/bad2.txt"])


def test_show_prints_the_history_of_a_failed_document(place: Place) -> None:
    """It has each request, the complaint, the answer, the advice and the command."""
    failed(place)
    ran = place.call("errors", "out", "--show", "wrong.txt")
    assert ran.code == 0, ran.err
    assert "FAILED wrong.txt" in ran.out
    assert "schema_invalid (validate): $.summary: expected" in ran.out
    assert ran.out.count("an answer, schema_invalid") == 2, "it was asked again once"
    assert '{"unexpected": true}' in ran.out
    assert "--only-failed schema_invalid" in ran.out


def test_history_has_failed_requests_and_earlier_results(place: Place, server: FakeLLM) -> None:
    """The newest record comes first."""
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
    payload = json.loads(place.call("errors", "out", "--show", "a.txt", "--json").out)
    assert (payload["state"], payload["command"]) == ("done", None)
    assert [record["run"] for record in payload["records"]] == [3, 1]


def test_unknown_id_is_exit_2_with_similar_ids(place: Place) -> None:
    """Part of a name is enough to find the suggestions."""
    failed(place)
    ran = place.call("errors", "out", "--show", "bad")
    assert ran.code == 2
    assert "there is 'bad1.txt', 'bad2.txt'" in ran.err


@pytest.mark.parametrize("folder", ["nowhere", "inbox"])
def test_output_without_records_is_exit_2(place: Place, folder: str) -> None:
    """A misspelt output must not look like one without failures."""
    place.documents(1)
    ran = place.call("errors", folder)
    assert (ran.code, ran.out) == (2, "")
    assert f"'{folder}', which holds no record" in ran.err


def test_file_name_of_arbitrary_bytes_has_its_history(place: Place) -> None:
    """The name may be typed as bytes, as a shell completes it, or as the record spells it."""
    place.documents(1)
    name = os.fsdecode(b"bad\xff.txt")
    (place.folder / "inbox" / name).write_text("text", encoding="utf-8")
    place.run()
    for typed in (name, r"bad\xff.txt"):
        ran = place.call("errors", "out", "--show", typed)
        assert ran.code == 0, ran.err
        assert r"DONE bad\xff.txt" in ran.out


@pytest.mark.parametrize("lines", [1, 2])
def test_errors_reads_the_output_of_a_killed_run(place: Place, lines: int) -> None:
    """No run has finished and the last line may be cut; all whole lines count."""
    failed(place)
    for path in (place.folder / "out" / "runs").iterdir():
        path.unlink()
    errors = place.folder / "out" / "errors.jsonl"
    errors.write_bytes(b"".join(errors.read_bytes().splitlines(keepends=True)[:lines]) + b'{"v":1,"id":"cut')
    payload = json.loads(place.call("errors", "out", "--json").out)
    assert payload["failed"] == lines
    assert payload["groups"][0]["command"].startswith("pipeline run --output out --only-failed ")


def test_failures_of_all_shards_are_grouped_together(place: Place) -> None:
    """The suggested command names no shard."""
    place.documents({f"d{n}.txt": "[[fault:http_400]]" for n in range(8)})
    for shard in ("0/2", "1/2"):
        place.run(*LENIENT, "--shard", shard)
    payload = json.loads(place.call("errors", "out", "--json").out)
    assert payload["failed"] == 8
    assert "--shard" not in payload["groups"][0]["command"]


def test_errors_spells_out_terminal_escapes(place: Place) -> None:
    """This covers ids, messages and answers, and JSON as well, because 0x9b is an escape too."""
    name = "a\x1b[2J\x9b2J\u202e.txt"
    place.documents({name: "[[fault:http_400]]"})
    place.run(*LENIENT)
    shown = place.call("errors", "out").out + place.call("errors", "out", "--show", name).out
    assert "a\\x1b[2J\\x9b2J\\u202e.txt" in shown
    output = place.call("errors", "out", "--json").out
    assert json.loads(output)["groups"][0]["examples"][0]["id"] == name
    assert [character for character in "\x1b\x9b\u202e" if character in shown + output] == []


def test_missing_output_is_exit_2(place: Place) -> None:
    """A mistyped folder is not created; an output whose run found no document is accepted."""
    place.documents({})
    ran = place.call("errors", "oot")
    assert (ran.code, "'oot', which holds no record" in ran.err) == (2, True), ran.out + ran.err
    assert not (place.folder / "oot").exists()
    place.configure({"input.min_documents": 0})
    (place.folder / "inbox").mkdir(exist_ok=True)
    place.run()
    assert "No failed documents in out; 0 documents are done" in place.call("errors", "out").out


def test_history_shows_the_nearest_text_of_a_missing_quote(place: Place) -> None:
    """Only the history has text of the document; the error record, the report and the run's output do not."""
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


def test_history_reports_a_cut_answer_only_where_it_was_cut(place: Place) -> None:
    """An answer that is shorter than `output.raw_chars` is shown with its length."""
    place.documents({"a.txt": "[[fault:wrong_type]]"})
    place.run(*LENIENT)
    whole = place.call("errors", "out", "--show", "a.txt").out
    answer = json.loads(place.call("errors", "out", "--show", "a.txt", "--json").out)["records"][0]["raw"]
    assert f"answer ({len(answer)} characters)" in whole
    place.run(*LENIENT, "--set", "output.raw_chars=9", "--set", "output.uri=cut")
    cut_answer = place.call("errors", "cut", "--show", "a.txt", "--set", "output.raw_chars=9").out
    assert "answer (its first 9 characters, the limit of output.raw_chars)" in cut_answer
