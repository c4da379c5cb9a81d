"""Whole runs of agents with few-shot examples against servers that truncate prompts: no truncated result."""

from __future__ import annotations

import random
from typing import Any

import pytest
from conftest import Place
from cutting_llm import MODEL, CuttingLLM
from length_servers import KINDS


def agent_with(examples: int, *, words: int) -> dict[str, Any]:
    """Return an agent with this number of example turns, each of `words` characters, before the document."""
    text = ("Orrin Bank opened a branch in the harbour. " * 400)[:words]
    example = {"document": text, "output": {"summary": "A bank opened a branch."}}
    schema = {"type": "object", "properties": {"summary": {"type": "string"}}, "required": ["summary"]}
    return {
        "system_prompt": "Sum the text up. " * 20,
        "user_prompt": "$document\n",
        "schema": schema,
        "examples": [example] * examples,
    }


@pytest.mark.parametrize(
    ("way", "examples", "words"),
    [("oldest", 2, 2_000), ("oldest", 6, 300), ("oldest_refuse", 1, 6_000), ("tail", 1, 6_000)],
)
def test_no_result_of_a_truncated_prompt_is_written(place: Place, way: str, examples: int, words: int) -> None:
    """Whenever the server drops part of the document or an example, the document fails."""
    rng = random.Random(7)
    texts = {}
    for number in range(30):
        size = rng.randrange(9_000, 40_000) if number % 4 == 0 else rng.randrange(20, 4_000)
        texts[f"d{number:03}.txt"] = KINDS[number % len(KINDS)](rng, 10_000)[:size] + "."
    place.documents(texts)
    with CuttingLLM(way) as server:
        vllm = {"vllm.type": "openai", "vllm.base_url": server.url, "vllm.model": MODEL}
        rules = {"runner.max_error_rate": 1, "runner.fail_fast": 0, "runner.abort_error_rate": 1}
        place.configure({**vllm, **rules}, agent=agent_with(examples, words=words))
        place.run()
        done, failed = set(place.done()), place.failed()
        assert done & server.cut == set()
        assert set(failed.values()) <= {"prompt_truncated", "context_length"}
        assert {name for name, reason in failed.items() if reason == "prompt_truncated"} <= server.cut
        assert len(done) + len(failed) == 30
