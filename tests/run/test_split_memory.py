"""The memory of long documents: answers are on disk until their document is merged, one document at a time."""

from __future__ import annotations

import gc
import weakref
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any, cast

import pytest
from conftest import Place
from fake_llm import FakeLLM
from fake_llm.planted import PART, planted, reader
from test_split import expected, items, narrow, parts, prepared, run

from pipeline.errors import InternalError
from pipeline.long.windows import Span
from pipeline.records import Entry
from pipeline.run.windows.cutting import Window
from pipeline.run.windows.open_documents import MOST_OPEN_BYTES, OpenDocument, OpenDocuments
from pipeline.run.windows.stored_answers import StoredAnswers
from pipeline.run.workers.workforce import Workforce
from pipeline.window_answers import WindowAnswer

__all__ = ["narrow", "parts"]


def test_answers_are_not_in_memory_while_other_windows_are_sent(
    place: Place, narrow: FakeLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With many windows answered, only the answers that have just arrived are objects."""
    documents = {f"{seed}.txt": planted(seed=seed, payments=8, chars=40_000) for seed in (1, 2)}
    place.documents({name: document.text for name, document in documents.items()})
    in_memory: list[int] = []

    def answer(prompt: str, schema: Any) -> str:
        if PART in prompt:
            in_memory.append(sum(type(result) is WindowAnswer for result in gc.get_objects()))
        return reader(prompt, schema)

    narrow.answer = answer
    prepared(place, narrow, settings={"runner.concurrency": 2})
    assert run(place, monkeypatch) == 0, place.lines("errors.jsonl")
    assert len(in_memory) >= 20
    assert max(in_memory) <= 4
    for record in place.lines("results.jsonl"):
        assert items(record) == expected(documents[record["id"]])


def test_a_missing_answer_is_no_blank_window() -> None:
    """A window with text whose answer is not stored ends the run instead of leaving a hole in the record."""
    document = SimpleNamespace(id="a.pdf", sha256="s", text="text" + " " * 9)
    long = cast(Any, SimpleNamespace(document=document, text_sha256="t", split=SimpleNamespace(question="q")))
    stored = StoredAnswers(cast(Any, SimpleNamespace(answered=lambda *_, **__: [])))
    assert [answer.output for answer in stored.answers_about(long, {Span(4, 13)})] == [None]
    with pytest.raises(InternalError, match="the answer about characters 0 to 4 is missing"):
        stored.answers_about(long, {Span(0, 4), Span(4, 13)})


def test_a_waiting_worker_thread_keeps_no_outcome() -> None:
    """A merged document is large, and a thread may wait for its next task for as long as the run takes."""

    class Outcome:
        """Anything that can be referred to weakly."""

    events: SimpleQueue[object] = SimpleQueue()
    threads: list[Any] = []
    job = cast(Any, SimpleNamespace(config=SimpleNamespace(processes=1), copies=None, earlier=None))
    workforce = Workforce(job, start=lambda body, _: threads.append(body), report=events.put)
    waiting: SimpleQueue[str] = SimpleQueue()
    workforce.submit(Outcome)
    outcome = None

    def last() -> None:
        nonlocal outcome
        outcome = weakref.ref(cast(Any, events.get()))
        waiting.put("alive" if outcome() is not None else "released")
        raise SystemExit

    workforce.submit(last)
    with pytest.raises(SystemExit):
        threads[0]()
    assert waiting.get() == "released"


def test_large_texts_wait_while_there_are_windows_enough() -> None:
    """Sixteen documents of 8 MB would take 128 MB; a parked one that is read again counts, too."""
    documents = OpenDocuments()

    def opened(windows: int) -> OpenDocument:
        long = cast(Any, SimpleNamespace(size_bytes=MOST_OPEN_BYTES // 2))
        return OpenDocument(long, cast(Any, None), 0.0, waiting=[Window(Span(at, at + 1)) for at in range(windows)])

    assert documents.may_open(4)
    documents.open(opened(3))
    assert documents.may_open(4)
    documents.open(opened(3))
    assert not documents.may_open(4)
    assert documents.may_open(7)
    entry = Entry("parked", "", None, 1, "text", bytes)
    documents.park(entry, windows=9, size_bytes=MOST_OPEN_BYTES // 2)
    assert documents.unpark(4) is None
    documents.close(documents._open[0])
    unparked = documents.unpark(4)
    assert unparked is not None
    assert not documents.may_open(4)
    assert documents.free_place(unparked)
    assert documents.may_open(4)
