"""A server that goes away is waited for; a document that a server cannot do is found out; nothing else fails for it."""

from __future__ import annotations

import signal
import threading
import time
from datetime import datetime

import pytest
from conftest import Place, line_with
from fake_llm import FakeLLM, Fault, Seen
from raw_server import refusing_url
from timing import Gate

LENIENT = ("--set", "runner.max_error_rate=1")


@pytest.mark.parametrize("how", ["down", "draining"])
def test_a_run_goes_on_by_itself_after_an_outage(place: Place, server: FakeLLM, how: str) -> None:
    """Two seconds without a server, in mid-run: the run waits, and no document fails for it."""
    names = place.documents(40)
    server.faults = gate = Gate(after=8)
    child = place.start("run")
    place.wait_for_results(8)
    _take_away(server, how)
    gate.open()
    back = threading.Timer(2.0, _give_back, (server, how))
    back.start()
    ran = child.end()
    back.join()
    assert ran.code == 0, ran.err
    assert place.failed() == {}
    assert place.done() == dict.fromkeys(names, 1)
    assert "marked unavailable" in ran.err


def _take_away(server: FakeLLM, how: str) -> None:
    if how == "down":
        server.down()
    else:
        server.draining = True


def _give_back(server: FakeLLM, how: str) -> None:
    if how == "down":
        server.up()
    else:
        server.draining = False


def test_a_server_that_stays_away_ends_the_run_with_3(place: Place, server: FakeLLM) -> None:
    """After `max_outage_s` the rest is left for the same command later."""
    names = place.documents(20)
    place.configure({"runner.max_outage_s": 1})
    server.faults = gate = Gate(after=6)
    child = place.start("run")
    place.wait_for_results(4)
    server.down()
    gate.open()
    ran = child.end()
    assert ran.code == 3, ran.err
    assert "no provider was available for 1 s" in ran.err
    counts = place.last_run()["counts"]
    assert counts["failed"] == 0
    assert counts["left"] == 20 - counts["done"]
    server.up()
    place.run()
    assert place.done() == dict.fromkeys(names, 1)


def test_no_server_at_the_start_is_waited_for(place: Place, server: FakeLLM) -> None:
    """A pipeline that was started a moment before its server says where it waits and why, once, and does not fail."""
    names = place.documents(3)
    server.down()
    child = place.start("run")
    assert child.process.stderr is not None
    told = next(line for line in child.process.stderr if "waiting up to" in line)
    assert f"waiting up to 10 s for provider vllm ({server.url}): connection_error" in told
    server.up()
    ran = child.end()
    assert ran.code == 0, ran.err
    assert "waiting up to" not in ran.err
    assert place.done() == dict.fromkeys(names, 1)


def test_a_poisoned_document_fails_after_its_retries_and_no_other(place: Place, server: FakeLLM) -> None:
    """`max_retries` + 1 requests for it, and the run goes on."""
    names = place.documents(12)
    place.documents({"d005.txt": "[[fault:http_500]]"})
    place.run(*LENIENT)
    assert place.failed() == {"d005.txt": "server_error"}
    (error,) = place.lines("errors.jsonl")
    assert (error["attempts"], error["error"]) == (4, "http_500")
    assert [seen.document for seen in server.chats()].count("d005.txt") == 4
    assert sorted(place.done()) == [name for name in names if name != "d005.txt"]


def test_poisoned_documents_alone_are_no_outage(place: Place, server: FakeLLM) -> None:
    """Also when only such documents are left, a tiny completion proves that the server lives."""
    names = place.documents({f"p{n}.txt": "[[fault:http_500]]" for n in range(3)})
    place.run(*LENIENT)
    assert place.failed() == dict.fromkeys(names, "server_error")
    chats = place.asked()
    assert max(chats.count(name) for name in names) <= 4


