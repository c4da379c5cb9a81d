"""Which configuration changes a run applies while it is running, and which it refuses."""

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
from pipeline.config.changes import differences, with_fixed_settings
from pipeline.records import Entry, Left
from pipeline.run.concurrency import FixedLimit
from pipeline.run.document.process import FinishedEntry
from pipeline.run.in_flight import DocumentOutcome
from pipeline.run.job import Job
from pipeline.run.runner import Runner

QUICK = {"runner.refresh_every": 2, "runner.concurrency": 2}


@pytest.fixture
def other() -> Iterator[FakeLLM]:
    """Yield a second server with another model."""
    with FakeLLM(("other-model",), latency_s=0.05) as running:
        yield running


def start(place: Place, settings: dict[str, object] | None = None) -> Child:
    """Start a run over 60 documents and wait for the first results."""
    place.documents(60)
    place.server.latency_s = 0.1
    place.configure({**QUICK, **(settings or {})})
    child = place.start("run")
    place.wait_for_results(4)
    return child


def finish(child: Child, place: Place) -> str:
    """Return the log of the run, which must end with 0 and every document done once."""
    place.server.latency_s = 0.01
    ran = child.end()
    assert ran.code == 0, ran.err
    assert set(place.done().values()) == {1}
    assert len(place.done()) == 60
    return ran.err


def test_new_server_and_model_apply_to_the_next_documents(place: Place, other: FakeLLM) -> None:
    """The switch is logged with the old and new provider and model."""
    child = start(place)
    place.configure({**QUICK, "vllm.base_url": other.url, "vllm.model": "other-model"})
    place.wait_for(lambda: len(other.chats()) > 4, "documents at the other server")
    log = finish(child, place)
    (line,) = [line for line in log.splitlines() if "provider switched" in line]
    assert " INFO " in line
    assert "old_provider=vllm new_provider=vllm old_model=llama3.1 new_model=other-model" in line
    assert f"endpoint={other.url} variant=default" in line
    assert {line["model"]["name"] for line in place.lines("results.jsonl")} == {"llama3.1", "other-model"}


def test_new_provider_applies_to_the_next_documents(place: Place, other: FakeLLM) -> None:
    """The run switches from vLLM to Ollama."""
    child = start(place)
    place.configure({**QUICK, "provider": "ollama", "ollama.base_url": other.url, "ollama.model": "other-model"})
    place.wait_for(lambda: len(other.chats()) > 4, "documents at the other provider")
    log = finish(child, place)
    assert "old_provider=vllm new_provider=ollama" in log
    assert {line["model"]["provider"] for line in place.lines("results.jsonl")} == {"vllm", "ollama"}


def test_document_in_flight_keeps_its_client(place: Place, other: FakeLLM) -> None:
    """Its re-ask goes to the old server; after its end all connections to that server are closed."""
    is_held = threading.Event()

    def answer(prompt: str, _schema: object) -> str:
        if "[[doc:d002.txt]]" not in prompt:
            return '{"summary": "x"}'
        is_held.wait(60)
        return '{"summary": "x"}' if "previous_answer" in prompt else '{"summary": 7}'

    place.server.answer = answer
    child = start(place)
    place.configure({**QUICK, "vllm.base_url": other.url, "vllm.model": "other-model"})
    place.wait_for(lambda: len(other.chats()) > 4, "documents at the other server")
    assert place.server.connections > 0
    is_held.set()
    place.wait_for(lambda: place.server.connections == 0, "the end of the old connections")
    finish(child, place)
    (line,) = [line for line in place.lines("results.jsonl") if line["id"] == "d002.txt"]
    assert (line["model"]["name"], line["attempts"], line["reasks"]) == ("llama3.1", 2, 1)


@pytest.mark.parametrize("how", ["broken file", "dead server", "unknown model"])
def test_invalid_new_configuration_is_ignored(place: Place, how: str) -> None:
    """One warning is logged, and the run continues with the current configuration."""
    child = start(place)
    if how == "broken file":
        write_whole(place.folder / "pipeline.yaml", "vllm: {modle: x}\n")
    elif how == "dead server":
        place.configure({**QUICK, "vllm.base_url": "http://127.0.0.1:9"})
    else:
        place.configure({**QUICK, "vllm.model": "no-such-model"})
    place.wait_for_results(20)
    log = finish(child, place)
    assert len([line for line in log.splitlines() if "the run keeps the previous one" in line]) == 1
    assert "provider switched" not in log
    assert {line["model"]["name"] for line in place.lines("results.jsonl")} == {"llama3.1"}


