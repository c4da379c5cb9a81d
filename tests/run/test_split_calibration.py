"""Window sizes by each source of bytes per token, also by wrong ones: nothing is lost, and refusals put it right."""

from __future__ import annotations

import json

import pytest
from conftest import Place
from fake_llm import FakeLLM
from fake_llm.planted import PART, counting, planted, reader
from test_split import CONTEXT, expected, items, long_record, prepared, run


@pytest.mark.parametrize("dialect", ["vllm", "ollama"])
@pytest.mark.parametrize("tokenizer", [0, 1 / 3, 1, 3])
@pytest.mark.parametrize("earlier", [0, 8])
def test_nothing_is_lost_by_any_calibration(
    place: Place, monkeypatch: pytest.MonkeyPatch, dialect: str, tokenizer: float, earlier: int
) -> None:
    """Sizes come from a tokenizer (right, wrong by a factor of three, or absent) or from `earlier` prompts."""
    document = planted(seed=81, payments=40, chars=30_000, repeats=[3, 30])
    shorts = {f"a{number}.txt": f"Nothing was paid on day {number}. " * 20 for number in range(earlier)}
    place.documents({**shorts, "long.txt": document.text})
    parts: list[str] = []
    with FakeLLM(("llama3.1",), CONTEXT, answer=counting(reader, parts), tokenizer=tokenizer) as server:
        prepared(place, server, dialect=dialect, settings={"runner.concurrency": 1})
        assert run(place, monkeypatch) == 0, place.lines("errors.jsonl")
    assert items(long_record(place)) == expected(document)
    assert len(parts) == len(set(parts))


def test_server_without_a_tokenizer_is_calibrated_by_its_counts(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """After five prompts windows are as large as the counts allow; before, three bytes count as a token."""
    document = planted(seed=82, payments=20, chars=40_000, kinds="prose")
    shorts = {f"a{number}.txt": f"Nothing was paid on day {number}. " * 20 for number in range(8)}
    windows = []
    for earlier in ({}, shorts):
        place.documents({**earlier, "long.txt": document.text})
        with FakeLLM(("llama3.1",), CONTEXT, answer=reader, tokenizer=0) as server:
            prepared(place, server, settings={"runner.concurrency": 1})
            assert run(place, monkeypatch, "--redo", "all") == 0, place.lines("errors.jsonl")
        windows.append(len(place.lines("results.jsonl")[-1]["windows"]["rows"]))
    assert windows[1] < windows[0]


def test_preflight_sends_the_schema_of_windows(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that refuses it is found before the first document."""
    place.documents({"short.txt": "Nothing was paid."})
    with FakeLLM(("llama3.1",), CONTEXT, answer=reader) as server:
        prepared(place, server)
        assert run(place, monkeypatch) == 0
        document = "short.txt"
        schemas = [json.dumps(chat.body) for chat in server.chats() if chat.document != document]
        window_requests = [json.dumps(chat.body) for chat in server.chats() if chat.document == document]
    assert any('"title": {"type": ["string", "null"]' in schema for schema in schemas)
    assert window_requests
    assert not any('"title": {"type": ["string", "null"]' in body or PART in body for body in window_requests)


def test_each_text_of_a_document_is_counted_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three samples, both to decide about it and to cut it; also of a document that is parked and read again."""
    texts = {f"long{n}.txt": planted(seed=83 + n, payments=5, chars=20_000, kinds="prose").text for n in range(20)}
    place.documents(texts)
    with FakeLLM(("llama3.1",), CONTEXT, answer=reader) as server:
        prepared(place, server)
        assert run(place, monkeypatch) == 0, place.lines("errors.jsonl")
    counted = [
        request.body["prompt"]
        for request in server.requests
        if request.path == "/tokenize" and "prompt" in request.body
    ]
    assert len([text for text in counted if len(text) > 1000]) == 3 * len(texts)


@pytest.mark.parametrize("examples", [False, True])
@pytest.mark.parametrize("prompt", ["$document\n", "$lead\n$document\n"])
def test_warning_about_the_room_agrees_with_the_run(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, prompt: str, examples: bool
) -> None:
    """A long document is read in windows in all contexts without the warning; its lead is as long as it may be."""
    first_line = "x" * (300 - len("[[doc:long.txt]] "))
    place.documents({"long.txt": f"{first_line}\n{planted(seed=84, payments=3, chars=9_000, kinds='prose').text}"})
    output = {"title": "T", "payments": []}
    pairs = [{"document": "Nobody paid. " * 20, "output": output}] if examples else []
    agreed = []
    for context in range(1400, 1720, 20):
        caplog.clear()
        with FakeLLM(("llama3.1",), context, answer=reader) as server:
            settings = {"runner.max_error_rate": 0}
            prepared(place, server, settings=settings, user_prompt=prompt, examples=pairs)
            code = run(place, monkeypatch, "--redo", "all")
        has_warned = any("for a window, need 256" in record.getMessage() for record in caplog.records)
        assert has_warned == (code != 0), context
        agreed.append(has_warned)
    assert agreed == sorted(agreed, reverse=True)
    assert set(agreed) == {True, False}