def test_a_document_that_kills_its_server_is_found_out(place: Place, server: FakeLLM) -> None:
    """The server goes away whenever it works on that document: it alone fails, after having been sent alone."""
    server.restart_s = 0.3
    names = place.documents(12)
    place.documents({"d004.txt": "[[fault:kill]]"})
    place.run(*LENIENT)
    assert place.failed() == {"d004.txt": "connection_error"}
    assert sorted(place.done()) == [name for name in names if name != "d004.txt"]
    assert [seen.document for seen in server.chats()].count(
        "d004.txt"
    ) <= 8  # four, each perhaps resent on a fresh connection


@pytest.mark.slow
def test_a_document_that_wedges_its_server_is_found_out(place: Place, server: FakeLLM) -> None:
    """The server hangs from this document on until it is restarted, each time: it fails as such, and the run ends."""
    place.configure({"vllm.timeout": 2})
    names = place.documents(8)
    wedged_until = [0.0]

    def wedge(seen: Seen, _n: int) -> Fault | None:
        if seen.document == "d003.txt" and time.monotonic() > wedged_until[0]:
            wedged_until[0] = time.monotonic() + 5
        return Fault("hang") if time.monotonic() < wedged_until[0] else None

    server.faults = wedge
    place.run(*LENIENT)
    assert place.failed() == {"d003.txt": "timeout"}
    assert sorted(place.done()) == [name for name in names if name != "d003.txt"]
    assert place.asked().count("d003.txt") <= 8


def test_a_timeout_is_tried_once_more_only(place: Place, server: FakeLLM) -> None:
    """Two requests that hang cost two timeouts, and the document fails as such."""
    place.configure({"vllm.timeout": 2})
    place.documents({"a.txt": "[[fault:hang]]", "b.txt": "text", "c.txt": "text"})
    place.run(*LENIENT)
    assert place.failed() == {"a.txt": "timeout"}
    assert place.asked().count("a.txt") == 2


@pytest.mark.parametrize("fault", ["drip_header", "drip_body", "huge", "half_body", "garbage_200", "html_200"])
def test_a_reply_that_is_none_fails_its_document(place: Place, server: FakeLLM, fault: str) -> None:
    """Whatever comes over the wire, the run ends, and the other documents are done."""
    place.configure({"vllm.timeout": 2, "vllm.max_retries": 1})
    place.documents({"a.txt": f"[[fault:{fault}]]", "b.txt": "text"})
    place.run(*LENIENT)
    assert list(place.failed()) == ["a.txt"]
    assert list(place.done()) == ["b.txt"]


def test_the_fallback_is_taken_at_the_start_with_a_warning(place: Place, server: FakeLLM) -> None:
    """The first provider is not there: the second answers, and the fingerprint stays the first one's."""
    names = place.documents(3)
    with FakeLLM(("small-one",)) as second:
        fallback = {"fallback": ["ollama"], "ollama.base_url": second.url, "ollama.model": "small-one"}
        place.configure({**fallback, "runner.startup_wait_s": 1})
        server.down()
        ran = place.run()
        asked_at = min(seen.at for seen in second.requests)
    assert "taking the fallback ollama" in ran.err
    assert 0.8 < asked_at - _started_at(ran.err) < 60.0
    assert {line["model"]["provider"] for line in place.lines("results.jsonl")} == {"ollama"}
    server.up()
    place.run()
    assert place.done() == dict.fromkeys(names, 1)


def _started_at(log: str) -> float:
    """When the run began, by its log."""
    (line,) = [line for line in log.splitlines() if "run starts" in line]
    return datetime.fromisoformat(line.split()[0].replace("Z", "+00:00")).timestamp()


