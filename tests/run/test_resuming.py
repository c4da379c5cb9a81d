"""A first start with a refused key exits with 2 at once; a start that resumes waits, then exits with 3."""

from __future__ import annotations

import pytest
from conftest import Place
from fake_llm import FakeLLM


@pytest.fixture(autouse=True)
def _key_file(place: Place, server: FakeLLM) -> None:
    """Configure a key file, as a mounted Secret has it, and a server that requires the key."""
    server.api_key = "good"
    (place.folder / "key").write_text("good")
    place.configure({"vllm.api_key_file": "key", "runner.config_grace_s": 1})


def rotate(server: FakeLLM) -> None:
    """Make the server require a new key."""
    server.api_key = "new"


def test_refused_key_at_a_first_start_exits_with_2(place: Place, server: FakeLLM) -> None:
    """The output is empty, so the key was probably mistyped; the run does not wait."""
    place.documents(3)
    rotate(server)
    ran = place.run("--set", "runner.config_grace_s=600", code=2)
    assert "401" in ran.err


def test_refused_key_at_a_later_start_exits_with_3(place: Place, server: FakeLLM) -> None:
    """The output has records of this request, so a scheduler should try again."""
    place.documents(2)
    place.run()
    place.documents(3)
    rotate(server)
    ran = place.run(code=3)
    assert "this output has records of the same question" in ran.err and "401" in ran.err
    assert place.last_run()["counts"]["left"] == 1


def test_new_key_within_the_grace_is_used(place: Place, server: FakeLLM) -> None:
    """The file gets the new key before `config_grace_s` ends, and all documents are done."""
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


def test_changed_prompt_counts_as_a_first_start(place: Place, server: FakeLLM) -> None:
    """Records of another request prove nothing about these settings."""
    place.documents(2)
    place.run()
    place.configure({"vllm.api_key_file": "key"}, agent={"system_prompt": "Something else.\n"})
    rotate(server)
    place.run(code=2)


def test_records_of_another_shard_count_as_a_resume(place: Place, server: FakeLLM) -> None:
    """A shard that starts late belongs to a backfill that already works."""
    place.documents(20)
    place.run("--shard", "0/2")
    rotate(server)
    place.run("--shard", "1/2", code=3)


def test_refused_key_is_irrelevant_without_documents_to_send(place: Place, server: FakeLLM) -> None:
    """A run that skips all documents exits with 0."""
    place.documents(2)
    place.run()
    rotate(server)
    place.run()
