"""Servers that report wrong token counts: no window is lost, and none is cut in silence."""

from __future__ import annotations

import random

import pytest
from conftest import Place
from fake_llm import FakeLLM
from fake_llm.faults import Fault
from fake_llm.planted import counting, planted, reader
from slow_marks import mostly_slow
from test_split import CONTEXT, expected, items, long_record, prepared, run

COUNTS = ("count_high", "count_low", "count_zero", "count_missing")


@pytest.mark.parametrize("dialect", ["vllm", "ollama"])
@pytest.mark.parametrize("counts", [*([name] for name in COUNTS), *mostly_slow([COUNTS, (*COUNTS, "")])])
@pytest.mark.parametrize("tokenizer", [0, 1])
@pytest.mark.parametrize("truncates", [False, True])
def test_wrong_counts_lose_no_window(
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    dialect: str,
    counts: list[str],
    tokenizer: float,
    truncates: bool,
) -> None:
    """Counts are too high, too low, zero or missing, or change from request to request.

    Ten short documents calibrate the size of windows. A server that cuts long prompts may fail the document, but only
    with a reason.
    """
    document = planted(seed=91, payments=30, chars=24_000, repeats=[2, 20])
    shorts = {f"a{number}.txt": f"Nothing was paid on day {number}. " * 20 for number in range(10)}
    place.documents({**shorts, "long.txt": document.text})
    rng = random.Random(f"{dialect} {counts} {tokenizer}")
    parts: list[str] = []

    def fault(*_: object) -> Fault | None:
        name = rng.choice(counts)
        return Fault(name) if name else None

    with FakeLLM(
        ("llama3.1",),
        CONTEXT,
        answer=counting(reader, parts),
        tokenizer=tokenizer,
        truncates=truncates,
        faults=fault,
    ) as server:
        prepared(place, server, dialect=dialect, settings={"runner.concurrency": 1})
        run(place, monkeypatch)
    failed = {record["id"]: record["reason"] for record in place.lines("errors.jsonl")}
    if "long.txt" in failed:
        assert truncates
        assert failed["long.txt"] == "prompt_truncated"
    else:
        assert items(long_record(place)) == expected(document)
    assert set(failed) <= {"long.txt"}
