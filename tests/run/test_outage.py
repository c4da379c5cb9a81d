"""Outages: the run waits for a missing server, detects a document that the server cannot process, and fails no other.

The run waits for a missing server, detects a document that the server cannot process, and fails no other.
"""

from __future__ import annotations

import re
import signal
import threading
import time
from datetime import datetime

import pytest
from conftest import Place, line_with
from fake_llm import FakeLLM, Fault, ReceivedRequest
from raw_server import refusing_url
from timing import Gate

LENIENT = ("--set", "runner.max_error_rate=1")


@pytest.mark.parametrize("how", ["down", "draining"])
def test_run_resumes_by_itself_after_an_outage(place: Place, server: FakeLLM, how: str) -> None:
    """The server is down for two seconds during the run: the run waits, and no document fails."""
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


def test_long_outage_ends_the_run_with_3(place: Place, server: FakeLLM) -> None:
    """After `max_outage_s` the remaining documents are left for the next run."""
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


def test_run_waits_for_a_server_that_starts_late(place: Place, server: FakeLLM) -> None:
    """It reports once which server it waits for and why, and then processes all documents."""
    names = place.documents(3)
    server.down()
    child = place.start("run")
    assert child.process.stderr is not None
    warning = next(line for line in child.process.stderr if "waiting up to" in line)
    assert f"no provider is available, waiting up to 3600 s: vllm ({server.url}): connection_error" in warning
    server.up()
    ran = child.end()
    assert ran.code == 0, ran.err
    assert "waiting up to" not in ran.err
    assert place.done() == dict.fromkeys(names, 1)


def test_dead_server_is_reported_once_with_one_limit(place: Place, server: FakeLLM) -> None:
    """The wait for the first provider is part of the outage, whose limit is `max_outage_s`."""
    place.documents(1)
    server.down()
    ran = place.call("run", "--set", "runner.startup_wait_s=0.2", "--set", "runner.max_outage_s=1")
    assert ran.code == 3, ran.err
    assert re.findall(r"(?:up to|available for) (\S+) s:", ran.err)[0] == "1"
    assert ran.err.count("waiting up to") == 1


def test_wait_before_a_fallback_names_it(place: Place, server: FakeLLM) -> None:
    """The wait for the first provider ends with the fallback, not with the run."""
    place.documents(1)
    settings = {
        "fallback": "[spare]",
        "providers.spare.type": "vllm",
        "providers.spare.base_url": server.url,
        "vllm.base_url": refusing_url(),
        "runner.startup_wait_s": "0.2",
    }
    ran = place.call("run", *(word for key, value in settings.items() for word in ("--set", f"{key}={value}")))
    assert ran.code == 0, ran.err
    assert "waiting up to 0.2 s: vllm" in ran.err
    assert "; the fallback spare is tried next" in ran.err


def test_dead_server_is_not_reported_when_no_document_waits(place: Place, server: FakeLLM) -> None:
    """A run whose documents are all done needs no server, and reports nothing about it."""
    place.documents(3)
    place.run()
    server.down()
    ran = place.run()
    assert "WARNING no provider" not in ran.err


def test_only_the_poisoned_document_fails(place: Place, server: FakeLLM) -> None:
    """It gets `max_retries` + 1 requests; all other documents are done."""
    names = place.documents(12)
    place.documents({"d005.txt": "[[fault:http_500]]"})
    place.run(*LENIENT)
    assert place.failed() == {"d005.txt": "server_error"}
    (error,) = place.lines("errors.jsonl")
    assert (error["attempts"], error["error"]) == (4, "http_500")
    assert [chat.document for chat in server.chats()].count("d005.txt") == 4
    assert sorted(place.done()) == [name for name in names if name != "d005.txt"]


def test_only_poisoned_documents_left_is_no_outage(place: Place, server: FakeLLM) -> None:
    """A tiny completion shows that the server works, so each document fails."""
    names = place.documents({f"p{n}.txt": "[[fault:http_500]]" for n in range(3)})
    place.run(*LENIENT)
    assert place.failed() == dict.fromkeys(names, "server_error")
    chats = place.sent_documents()
    assert max(chats.count(name) for name in names) <= 4


