"""The open long documents, with their windows waiting, in flight and answered. Used by the main thread only.

    CutDocument ─▶ OpenDocument: windows that wait ─▶ a worker ─▶ WindowAnswer ─▶ a line in windows.jsonl
                               ▲                  ├─▶ Divided ─▶ smaller windows wait
                               │                  └─▶ Postponed ─▶ the window waits, at the front
                               └ … all are answered ─▶ a worker merges the answers ─▶ Result or Failure

1. The open documents take turns: each gives its next window, in the order of its text. So a document of a thousand
   windows does not delay the others, and the servers are busy until its end.
2. Sixteen documents with texts of 48 MB may be open, or more while fewer windows wait than requests may be in flight:
   sixteen documents of three windows cannot use hundreds of slots. A further long document is parked:
   its text is dropped, and its entry is read once more when it may be opened. While 64 are parked, no new documents
   are read.
3. A window that fails ends its document: no further window is sent, and answers in flight are stored.

It starts nothing and writes nothing: windows/long_documents.py does.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.llm.prompt_length.repetition import size_of
from pipeline.llm.provider import LOSSES_BEFORE_ALONE
from pipeline.long.sizing import WindowSize
from pipeline.long.windows import Span
from pipeline.records import Entry, Failure, Postponed, changed
from pipeline.run.document.attempts import with_notes
from pipeline.run.plan import ExtractionPlan
from pipeline.run.windows.cutting import CutDocument, Divided, LongDocument, Window
from pipeline.run.windows.merged_outcome import Cost
from pipeline.run.windows.window_outcome import recut

MOST_OPEN = 16
MOST_PARKED = 64
MOST_OPEN_BYTES = 48 << 20
"""With this limit, documents of 8 MB take less than 150 MB, with those that are being read, two at a time."""
BYTES_PER_WINDOW = 300
"""The measured memory of a window that waits or is answered: its span, in the lists and sets of its document."""


@dataclass(slots=True, eq=False)
class OpenDocument:
    """One document that is sent in windows.

    `opened_at`: monotonic time. `waiting`: the windows to send, in the order of the text. `suspects`: windows to send
    when nothing else is in flight. `in_flight`, `answered`: the spans of these windows; windows.jsonl has the answers.
    `places`: the spans of all windows known so far, sorted.
    """

    long: LongDocument
    plan: ExtractionPlan
    opened_at: float
    waiting: list[Window] = field(default_factory=list)
    suspects: list[Window] = field(default_factory=list)
    in_flight: list[Span] = field(default_factory=list)
    answered: set[Span] = field(default_factory=set)
    places: list[Span] = field(default_factory=list)
    cost: Cost = field(default_factory=Cost)
    reused: int = 0
    divided: int = 0
    is_merging: bool = False
    is_outdated: bool = False
    """True when it must be read and sent again, because the servers of its former plan are unavailable."""
    first_failure: tuple[Window, Failure] | None = None
    _size: WindowSize | None = None

    @classmethod
    def of(cls, cut: CutDocument, plan: ExtractionPlan, *, now: float) -> OpenDocument:
        """Open a document."""
        return cls(
            cut.long,
            plan,
            now,
            waiting=[Window(span) for span in cut.spans],
            answered={*cut.answered, *cut.blank},
            places=sorted((*cut.spans, *cut.answered, *cut.blank)),
            reused=len(cut.answered),
        )

    @property
    def size_bytes(self) -> int:
        """The approximate memory of its text and its windows."""
        return self.long.size_bytes + BYTES_PER_WINDOW * len(self.places)

    @property
    def is_settled(self) -> bool:
        """True when no window waits or is in flight."""
        return not (self.waiting or self.suspects or self.in_flight or self.is_merging)

    @property
    def windows(self) -> int:
        """The number of windows that are known so far."""
        return len(self.places)

    def divide(self, window: Window, divided: Divided) -> None:
        """Queue smaller windows in place of one."""
        self.divided += 1
        self._size = divided.size or self._size
        if self.first_failure is None:
            self._replace(window.span, [smaller.span for smaller in divided.windows])
        self.queue(*divided.windows)

    def _replace(self, span: Span, smaller: Sequence[Span]) -> None:
        self.places.remove(span)
        for part in smaller:
            if part not in self.answered:
                insort(self.places, part)

    def queue(self, *windows: Window) -> None:
        """Queue windows in the order of the text; none when the document has ended."""
        if self.first_failure is not None or self.is_outdated:
            return
        for window in windows:
            if is_suspect(window):
                self.suspects.append(window)
            else:
                insort(self.waiting, window, key=lambda item: item.span)

    def take(self) -> Window:
        """Remove and return the next window; cut it before if the servers have refused windows of its size."""
        if self.suspects:
            window = self.suspects.pop(0)
        else:
            window = self._fitting(self.waiting.pop(0))
        self.in_flight.append(window.span)
        return window

    def _fitting(self, window: Window) -> Window:
        size = self._size
        text = self.long.document.text
        if size is None or size_of(text[window.span.start : window.span.end]) <= size.budget_bytes:
            return window
        first_part, *other_parts = [
            Window(span, divisions=window.divisions) for span in recut(self.long, window.span, size)
        ]
        self.divided += bool(other_parts)
        self._replace(window.span, [first_part.span, *(part.span for part in other_parts)])
        self.queue(*other_parts)
        return first_part

    def number_of(self, span: Span) -> tuple[int, int]:
        """Return the number of a window, from 1, and the number of windows known so far."""
        return 1 + bisect_left(self.places, span), len(self.places)

    def span_of(self, number: int) -> Span:
        """Return the window of a number, from 1; IndexError when there is none."""
        if number < 1:
            raise IndexError(number)
        return self.places[number - 1]

    def fail(self, window: Window, failure: Failure) -> None:
        """End the document with the failure of a window; if several fail, the first one in the text counts."""
        if self.first_failure is None or window.span < self.first_failure[0].span:
            self.first_failure = (window, failure)
        self.waiting.clear()
        self.suspects.clear()

    def outdate(self) -> None:
        """Send nothing more: the document must be read and sent again."""
        self.is_outdated = True
        self.waiting.clear()
        self.suspects.clear()

    def failure(self) -> Failure:
        """Return the failure of the document: that of its window, with the window's place and the cost of all."""
        assert self.first_failure is not None
        window, failure = self.first_failure
        start, end = window.span
        number, windows = self.number_of(window.span)
        message = f"window {number} of {windows} (characters {start:,} to {end:,}): {failure.message}"
        place = {"n": number, "of": windows, "start": start, "end": end, "answered": len(self.answered)}
        notes = with_notes(self.long.document.notes, *failure.notes)
        return changed(self.with_cost(failure), message=message, notes=notes, window=place)

    def with_cost(self, failure: Failure) -> Failure:
        """Return the failure with the requests and tokens of the whole document."""
        attempts, tokens = self.cost.plus_earlier(self.long.earlier_failure)
        return changed(failure, attempts=attempts, usage=tokens)