def test_repeatedly_broken_file_is_reported_each_time(place: Place) -> None:
    """There is one warning each time the file breaks after having been valid."""
    child = start(place)
    for results in (12, 28):
        write_whole(place.folder / "pipeline.yaml", "vllm: {modle: x}\n")
        place.wait_for_results(results)
        place.configure(QUICK)
        place.wait_for_results(results + 8)
    assert finish(child, place).count("the run keeps the previous one") == 2


def test_each_error_of_a_changed_configuration_is_reported(place: Place, other: FakeLLM) -> None:
    """Successive errors are not suppressed as repetitions, so a user sees the next one at once."""
    other.api_key = "right"
    child = start(place)
    write_whole(place.folder / "pipeline.yaml", "vllm: {modle: x}\n")
    place.wait_for_results(12)
    place.configure({**QUICK, "vllm.base_url": other.url, "vllm.model": "no-such-model", "vllm.api_key": "right"})
    place.wait_for(lambda: len(other.requests) == 1, "a preflight of the other server")
    place.configure({**QUICK, "vllm.base_url": other.url, "vllm.model": "other-model", "vllm.api_key": "wrong"})
    place.wait_for(lambda: len(other.requests) == 2, "another preflight of it")
    log = finish(child, place)
    warnings = [line for line in log.splitlines() if "the run keeps the previous one" in line]
    assert [cause in line for cause, line in zip(("modle", "no-such-model", "401"), warnings, strict=True)] == [
        True
    ] * 3
    assert log.index("401") < log.index("run ends")
    assert "repeated=" not in log


def test_refused_configuration_is_checked_and_reported_once(place: Place, other: FakeLLM) -> None:
    """It is not checked again until the file changes, and the current server is not marked unavailable."""
    child = start(place)
    place.configure({**QUICK, "vllm.base_url": other.url, "vllm.model": "no-such-model"})
    place.wait_for(lambda: len(other.requests) == 1, "a preflight of the other server")
    place.wait_for_results(30)
    assert [request.path for request in other.requests] == ["/v1/models"]
    place.configure({**QUICK, "vllm.base_url": other.url, "vllm.model": "another-wrong-model"})
    place.wait_for(lambda: len(other.requests) == 2, "another preflight of it")
    log = finish(child, place)
    warnings = [line for line in log.splitlines() if "the run keeps the previous one" in line]
    assert ["no-such-model" in line for line in warnings] == [True, False]
    assert "the server has 'other-model'" in warnings[0]
    assert "marked unavailable" not in log


def test_new_server_is_used_once_it_is_reachable(place: Place, other: FakeLLM) -> None:
    """The configuration may arrive before its server: it is reported once and checked again."""
    other.down()
    child = start(place)
    place.configure({**QUICK, "vllm.base_url": other.url, "vllm.model": "other-model"})
    place.wait_for_results(20)
    other.up()
    place.wait_for(lambda: len(other.chats()) > 4, "documents at the other server")
    log = finish(child, place)
    assert log.count("the run keeps the previous one") == 1


def test_hanging_new_server_does_not_block_a_recovery(place: Place) -> None:
    """While the new server loads its model for ever, the current one fails and recovers."""
    ollama = {**QUICK, "provider": "ollama", "ollama.model": "llama3.1"}
    with FakeLLM(("llama3.1",), load_s=3600) as hanging:
        child = start(place, {**ollama, "ollama.base_url": place.server.url})
        place.configure({**ollama, "ollama.base_url": hanging.url})
        place.wait_for(lambda: len(hanging.chats()) == 1, "the load of the other model")
        place.server.kill(1.5)
        log = finish(child, place)
    assert "server is back" in log


def test_canary_is_sent_once_per_server_and_run(place: Place) -> None:
    """Later preflights, after an outage or a configuration change, omit it."""
    child = start(place)
    place.server.kill(1.0)
    place.wait_for_results(20)
    place.configure({**QUICK, "vllm.timeout": 19})
    place.wait_for_results(40)
    log = finish(child, place)
    assert "server is back" in log
    assert "configuration taken over" in log
    assert sum("harbour" in str(chat.body) for chat in place.server.chats()) == 1


def test_key_file_is_reread_at_each_refresh(place: Place) -> None:
    """The new key is used before the old one is refused, even if the configuration is unchanged."""
    key = place.folder / "key"
    write_whole(key, "old")
    child = start(place, {"vllm.api_key_file": "key"})
    write_whole(key, "new")
    sent: set[str] = set()

    def is_sent() -> bool:
        sent.update(chat.headers["authorization"] for chat in place.server.chats())
        return "Bearer new" in sent

    place.wait_for(is_sent, "a request with the new key")
    log = finish(child, place)
    assert sent == {"Bearer old", "Bearer new"}
    assert "provider switched" not in log