def test_document_that_kills_its_server_fails_alone(place: Place, server: FakeLLM) -> None:
    """The server dies whenever it works on that document, which is then sent alone and fails."""
    server.restart_s = 0.3
    names = place.documents(12)
    place.documents({"d004.txt": "[[fault:kill]]"})
    place.run(*LENIENT)
    assert place.failed() == {"d004.txt": "connection_error"}
    assert sorted(place.done()) == [name for name in names if name != "d004.txt"]
    assert [chat.document for chat in server.chats()].count(
        "d004.txt"
    ) <= 8  # four, each perhaps resent on a fresh connection


@pytest.mark.slow
def test_document_that_hangs_its_server_fails_alone(place: Place, server: FakeLLM) -> None:
    """The server hangs from this document on until it restarts, each time; the document fails and the run ends."""
    place.configure({"vllm.timeout": 2})
    names = place.documents(8)
    wedged_until = [0.0]

    def wedge(request: ReceivedRequest, _n: int) -> Fault | None:
        if request.document == "d003.txt" and time.monotonic() > wedged_until[0]:
            wedged_until[0] = time.monotonic() + 5
        return Fault("hang") if time.monotonic() < wedged_until[0] else None

    server.faults = wedge
    place.run(*LENIENT)
    assert place.failed() == {"d003.txt": "timeout"}
    assert sorted(place.done()) == [name for name in names if name != "d003.txt"]
    assert place.sent_documents().count("d003.txt") <= 8


def test_timeout_is_retried_once(place: Place, server: FakeLLM) -> None:
    """Two requests time out, and the document fails with `timeout`."""
    place.configure({"vllm.timeout": 2})
    place.documents({"a.txt": "[[fault:hang]]", "b.txt": "text", "c.txt": "text"})
    place.run(*LENIENT)
    assert place.failed() == {"a.txt": "timeout"}
    assert place.sent_documents().count("a.txt") == 2


@pytest.mark.parametrize("fault", ["drip_header", "drip_body", "huge", "half_body", "garbage_200", "html_200"])
def test_malformed_reply_fails_only_its_document(place: Place, server: FakeLLM, fault: str) -> None:
    """The run ends, and the other document is done."""
    place.configure({"vllm.timeout": 2, "vllm.max_retries": 1})
    place.documents({"a.txt": f"[[fault:{fault}]]", "b.txt": "text"})
    place.run(*LENIENT)
    assert list(place.failed()) == ["a.txt"]
    assert list(place.done()) == ["b.txt"]


def test_fallback_is_used_at_the_start_with_a_warning(place: Place, server: FakeLLM) -> None:
    """The first provider is unreachable, the second answers, and the fingerprint is that of the first."""
    names = place.documents(3)
    with FakeLLM(("small-one",)) as second:
        fallback = {"fallback": ["ollama"], "ollama.base_url": second.url, "ollama.model": "small-one"}
        place.configure({**fallback, "runner.startup_wait_s": 1})
        server.down()
        ran = place.run()
        asked_at = min(request.at for request in second.requests)
    assert "taking the fallback ollama" in ran.err
    assert 0.8 < asked_at - _started_at(ran.err) < 60.0
    assert {line["model"]["provider"] for line in place.lines("results.jsonl")} == {"ollama"}
    server.up()
    place.run()
    assert place.done() == dict.fromkeys(names, 1)


def _started_at(log: str) -> float:
    """Return the start time of the run from its log."""
    (line,) = [line for line in log.splitlines() if "run starts" in line]
    return datetime.fromisoformat(line.split()[0].replace("Z", "+00:00")).timestamp()


def test_run_returns_to_the_first_provider_after_its_recovery(place: Place, server: FakeLLM) -> None:
    """The run switches from the first provider to the fallback and back."""
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
            lambda: len([chat for chat in server.chats() if chat.document.endswith(".txt")]) > 4,
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