class _Parked(NamedTuple):
    """A document that is read again when it may be opened: its windows, and the memory of its text."""

    entry: Entry
    windows: int
    size_bytes: int


class OpenDocuments:
    """All open documents, in the order of their turns, and the parked ones."""

    def __init__(self) -> None:
        self.in_flight = 0
        """Requests in flight for windows, and documents that are being merged."""
        self._open: deque[OpenDocument] = deque()
        self._parked: deque[_Parked] = deque()
        self._returning: dict[str, _Parked] = {}
        """The parked documents that are being read again, by id: each has its place."""

    def __len__(self) -> int:
        """The number of documents, open and parked."""
        return len(self._open) + len(self._parked)

    @property
    def size_bytes(self) -> int:
        """The approximate memory of the open documents."""
        return sum(document.size_bytes for document in self._open)

    @property
    def status(self) -> tuple[int, int, int, int]:
        """The numbers of open documents, of their answered windows, of all their windows, and of parked documents."""
        answered = sum(len(document.answered) for document in self._open)
        windows = sum(document.windows for document in self._open)
        return len(self._open), answered, windows, len(self._parked)

    @property
    def waiting(self) -> int:
        """The number of windows that wait to be sent."""
        return sum(len(document.waiting) for document in self._open)

    @property
    def is_full(self) -> bool:
        """True while no new document should be read, because too many are parked."""
        return len(self._parked) >= MOST_PARKED

    def may_open(self, limit: int) -> bool:
        """Return True when one more document may be open while `limit` requests may be in flight."""
        returning = self._returning.values()
        has_place = len(self._open) + len(returning) < MOST_OPEN
        has_memory = self.size_bytes + sum(parked.size_bytes for parked in returning) < MOST_OPEN_BYTES
        return (has_place and has_memory) or self.waiting + sum(parked.windows for parked in returning) < limit

    def open(self, document: OpenDocument) -> None:
        """Add a document; its turn comes after those of the others."""
        self._open.append(document)

    def close(self, document: OpenDocument) -> None:
        """Remove a document that has ended or must be read again."""
        self._open.remove(document)

    def park(self, entry: Entry, *, windows: int, size_bytes: int) -> None:
        """Keep the entry of a document that may not be open yet. `size_bytes`: the memory of its text."""
        self._parked.append(_Parked(changed(entry, is_long=True), windows, size_bytes))

    def unpark(self, limit: int) -> Entry | None:
        """Remove and return an entry that may be opened now; its place is reserved until `free_place`."""
        if not self._parked or not self.may_open(limit):
            return None
        parked = self._parked.popleft()
        self._returning[parked.entry.id] = parked
        return parked.entry

    def free_place(self, entry: Entry) -> bool:
        """Free the place of a document that was parked and read again; return False for any other document."""
        return self._returning.pop(entry.id, None) is not None

    def uses(self, plan: ExtractionPlan) -> bool:
        """True while an open document is processed with this plan."""
        return any(document.plan is plan for document in self._open)

    def next(self, *, idle: bool) -> tuple[OpenDocument, Window] | None:
        """Remove and return the next window that may be sent; its document moves to the end of the turns.

        A window that may have killed its server is sent before all others, when nothing is in flight (`idle`).
        """
        if self.has_suspect:
            document = next(candidate for candidate in self._open if candidate.suspects) if idle else None
        else:
            document = next((candidate for candidate in self._open if candidate.waiting), None)
        if document is None:
            return None
        self._open.remove(document)
        self._open.append(document)
        return document, document.take()

    @property
    def has_suspect(self) -> bool:
        """True while a window waits for the moment in which nothing else is in flight."""
        return any(document.suspects for document in self._open)


def is_suspect(window: Window) -> bool:
    """Return True when servers were lost over this window so often that it must be sent alone."""
    return window.losses >= LOSSES_BEFORE_ALONE


def postponed(window: Window, outcome: Postponed) -> Window:
    """Return a postponed window for its next attempt, with its losses counted."""
    entry = outcome.next_entry()
    return Window(window.span, entry.losses, entry.was_refused, entry.earlier_failure, window.divisions)
