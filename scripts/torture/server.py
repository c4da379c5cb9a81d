"""The server of a torture run: it answers with the document's own id, counts requests by run, and has outages.

It must not judge an output: it records the requests, and those for documents that were finished before.
"""

from __future__ import annotations

import json
import random
import re
import threading
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from fake_llm import FakeLLM, ReceivedRequest
from fake_llm.chat import document_of
from fake_llm.schema import answer_for
from s3_faults import FaultProxy

from torture.corpus import LONG, SECRET_PHRASE, Corpus
from torture.windows import Window, window_of

RUN_HEADER = "x-torture-run"
MODEL = "torture-model"
RESTART_S = 0.3
MARKS = re.compile(r"\[\[doc:([^\]]+)\]\]\[\[rev:(\d+)\]\]")
QUOTE = re.compile(rf"On that day {SECRET_PHRASE} \d+ ships for \S+ in revision \d+")
SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "document": {"type": "string", "minLength": 1, "maxLength": 200},
        "revision": {"type": "integer", "minimum": 0, "maximum": 100000},
        "quote": {"type": "string", "maxLength": 300, "x-quote": True},
        "summary": {"type": "string", "maxLength": 600},
    },
    "required": ["document", "revision", "summary"],
    "additionalProperties": False,
}


def answer(prompt: str, schema: Mapping[str, Any] | None) -> str:
    """Return an answer that fits only this document; a text without marks gets any valid answer.

    Half of the answers have no quote: they would be valid for any document, so that a swapped one becomes a record.
    """
    marks = MARKS.search(prompt)
    quote = QUOTE.search(prompt)
    if not marks or not quote:
        return answer_for(prompt, schema) if schema else "ok"
    summary = (
        f"A summary of {marks[1]} that is longer than any quotation, so that what breaks the longest text breaks it. "
    )
    value: dict[str, Any] = {"document": marks[1], "revision": int(marks[2])}
    if quotes(marks[1]):
        value["quote"] = quote[0]
    return json.dumps({**value, "summary": summary + "." * 200})


def quotes(name: str) -> bool:
    """Return whether the answer to a document holds a quotation."""
    return bool(zlib.crc32(name.encode()) % 2)


class RequestLedger(list[ReceivedRequest]):
    """Counts of requests by run and document, in place of the server's list of requests."""

    def __init__(self, corpus: Corpus) -> None:
        super().__init__()
        self.corpus = corpus
        self.requests_by_run: dict[str, Counter[str]] = {}
        self.faults: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.repeated: list[tuple[str, str]] = []
        self.finished: Set[str] = frozenset()
        self.answered_windows: Set[Window] = frozenset()
        self.windows = 0
        self.repeated_windows: list[tuple[str, str]] = []
        self.total = 0

    def append(self, request: ReceivedRequest) -> None:
        """Count one request; the server calls it under its lock."""
        doc = self.corpus.docs.get(request.document)
        if doc is None or not request.n:
            return
        run = request.headers.get(RUN_HEADER, "?")
        self.total += 1
        self.requests_by_run.setdefault(run, Counter())[doc.id] += 1
        if doc.id in self.finished:
            self.repeated.append((run, doc.id))
        window = window_of(doc.id, document_of(request.body)[1]) if doc.case is LONG else None
        self.windows += window is not None
        if window in self.answered_windows:
            self.repeated_windows.append((run, doc.id))
        times = doc.case.times
        if doc.case.name and (times is None or request.n <= times):
            self.faults[doc.case.name] += 1
            self.events[run] += doc.case.name == "kill"


class Trouble:
    """Outages of the server, drains and refused keys, in a thread of their own, for the block of a `with`.

    With the `proxies` of stores, a store fails instead at times, for which no request to the server may be lost.
    """

    def __init__(
        self,
        server: FakeLLM,
        ledger: RequestLedger,
        *,
        run: str,
        rng: random.Random,
        times: int,
        proxies: Sequence[FaultProxy] = (),
    ) -> None:
        self._server = server
        self._ledger = ledger
        self._run = run
        kinds = TROUBLES + tuple(STORE_FAULTS) if proxies else TROUBLES
        self._plan = [(rng.uniform(0.2, 2.5), rng.choice(kinds), rng.uniform(0.1, 2.5)) for _ in range(times)]
        self._proxy = rng.choice(proxies) if proxies else None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self.happened: Counter[str] = Counter()

    def __enter__(self) -> Trouble:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the thread; the server is available again afterwards."""
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        for pause_s, name, lasts_s in self._plan:
            if self._stop.wait(pause_s):
                return
            self.happened[name] += 1
            with self._trouble(name):
                self._stop.wait(lasts_s)

    def _trouble(self, name: str) -> AbstractContextManager[None]:
        if self._proxy is not None and name in STORE_FAULTS:
            return store_fails(self._proxy, STORE_FAULTS[name])
        self._ledger.events[self._run] += 1
        return _TROUBLE[name](self._server)


@contextmanager
def _cut_off(server: FakeLLM) -> Iterator[None]:
    server.down()
    yield
    server.up()


@contextmanager
def _draining(server: FakeLLM) -> Iterator[None]:
    server.draining = True
    yield
    server.draining = False


@contextmanager
def _other_key(server: FakeLLM) -> Iterator[None]:
    key, server.api_key = server.api_key, "another-key"
    yield
    server.api_key = key


_TROUBLE = {"server cuts": _cut_off, "server drains": _draining, "keys refused": _other_key}
TROUBLES = ("server cuts",) * 3 + ("server drains", "keys refused")
STORE_FAULTS: Mapping[str, str] = {
    "store tokens expired": "expired_token",
    "store access denied": "forbidden",
    "store slowed down": "slow_down",
    "store bodies cut": "cut_body",
    "store errors": "internal_error",
    "store resets": "reset",
    "store replies lost": "lost_reply",
}
"""Faults by their name in the table → the name that the proxy uses."""


@contextmanager
def store_fails(proxy: FaultProxy, fault: str) -> Iterator[None]:
    """Let each request to the store meet a fault until the block ends."""
    proxy.fault = fault
    yield
    proxy.fault = None


def make_server(ledger: RequestLedger, *, key: str, dialect: str, latency_s: float) -> FakeLLM:
    """Return the server before it listens."""
    server = FakeLLM(
        (MODEL,),
        api_key=key,
        answer=answer,
        latency_s=latency_s,
        dialects=(dialect,),
        restart_s=RESTART_S,
    )
    server.requests = ledger
    return server
