"""Two runs over the same long documents at the same time, on one output: each window is sent once."""

from __future__ import annotations

import json
import threading
from collections import Counter
from typing import Any

import pytest
from conftest import Place
from fake_llm import FakeLLM
from fake_llm.planted import AGENT, PART, Planted, counting, planted, reader
from rival_runs import assert_one_run_gives_way
from test_split import expected, items, long_record, narrow, parts, prepared

__all__ = ["narrow", "parts"]

WAIT_S = 60
AGREED = {"window_tokens": 300, "overlap_tokens": 20, "lead_chars": 0}


def documents(count: int) -> dict[str, Planted]:
    """Return long documents by name."""
    return {f"long{number}.txt": planted(seed=60 + number, payments=8, chars=9_000) for number in range(count)}


def test_second_run_on_the_output_sends_no_window(place: Place, narrow: FakeLLM, parts: list[str]) -> None:
    """The first run has a long document open at that time, and ends as usual."""
    texts = documents(2)
    place.documents({name: document.text for name, document in texts.items()})
    answer = counting(reader, parts)
    one_run_ended = threading.Event()

    def slow(prompt: str, schema: Any) -> str:
        if PART in prompt:
            one_run_ended.wait(WAIT_S)
        return answer(prompt, schema)

    narrow.answer = slow
    prepared(place, narrow, settings={"vllm.timeout": 600}, split=AGREED)
    assert_one_run_gives_way(place, one_run_ended)
    assert max(Counter(parts).values()) == 1
    for name, document in texts.items():
        assert items(long_record(place, name)) == expected(document)


@pytest.mark.parametrize("processes", [1, 2])
def test_shards_at_the_same_time_send_each_window_once(
    place: Place, narrow: FakeLLM, parts: list[str], processes: int
) -> None:
    """Three shards share the output; then a run without shards finds nothing to do."""
    texts = documents(6)
    place.documents({name: document.text for name, document in texts.items()})
    prepared(place, narrow, settings={"runner.processes": processes}, split=AGREED)
    shards = [place.start("run", "--shard", f"{number}/3") for number in range(3)]
    assert [child.end().code for child in shards] == [0, 0, 0]
    assert max(Counter(parts).values()) == 1
    sent = len(parts)
    place.run()
    assert len(parts) == sent
    records = [json.loads(line) for path in (place.folder / "out").glob("results*.jsonl") for line in path.open()]
    assert sorted(record["id"] for record in records) == sorted(texts)
    for record in records:
        assert items(record) == expected(texts[record["id"]])
    assert not list((place.folder / "out").glob("windows*"))


@pytest.mark.parametrize("dialect", ["vllm", "ollama"])
def test_windows_have_the_variables_and_the_seed_of_the_agent(place: Place, narrow: FakeLLM, dialect: str) -> None:
    """They are in the request for each window, and in that for a whole document."""
    lines = [
        {"id": "long", "text": planted(seed=70, payments=8, chars=12_000).text, "customer": "Customer 0042"},
        {"id": "short", "text": "Nothing was paid.", "customer": "Customer 0043"},
    ]
    (place.folder / "all.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    prepared(
        place,
        narrow,
        dialect=dialect,
        settings={"input.uri": "all.jsonl"},
        variables=["customer"],
        request={"seed": 7},
        user_prompt="For $customer:\n$document\n",
        schema=AGENT["schema"],
    )
    place.run()
    bodies = [chat.body for chat in narrow.chats()]
    windows = [body for body in bodies if PART in json.dumps(body).replace("\\n", "\n")]
    assert len(windows) > 2
    assert all("For Customer 0042:" in json.dumps(body) for body in windows)
    whole = [body for body in bodies if "Nothing was paid." in json.dumps(body)]
    assert whole
    assert all("For Customer 0043:" in json.dumps(body) for body in whole)
    seeds = [body["options"]["seed"] if dialect == "ollama" else body["seed"] for body in (*windows, *whole)]
    assert set(seeds) == {7}
