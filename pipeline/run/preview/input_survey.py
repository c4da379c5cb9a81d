"""The input of `pipeline check`: the number of documents by kind, and unreadable documents among the first ones.

It sends nothing to a model and writes nothing; its time is bounded, however large the input is.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from pipeline.config import AppConfig
from pipeline.documents import ListingCounts, decode
from pipeline.errors import EXIT_LATER, EXIT_OK, DocumentError, PipelineError
from pipeline.records import Entry
from pipeline.run.listing import InputListing
from pipeline.run.plan import ExtractionPlan
from pipeline.run.preview.example_overlap import ExampleOverlap
from pipeline.run.preview.window_forecast import Forecast, windows_of
from pipeline.stores import ReadingStoppedError

LIST_S = 10.0
READ_S = 5.0
READ_DOCUMENTS = 500
"""Seconds for the listing, and seconds and documents for reading: short, as the user waits for the result."""
MOST_UNREADABLE = 5


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A document that would fail in a run, with its error."""

    id: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class InputSurvey:
    """The documents of the input. Not `is_complete`: the time was up before the end of the listing.

    `kinds`: documents by format; `ignored_files`: files by kind. `read`: the number of documents that were read, of
    which `failed` would fail; `unreadable` are the first of those. `trouble`: why the input cannot be listed, else "",
    and `code`: the exit code of a run for that reason.
    `overlaps`: warnings about few-shot examples that are documents of the input. `forecast`: among the documents read,
    those that would be cut into windows.
    """

    found: int
    is_complete: bool
    kinds: Mapping[str, int]
    ignored_files: Mapping[str, int]
    read: int
    failed: int
    unreadable: tuple[Unreadable, ...]
    trouble: str = ""
    code: int = EXIT_OK
    overlaps: tuple[str, ...] = ()
    forecast: Forecast = field(default_factory=Forecast)


def survey_input(app: AppConfig, plan: ExtractionPlan, *, clock: Callable[[], float] = time.monotonic) -> InputSurvey:
    """List the input and read its first documents."""
    counts = ListingCounts()
    kinds: Counter[str] = Counter()
    first_documents = _FirstDocuments(plan, clock)
    is_complete = True
    trouble = ""
    code = EXIT_OK
    deadline = clock() + LIST_S
    try:
        for entry in InputListing(app).start(plan, counts=counts):
            kinds[entry.format] += 1
            first_documents.overlap.compare_entry(entry)
            first_documents.read(entry)
            if clock() > deadline + first_documents.used_s:
                is_complete = False
                break
    except PipelineError as error:
        trouble = str(error)
        code = error.exit_code
    except ReadingStoppedError as error:
        trouble = str(error)
        code = EXIT_LATER
    return InputSurvey(
        kinds.total(),
        is_complete and not trouble,
        dict(kinds.most_common()),
        dict(counts.ignored.most_common()),
        first_documents.number,
        first_documents.failed,
        tuple(first_documents.unreadable),
        trouble,
        code,
        tuple(first_documents.overlap.warnings),
        first_documents.forecast,
    )


class _FirstDocuments:
    """Reader of the first documents, for READ_S seconds."""

    def __init__(self, plan: ExtractionPlan, clock: Callable[[], float]) -> None:
        self.number = self.failed = 0
        self.used_s = 0.0
        self.unreadable: list[Unreadable] = []
        self.overlap = ExampleOverlap(plan)
        self.forecast = Forecast()
        self._plan = plan
        self._clock = clock

    def read(self, entry: Entry) -> None:
        """Read and decode the document while there is time, and count it."""
        if self.number >= READ_DOCUMENTS or self.used_s >= READ_S:
            return
        began = self._clock()
        self.number += 1
        for error in self._errors(entry):
            self.failed += 1
            if len(self.unreadable) < MOST_UNREADABLE:
                self.unreadable.append(Unreadable(entry.id, error.reason, str(error)))
        self.used_s += self._clock() - began

    def _errors(self, entry: Entry) -> Iterator[DocumentError]:
        try:
            document = decode(entry, entry.read(), text_field=self._plan.text_field, limits=self._plan.limits)
            self.overlap.compare_text(entry, document.text)
            self.forecast.add(windows_of(self._plan, self._plan.query_for(entry.id), document))
        except DocumentError as error:
            yield error