def test_changed_run_settings_do_not_switch_the_provider(place: Place) -> None:
    """Applied settings are logged by their key, and so are those that must wait for the next run."""
    child = start(place)
    place.configure({**QUICK, "vllm.timeout": 19, "runner.concurrency": 3, "runner.fail_fast": 7})
    place.wait_for_results(30)
    log = finish(child, place)
    assert log.count("configuration taken over changed=vllm.timeout") == 1
    assert "server is back" not in log
    assert log.count("runner.concurrency, runner.fail_fast cannot change in a run: left for the next one") == 1
    assert "provider switched" not in log


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"agent": "extractor"}, "agent cannot change in a run"),
        ({"variant": "terse"}, "variant cannot change in a run"),
        ({"agents_dir": "other-agents"}, "agents_dir cannot change in a run"),
        ({"input.uri": "other-inbox"}, "input.uri cannot change in a run"),
        ({"output.uri": "elsewhere"}, "output.uri cannot change in a run"),
        ({"vllm.max_tokens": 77}, "vllm.max_tokens cannot change in a run"),
    ],
)
def test_fixed_setting_is_reported_once(place: Place, settings: dict[str, object], message: str) -> None:
    """All records have the same agent, variant and fingerprint, whatever the file contains meanwhile."""
    place.server.latency_s = 0.1
    place.documents(60)
    variants = {"variants": {"terse": {"system_prompt": "Be brief.\n"}}}
    place.configure(QUICK, agent=variants)
    child = place.start("run")
    place.wait_for_results(4)
    place.configure({**QUICK, **settings}, agent=variants)
    place.wait_for_results(20)
    log = finish(child, place)
    assert log.count(message) == 1
    assert "provider switched" not in log
    lines = place.lines("results.jsonl")
    assert {(line["agent"], line["variant"]) for line in lines} == {("small", "default")}
    assert len({line["fingerprint"] for line in lines}) == 1


def test_input_and_output_cannot_change_in_a_run(place: Place) -> None:
    """The change is reported and left for the next run."""
    child = start(place)
    place.configure({**QUICK, "output.uri": "elsewhere", "input.uri": "other-inbox"})
    place.wait_for_results(20)
    log = finish(child, place)
    assert "output.uri cannot change in a run" in log
    assert not (place.folder / "elsewhere").exists()


def test_refresh_provider_keeps_the_prompt(place: Place) -> None:
    """With `refresh: provider` a changed agent file is reported, and all records keep the old fingerprint."""
    child = start(place)
    place.configure(QUICK, agent={"system_prompt": "Another prompt.\n"})
    place.wait_for_results(20)
    log = finish(child, place)
    assert "agent small changed in mid-run" in log
    assert len({line["fingerprint"] for line in place.lines("results.jsonl")}) == 1


def test_refresh_all_applies_a_changed_prompt(place: Place) -> None:
    """Each record has the fingerprint of its own prompt, so the next run redoes the earlier ones."""
    child = start(place, {"runner.refresh": "all"})
    place.configure({**QUICK, "runner.refresh": "all"}, agent={"system_prompt": "Another prompt.\n"})
    place.wait_for(lambda: any("Another" in str(chat.body) for chat in place.server.chats()), "the other prompt")
    finish(child, place)
    prints = [line["fingerprint"] for line in place.lines("results.jsonl")]
    assert len(set(prints)) == 2
    earlier = prints.count(prints[0])
    assert f"extracted again  {earlier:>12,}" in place.run("--dry-run").out


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
def test_refresh_all_applies_schema_weights_and_temperature(
    place: Place, agent: dict[str, Any], settings: dict[str, object], variants: set[str]
) -> None:
    """The change applies from the next document on."""
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


def test_refresh_all_applies_another_variant(place: Place) -> None:
    """Later documents use the variant that the configuration now names."""
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


def test_refresh_off_ignores_changes(place: Place, other: FakeLLM) -> None:
    """The run ends with the server it started with."""
    child = start(place, {"runner.refresh": "off"})
    place.configure({**QUICK, "runner.refresh": "off", "vllm.base_url": other.url, "vllm.model": "other-model"})
    place.wait_for_results(20)
    finish(child, place)
    assert other.chats() == []


