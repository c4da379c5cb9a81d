"""Forecast of the splitting of long documents before a run: the sizes of windows and the number of requests.

`check` splits the documents that it reads; `--dry-run` has the sizes of a sample only. No model is called.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from pipeline.evidence import page_starts
from pipeline.llm.serving import serving
from pipeline.long.lead import lead_of
from pipeline.long.sizing import Room, size_text
from pipeline.long.windows import TooManyWindowsError, cut
from pipeline.records import Document
from pipeline.run.plan import ExtractionPlan, VariantQuery
from pipeline.run.windows.cutting import room_of, too_many_windows
from pipeline.terminal import plural


@dataclass(slots=True)
class Forecast:
    """Numbers of documents to send, of those to split, and of the windows of these.

    `answered`: windows for which an earlier run has an answer.
    """

    documents: int = 0
    cut: int = 0
    windows: int = 0
    answered: int = 0

    def add(self, windows: int) -> None:
        """Count a document; `windows`: 0 for one that would be sent whole."""
        self.documents += 1
        self.cut += windows > 0
        self.windows += windows

    @property
    def requests(self) -> int:
        """The requests for all of them, one for a document or a window."""
        return self.documents - self.cut + self.windows - self.answered


@dataclass(frozen=True, slots=True)
class Measured:
    """Measurements of a sample: tokens and bytes of text per stored byte, bytes of text per token.

    `bytes_per_token`: the cautious value for the size of windows.
    """

    tokens_per_byte: float
    text_per_byte: float
    bytes_per_token: float


def sizes_texts(plan: ExtractionPlan) -> list[str]:
    """Return the line of each variant about the sizes of its windows; none for one without a server or without room."""
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
    now = serving(plan.client, query.resolved.variant)
    if split is None or now is None:
        return 0
    text = document.text
    room, _ = room_of(plan, query, lead_of(text, split.settings.lead_chars))
    sizing = split.sizer.sizing(text, room, endpoint=now.endpoint, count=now.count)
    if not sizing.is_cut or sizing.size is None:
        return 0
    starts = page_starts(text, document.pages)
    try:
        spans = cut(text, sizing.size.budget_bytes, sizing.size.overlap_bytes, page_starts=starts)
    except TooManyWindowsError as cause:
        raise too_many_windows(cause) from cause
    windows = sum(bool(text[start:end].strip()) for start, end in spans)
    return windows if len(spans) > 1 else 0


def forecast_of_sizes(
    query: VariantQuery, room: Room, sizes: Iterable[int], measured: Measured, *, answered: int
) -> tuple[Forecast, float]:
    """Return the forecast for documents of these stored sizes, and their prompt tokens with lead and overlap.

    `answered`: the windows of an earlier run that need no request.
    """
    split = query.split
    assert split is not None
    size = split.sizer.size(room, measured.bytes_per_token)
    most = math.inf if room.most_tokens is None else room.most_tokens
    most = min(most, split.settings.window_tokens or math.inf)
    forecast = Forecast()
    tokens = 0.0
    window_tokens = 0.0
    for stored in sizes:
        own = stored * measured.tokens_per_byte
        if size is None or own <= most:
            forecast.add(0)
            tokens += room.prompt_tokens + room.copies * own
            continue
        text_bytes = stored * measured.text_per_byte
        windows = _windows(text_bytes, budget_bytes=size.budget_bytes, overlap_bytes=size.overlap_bytes)
        forecast.add(windows)
        window_tokens += windows * (room.prompt_tokens + room.copies * room.before_tokens)
        window_tokens += room.copies * (own + (windows - 1) * size.overlap_tokens)
    forecast.answered = min(answered, forecast.windows)
    return forecast, tokens + window_tokens * (1 - forecast.answered / max(forecast.windows, 1))


def _windows(text_bytes: float, *, budget_bytes: int, overlap_bytes: int) -> int:
    """Return how many even windows with an overlap cover a text, with the sizes that windows.cut() aims at."""
    windows = 1
    remaining_bytes = text_bytes
    while (number := math.ceil(remaining_bytes / budget_bytes)) > 1:
        windows += 1
        remaining_bytes -= remaining_bytes / number - overlap_bytes
    return windows


def room_before(plan: ExtractionPlan, query: VariantQuery, *, prompt_tokens: int, context_length: int | None) -> Room:
    """Return the tokens that a text may take, before any server has been examined; a setting of the context wins."""
    split = query.split
    assert split is not None
    room, _ = room_of(plan, query, "x" * split.settings.lead_chars)
    return replace(room, prompt_tokens=prompt_tokens, context_length=room.context_length or context_length)


def forecast_text(forecast: Forecast, *, about: bool) -> str:
    """Return how many documents would be cut, and the requests for all."""
    near = "about " if about else ""
    documents = f"{near}{forecast.cut:,} of {plural(forecast.documents, 'document')} would be cut"
    answered = f", of which {forecast.answered:,} are answered" if forecast.answered else ""
    windows = f"{near}{plural(forecast.windows, 'window')}{answered}"
    return f"{documents} into {windows}: {near}{plural(forecast.requests, 'request')}"
