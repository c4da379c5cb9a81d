"""A document of a thousand windows and short documents take turns: neither delays the other, and no slot is idle."""

from __future__ import annotations

from collections import Counter, deque
from types import SimpleNamespace
from typing import Any, cast

import pytest
from conftest import Place
from fake_llm import FakeLLM
from fake_llm.planted import planted
from test_split import expected, items, long_record, narrow, parts, prepared, run

from pipeline.long.windows import Span
from pipeline.records import Entry
from pipeline.run.in_flight import Backlog
from pipeline.run.windows.cutting import Window
from pipeline.run.windows.long_documents import LongDocuments
from pipeline.run.windows.open_documents import OpenDocument

__all__ = ["narrow", "parts"]

SHORT = -1
LONG = SimpleNamespace(document=SimpleNamespace(text=""), size_bytes=0)


class Ticks:
    """A run's scheduler whose servers answer every request within one tick.

    A document takes a slot for the tick in which it is read, like one that is sent whole before it proves too long.
    `sent`: the document numbers that each tick sent. `last`: the tick of each document's last request.
    """

    def __init__(self, limit: int, documents: list[int]) -> None:
        self.in_flight = 0
        self.most_in_flight = limit
        self.backlog = Backlog(lambda _: "")
        self.job = SimpleNamespace(output=SimpleNamespace(is_full=False))
        self.sent: list[list[int]] = []
        self.last: dict[int, int] = {}
        self._documents = documents
        self._listed = deque(Entry(str(number), "", None, 0, "text", bytes) for number in range(len(documents)))
        self.reads: Counter[int] = Counter()
        self._read: list[Entry] = []
        self._numbers: dict[int, int] = {}
        self._kept: list[OpenDocument] = []
        self._long = LongDocuments(cast(Any, self), clock=lambda: 0.0)
        self._open = self._long._open

    def submit(self, _task: object) -> None:
        """Take the window that its document has just put in flight."""
        (document,) = [open_document for open_document in self._open._open if open_document.in_flight]
        document.in_flight.clear()
        self._note(self._numbers[id(document)])

    def _note(self, number: int) -> None:
        self.in_flight += 1
        self.sent[-1].append(number)
        self.last[number] = len(self.sent)

    def _send_entry(self) -> bool:
        if self.in_flight >= self.most_in_flight:
            return False
        entry = self.backlog.take(idle=self.in_flight == 0)
        if entry is None and self._listed and not self._long.is_full:
            entry = self._listed.popleft()
        if entry is None:
            return False
        self._note(int(entry.id))
        self.reads[int(entry.id)] += 1
        self._read.append(entry)
        return True

    def run(self) -> None:
        """Send all documents; each tick fills all slots, then all requests are answered."""
        while self._listed or self._open or self.backlog.has_postponed:
            self.sent.append([])
            while self._long.send_one(self._send_entry):
                pass
            assert 0 < self.in_flight <= self.most_in_flight
            self.in_flight = 0
            for document in [open_document for open_document in self._open._open if not open_document.waiting]:
                self._open.close(document)
            for entry in self._read:
                self._turned_out(entry)
            self._read.clear()

    def _turned_out(self, entry: Entry) -> None:
        """Open or park a document that is long."""
        number = int(entry.id)
        if self._documents[number] == SHORT:
            return
        if not (self._open.free_place(entry) or self._open.may_open(self.most_in_flight)):
            self._open.park(entry, windows=self._documents[number], size_bytes=LONG.size_bytes)
            return
        document = OpenDocument(cast(Any, LONG), cast(Any, SimpleNamespace(client=None)), 0.0)
        document.waiting = [Window(Span(at, at + 1)) for at in range(self._documents[number])]
        self._numbers[id(document)] = number
        self._kept.append(document)  # an id belongs to one object while that exists
        self._open.open(document)


def ticks(limit: int, *documents: int) -> Ticks:
    """Run documents given by their number of windows (SHORT: sent whole) and return the schedule."""
    schedule = Ticks(limit, list(documents))
    schedule.run()
    return schedule


@pytest.mark.parametrize("limit", [1, 2, 16, 256])
def test_long_and_short_documents_share_the_slots_equally(limit: int) -> None:
    """While both wait, each kind gets half of the slots, and none is idle."""
    schedule = ticks(limit, 1000, *[SHORT] * 2000)
    requests = 1000 + 2000 + 1
    assert len(schedule.sent) <= requests / limit + 2
    assert [len(tick) for tick in schedule.sent[1:-1]] == [limit] * (len(schedule.sent) - 2)
    assert schedule.last[0] <= 2000 / limit + 3
    both = [number for tick in schedule.sent[1 : schedule.last[0] - 1] for number in tick]
    assert abs(both.count(0) - len(both) / 2) <= limit


def test_many_long_documents_do_not_delay_short_ones() -> None:
    """500 short documents behind 40 of 1,000 windows each are done long before the windows."""
    schedule = ticks(16, *[1000] * 40, *[SHORT] * 500)
    last_short = max(tick for number, tick in schedule.last.items() if number >= 40)
    assert last_short <= 2 * (540 / 8)
    assert len(schedule.sent) <= (40 * 1000 + 540 + 40) / 16 + 3
    assert all(len(tick) == 16 for tick in schedule.sent[1:-2])
    assert max(schedule.reads.values()) <= 2


def test_many_documents_of_few_windows_leave_no_slot_idle() -> None:
    """With 256 slots and three windows each, more than sixteen are open; a parked document is read once more."""
    schedule = ticks(256, *[3] * 3000)
    assert max(schedule.reads.values()) <= 2
    requests = 3 * 3000 + schedule.reads.total()
    assert len(schedule.sent) <= requests / 256 * 1.25 + 3


def test_server_receives_both_kinds_of_request_alternately(
    place: Place, narrow: FakeLLM, parts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order of requests shows it; the limit holds, and no window is sent twice."""
    windows = 1000
    shorts = 300
    document = planted(seed=51, payments=windows // 4, chars=windows * 950, kinds="prose")
    names = [f"short{number:04}.txt" for number in range(shorts)]
    place.documents({"long.txt": document.text} | {name: f"Nothing was paid, says {name}." for name in names})
    split = {"window_tokens": 256, "overlap_tokens": 0, "lead_chars": 60}
    prepared(place, narrow, settings={"runner.concurrency": 4}, split=split)
    assert run(place, monkeypatch) == 0, place.lines("errors.jsonl")
    order = place.sent_documents()
    assert len(parts) == len(set(parts)) == len(long_record(place)["windows"]["rows"])
    assert len(parts) > windows
    assert sorted(order) == sorted([*names, *["long.txt"] * (len(order) - shorts)])
    assert items(long_record(place)) == expected(document)
    assert narrow.max_in_flight <= 4
    begun = order.index("long.txt")
    last_short = max(at for at, name in enumerate(order) if name != "long.txt")
    # if scheduled fairly, the last short document is at twice their number; if starved, it would come last
    assert last_short - begun < min(4 * shorts, len(order) - 20)
    assert order[begun:last_short].count("long.txt") > shorts / 3
