"""Windows and documents that must be sent alone never wait for each other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from pipeline.llm.provider import LOSSES_BEFORE_ALONE
from pipeline.long.windows import Span
from pipeline.run.in_flight import Backlog
from pipeline.run.windows.cutting import Window
from pipeline.run.windows.long_documents import LongDocuments
from pipeline.run.windows.open_documents import OpenDocument


def test_suspect_document_and_window_do_not_deadlock() -> None:
    """The document is sent first."""
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
