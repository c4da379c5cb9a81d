"""`runner.concurrency: auto` in a whole run: what was found, and what servers had in their cache, is in the report."""

from __future__ import annotations

from conftest import Place

from pipeline.records import ExtractionAttempt, ModelMetadata
from pipeline.report.merging import merge
from pipeline.report.numbers import PromptCache
from pipeline.report.stats import RunStats

MODEL = ModelMetadata("vllm", "m")


def test_the_report_says_the_limit_and_why(place: Place) -> None:
    """In numbers for programs, in words for people; a number that the user set needs no words."""
    place.configure({"runner.concurrency": "auto"})
    place.documents(60)
    told = place.run().out
    found = place.last_run()["concurrency"]
    assert found["limit"] >= 4
    assert f"concurrency   {found['limit']} requests at a time: {found['reason']}" in told
    fixed = place.run("--redo", "all", "--concurrency", "3").out
    assert place.last_run()["concurrency"] == {"limit": 3, "reason": "set"}
    assert "at a time" not in fixed


def test_cached_tokens_are_counted_where_servers_tell() -> None:
    """Those of a server that does not tell count for nothing, and shards add up."""
    stats = RunStats(None, lambda: 0.0)
    stats.asked(
        [
            ExtractionAttempt(MODEL, prompt_tokens=100, cached_tokens=75),
            ExtractionAttempt(MODEL, prompt_tokens=900),
            ExtractionAttempt(MODEL, prompt_tokens=100, cached_tokens=0),
        ],
        variant="default",
    )
    assert stats.snapshot().prompt_cache == PromptCache(prompt_tokens=200, cached_tokens=75)
    assert merge([stats.snapshot()] * 2).prompt_cache == PromptCache(prompt_tokens=400, cached_tokens=150)
