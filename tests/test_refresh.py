"""What a run takes over when its configuration changes while it goes on, and what it refuses to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conftest import Child, Place, write_whole
from fake_llm import FakeLLM

QUICK = {"runner.refresh_every": 2, "runner.concurrency": 2}


@pytest.fixture
def other() -> Iterator[FakeLLM]:
    """A second server with another model."""
    with FakeLLM(("other-model",), latency_s=0.05) as running:
        yield running


def start(place: Place, settings: dict[str, object] | None = None) -> Child:
    """A run over 60 documents that has done a few."""
    place.documents(60)
    place.server.latency_s = 0.1
    place.configure({**QUICK, **(settings or {})})
    child = place.start("run")
    place.wait_for_results(4)
    return child


def finish(child: Child, place: Place) -> str:
    """The log of the run, which must end well, with every document done once."""
    place.server.latency_s = 0.01
    ran = child.end()
    assert ran.code == 0, ran.err
    assert set(place.done().values()) == {1}
    assert len(place.done()) == 60
    return ran.err


def test_another_server_and_model_are_taken_for_the_next_documents(place: Place, other: FakeLLM) -> None:
    """The switch is said with the old and the new; the run ends at the new one."""
    child = start(place)
    place.configure({**QUICK, "vllm.base_url": other.url, "vllm.model": "other-model"})
    place.wait_for(lambda: len(other.chats()) > 4, "documents at the other server")
    log = finish(child, place)
    (line,) = [line for line in log.splitlines() if "provider switched" in line]
    assert " INFO " in line
    assert "old_model=llama3.1" in line
    assert "new_model=other-model" in line
    assert {line["model"]["name"] for line in place.lines("results.jsonl")} == {"llama3.1", "other-model"}


def test_another_provider_is_taken(place: Place, other: FakeLLM) -> None:
    """From vLLM to Ollama."""
    child = start(place)
    place.configure({**QUICK, "provider": "ollama", "ollama.base_url": other.url, "ollama.model": "other-model"})
    place.wait_for(lambda: len(other.chats()) > 4, "documents at the other provider")
    log = finish(child, place)
    assert "old_provider=vllm new_provider=ollama" in log
    assert {line["model"]["provider"] for line in place.lines("results.jsonl")} == {"vllm", "ollama"}


@pytest.mark.parametrize("how", ["broken file", "dead server", "unknown model"])
def test_a_configuration_that_does_not_work_changes_nothing(place: Place, how: str) -> None:
    """It is said once, and the run goes on with what it has."""
    child = start(place)
    if how == "broken file":
        write_whole(place.folder / "pipeline.yaml", "vllm: {modle: x}\n")
    elif how == "dead server":
        place.configure({**QUICK, "vllm.base_url": "http://127.0.0.1:9"})
    else:
        place.configure({**QUICK, "vllm.model": "no-such-model"})
    place.wait_for_results(20)
    log = finish(child, place)
    assert len([line for line in log.splitlines() if "what runs stays" in line]) == 1
    assert "provider switched" not in log
    assert {line["model"]["name"] for line in place.lines("results.jsonl")} == {"llama3.1"}


def test_input_and_output_cannot_change_in_a_run(place: Place) -> None:
    """Both are said, and left for the next run."""
    child = start(place)
    place.configure({**QUICK, "output.uri": "elsewhere", "input.uri": "other-inbox"})
    place.wait_for_results(20)
    log = finish(child, place)
    assert "input, output cannot change in a run" in log
    assert not (place.folder / "elsewhere").exists()


def test_the_prompt_stays_in_a_run_unless_all_is_refreshed(place: Place) -> None:
    """With `refresh: provider` a changed agent file is said and left; every record carries the old fingerprint."""
    child = start(place)
    place.configure(QUICK, agent={"system_prompt": "Another prompt.\n"})
    place.wait_for_results(20)
    log = finish(child, place)
    assert "agent small changed in mid-run" in log
    assert len({line["fingerprint"] for line in place.lines("results.jsonl")}) == 1


def test_refresh_all_takes_the_prompt_too(place: Place) -> None:
    """Each record carries the fingerprint of what it was asked with, so the next run asks the earlier ones anew."""
    child = start(place, {"runner.refresh": "all"})
    place.configure({**QUICK, "runner.refresh": "all"}, agent={"system_prompt": "Another prompt.\n"})
    place.wait_for(lambda: any("Another" in str(seen.body) for seen in place.server.chats()), "the other prompt")
    finish(child, place)
    prints = [line["fingerprint"] for line in place.lines("results.jsonl")]
    assert len(set(prints)) == 2
    earlier = prints.count(prints[0])
    assert f"asked anew  {earlier:>17,}" in place.run("--dry-run").out


def test_refresh_off_takes_nothing(place: Place, other: FakeLLM) -> None:
    """The run ends as it began."""
    child = start(place, {"runner.refresh": "off"})
    place.configure({**QUICK, "runner.refresh": "off", "vllm.base_url": other.url, "vllm.model": "other-model"})
    place.wait_for_results(20)
    finish(child, place)
    assert other.chats() == []


def test_an_outage_is_ended_by_another_address(place: Place, other: FakeLLM) -> None:
    """The configuration is looked at while the run waits: a server that moved is found without a restart."""
    child = start(place)
    place.server.down()
    place.configure({**QUICK, "vllm.base_url": other.url, "vllm.model": "other-model"})
    log = finish(child, place)
    assert "provider switched" in log
    assert place.failed() == {}
