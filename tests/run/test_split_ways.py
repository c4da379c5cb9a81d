"""Long documents with `try`, the Python API and shards, and configuration changes within a document."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import Place
from fake_llm import FakeLLM
from fake_llm.planted import AGENT, PART, counting, planted, reader
from test_split import bad_at, expected, items, long_record, narrow, parts, prepared, run

from pipeline import VLLMClient, VLLMConfig
from pipeline.api import extract
from pipeline.records import Failure, Result

__all__ = ["narrow", "parts"]


def test_try_shows_each_window_and_the_merged_output(
    place: Place, narrow: FakeLLM, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each exchange follows a heading with its place; no output is written."""
    document = planted(seed=21, payments=6, chars=16_000)
    place.documents({"long.txt": document.text})
    prepared(place, narrow)
    monkeypatch.chdir(place.folder)
    from pipeline.cli.main import main

    assert main(["try", "--config", "pipeline.yaml", "long.txt"]) == 0
    out = capsys.readouterr().out
    assert "window 1 of " in out
    assert ", characters 0 to " in out
    assert "VALID" in out
    assert "document_split" in out
    assert all(f'"{item["id"]}"' in out for item in document.payments)
    assert not (place.folder / "out").exists()


def test_api_splits_a_long_text(tmp_path: Path, narrow: FakeLLM) -> None:
    """With an unknown context the text is split when the server refuses it."""
    (tmp_path / "small.yaml").write_text(json.dumps(AGENT))
    document = planted(seed=22, payments=12, chars=16_000)
    client = VLLMClient(VLLMConfig(base_url=narrow.url, model="llama3.1", max_tokens=400, max_retries=0))
    result = extract(document.text, "small", client, agents_dir=str(tmp_path))
    assert isinstance(result, Result), result
    assert [item["id"] for item in result.output["payments"]] == [item["id"] for item in document.payments]
    assert result.windows is not None
    narrow.answer = lambda prompt, schema: "nothing" if PART in prompt else reader(prompt, schema)
    failed = extract(document.text, "small", client, agents_dir=str(tmp_path))
    assert isinstance(failed, Failure)
    assert failed.message.startswith("window 1 of ")
    client.close()


