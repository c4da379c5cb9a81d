"""A first start with a refused key ends at once with 2; a start that resumes waits, then ends with 3."""

from __future__ import annotations

import pytest
from conftest import Place
from fake_llm import FakeLLM


@pytest.fixture(autouse=True)
def _key_file(place: Place, server: FakeLLM) -> None:
    """A key in a file, as a mounted Secret is, and the server that wants it."""
    server.api_key = "good"
    (place.folder / "key").write_text("good")
    place.configure({"vllm.api_key_file": "key", "runner.config_grace_s": 1})


def rotate(server: FakeLLM) -> None:
    """From now on the server wants a key that nobody has been given yet."""
    server.api_key = "new"


def test_a_first_start_ends_with_2_at_once(place: Place, server: FakeLLM) -> None:
    """Nothing is in the output: somebody mistyped the key."""
    place.documents(3)
    rotate(server)
    ran = place.run("--set", "runner.config_grace_s=600", code=2)
    assert "401" in ran.err


def test_a_later_start_waits_and_ends_with_3(place: Place, server: FakeLLM) -> None:
    """The output has records of this question: a scheduler tries again instead of giving the job up."""
    place.documents(2)
    place.run()
    place.documents(3)
    rotate(server)
    ran = place.run(code=3)
    assert "this output has records of the same question" in ran.err and "401" in ran.err
    assert place.last_run()["counts"]["left"] == 1


def test_a_key_that_comes_in_time_is_taken(place: Place, server: FakeLLM) -> None:
    """The file has the new key before config_grace_s is over: nothing was lost but time."""
    place.configure({"vllm.api_key_file": "key", "runner.config_grace_s": 60})
    place.documents(2)
    place.run()
    place.documents(3)
    rotate(server)
    running = place.start("run")
    refused = len(server.requests)
    place.wait_for(lambda: len(server.requests) > refused, "a refusal")
    (place.folder / "key").write_text("new")
    ran = running.end()
    assert ran.code == 0, ran.err
    assert len(place.done()) == 3


def test_another_question_is_a_first_start(place: Place, server: FakeLLM) -> None:
    """What an output holds of another question proves nothing of this one's settings."""
    place.documents(2)
    place.run()
    place.configure({"vllm.api_key_file": "key"}, agent={"system_prompt": "Something else.\n"})
    rotate(server)
    place.run(code=2)


def test_what_a_sibling_shard_did_counts(place: Place, server: FakeLLM) -> None:
    """A shard that has not begun yet is part of a backfill that works."""
    place.documents(20)
    place.run("--shard", "0/2")
    rotate(server)
    place.run("--shard", "1/2", code=3)


def test_a_start_with_nothing_to_ask_ends_with_0(place: Place, server: FakeLLM) -> None:
    """No server is needed for that."""
    place.documents(2)
    place.run()
    rotate(server)
    place.run()
