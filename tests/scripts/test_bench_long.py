"""The planted fake server reads a single prompt, and the table of `scripts/bench_long.py` is correct about it."""

from __future__ import annotations

import pytest
import requests
from bench_long import HEAD, fact, fake_rows
from fake_llm import FakeLLM
from fake_llm.planted import AGENT, PART, planted


@pytest.mark.parametrize("dialect", ["vllm", "ollama"])
def test_planted_server_lists_only_whole_facts_of_its_part(dialect: str) -> None:
    """Facts in the lead, or cut by an end of the part, are left out."""
    document = planted(seed=1, payments=3, chars=3000)
    first, second, third = (item["quote"] for item in document.payments)
    message = {"role": "user", "content": f"{first} {PART}{second} and {third[:-3]}"}
    schema = AGENT["schema"]
    with FakeLLM(("planted",), planted=True) as server:
        if dialect == "vllm":
            response_format = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
            body = {"model": "planted", "messages": [message], "max_tokens": 500, "response_format": response_format}
            reply = requests.post(f"{server.url}/v1/chat/completions", json=body, timeout=30).json()
            text = reply["choices"][0]["message"]["content"]
        else:
            body = {"model": "planted", "messages": [message], "format": schema, "stream": False}
            reply = requests.post(f"{server.url}/api/chat", json=body, timeout=30).json()
            text = reply["message"]["content"]
    assert second in text
    assert first not in text
    assert third[:20] not in text


def test_amount_may_be_a_number_or_a_string() -> None:
    """A model copies it as a string."""
    item = {"id": "P00001", "payer": "Sato Ltd", "amount": 1240.5}
    assert fact(item) == fact({**item, "amount": "1,240.50"})


@pytest.mark.slow
def test_table_shows_recall_of_each_overflow_setting() -> None:
    """Of a too long document `fail` finds no fact, `head` those of the beginning, `split` all once."""
    rows = {row[1]: dict(zip(HEAD, row, strict=True)) for row in fake_rows([60_000], 1)}
    assert rows["one-shot"]["failed"] == "1 of 1"
    assert 0 < float(rows["head"]["recall"]) < 1
    result = {name: rows["split"][name] for name in ("failed", "recall", "precision", "doubled")}
    assert result == {"failed": "0 of 1", "recall": "1.00", "precision": "1.00", "doubled": "0"}