def test_the_fallback_is_left_again_when_the_first_is_back(place: Place, server: FakeLLM) -> None:
    """First, fallback, first: each for its time."""
    names = place.documents(60)
    server.latency_s = 0.1
    with FakeLLM(("small-one",), latency_s=0.1) as second:
        place.configure({"fallback": ["ollama"], "ollama.base_url": second.url, "ollama.model": "small-one"})
        child = place.start("run", "--concurrency", "2")
        place.wait_for_results(4)
        server.down()
        place.wait_for(lambda: len(second.chats()) > 8, "documents at the fallback")
        server.requests.clear()
        server.up()
        place.wait_for(
            lambda: len([seen for seen in server.chats() if seen.document.endswith(".txt")]) > 4,
            "documents at the first",
        )
        ran = child.end()
    assert ran.code == 0, ran.err
    assert place.failed() == {}
    assert place.done() == dict.fromkeys(names, 1)
    assert "server is back" in ran.err
    switches = [line for line in ran.err.splitlines() if "provider switched" in line]
    assert ["new_provider=ollama" in line for line in switches] == [True, False]
    assert "new_provider=vllm" in switches[1]


def test_a_fallback_is_looked_at_when_it_is_needed_and_not_before(place: Place, server: FakeLLM) -> None:
    """It may share the hardware, so nothing is loaded there in vain; a thinking model is found out all the same."""
    place.documents(40)
    server.latency_s = 0.1
    with FakeLLM(("small-one",), latency_s=0.05, thinking=True) as second:
        place.configure({"fallback": ["ollama"], "ollama.base_url": second.url, "ollama.model": "small-one"})
        child = place.start("run", "--concurrency", "2")
        place.wait_for_results(4)
        assert second.requests == []
        server.down()
        assert child.end().code == 0
        asked = [seen.body for seen in second.chats() if seen.document.endswith(".txt")]
    assert asked
    assert all(body["think"] is False for body in asked)
    assert place.failed() == {}


def _refuse(name: str, server: FakeLLM) -> None:
    server.faults = lambda seen, _n: Fault("http_500") if seen.document == name else None


def test_a_document_that_the_first_provider_cannot_do_goes_to_the_fallback(place: Place, server: FakeLLM) -> None:
    """Nobody had looked at the fallback before; the other documents stay where they were."""
    place.documents(6)
    _refuse("d003.txt", server)
    with FakeLLM(("small-one",), thinking=True) as second:
        place.configure({"fallback": ["ollama"], "ollama.base_url": second.url, "ollama.model": "small-one"})
        assert place.run().code == 0
        asked = [seen for seen in second.chats() if seen.document.endswith(".txt")]
    assert place.failed() == {}
    assert [(seen.document, seen.body["think"]) for seen in asked] == [("d003.txt", False)]
    (one,) = (line for line in place.lines("results.jsonl") if line["model"]["provider"] == "ollama")
    assert (one["id"], one["attempts"]) == ("d003.txt", 5)


def test_a_document_that_no_provider_can_do_has_the_history_of_all(place: Place, server: FakeLLM) -> None:
    """`max_retries` + 1 requests for each of them."""
    place.documents(6)
    _refuse("d003.txt", server)
    with FakeLLM(("small-one",)) as second:
        _refuse("d003.txt", second)
        fallback = {"base_url": second.url, "model": "small-one", "retry_base_delay": 0.01, "retry_max_delay": 0.05}
        place.configure({"fallback": ["ollama"], "ollama": fallback})
        place.run(*LENIENT)
    (error,) = place.lines("errors.jsonl")
    assert (error["id"], error["reason"], error["attempts"]) == ("d003.txt", "server_error", 8)
    assert [request["provider"] for request in error["history"]] == ["vllm"] * 4 + ["ollama"] * 4


def test_a_fallback_that_is_away_does_not_keep_a_poisoned_document(place: Place, server: FakeLLM) -> None:
    """The first provider lives, so that it is no outage."""
    place.documents(6)
    _refuse("d003.txt", server)
    place.configure({"fallback": ["ollama"], "ollama.base_url": refusing_url()})
    assert place.run(*LENIENT).code == 0
    (error,) = place.lines("errors.jsonl")
    assert (error["reason"], [request["provider"] for request in error["history"]]) == ("server_error", ["vllm"] * 4)


