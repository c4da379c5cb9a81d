"""The estimates of `pipeline run --dry-run`: tokens, time and money, each with its source."""

from __future__ import annotations

import re

from conftest import Place


def test_dry_run_counts_tokens_with_the_servers_tokenizer(place: Place) -> None:
    """The estimate from a sample equals the later use for documents of one size, and no model is called."""
    place.documents({f"d{n:02}.txt": "word " * 200 for n in range(30)})
    ran = place.run("--dry-run")
    match = re.search(r"about ([\d,]+) prompt tokens \(by the tokenizer of vllm on a sample of 20\)", ran.out)
    assert match is not None, ran.out
    assert place.sent_documents() == []
    place.run()
    used = sum(line["usage"]["prompt_tokens"] for line in place.lines("results.jsonl"))
    assert abs(int(match[1].replace(",", "")) - used) <= 0.02 * used


def test_dry_run_without_a_tokenizer_estimates_tokens(place: Place) -> None:
    """The server is unreachable or has no tokenizer, and the text says so."""
    place.documents(3)
    estimated = place.run("--dry-run", "--set", "vllm.base_url=http://127.0.0.1:9").out
    ollama = place.run("--dry-run", "--set", "provider=ollama").out
    assert "(estimated without a tokenizer: 4 characters each, on a sample of 3)" in estimated
    assert "(estimated without a tokenizer: 4 characters each, on a sample of 3)" in ollama


def test_dry_run_estimates_time_and_money_from_the_last_run(place: Place) -> None:
    """There is no estimate before the first run, and money only with `cost.per_hour`."""
    place.documents(4)
    assert "documents a second" not in place.run("--dry-run").out
    place.run()
    place.documents(6)
    assert "documents a second of run 1." in place.run("--dry-run").out
    output = place.run("--dry-run", "--set", "cost.per_hour=3.5").out
    assert re.search(r"of run 1, \d+\.\d\d at 3\.5 an hour \(cost\.per_hour\)\.", output)


def test_dry_run_with_all_done_sends_no_request(place: Place) -> None:
    """It prints neither tokens nor time."""
    place.documents(2)
    place.run()
    place.server.requests.clear()
    output = place.run("--dry-run").out
    assert "Would send 0 documents: 0 bytes, no prompt tokens." in output
    assert "That is about" not in output
    assert place.server.requests == []
    place.documents({"one.txt": "text"})
    assert "Would send 1 document: " in place.run("--dry-run").out
