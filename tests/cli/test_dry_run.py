"""What `pipeline run --dry-run` estimates: tokens, time and money, each with how it is known."""

from __future__ import annotations

import re

from conftest import Place


def test_tokens_are_counted_by_the_servers_tokenizer(place: Place) -> None:
    """On a sample; for documents of one size the estimate is what the run then uses, and no model was called."""
    place.documents({f"d{n:02}.txt": "word " * 200 for n in range(30)})
    ran = place.run("--dry-run")
    told = re.search(r"about ([\d,]+) prompt tokens \(by the tokenizer of vllm on a sample of 20\)", ran.out)
    assert told is not None, ran.out
    assert place.asked() == []
    place.run()
    used = sum(line["usage"]["prompt_tokens"] for line in place.lines("results.jsonl"))
    assert abs(int(told[1].replace(",", "")) - used) <= 0.02 * used


def test_without_a_tokenizer_they_are_guessed_and_that_is_said(place: Place) -> None:
    """A server that is not there, and one that has none."""
    place.documents(3)
    gone = place.run("--dry-run", "--set", "vllm.base_url=http://127.0.0.1:9").out
    ollama = place.run("--dry-run", "--set", "provider=ollama").out
    assert "(estimated without a tokenizer: 4 characters each, on a sample of 3)" in gone
    assert "(estimated without a tokenizer: 4 characters each, on a sample of 3)" in ollama


def test_time_and_money_follow_the_last_runs_rate(place: Place) -> None:
    """Nothing is said of them before the first run; money only where cost.per_hour is set."""
    place.documents(4)
    assert "documents a second" not in place.run("--dry-run").out
    place.run()
    place.documents(6)
    assert "documents a second of run 1." in place.run("--dry-run").out
    told = place.run("--dry-run", "--set", "cost.per_hour=3.5").out
    assert re.search(r"of run 1, \d+\.\d\d at 3\.5 an hour \(cost\.per_hour\)\.", told)


def test_nothing_to_do_is_said_without_asking_the_server(place: Place) -> None:
    """All done: no tokens, no time."""
    place.documents(2)
    place.run()
    place.server.requests.clear()
    told = place.run("--dry-run").out
    assert "Would send 0 documents: 0 bytes, no prompt tokens." in told
    assert "That is about" not in told
    assert place.server.requests == []
    place.documents({"one.txt": "text"})
    assert "Would send 1 document: " in place.run("--dry-run").out
