"""What a run takes over when its configuration changes while it goes on, and what it refuses to."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import pytest
from conftest import AGENT, Child, Place, write_whole
from fake_llm import FakeLLM

from pipeline.config import AppConfig, RunnerConfig, VLLMConfig
from pipeline.config.changes import allowed, differences
from pipeline.records import Entry, Left
from pipeline.run.concurrency import Fixed
from pipeline.run.document.process import Finished
from pipeline.run.in_flight import Landed
from pipeline.run.job import Job
from pipeline.run.runner import Runner

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
    assert "old_provider=vllm new_provider=vllm old_model=llama3.1 new_model=other-model" in line
    assert f"endpoint={other.url} variant=default" in line
    assert {line["model"]["name"] for line in place.lines("results.jsonl")} == {"llama3.1", "other-model"}


def test_another_provider_is_taken(place: Place, other: FakeLLM) -> None:
    """From vLLM to Ollama."""
    child = start(place)
    place.configure({**QUICK, "provider": "ollama", "ollama.base_url": other.url, "ollama.model": "other-model"})
    place.wait_for(lambda: len(other.chats()) > 4, "documents at the other provider")
    log = finish(child, place)
    assert "old_provider=vllm new_provider=ollama" in log
    assert {line["model"]["provider"] for line in place.lines("results.jsonl")} == {"vllm", "ollama"}


def test_a_document_keeps_its_client_to_its_end_and_the_last_one_closes_it(place: Place, other: FakeLLM) -> None:
    """It is asked again where it was asked first; then nothing is open to the old server, though the run goes on."""
    held = threading.Event()

    def answer(prompt: str, _schema: object) -> str:
        if "[[doc:d002.txt]]" not in prompt:
            return '{"summary": "x"}'
        held.wait(60)
        return '{"summary": "x"}' if "previous_answer" in prompt else '{"summary": 7}'

    place.server.answer = answer
    child = start(place)
    place.configure({**QUICK, "vllm.base_url": other.url, "vllm.model": "other-model"})
    place.wait_for(lambda: len(other.chats()) > 4, "documents at the other server")
    assert place.server.connections > 0
    held.set()
    place.wait_for(lambda: place.server.connections == 0, "the end of the old connections")
    finish(child, place)
    (line,) = [line for line in place.lines("results.jsonl") if line["id"] == "d002.txt"]
    assert (line["model"]["name"], line["attempts"], line["reasks"]) == ("llama3.1", 2, 1)


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


def test_a_file_that_breaks_again_is_said_again(place: Place) -> None:
    """Once for each time that it had been whole in between."""
    child = start(place)
    for results in (12, 28):
        write_whole(place.folder / "pipeline.yaml", "vllm: {modle: x}\n")
        place.wait_for_results(results)
        place.configure(QUICK)
        place.wait_for_results(results + 8)
    assert finish(child, place).count("what runs stays") == 2


def test_each_trouble_of_a_changed_configuration_is_said_when_it_is_found(place: Place, other: FakeLLM) -> None:
    """They are no repetitions of each other: whoever mends one thing after the other sees the next one at once."""
    other.api_key = "right"
    child = start(place)
    write_whole(place.folder / "pipeline.yaml", "vllm: {modle: x}\n")
    place.wait_for_results(12)
    place.configure({**QUICK, "vllm.base_url": other.url, "vllm.model": "no-such-model", "vllm.api_key": "right"})
    place.wait_for(lambda: len(other.requests) == 1, "a look at the other server")
    place.configure({**QUICK, "vllm.base_url": other.url, "vllm.model": "other-model", "vllm.api_key": "wrong"})
    place.wait_for(lambda: len(other.requests) == 2, "another look at it")
    log = finish(child, place)
    told = [line for line in log.splitlines() if "what runs stays" in line]
    assert [cause in line for cause, line in zip(("modle", "no-such-model", "401"), told, strict=True)] == [True] * 3
    assert log.index("401") < log.index("run ends")
    assert "repeated=" not in log


def test_what_was_refused_is_said_once_and_looked_at_once(place: Place, other: FakeLLM) -> None:
    """Until the file changes again; the server that runs is not said to be unavailable, and goes on."""
    child = start(place)
    place.configure({**QUICK, "vllm.base_url": other.url, "vllm.model": "no-such-model"})
    place.wait_for(lambda: len(other.requests) == 1, "a look at the other server")
    place.wait_for_results(30)
    assert [seen.path for seen in other.requests] == ["/v1/models"]
    place.configure({**QUICK, "vllm.base_url": other.url, "vllm.model": "another-wrong-model"})
    place.wait_for(lambda: len(other.requests) == 2, "another look at it")
    log = finish(child, place)
    told = [line for line in log.splitlines() if "what runs stays" in line]
    assert ["no-such-model" in line for line in told] == [True, False]
    assert "there is 'other-model'" in told[0]
    assert "marked unavailable" not in log


def test_a_server_that_is_not_there_yet_is_taken_when_it_is(place: Place, other: FakeLLM) -> None:
    """The configuration may come before the server it names: said once, and looked at again."""
    other.down()
    child = start(place)
    place.configure({**QUICK, "vllm.base_url": other.url, "vllm.model": "other-model"})
    place.wait_for_results(20)
    other.up()
    place.wait_for(lambda: len(other.chats()) > 4, "documents at the other server")
    log = finish(child, place)
    assert log.count("what runs stays") == 1


def test_a_new_server_that_hangs_does_not_hold_back_a_recovery(place: Place) -> None:
    """While it loads its model for ever, the one that runs goes away, and is found again."""
    ollama = {**QUICK, "provider": "ollama", "ollama.model": "llama3.1"}
    with FakeLLM(("llama3.1",), load_s=3600) as hanging:
        child = start(place, {**ollama, "ollama.base_url": place.server.url})
        place.configure({**ollama, "ollama.base_url": hanging.url})
        place.wait_for(lambda: len(hanging.chats()) == 1, "the load of the other model")
        place.server.kill(1.5)
        log = finish(child, place)
    assert "server is back" in log


def test_a_server_gets_one_canary_a_run(place: Place) -> None:
    """Other looks at it, after an outage or for a changed configuration, leave it out."""
    child = start(place)
    place.server.kill(1.0)
    place.wait_for_results(20)
    place.configure({**QUICK, "vllm.timeout": 19})
    place.wait_for_results(40)
    log = finish(child, place)
    assert "server is back" in log
    assert "configuration taken over" in log
    assert sum("harbour" in str(seen.body) for seen in place.server.chats()) == 1


def test_a_key_in_a_file_is_read_again_at_each_look(place: Place) -> None:
    """Before anybody refuses the old one, and though the configuration is the same."""
    key = place.folder / "key"
    write_whole(key, "old")
    child = start(place, {"vllm.api_key_file": "key"})
    write_whole(key, "new")
    sent: set[str] = set()

    def is_sent() -> bool:
        sent.update(seen.headers["authorization"] for seen in place.server.chats())
        return "Bearer new" in sent

    place.wait_for(is_sent, "a request with the new key")
    log = finish(child, place)
    assert sent == {"Bearer old", "Bearer new"}
    assert "provider switched" not in log


def test_settings_that_concern_no_server_are_no_switch(place: Place) -> None:
    """What is taken over is said by its key; what a run cannot take over as well, and nothing else."""
    child = start(place)
    place.configure({**QUICK, "vllm.timeout": 19, "runner.concurrency": 3, "runner.fail_fast": 7})
    place.wait_for_results(30)
    log = finish(child, place)
    assert log.count("configuration taken over changed=vllm.timeout") == 1
    assert "server is back" not in log
    assert log.count("runner.concurrency, runner.fail_fast cannot change in a run: left for the next one") == 1
    assert "provider switched" not in log


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"agent": "extractor"}, "agent cannot change in a run"),
        ({"variant": "terse"}, "variant cannot change in a run"),
        ({"agents_dir": "other-agents"}, "agents_dir cannot change in a run"),
        ({"input.uri": "other-inbox"}, "input.uri cannot change in a run"),
        ({"output.uri": "elsewhere"}, "output.uri cannot change in a run"),
        ({"vllm.max_tokens": 77}, "vllm.max_tokens cannot change in a run"),
    ],
)
def test_what_may_not_change_in_a_run_is_said_once(place: Place, settings: dict[str, object], said: str) -> None:
    """All records are those of one question to one agent, whatever the file says meanwhile."""
    place.server.latency_s = 0.1
    place.documents(60)
    variants = {"variants": {"terse": {"system_prompt": "Be brief.\n"}}}
    place.configure(QUICK, agent=variants)
    child = place.start("run")
    place.wait_for_results(4)
    place.configure({**QUICK, **settings}, agent=variants)
    place.wait_for_results(20)
    log = finish(child, place)
    assert log.count(said) == 1
    assert "provider switched" not in log
    lines = place.lines("results.jsonl")
    assert {(line["agent"], line["variant"]) for line in lines} == {("small", "default")}
    assert len({line["fingerprint"] for line in lines}) == 1


def test_input_and_output_cannot_change_in_a_run(place: Place) -> None:
    """Both are said, and left for the next run."""
    child = start(place)
    place.configure({**QUICK, "output.uri": "elsewhere", "input.uri": "other-inbox"})
    place.wait_for_results(20)
    log = finish(child, place)
    assert "output.uri cannot change in a run" in log
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
    assert f"done again  {earlier:>17,}" in place.run("--dry-run").out


LONGER = {**AGENT["schema"], "properties": {"summary": {"type": "string", "minLength": 3}}}
WEIGHTS = {"variants": {"a": {"weight": 1, "temperature": 0.5}, "b": {"weight": 1}}}


@pytest.mark.parametrize(
    ("agent", "settings", "variants"),
    [
        ({"schema": LONGER}, {}, {"default"}),
        (WEIGHTS, {}, {"default", "a", "b"}),
        ({}, {"vllm.temperature": 0.5}, {"default"}),
    ],
)
def test_refresh_all_takes_all_of_the_question(
    place: Place, agent: dict[str, Any], settings: dict[str, object], variants: set[str]
) -> None:
    """Another schema, other weights, another temperature: from the next document on."""
    settings = {**QUICK, "runner.refresh": "all", **settings}
    child = start(place, {"runner.refresh": "all"})
    place.configure(settings, agent=agent)
    place.wait_for_results(30)
    log = finish(child, place)
    lines = place.lines("results.jsonl")
    assert {line["variant"] for line in lines} == variants
    assert len({line["fingerprint"] for line in lines}) == max(2, len(variants))
    assert ("variant=a,b" in log) == (agent == WEIGHTS)
    assert "cannot change" not in log


def test_refresh_all_takes_another_variant(place: Place) -> None:
    """The one that the configuration names now."""
    two = {"variants": {"terse": {"system_prompt": "Be brief.\n"}}}
    place.server.latency_s = 0.1
    place.documents(60)
    place.configure({**QUICK, "runner.refresh": "all"}, agent=two)
    child = place.start("run")
    place.wait_for_results(4)
    place.configure({**QUICK, "runner.refresh": "all", "variant": "terse"}, agent=two)
    log = finish(child, place)
    assert "variant=terse" in log
    assert {line["variant"] for line in place.lines("results.jsonl")} == {"default", "terse"}


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


class Looks:
    """A clock that moves 25 s at each look and ends the run after ten minutes; and when it was refreshed by it."""

    def __init__(self) -> None:
        self.stop, self.now_s, self.refreshed_at_s = threading.Event(), 0.0, list[float]()

    def __call__(self) -> float:
        """The time."""
        self.now_s += 25
        if self.now_s > 600:
            self.stop.set()
        return self.now_s

    def refresh(self, *, start: object) -> None:
        """What a supervisor does."""
        assert callable(start)
        self.refreshed_at_s.append(self.now_s)
        if len(self.refreshed_at_s) == 3:
            self.stop.set()


NOBODY = cast("Any", None)


def runner_of(plan: object, *, supervisor: object = None, looks: Looks | None = None) -> Runner:
    """A runner that is not started, with nothing but these parts."""
    clock, config = looks or Looks(), RunnerConfig()
    supervised = cast("Any", supervisor)
    job = Job(
        lambda: iter(()),
        NOBODY,
        NOBODY,
        config=config,
        limit=Fixed(4),
        supervisor=supervised,
        watcher=NOBODY,
        output=NOBODY,
    )
    return Runner(job, cast("Any", plan), stop=clock.stop, clock=clock)


@pytest.mark.parametrize(("waits", "pauses_s"), [(False, [75, 75]), (True, [25, 25])])
def test_the_configuration_is_looked_at_by_the_clock(waits: bool, pauses_s: list[float]) -> None:
    """Once a minute, however few documents come back, and at each probe while no server can be asked."""
    looks = Looks()
    runner = runner_of(None, supervisor=looks, looks=looks)
    runner._patience.since = 0.0 if waits else None
    runner._refresh()
    times = looks.refreshed_at_s
    assert [after - before - 25 for before, after in itertools.pairwise(times)] == pauses_s


class Closing:
    """A plan and its client, which counts how often it was closed."""

    def __init__(self) -> None:
        self.client, self.closes = self, 0

    def close(self) -> None:
        """What a client does when it is left."""
        self.closes += 1


def test_a_client_is_closed_when_its_last_document_is_done_and_not_before() -> None:
    """Two were under way at the switch; the client that is asked now stays open."""
    old, new = Closing(), Closing()
    runner, plans = runner_of(old), cast("Any", (old, new))
    entries = [Entry(name, name, None, 1, "text", bytes) for name in ("a", "b", "c")]
    for entry in entries[:2]:
        runner.flight.sent(entry, plans[0])
    runner._switch(plans[1])
    runner.flight.sent(entries[2], plans[1])
    seen = [old.closes]
    for entry, plan in zip(entries, (plans[0], plans[0], plans[1]), strict=True):
        runner._handle(Landed(Finished(entry, Left(entry.id)), plan))
        seen.append(old.closes)
    assert (seen, new.closes) == ([0, 0, 1, 1], 0)


def test_a_named_provider_keeps_its_part_of_the_question() -> None:
    """Where and whom is taken over, how much and how warm is not; a provider that is new is taken whole."""

    def of(refresh: str, **providers: VLLMConfig) -> AppConfig:
        return AppConfig(providers=providers, runner=RunnerConfig(refresh=cast("Any", refresh)))

    old = VLLMConfig(base_url="http://a", model="m", max_tokens=100, temperature=0.5, extra_body={"seed": 1})
    new = VLLMConfig(base_url="http://b", model="n", max_tokens=200, temperature=0.1, extra_body={"seed": 2})
    kept = replace(old, base_url="http://b", model="n")
    assert allowed(of("provider", big=new, more=new), of("provider", big=old)).providers == {"big": kept, "more": new}
    assert allowed(of("all", big=new), of("all", big=old)).providers == {"big": new}
    other = replace(of("all"), runner=RunnerConfig(refresh="all", max_reasks=3, concurrency=9, grace_s=1.0))
    assert allowed(other, of("provider")).runner == RunnerConfig(refresh="all", max_reasks=3)
    assert list(differences(of("all", big=new), of("all", big=kept))) == [
        *("providers.big.max_tokens", "providers.big.temperature", "providers.big.extra_body")
    ]