@pytest.mark.parametrize("between", ["old", "gone", "empty"])
def test_a_key_that_is_changed_in_its_file_is_taken_in_mid_run(place: Place, server: FakeLLM, between: str) -> None:
    """The server takes another key: 401, the file is read again, the run goes on; a gap in the file stops nothing."""
    names = place.documents(30)
    key = place.folder / "key"
    key.write_text("first-key\n", encoding="utf-8")
    server.api_key = "first-key"
    server.faults = gate = Gate(after=8)
    child = place.start("run", env={"VLLM_API_KEY_FILE": str(key)})
    place.wait_for_results(8)
    if between == "gone":
        key.unlink()
    elif between == "empty":
        key.write_text("", encoding="utf-8")
    server.api_key = "second-key"
    gate.open()
    place.wait_for(lambda: _refused(server) >= 2, "requests with the old key")
    key.write_text("second-key\n", encoding="utf-8")
    ran = child.end()
    assert ran.code == 0, ran.err
    assert place.failed() == {}
    assert place.done() == dict.fromkeys(names, 1)


def _refused(server: FakeLLM) -> int:
    return sum(seen.headers.get("authorization") != f"Bearer {server.api_key}" for seen in server.requests[-20:])


@pytest.mark.parametrize("how", ["key", "model"])
def test_settings_that_stay_wrong_in_mid_run_end_it_with_3(place: Place, server: FakeLLM, how: str) -> None:
    """The server refuses our key, or has the model no more, for longer than `config_grace_s`; no document fails."""
    names = place.documents(30)
    place.configure({"runner.config_grace_s": 1})
    server.faults = gate = Gate(after=8)
    server.api_key = "a-key"
    child = place.start("run", env={"VLLM_API_KEY": "a-key"})
    place.wait_for_results(8)
    if how == "key":
        server.api_key = "another-key"
    else:
        server.faults = lambda _seen, _n: Fault("http_404_model")
    gate.open()
    ran = child.end()
    assert ran.code == 3, ran.err
    assert ("401" if how == "key" else "model") in ran.err
    assert place.failed() == {}
    server.api_key, server.faults = "a-key", None
    place.run(env={"VLLM_API_KEY": "a-key"})
    assert place.done() == dict.fromkeys(names, 1)


def test_a_dead_end_that_an_outage_turns_into_has_its_whole_grace(place: Place, server: FakeLLM) -> None:
    """An ingress that says 404 until its server is back does not end a run that has waited for it for long."""
    names = place.documents(20)
    place.configure({"runner.config_grace_s": 2})
    server.faults = gate = Gate(after=6)
    child = place.start("run")
    place.wait_for_results(4)
    server.down()
    gate.open()
    line_with(child, "no provider is available")
    time.sleep(2.5)  # longer than the grace
    refused: list[Seen] = []

    def ingress(seen: Seen, _n: int) -> Fault | None:
        refused.append(seen)
        return Fault("http_404_url") if len(refused) == 1 else None

    server.faults = ingress
    server.up()
    ran = child.end()
    assert ran.code == 0, ran.err
    assert refused, "nobody met the ingress"
    assert place.failed() == {}
    assert place.done() == dict.fromkeys(names, 1)


def test_one_document_that_the_server_refuses_as_misconfigured_fails_alone(place: Place, server: FakeLLM) -> None:
    """A 404 or 401 for one document only: a fresh preflight passes, so it is this document's."""
    place.documents({"a.txt": "[[fault:http_404_url]]", "b.txt": "text", "c.txt": "[[fault:http_401]]"})
    place.run(*LENIENT)
    assert place.failed() == {"a.txt": "not_found", "c.txt": "unauthorized"}


