"""Forecast of the splitting of long documents before a run: the sizes of windows and the number of requests.

`check` splits the documents that it reads; for `--dry-run` see size_forecast.py. No model is called.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.evidence import page_starts
from pipeline.llm.serving import serving
from pipeline.long.lead import lead_of
from pipeline.long.sizing import Count, Room, Sizer, size_text
from pipeline.long.windows import TooManyWindowsError, cut
from pipeline.records import Document
from pipeline.run.plan import ExtractionPlan, VariantQuery
from pipeline.run.windows.cutting import room_of, too_many_windows
from pipeline.terminal import plural


@dataclass(slots=True)
class Forecast:
    """The number of documents to send, how many of them to cut, and into how many windows.

    `answered`: the number of windows that an earlier run has answered.
    """

    documents: int = 0
    documents_to_cut: int = 0
    windows: int = 0
    answered: int = 0

    def add(self, windows: int) -> None:
        """Count a document; `windows`: 0 for one that would be sent whole."""
        self.documents += 1
        self.documents_to_cut += windows > 0
        self.windows += windows

    @property
    def requests(self) -> int:
        """The number of requests: one for each window, and for each document that is sent whole."""
        return self.documents - self.documents_to_cut + self.windows - self.answered


def sizes_texts(plan: ExtractionPlan) -> list[str]:
    """Return a line about the sizes of windows for each variant that has a server with room for a window."""
    lines = []
    for name, query in plan.queries.items():
        if query.split is None or serving(plan.client, name) is None:
            continue
        lead_chars = query.split.settings.lead_chars
        room, _ = room_of(plan, query, "x" * lead_chars)
        size = query.split.sizer.size(room, query.split.sizer.bytes_per_token("", endpoint=""))
        if size is not None:
            variant = f"variant {name}: " if len(plan.queries) > 1 else ""
            lines.append(variant + size_text(room, size, lead_chars=lead_chars))
    return lines


def windows_of(plan: ExtractionPlan, query: VariantQuery, document: Document) -> int:
    """Return how many windows of a document would be sent before any refusal; 0: it would be sent whole.

    DocumentError: it has too many windows, so that a run fails it without a request.
    """
    split = query.split
    server = serving(plan.client, query.resolved.variant)
    if split is None or server is None:
        return 0
    room, _ = room_of(plan, query, lead_of(document.text, split.settings.lead_chars))
    return windows_in(document, split.sizer, room, endpoint=server.endpoint, count=server.count)


def windows_in(document: Document, sizer: Sizer, room: Room, *, endpoint: str, count: Count | None) -> int:
    """Return how many windows of a document are sent for this room; see `windows_of`."""
    text = document.text
    sizing = sizer.sizing(text, room, endpoint=endpoint, count=count)
    if not sizing.is_cut or sizing.size is None:
        return 0
    starts = page_starts(text, document.pages)
    try:
        spans = cut(text, sizing.size.budget_bytes, sizing.size.overlap_bytes, page_starts=starts)
    except TooManyWindowsError as cause:
        raise too_many_windows(cause) from cause
    windows = sum(bool(text[start:end].strip()) for start, end in spans)
    return windows if len(spans) > 1 else 0


def forecast_text(forecast: Forecast, *, is_estimate: bool) -> str:
    """Return how many documents would be cut, and the requests for all."""
    near = "about " if is_estimate else ""
    if not forecast.documents_to_cut:
        return f"no document would be cut: {near}{plural(forecast.requests, 'request')}"
    documents = f"{near}{forecast.documents_to_cut:,} of {plural(forecast.documents, 'document')} would be cut"
    answered = f", of which {forecast.answered:,} are answered" if forecast.answered else ""
    windows = f"{near}{plural(forecast.windows, 'window')}{answered}"
    return f"{documents} into {windows}: {near}{plural(forecast.requests, 'request')}"