def test_fallback_gets_no_request_before_it_is_needed(place: Place, server: FakeLLM) -> None:
    """It may share the hardware, so no model is loaded in advance; a thinking model is still detected."""
    place.documents(40)
    server.latency_s = 0.1
    with FakeLLM(("small-one",), latency_s=0.05, thinking=True) as second:
        place.configure({"fallback": ["ollama"], "ollama.base_url": second.url, "ollama.model": "small-one"})
        child = place.start("run", "--concurrency", "2")
        place.wait_for_results(4)
        assert second.requests == []
        server.down()
        assert child.end().code == 0
        sent = [chat.body for chat in second.chats() if chat.document.endswith(".txt")]
    assert sent
    assert all(body["think"] is False for body in sent)
    assert place.failed() == {}


def _refuse(name: str, server: FakeLLM) -> None:
    server.faults = lambda request, _n: Fault("http_500") if request.document == name else None


def test_document_failing_at_the_first_provider_goes_to_the_fallback(place: Place, server: FakeLLM) -> None:
    """The fallback has had no preflight before; the other documents stay at the first provider."""
    place.documents(6)
    _refuse("d003.txt", server)
    with FakeLLM(("small-one",), thinking=True) as second:
        place.configure({"fallback": ["ollama"], "ollama.base_url": second.url, "ollama.model": "small-one"})
        assert place.run().code == 0
        sent = [chat for chat in second.chats() if chat.document.endswith(".txt")]
    assert place.failed() == {}
    assert [(chat.document, chat.body["think"]) for chat in sent] == [("d003.txt", False)]
    (record,) = (line for line in place.lines("results.jsonl") if line["model"]["provider"] == "ollama")
    assert (record["id"], record["attempts"]) == ("d003.txt", 5)


def test_document_failing_everywhere_has_the_history_of_all_providers(place: Place, server: FakeLLM) -> None:
    """Each provider gets `max_retries` + 1 requests."""
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


def test_poisoned_document_fails_while_the_fallback_is_away(place: Place, server: FakeLLM) -> None:
    """The first provider works, so this is no outage."""
    place.documents(6)
    _refuse("d003.txt", server)
    place.configure({"fallback": ["ollama"], "ollama.base_url": refusing_url()})
    assert place.run(*LENIENT).code == 0
    (error,) = place.lines("errors.jsonl")
    assert (error["reason"], [request["provider"] for request in error["history"]]) == ("server_error", ["vllm"] * 4)


@pytest.mark.parametrize("between", ["old", "gone", "empty"])
def test_rotated_key_file_is_read_again_during_a_run(place: Place, server: FakeLLM, between: str) -> None:
    """After a 401 the run rereads the file and continues; a missing or empty file in between does not stop it."""
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
    return sum(request.headers.get("authorization") != f"Bearer {server.api_key}" for request in server.requests[-20:])


@pytest.mark.parametrize("how", ["key", "model"])
def test_lasting_configuration_error_during_a_run_exits_with_3(place: Place, server: FakeLLM, how: str) -> None:
    """The server rejects the key, or lost the model, for longer than `config_grace_s`; no document fails."""
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


def test_configuration_error_after_an_outage_gets_its_whole_grace(place: Place, server: FakeLLM) -> None:
    """An ingress that answers 404 while its server starts does not end a run that has long waited for that server."""
    names = place.documents(20)
    place.configure({"runner.config_grace_s": 2})
    server.faults = gate = Gate(after=6)
    child = place.start("run")
    place.wait_for_results(4)
    server.down()
    gate.open()
    line_with(child, "no provider is available")
    time.sleep(2.5)  # longer than the grace
    refused: list[ReceivedRequest] = []

    def ingress(request: ReceivedRequest, _n: int) -> Fault | None:
        refused.append(request)
        return Fault("http_404_url") if len(refused) == 1 else None

    server.faults = ingress
    server.up()
    ran = child.end()
    assert ran.code == 0, ran.err
    assert refused, "nobody met the ingress"
    assert place.failed() == {}
    assert place.done() == dict.fromkeys(names, 1)


