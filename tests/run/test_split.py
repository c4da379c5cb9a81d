"""`overflow: split` end to end: long documents are cut, sent window by window, and merged into one record."""

from __future__ import annotations

import json
import resource
import signal
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import pytest
from conftest import Place
from fake_llm import FakeLLM
from fake_llm.planted import AGENT, PART, Planted, counting, part_of, planted, reader

from pipeline.cli.main import main

CONTEXT = 2400
DIALECTS = ("vllm", "ollama", "openai")


@pytest.fixture
def parts() -> list[str]:
    """Return the list of document parts sent to the server, in order."""
    return []


@pytest.fixture
def narrow(parts: list[str]) -> Iterator[FakeLLM]:
    """Yield a server with a small context that extracts every payment."""
    with FakeLLM(("llama3.1",), CONTEXT, answer=counting(reader, parts)) as running:
        yield running


def prepared(
    place: Place, server: FakeLLM, *, dialect: str = "vllm", settings: Mapping[str, Any] | None = None, **agent: Any
) -> None:
    """Configure a place for this server."""
    place.server = server
    chosen: dict[str, Any] = {"provider": dialect, "vllm.base_url": server.url, "runner.max_error_rate": 1}
    if dialect == "openai":
        gateway = {"type": "openai", "base_url": server.url, "model": "llama3.1"}
        chosen |= {"provider": "gateway", "providers.gateway": gateway}
    ollama = {"ollama.base_url": server.url, "ollama.model": "llama3.1", "ollama.num_ctx": CONTEXT}
    place.configure({**chosen, **ollama, **(settings or {})}, agent={**AGENT, **agent})


