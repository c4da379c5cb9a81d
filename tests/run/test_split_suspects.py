"""Documents and windows never wait for each other: neither those to be sent alone nor parked ones."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from pipeline.llm.provider import LOSSES_BEFORE_ALONE
from pipeline.long.windows import Span
from pipeline.records import Entry
from pipeline.run.dispatch import send_entry
from pipeline.run.in_flight import Backlog, Flight
from pipeline.run.windows.cutting import Window
from pipeline.run.windows.long_documents import LongDocuments
from pipeline.run.windows.open_documents import MOST_OPEN, MOST_PARKED, OpenDocument


def test_suspect_document_and_window_do_not_deadlock() -> None:
    """Both must be sent alone while no request is in flight; the document goes first."""
    backlog = Backlog(lambda _: "")
    backlog.postpone(cast(Any, SimpleNamespace(id="short.txt", losses=LOSSES_BEFORE_ALONE)))
    output = SimpleNamespace(is_full=False)
    runner = SimpleNamespace(backlog=backlog, in_flight=0, most_in_flight=4, job=SimpleNamespace(output=output))
    documents = LongDocuments(cast(Any, runner), clock=lambda: 0.0)
    suspect = Window(Span(0, 9), losses=LOSSES_BEFORE_ALONE)
    documents._open.open(OpenDocument(cast(Any, None), cast(Any, None), 0.0, suspects=[suspect]))
    sent: list[object] = []

    def send_entry() -> bool:
        sent.append(backlog.take(idle=True))
        return True

    assert documents.send_one(send_entry)
    assert len(sent) == 1
    assert not backlog.waits_for_idle


def test_parked_documents_are_read_again_however_many_wait() -> None:
    """More documents may end together than can be parked; each is still read again."""
    parked = MOST_PARKED + 2 * MOST_OPEN
    sent: list[str] = []
    runner = SimpleNamespace(
        backlog=Backlog(lambda _: ""),
        flight=Flight(max_bytes=1 << 20),
        plan=None,
        in_flight=0,
        most_in_flight=2 * parked,
        workforce=SimpleNamespace(ahead=0),
        run_counts=SimpleNamespace(tried=0),
        job=SimpleNamespace(output=SimpleNamespace(is_full=False), allows=lambda _: True),
        send=lambda entry, *, alone: sent.append(entry.id),  # noqa: ARG005
    )
    runner.long_documents = documents = LongDocuments(cast(Any, runner), clock=lambda: 0.0)
    for number in range(parked):
        entry = Entry(str(number), "", None, 0, "text", bytes)
        documents._open.park(entry, windows=3, size_bytes=0)
    for _ in range(parked):
        assert documents.send_one(lambda: send_entry(cast(Any, runner), cast(Any, None)))
        documents._open.free_place(cast(Any, SimpleNamespace(id=sent[-1])))
    assert sorted(map(int, sent)) == list(range(parked))
