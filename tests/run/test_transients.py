"""A server in trouble may answer with a 4xx: no document fails for it, and a document's own 4xx is still detected."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from conftest import Place
from fake_llm import FakeLLM, Fault, ReceivedRequest

BROKEN_S = 3.0
LENIENT = ("--set", "runner.max_error_rate=1", "--set", "runner.fail_fast=0")
KINDS = [
    "http_400",
    "http_400_crash",
    "http_400_loading",
    "http_400_budget",
    "http_402",
    "http_403",
    "http_404_url",
    "http_408",
    "http_409",
    "http_413",
    "http_422",
    "http_423",
    "http_424",
    "http_425",
    "http_429",
    "http_460",
    "http_499",
    "http_503",
]


class Breakage:
    """A fault function: from the `start`-th document on, every chat fails for some seconds."""

    def __init__(self, kind: str, *, start: int, seconds: float = BROKEN_S) -> None:
        self._fault, self._start, self._seconds = Fault(kind), start, seconds
        self._documents = 0
        self._ends_at = float("inf")
        self.struck: Counter[str] = Counter()

    def __call__(self, request: ReceivedRequest, n: int) -> Fault | None:
        """Return the fault while the server is broken."""
        self._documents += request.document.endswith(".txt")
        if self._documents < self._start:
            return None
        if self._ends_at == float("inf"):
            self._ends_at = time.monotonic() + self._seconds
        if time.monotonic() >= self._ends_at:
            return None
        self.struck[request.document] += 1
        return self._fault


OFTEN = ("http_400_crash", "http_409", "http_424", "http_503")
"""The kinds that every change is tested with; the others take the long tests."""


@pytest.mark.parametrize(
    "kind", [kind if kind in OFTEN else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_server_broken_for_seconds_fails_no_document(place: Place, server: FakeLLM, kind: str) -> None:
    """For 3 s every request gets the same reply: all 250 documents are still done."""
    names = place.documents(250)
    server.latency_s = 0.03
    server.faults = breakage = Breakage(kind, start=60)
    place.run("--concurrency", "8")
    assert breakage.struck, "nobody met the fault"
    assert place.failed() == {}
    assert place.done() == dict.fromkeys(names, 1)


@pytest.mark.parametrize("kind", ["http_400", "http_413", "http_422", "http_404_url", "http_403"])
def test_refused_document_gets_exactly_two_requests(place: Place, server: FakeLLM, kind: str) -> None:
    """Three documents among good ones are always refused, and each fails after two requests."""
    names = place.documents(40)
    bad = [names[5], names[6], names[30]]
    server.latency_s = 0.02
    server.faults = lambda request, _n: Fault(kind) if request.document in bad else None
    place.run(*LENIENT)
    reasons = {"http_413": "document_too_large", "http_404_url": "not_found", "http_403": "unauthorized"}
    assert place.failed() == dict.fromkeys(bad, reasons.get(kind, "rejected"))
    sent = Counter(place.sent_documents())
    assert [sent[name] for name in bad] == [2, 2, 2]
    assert sum(sent.values()) == 40 + 3
    for line in place.lines("errors.jsonl"):
        assert (line["attempts"], len(line["history"])) == (2, 2)


@pytest.mark.parametrize("concurrency", ["1", "4"])
def test_refusal_of_all_documents_fails_them(place: Place, server: FakeLLM, concurrency: str) -> None:
    """The tiny completions succeed: each document fails on its second request, and the failure guard ends the run."""
    place.documents(8)
    server.faults = lambda request, _n: Fault("http_422") if request.document.endswith(".txt") else None
    place.run("--concurrency", concurrency, code=1)
    assert set(place.failed().values()) == {"rejected"}
    assert len(place.failed()) == 8
    assert set(Counter(place.sent_documents()).values()) == {2}


def test_refused_document_in_an_outage_gets_at_most_two_requests(place: Place, server: FakeLLM) -> None:
    """Its first 4xx may come from the broken server; the second one is its own."""
    names = place.documents(60)
    bad = names[20:26]
    server.latency_s = 0.03
    breakage = Breakage("http_400", start=20, seconds=1.5)
    server.faults = lambda request, n: breakage(request, n) or (Fault("http_400") if request.document in bad else None)
    place.run(*LENIENT, "--concurrency", "4")
    assert place.failed() == dict.fromkeys(bad, "rejected")
    assert sorted(place.done()) == [name for name in names if name not in bad]
    assert max(Counter(place.sent_documents()).values()) == 2


def test_fallback_answers_while_the_first_provider_refuses_all(place: Place, server: FakeLLM) -> None:
    """The same 400 for every request is an outage, so the fallback takes the documents."""
    names = place.documents(60)
    server.latency_s = 0.03
    server.faults = breakage = Breakage("http_400", start=20, seconds=2.0)
    with FakeLLM(("small-one",), latency_s=0.03) as second:
        place.configure({"fallback": ["ollama"], "ollama.base_url": second.url, "ollama.model": "small-one"})
        place.run("--concurrency", "4")
        assert len({chat.document for chat in second.chats() if chat.document.endswith(".txt")}) > 5
    assert breakage.struck
    assert place.failed() == {}
    assert place.done() == dict.fromkeys(names, 1)


def test_server_that_refuses_all_requests_exits_with_3(place: Place, server: FakeLLM) -> None:
    """No document fails; the remaining ones are left for the next run."""
    place.documents(30)
    place.configure({"runner.max_outage_s": 2})
    server.latency_s = 0.03
    server.faults = Breakage("http_400", start=10, seconds=600)
    place.run(code=3)
    assert place.failed() == {}
    counts = place.last_run()["counts"]
    assert counts["left"] == 30 - counts["done"] > 0


@pytest.mark.parametrize("kind", ["http_402", "http_400_budget"])
def test_exceeded_budget_at_a_first_start_exits_with_2(place: Place, server: FakeLLM, kind: str) -> None:
    """Waiting would not help, so the run reports it within seconds."""
    place.documents(3)
    place.configure({"runner.startup_wait_s": 600})
    server.faults = Breakage(kind, start=0, seconds=600)
    ran = place.run(code=2)
    assert ("payment" if kind == "http_402" else "Budget") in ran.err
    assert place.failed() == {}


def test_request_counts_equal_those_of_the_server(place: Place, server: FakeLLM) -> None:
    """Records and report include requests lost in an outage and errors of documents that succeeded later."""
    names = place.documents({f"d{n:03}.txt": "[[fault:http_500*1]]" if n % 10 == 0 else "Plain." for n in range(60)})
    server.latency_s = 0.03
    server.faults = Breakage("http_424", start=20, seconds=1.5)
    place.run("--concurrency", "4")
    assert place.done() == dict.fromkeys(names, 1)
    sent = Counter(place.sent_documents())
    results = {line["id"]: line for line in place.lines("results.jsonl")}
    assert {name: line["attempts"] for name, line in results.items()} == sent
    assert all(len(line["history"]) == line["attempts"] - 1 for line in results.values())
    retried = next(line for line in results.values() if line["id"] == "d000.txt")
    assert [(step["provider"], step["error"]) for step in retried["history"]] == [("vllm", "http_500")]
    stats = place.report()["run"]["stats"]
    assert stats["total"]["attempts"] == stats["providers"]["vllm"]["attempts"] == sum(sent.values())
    assert sum(stats["providers"]["vllm"]["errors"].values()) == sum(sent.values()) - 60