def run(place: Place, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command in this process."""
    monkeypatch.chdir(place.folder)
    return main(["run", "--config", "pipeline.yaml", "--quiet", *arguments])


def items(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the payments of a record without their quotes."""
    return [{name: item[name] for name in ("id", "payer", "amount")} for item in record["output"]["payments"]]


def expected(document: Planted) -> list[dict[str, Any]]:
    """Return the payments that a record must have, each once."""
    result = {item["id"]: {name: item[name] for name in ("id", "payer", "amount")} for item in document.payments}
    return list(result.values())


@pytest.mark.parametrize("dialect", DIALECTS)
def test_split_document_has_every_payment_once(
    place: Place, narrow: FakeLLM, monkeypatch: pytest.MonkeyPatch, dialect: str
) -> None:
    """The record of a document that exceeds the context has each payment with the position of its quote."""
    document = planted(seed=1, payments=40, chars=30_000, repeats=[3, 17, 30])
    place.documents({"long.txt": document.text, "short.txt": "Payment P00900: Sato Ltd pays 7.00 EUR on 2024-01-02."})
    prepared(place, narrow, dialect=dialect)
    assert run(place, monkeypatch) == 0, place.failed()
    records = {record["id"]: record for record in place.lines("results.jsonl")}
    record = records["long.txt"]
    assert items(record) == expected(document)
    assert record["output"]["title"] == "TITLE of the report"
    text = f"[[doc:long.txt]] {document.text}"
    rows = record["windows"]["rows"]
    assert record["windows"]["chars"] == len(text)
    assert rows[0][0] == 0
    assert max(row[1] for row in rows) == len(text)
    assert all(later[0] <= earlier[1] for earlier, later in pairwise(rows))
    assert len(record["evidence"]) == len(record["output"]["payments"])
    for place_of in record["evidence"]:
        number = int(place_of["path"].split("/")[2])
        assert text[place_of["start"] : place_of["end"]] == record["output"]["payments"][number]["quote"]
        start, end = rows[place_of["window"] - 1][:2]
        assert start <= place_of["start"] < place_of["end"] <= end
    assert "document_split" in record["notes"]
    assert list(records["short.txt"]) == list(record)
    assert (records["short.txt"]["windows"], records["short.txt"]["merge"]) == (None, None)
    assert not (place.folder / "out" / "windows.jsonl").exists()


def long_record(place: Place, name: str = "long.txt") -> dict[str, Any]:
    """Return the only record of a document."""
    (record,) = (record for record in place.lines("results.jsonl") if record["id"] == name)
    return record


@pytest.mark.parametrize("dialect", ["vllm", "ollama"])
@pytest.mark.parametrize(
    ("window", "overlap", "lead"),
    [(300, 0, 0), (300, 75, 300), (500, None, 0), (700, 10, 2000), (5000, None, 300), (None, 0, 300)],
)
def test_every_window_size_keeps_each_payment_once(
    place: Place,
    narrow: FakeLLM,
    monkeypatch: pytest.MonkeyPatch,
    dialect: str,
    window: int | None,
    overlap: int | None,
    lead: int,
) -> None:
    """This holds for any window, overlap and lead; without an overlap no sentence is cut."""
    document = planted(seed=window or 0, payments=30, chars=20_000, repeats=[1, 2, 28])
    place.documents({"long.txt": document.text})
    split = {"window_tokens": window, "overlap_tokens": overlap, "lead_chars": lead}
    prepared(place, narrow, dialect=dialect, split=split)
    assert run(place, monkeypatch) == 0, place.lines("errors.jsonl")
    record = long_record(place)
    assert items(record) == expected(document)
    assert len(record["windows"]["rows"]) > 3


def test_concat_keeps_repeated_rows_and_drops_overlap_copies(
    place: Place, narrow: FakeLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list merged by `concat` is the exact list of the document's rows, including repeated ones."""
    document = planted(seed=5, payments=40, chars=25_000, repeats=[3, 3, 20, 39])
    place.documents({"long.txt": document.text})
    schema = json.loads(json.dumps(AGENT["schema"]))
    schema["properties"]["payments"] |= {"x-merge": "concat"}
    del schema["properties"]["payments"]["x-key"]
    prepared(place, narrow, schema=schema, split={"window_tokens": 400, "overlap_tokens": 100})
    assert run(place, monkeypatch) == 0, place.lines("errors.jsonl")
    record = long_record(place)
    assert [item["quote"] for item in record["output"]["payments"]] == [item["quote"] for item in document.payments]


def test_window_with_a_too_long_answer_is_divided(
    place: Place, narrow: FakeLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is divided until each part is answered; no payment is lost; notes and attempts count the divisions."""
    document = planted(seed=6, payments=120, chars=16_000)
    place.documents({"long.txt": document.text})
    prepared(place, narrow, max_tokens=300)
    assert run(place, monkeypatch) == 0, place.lines("errors.jsonl")
    record = long_record(place)
    assert items(record) == expected(document)
    assert "windows_divided" in record["notes"]
    assert record["attempts"] > len(record["windows"]["rows"])
    assert record["attempts"] == len(place.sent_documents())


def bad_at(text: str) -> Any:
    """Return a reader that gives no valid answer about a part with this text."""
    return lambda prompt, schema: "no JSON" if text in part_of(prompt) and PART in prompt else reader(prompt, schema)


def test_invalid_window_fails_its_document_and_keeps_the_other_answers(
    place: Place, narrow: FakeLLM, parts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The window is divided twice, then the error names it; a later run reuses the answered windows."""
    document = planted(seed=7, payments=60, chars=40_000)
    place.documents({"long.txt": document.text})
    narrow.answer = counting(bad_at("Payment P00031:"), parts)
    prepared(place, narrow)
    run(place, monkeypatch)
    (error,) = place.lines("errors.jsonl")
    text = f"[[doc:long.txt]] {document.text}"
    window = error["window"]
    start, end = window["start"], window["end"]
    assert (error["reason"], error["attempts"]) == ("invalid_json", len(parts))
    assert "Payment P00031:" in text[start:end]
    message = f"window {window['n']} of {window['of']} (characters {start:,} to {end:,}): "
    assert error["message"].startswith(message)
    answered = {line["start"] for line in place.lines("windows.jsonl")}
    assert len(answered) == window["answered"] > 5
    first = set(parts)
    parts.clear()
    narrow.answer = counting(reader, parts)
    assert run(place, monkeypatch, "--only-failed") == 0
    record = long_record(place)
    assert items(record) == expected(document)
    assert record["windows"]["reused"] == len(answered)
    assert "windows_reused" in record["notes"]
    bad = {part for part in first if "Payment P00031:" in part}
    assert not set(parts) & (first - bad)
    assert record["attempts"] == len(parts) == len(record["windows"]["rows"]) - len(answered)
    assert not (place.folder / "out" / "windows.jsonl").exists()


def test_changed_merge_rule_merges_stored_answers_without_a_request(
    place: Place, narrow: FakeLLM, parts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After `merge_failed` a larger maxItems merges the stored answers."""
    document = planted(seed=8, payments=30, chars=24_000)
    place.documents({"long.txt": document.text})
    schema = json.loads(json.dumps(AGENT["schema"]))
    schema["properties"]["payments"]["maxItems"] = 20
    schema["properties"]["payments"]["x-window-items"] = 20
    prepared(place, narrow, schema=schema)
    run(place, monkeypatch)
    (error,) = place.lines("errors.jsonl")
    assert (error["reason"], error["stage"]) == ("merge_failed", "validate")
    assert "30 items after merging" in error["message"]
    assert error["attempts"] == len(parts) > 3
    parts.clear()
    schema["properties"]["payments"]["maxItems"] = 50
    prepared(place, narrow, schema=schema)
    narrow.requests.clear()
    assert run(place, monkeypatch) == 0, place.lines("errors.jsonl")
    assert (parts, place.sent_documents()) == ([], [])
    record = long_record(place)
    assert items(record) == expected(document)
    assert record["attempts"] == 0


def test_switch_to_split_resends_only_the_failed_documents(
    place: Place, narrow: FakeLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Documents that fitted keep their records; added merge rules affect only merged documents."""
    document = planted(seed=9, payments=30, chars=24_000)
    place.documents({"long.txt": document.text, "short.txt": "Nothing was paid."})
    prepared(place, narrow, overflow="fail")
    run(place, monkeypatch)
    assert place.failed() == {"long.txt": "context_length"}
    place.sent_documents()
    prepared(place, narrow)
    assert run(place, monkeypatch) == 0
    assert set(place.sent_documents()) == {"long.txt", ""} - {""}
    assert run(place, monkeypatch) == 0
    assert place.sent_documents() == []
    schema = json.loads(json.dumps(AGENT["schema"]))
    schema["properties"]["title"]["x-merge"] = "longest"
    prepared(place, narrow, schema=schema)
    assert run(place, monkeypatch) == 0
    assert set(place.sent_documents()) <= {"long.txt"}
    assert place.done() == {"long.txt": 2, "short.txt": 1}
    prepared(place, narrow, schema=schema, split={"window_tokens": 5000})
    assert run(place, monkeypatch) == 0
    assert place.done() == {"long.txt": 3, "short.txt": 2}


def test_identical_long_documents_are_sent_once(
    place: Place, narrow: FakeLLM, parts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy has the windows and the evidence of its original, and stays current in the next run."""
    document = planted(seed=11, payments=20, chars=20_000)
    for name in ("a.txt", "b.txt"):
        (place.folder / "inbox").mkdir(exist_ok=True)
        (place.folder / "inbox" / name).write_text(document.text)
    prepared(place, narrow)
    assert run(place, monkeypatch) == 0
    assert len(parts) == len(set(parts))
    original, copy = (long_record(place, name) for name in ("a.txt", "b.txt"))
    assert original["output"] == copy["output"]
    assert original["windows"] == copy["windows"]
    assert original["fingerprint"] == copy["fingerprint"]
    assert original["attempts"] + copy["attempts"] == len(parts)
    parts.clear()
    assert run(place, monkeypatch) == 0
    assert (parts, len(place.lines("results.jsonl"))) == ([], 2)


def test_more_long_documents_than_may_be_open_are_done(
    place: Place, narrow: FakeLLM, parts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some are read a second time; no window is sent twice, and the limit of requests holds."""
    documents = {f"long{number:02}.txt": planted(seed=number, payments=8, chars=20_000) for number in range(24)}
    shorts = {f"short{number:02}.txt": f"Short text {number}." for number in range(20)}
    place.documents({name: item.text for name, item in documents.items()} | shorts)
    prepared(place, narrow, settings={"runner.concurrency": 2})
    assert run(place, monkeypatch) == 0, place.lines("errors.jsonl")
    for name, document in documents.items():
        assert items(long_record(place, name)) == expected(document)
    assert len(place.done()) == 44
    assert len(parts) == len(set(parts))
    assert narrow.max_in_flight <= 2


def test_limit_counts_documents(place: Place, narrow: FakeLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows do not count towards --limit; further documents wait for the next run."""
    place.documents({f"long{number}.txt": planted(seed=number, payments=8, chars=20_000).text for number in range(3)})
    prepared(place, narrow)
    assert run(place, monkeypatch, "--limit", "2") == 0
    assert len(place.done()) == 2
    counts = place.last_run()["counts"]
    assert counts["found"] == sum(counts[name] for name in ("done", "failed", "skipped", "left"))


def test_fallback_with_half_the_context_divides_windows(
    place: Place, narrow: FakeLLM, parts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the first provider disappears, windows too long for the fallback are divided.

    One request at a time makes the choice of windows deterministic.
    """
    document = planted(seed=12, payments=40, chars=40_000)
    place.documents({"long.txt": document.text})
    messages: list[str] = []

    def answer(prompt: str, schema: Any) -> str:
        if PART in prompt and len(parts) == 5:
            narrow.down()
        return reader(prompt, schema)

    narrow.answer = counting(answer, parts)
    with FakeLLM(("llama3.1",), CONTEXT // 2, answer=counting(reader, messages)) as half:
        other = {"type": "vllm", "base_url": half.url, "model": "llama3.1", "retry_base_delay": 0.01}
        settings = {"providers.half": other, "fallback": ["half"], "vllm.max_retries": 0, "runner.concurrency": 1}
        prepared(place, narrow, settings=settings, max_tokens=150)
        assert run(place, monkeypatch) == 0, place.lines("errors.jsonl")
    record = long_record(place)
    assert items(record) == expected(document)
    assert {model["provider"] for model in record["windows"]["models"]} == {"vllm", "half"}
    assert {"several_models", "windows_divided"} <= set(record["notes"])


def test_blank_windows_are_not_sent(
    place: Place, narrow: FakeLLM, parts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their rows have 0 attempts, and the rows still cover the whole document."""
    text = "TITLE of the report. Payment P00001: Sato Ltd pays 1.00 EUR on 2024-01-01." + "\n" * 30_000 + "The end."
    place.documents({"long.txt": text})
    prepared(place, narrow)
    assert run(place, monkeypatch) == 0, place.lines("errors.jsonl")
    rows = long_record(place)["windows"]["rows"]
    assert sum(row[4] for row in rows) == len(parts) < len(rows)
    assert any(row[4] == 0 and row[6] is None for row in rows)


def test_split_does_not_change_records_of_short_documents(
    place: Place, narrow: FakeLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With and without `overflow: split` a document that fits has the same request and the same record."""
    place.documents({"short.txt": "Payment P00900: Sato Ltd pays 7.00 EUR on 2024-01-02."})
    records = []
    for overflow in ("fail", "split"):
        prepared(place, narrow, overflow=overflow)
        assert run(place, monkeypatch, "--redo", "all") == 0
        records.append(place.lines("results.jsonl")[-1])
        bodies = [chat.body for chat in narrow.chats() if chat.document == "short.txt"]
    assert list(records[0]) == list(records[1])
    assert records[0]["fingerprint"] == records[1]["fingerprint"]
    assert bodies[0] == bodies[1]
    assert (records[0]["windows"], records[0]["merge"]) == (None, None)


def test_lead_precedes_every_window_but_the_first(
    place: Place, narrow: FakeLLM, parts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the prompt names `$lead`, the lead appears only there."""
    document = planted(seed=13, payments=20, chars=24_000)
    place.documents({"long.txt": document.text})
    prepared(place, narrow, split={"lead_chars": 60})
    assert run(place, monkeypatch) == 0
    prompts = [str(chat.body["messages"][-1]["content"]) for chat in narrow.chats() if chat.document == "long.txt"]
    led = [prompt for prompt in prompts if "[How the document begins:]\n[[doc:long.txt]] TITLE" in prompt]
    assert len(led) == len(prompts) - 1 > 3
    narrow.requests.clear()
    prepared(place, narrow, user_prompt="Begins: $lead\nText: $document\n", split={"lead_chars": 60})
    run(place, monkeypatch)
    prompts = [str(chat.body["messages"][-1]["content"]) for chat in narrow.chats() if chat.document == "long.txt"]
    assert all(PART not in prompt for prompt in prompts)
    assert sum(prompt.startswith("Begins: [[doc:long.txt]] TITLE") for prompt in prompts) == len(prompts) - 1


def killing(place: Place, parts: list[str], at: set[int]) -> Any:
    """Return a reader that kills the running command at these numbers of parts."""

    def answer(prompt: str, schema: Any) -> str:
        if PART in prompt and len(parts) in at:
            place.children[-1].process.kill()
        return reader(prompt, schema)

    return answer


@pytest.mark.parametrize("arguments", [(), ("--redo", "all", "--run-id", "night")])
def test_answered_windows_are_not_sent_again_after_a_kill(
    place: Place, narrow: FakeLLM, parts: list[str], arguments: tuple[str, ...]
) -> None:
    """This holds for a plain run and for --redo all under the same run id."""
    document = planted(seed=14, payments=16, chars=16_000)
    place.documents({"long.txt": document.text})
    prepared(place, narrow, settings={"runner.concurrency": 1, "runner.lock_wait_s": 20})
    if arguments:
        place.run()
        parts.clear()
    narrow.answer = counting(killing(place, parts, {2, 4}), parts)
    kills = 0
    while (ran := place.call("run", *arguments)).code != 0:
        assert ran.code == -9, ran.err
        kills += 1
    assert kills == 2
    assert len(parts) == len(set(parts)) + kills
    record = place.lines("results.jsonl")[-1]
    assert items(record) == expected(document)
    assert record["windows"]["reused"] >= 2


def test_stop_within_a_document_keeps_answered_windows(place: Place, narrow: FakeLLM, parts: list[str]) -> None:
    """Requests in flight are awaited and written; the document is left, and the next run sends the other windows."""
    document = planted(seed=15, payments=16, chars=24_000)
    place.documents({"long.txt": document.text, "short.txt": "A short text."})
    prepared(place, narrow, settings={"runner.concurrency": 2})
    answer = counting(reader, parts)

    def stopping(prompt: str, schema: Any) -> str:
        if PART in prompt and len(parts) == 3:
            place.children[-1].process.send_signal(signal.SIGTERM)
        return answer(prompt, schema)

    narrow.answer = stopping
    ran = place.call("run")
    assert ran.code == 143, ran.err
    assert len(place.lines("windows.jsonl")) == len(parts) < 10
    assert place.last_run()["counts"]["left"] >= 1
    narrow.answer = answer
    place.run()
    assert len(parts) == len(set(parts))
    assert items(long_record(place)) == expected(document)


def test_memory_does_not_grow_with_the_number_of_long_documents(
    place: Place, narrow: FakeLLM, parts: list[str]
) -> None:
    """At most sixteen are open at a time, each with its text once: twenty need hardly more memory than three."""
    peaks = []
    for count in (3, 20):
        texts = {
            f"{count}-{number}.txt": planted(seed=100 * count + number, payments=5, chars=120_000).text
            for number in range(count)
        }
        place.documents(texts)
        prepared(place, narrow, split={"lead_chars": 0}, settings={"runner.concurrency": 8})
        place.run()
        peaks.append(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
        assert len(parts) == len(set(parts))
    assert peaks[1] - peaks[0] < 40_000, peaks