def test_404_or_401_for_one_document_fails_only_it(place: Place, server: FakeLLM) -> None:
    """A new preflight passes, so the refusal concerns only that document."""
    place.documents({"a.txt": "[[fault:http_404_url]]", "b.txt": "text", "c.txt": "[[fault:http_401]]"})
    place.run(*LENIENT)
    assert place.failed() == {"a.txt": "not_found", "c.txt": "unauthorized"}


def test_remaining_replica_does_all_documents(place: Place, server: FakeLLM) -> None:
    """Both replicas are used until one disappears; no document waits or fails."""
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


def test_hanging_replica_delays_neither_start_nor_recovery(place: Place, server: FakeLLM) -> None:
    """One replica loads its model for ever; the other is used at once, disappears, and is used again."""
    names = place.documents(30)
    server.faults = gate = Gate(after=8)
    with FakeLLM(("llama3.1",), load_s=3600) as hanging:
        place.configure({"provider": "ollama", "ollama.base_url": [hanging.url, server.url]})
        child = place.start("run")
        place.wait_for_results(8)
        assert [chat.body["messages"] for chat in hanging.chats()] == [[]]
        server.down()
        gate.open()
        back = threading.Timer(1.5, server.up)
        back.start()
        ran = child.end()
        back.join()
    assert ran.code == 0, ran.err
    assert "server is back" in ran.err
    assert place.done() == dict.fromkeys(names, 1)


def test_wrong_model_is_reported_beside_a_dead_replica(place: Place, server: FakeLLM) -> None:
    """Waiting for the dead replica would not correct the name; the message lists the models that exist."""
    place.documents(3)
    place.configure({"vllm.base_url": [refusing_url(), server.url], "vllm.model": "lama", "runner.startup_wait_s": 600})
    ran = place.run(code=2)
    assert "model 'lama' is not available; the server has 'llama3.1'" in ran.err


def test_wrong_model_is_reported_beside_a_hanging_replica(place: Place, server: FakeLLM) -> None:
    """A replica that may still pass gets a few seconds, not the time it takes to load a model."""
    place.documents(3)
    with FakeLLM(("lama",), load_s=3600) as hanging:
        urls = {"ollama.base_url": [hanging.url, server.url], "ollama.model": "lama"}
        place.configure({"provider": "ollama", **urls})
        ran = place.run(code=2)
    assert "model 'lama' is not available; the server has 'llama3.1:latest'" in ran.err


def test_wrong_model_of_the_first_provider_selects_the_fallback(place: Place, server: FakeLLM) -> None:
    """The warning lists the existing models; one replica of the fallback is dead, the other answers."""
    names = place.documents(3)
    ollama = {"ollama.base_url": [refusing_url(), server.url], "ollama.model": "llama3.1"}
    place.configure({"vllm.model": "lama", "fallback": ["ollama"], **ollama})
    ran = place.run()
    assert "the server has 'llama3.1'" in ran.err and "taking the fallback ollama" in ran.err
    assert {line["model"]["provider"] for line in place.lines("results.jsonl")} == {"ollama"}
    assert place.done() == dict.fromkeys(names, 1)


@pytest.mark.parametrize("how", ["signal", "max_duration"])
def test_run_waiting_for_its_server_can_be_stopped(place: Place, server: FakeLLM, how: str) -> None:
    """Neither a back-off nor an outage delays the end; documents in flight are left, not failed."""
    place.documents(30)
    place.configure({"vllm.retry_base_delay": 20, "vllm.retry_max_delay": 60})
    server.faults = gate = Gate(after=6)
    child = place.start("run", *(["--max-duration", "12s"] if how == "max_duration" else []))
    place.wait_for_results(4)
    server.draining = True
    gate.open()
    line_with(child, "request failed")  # the server's chats already include the requests that the gate holds
    ran = child.end(signal.SIGTERM if how == "signal" else None)
    assert ran.code == (143 if how == "signal" else 0), ran.err
    assert place.failed() == {}
    counts = place.last_run()["counts"]
    assert counts["left"] == 30 - counts["done"]