def test_run_without_shards_reuses_window_answers_of_shards(
    place: Place, narrow: FakeLLM, parts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answers of a failed document in a shard are not requested again."""
    documents = {f"long{number}.txt": planted(seed=number, payments=6, chars=16_000) for number in range(4)}
    place.documents({name: item.text for name, item in documents.items()})
    bad = counting(
        lambda prompt, schema: "no" if "P00005" in prompt and PART in prompt else reader(prompt, schema), parts
    )
    narrow.answer = bad
    prepared(place, narrow)
    for shard in range(2):
        run(place, monkeypatch, "--shard", f"{shard}/2")
    assert sorted(path.name for path in (place.folder / "out").glob("windows-*"))
    sent = set(parts)
    parts.clear()
    narrow.answer = counting(reader, parts)
    assert run(place, monkeypatch) == 0, place.lines("errors.jsonl")
    assert not {part for part in sent if "P00005" not in part} & set(parts)
    for name, document in documents.items():
        assert items(long_record(place, name)) == expected(document)
    assert not list((place.folder / "out").glob("windows*"))


def test_changed_prompt_within_a_document_applies_to_the_next_document(
    place: Place, narrow: FakeLLM, parts: list[str]
) -> None:
    """With refresh: all an open document keeps its plan to its end."""
    documents = {f"long{number}.txt": planted(seed=30 + number, payments=6, chars=16_000) for number in range(3)}
    place.documents({name: item.text for name, item in documents.items()})
    settings = {"runner.concurrency": 1, "runner.refresh": "all", "runner.refresh_every": 1}
    answer = counting(reader, parts)

    def changing(prompt: str, schema: Any) -> str:
        if PART in prompt and len(parts) == 3:
            prepared(place, narrow, settings=settings, system_prompt="List all payments, please.\n")
        return answer(prompt, schema)

    narrow.answer = changing
    prepared(place, narrow, settings=settings)
    place.run()
    for name, document in documents.items():
        assert items(long_record(place, name)) == expected(document)


def test_special_tokens_of_a_long_document_cannot_end_its_message(
    place: Place, narrow: FakeLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are broken up in windows and leads; quote positions refer to the document's own text."""
    document = planted(seed=23, payments=10, chars=16_000)
    text = "TITLE of the report <|im_end|> and more\n" + document.text.replace("Payment", "<|im_start|> Payment")
    place.documents({"long.txt": text})
    prepared(place, narrow)
    assert run(place, monkeypatch) == 0, place.lines("errors.jsonl")
    prompts = [json.dumps(chat.body) for chat in narrow.chats() if chat.document == "long.txt"]
    assert not any("<|im_end|>" in prompt or "<|im_start|>" in prompt for prompt in prompts)
    record = long_record(place)
    assert items(record) == expected(document)
    assert "special_tokens_broken" in record["notes"]
    whole = f"[[doc:long.txt]] {text}"
    quotes = [item["quote"] for item in record["output"]["payments"]]
    assert [whole[quote["start"] : quote["end"]] for quote in record["evidence"]] == quotes


def test_a_dry_run_leaves_out_the_answered_windows(
    place: Place, narrow: FakeLLM, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those that the next run can use: none with --redo all, for another question, or of a changed document."""
    place.documents({"long.txt": planted(seed=65, payments=30, chars=24_000).text})
    narrow.answer = bad_at("Payment P00029:")
    prepared(place, narrow)
    run(place, monkeypatch)
    answered = len(place.lines("windows.jsonl"))
    assert answered > 5

    def shown(*arguments: str) -> str:
        capsys.readouterr()
        run(place, monkeypatch, "--dry-run", *arguments)
        return " ".join(capsys.readouterr().out.split())

    counted = re.search(r"into about (\d+) windows, of which (\d+) are answered: about (\d+) requests", shown())
    assert counted is not None
    assert int(counted[2]) == answered
    assert int(counted[3]) == int(counted[1]) - answered
    assert "are answered" not in shown("--redo", "all")
    path = place.folder / "inbox" / "long.txt"
    path.write_text(f"{path.read_text()} One more sentence.")
    assert "are answered" not in shown()


def test_redo_all_asks_every_window_again(
    place: Place, narrow: FakeLLM, parts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers of a run with another id are not reused."""
    place.documents({"long.txt": planted(seed=66, payments=30, chars=24_000).text})
    narrow.answer = bad_at("Payment P00029:")
    prepared(place, narrow)
    run(place, monkeypatch)
    assert len(place.lines("windows.jsonl")) > 5
    narrow.answer = counting(reader, parts)
    assert run(place, monkeypatch, "--redo", "all") == 0
    record = long_record(place)
    assert record["windows"]["reused"] == 0
    assert len(parts) == len(record["windows"]["rows"])


def test_answers_of_an_earlier_version_are_merged_with_their_places(
    place: Place, narrow: FakeLLM, parts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their lines lack the places of quotes, which are then searched once more: the evidence is the same."""
    special = "It said <|im_end|> and then. "
    document = planted(seed=72, payments=40, chars=30_000)
    text = special + document.text.replace("\n", "\f", 1)
    place.documents({"long.txt": text})
    prepared(place, narrow)
    assert run(place, monkeypatch) == 0
    evidence = long_record(place)["evidence"]
    shutil.rmtree(place.folder / "out")
    narrow.answer = bad_at("Payment P00039:")
    run(place, monkeypatch)
    lines = place.lines("windows.jsonl")
    assert any(line["evidence"] for line in lines)
    stripped = [{name: value for name, value in line.items() if name != "evidence"} for line in lines]
    text_of_lines = "".join(json.dumps(line) + "\n" for line in stripped)
    (place.folder / "out" / "windows.jsonl").write_text(text_of_lines, encoding="utf-8")
    narrow.answer = counting(reader, parts)
    parts.clear()
    assert run(place, monkeypatch) == 0
    record = long_record(place)
    assert record["windows"]["reused"] == len(lines)
    assert items(record) == expected(document)
    assert [without_window(place_of) for place_of in record["evidence"]] == [without_window(e) for e in evidence]


def without_window(evidence: dict[str, Any]) -> dict[str, Any]:
    """Return evidence without the number of its window, which differs where windows were divided."""
    return {name: value for name, value in evidence.items() if name not in ("window", "count")}
