"""`runner.concurrency: auto` in a whole run: the report has the limit, its reason, and the servers' prompt cache."""

from __future__ import annotations

from conftest import Place

from pipeline.records import ExtractionAttempt, ModelMetadata
from pipeline.report.merging import merge
from pipeline.report.numbers import PromptCache
from pipeline.report.stats import RunStats

MODEL = ModelMetadata("vllm", "m")


def test_report_names_the_limit_and_its_reason(place: Place) -> None:
    """The JSON has the limit as a number and the summary explains it; a limit set by the user needs no explanation."""
    place.configure({"runner.concurrency": "auto"})
    place.documents(60)
    output = place.run().out
    result = place.last_run()["concurrency"]
    assert result["limit"] >= 4
    assert f"concurrency   {result['limit']} requests at a time: {result['reason']}" in output
    fixed = place.run("--redo", "all", "--concurrency", "3").out
    assert place.last_run()["concurrency"] == {"limit": 3, "reason": "set"}
    assert "at a time" not in fixed


def test_cached_tokens_count_only_where_servers_report_them() -> None:
    """Attempts without a cached-token count are left out of both sums, and shards add up."""
    stats = RunStats(None, lambda: 0.0)
    stats.add_attempts(
        [
            ExtractionAttempt(MODEL, prompt_tokens=100, cached_tokens=75),
            ExtractionAttempt(MODEL, prompt_tokens=900),
            ExtractionAttempt(MODEL, prompt_tokens=100, cached_tokens=0),
        ],
        variant="default",
    )
    assert stats.snapshot().prompt_cache == PromptCache(prompt_tokens=200, cached_tokens=75)
    assert merge([stats.snapshot()] * 2).prompt_cache == PromptCache(prompt_tokens=400, cached_tokens=150)