def test_new_address_ends_an_outage(place: Place, other: FakeLLM) -> None:
    """The configuration is read while the run waits, so a moved server is found without a restart."""
    child = start(place)
    place.server.down()
    place.configure({**QUICK, "vllm.base_url": other.url, "vllm.model": "other-model"})
    log = finish(child, place)
    assert "provider switched" in log
    assert place.failed() == {}


class Looks:
    """A clock that advances 25 s per call, ends the run after ten minutes, and records each refresh."""

    def __init__(self) -> None:
        self.stop, self.now_s, self.refreshed_at_s = threading.Event(), 0.0, list[float]()

    def __call__(self) -> float:
        """Advance and return the time."""
        self.now_s += 25
        if self.now_s > 600:
            self.stop.set()
        return self.now_s

    def refresh(self, *, start: object) -> None:
        """Record a refresh, as a supervisor would perform it."""
        assert callable(start)
        self.refreshed_at_s.append(self.now_s)
        if len(self.refreshed_at_s) == 3:
            self.stop.set()


NOBODY = cast("Any", None)


def runner_of(plan: object, *, supervisor: object = None, looks: Looks | None = None) -> Runner:
    """Return a runner that is not started and has only these parts."""
    clock, config = looks or Looks(), RunnerConfig()
    supervised = cast("Any", supervisor)
    job = Job(
        lambda: iter(()),
        NOBODY,
        NOBODY,
        config=config,
        limit=FixedLimit(4),
        supervisor=supervised,
        watcher=NOBODY,
        output=NOBODY,
    )
    return Runner(job, cast("Any", plan), stop=clock.stop, clock=clock)


@pytest.mark.parametrize(("waits", "pauses_s"), [(False, [75, 75]), (True, [25, 25])])
def test_configuration_is_checked_by_the_clock(waits: bool, pauses_s: list[float]) -> None:
    """It is checked once a minute, however few documents finish, and at each probe during an outage."""
    looks = Looks()
    runner = runner_of(None, supervisor=looks, looks=looks)
    runner._outage_timer.since = 0.0 if waits else None
    runner._refresh()
    times = looks.refreshed_at_s
    assert [after - before - 25 for before, after in itertools.pairwise(times)] == pauses_s


class Closing:
    """A plan that is its own client and counts how often it was closed."""

    def __init__(self) -> None:
        self.client, self.closes = self, 0

    def close(self) -> None:
        """Count the call."""
        self.closes += 1


def test_old_client_is_closed_after_its_last_document() -> None:
    """Two documents are in flight at the switch; the new client stays open."""
    old, new = Closing(), Closing()
    runner, plans = runner_of(old), cast("Any", (old, new))
    entries = [Entry(name, name, None, 1, "text", bytes) for name in ("a", "b", "c")]
    for entry in entries[:2]:
        runner.flight.add(entry, plans[0])
    runner._switch(plans[1])
    runner.flight.add(entries[2], plans[1])
    closes = [old.closes]
    for entry, plan in zip(entries, (plans[0], plans[0], plans[1]), strict=True):
        runner._handle(DocumentOutcome(FinishedEntry(entry, Left(entry.id)), plan))
        closes.append(old.closes)
    assert (closes, new.closes) == ([0, 0, 1, 1], 0)


def test_refresh_provider_keeps_request_parameters() -> None:
    """Address and model are applied, max_tokens and temperature are not; a new provider is applied whole."""

    def of(refresh: str, **providers: VLLMConfig) -> AppConfig:
        return AppConfig(providers=providers, runner=RunnerConfig(refresh=cast("Any", refresh)))

    old = VLLMConfig(base_url="http://a", model="m", max_tokens=100, temperature=0.5, extra_body={"seed": 1})
    new = VLLMConfig(base_url="http://b", model="n", max_tokens=200, temperature=0.1, extra_body={"seed": 2})
    expected = replace(old, base_url="http://b", model="n")
    assert with_fixed_settings(of("provider", big=new, more=new), of("provider", big=old)).providers == {
        "big": expected,
        "more": new,
    }
    assert with_fixed_settings(of("all", big=new), of("all", big=old)).providers == {"big": new}
    other = replace(of("all"), runner=RunnerConfig(refresh="all", max_reasks=3, concurrency=9, grace_s=1.0))
    assert with_fixed_settings(other, of("provider")).runner == RunnerConfig(refresh="all", max_reasks=3)
    assert list(differences(of("all", big=new), of("all", big=expected))) == [
        *("providers.big.max_tokens", "providers.big.temperature", "providers.big.extra_body")
    ]