def test_one_of_two_replicas_goes_away(place: Place, server: FakeLLM) -> None:
    """Both are used side by side; the one that is left does the rest, and nothing waits or fails."""
    names = place.documents(40)
    server.latency_s = 0.1
    with FakeLLM(("llama3.1",), latency_s=0.1) as second:
        place.configure({"vllm.base_url": [server.url, second.url]})
        child = place.start("run")
        place.wait_for_results(10)
        assert len(second.chats()) > 2
        second.down()
        ran = child.end()
    assert ran.code == 0, ran.err
    assert place.failed() == {}
    assert place.done() == dict.fromkeys(names, 1)
    assert "no provider is available" not in ran.err


def test_a_replica_that_hangs_holds_back_neither_the_start_nor_a_recovery(place: Place, server: FakeLLM) -> None:
    """One loads its model for ever; the other is used at once, goes away, and is used again."""
    names = place.documents(30)
    server.faults = gate = Gate(after=8)
    with FakeLLM(("llama3.1",), load_s=3600) as hanging:
        place.configure({"provider": "ollama", "ollama.base_url": [hanging.url, server.url]})
        child = place.start("run")
        place.wait_for_results(8)
        assert [seen.body["messages"] for seen in hanging.chats()] == [[]]
        server.down()
        gate.open()
        back = threading.Timer(1.5, server.up)
        back.start()
        ran = child.end()
        back.join()
    assert ran.code == 0, ran.err
    assert "server is back" in ran.err
    assert place.done() == dict.fromkeys(names, 1)


def test_a_wrong_model_is_told_at_once_beside_a_replica_that_is_dead(place: Place, server: FakeLLM) -> None:
    """Waiting for the dead one would not mend the name; the models that are there are listed."""
    place.documents(3)
    place.configure({"vllm.base_url": [refusing_url(), server.url], "vllm.model": "lama", "runner.startup_wait_s": 600})
    ran = place.run(code=2)
    assert "model 'lama' is not there; there is 'llama3.1'" in ran.err


def test_a_wrong_model_is_told_soon_beside_a_replica_that_hangs(place: Place, server: FakeLLM) -> None:
    """A sibling that may still pass is given seconds, not the time it takes to load a model."""
    place.documents(3)
    with FakeLLM(("lama",), load_s=3600) as hanging:
        urls = {"ollama.base_url": [hanging.url, server.url], "ollama.model": "lama"}
        place.configure({"provider": "ollama", **urls})
        ran = place.run(code=2)
    assert "model 'lama' is not there; there is 'llama3.1:latest'" in ran.err


def test_a_wrong_model_of_the_first_provider_means_the_fallback(place: Place, server: FakeLLM) -> None:
    """Said with the models that are there; one replica of the fallback is dead, the other answers."""
    names = place.documents(3)
    ollama = {"ollama.base_url": [refusing_url(), server.url], "ollama.model": "llama3.1"}
    place.configure({"vllm.model": "lama", "fallback": ["ollama"], **ollama})
    ran = place.run()
    assert "there is 'llama3.1'" in ran.err and "taking the fallback ollama" in ran.err
    assert {line["model"]["provider"] for line in place.lines("results.jsonl")} == {"ollama"}
    assert place.done() == dict.fromkeys(names, 1)


@pytest.mark.parametrize("how", ["signal", "max_duration"])
def test_a_run_that_waits_for_its_server_can_be_ended(place: Place, server: FakeLLM, how: str) -> None:
    """A back-off or an outage does not hold the end; what was in flight is left, not failed."""
    place.documents(30)
    place.configure({"vllm.retry_base_delay": 20, "vllm.retry_max_delay": 60})
    server.faults = gate = Gate(after=6)
    child = place.start("run", *(["--max-duration", "12s"] if how == "max_duration" else []))
    place.wait_for_results(4)
    server.draining = True
    gate.open()
    line_with(child, "request failed")  # those that the gate held count among the server's chats already
    ran = child.end(signal.SIGTERM if how == "signal" else None)
    assert ran.code == (143 if how == "signal" else 0), ran.err
    assert place.failed() == {}
    counts = place.last_run()["counts"]
    assert counts["left"] == 30 - counts["done"]
