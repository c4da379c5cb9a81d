"""Forecast of the windows of all documents from a sample of them and from the stored sizes of the others.

The documents of the sample are cut as a run would cut them. They show how many bytes a token has, and how far windows
stay below their budget to end at good boundaries; the others are counted by these measures. No model is called.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import harmonic_mean

from pipeline.errors import DocumentError
from pipeline.llm.prompt_length.repetition import size_of
from pipeline.long.lead import lead_of
from pipeline.long.sizing import USUAL_BYTES_PER_TOKEN, Count, Room, WindowSize
from pipeline.long.windows import cut
from pipeline.records import Document
from pipeline.run.plan import ExtractionPlan, VariantQuery
from pipeline.run.preview.window_forecast import Forecast, windows_in
from pipeline.run.windows.cutting import room_of
from pipeline.run.windows.split_query import SplitQuery, before_bytes


@dataclass(frozen=True, slots=True)
class SampledDocument:
    """A document of the sample, its size as stored, and the tokens of its text in one prompt."""

    document: Document
    size_bytes: int
    tokens: float


@dataclass(frozen=True, slots=True)
class _Measures:
    """Measures of the sample: tokens and bytes of text per stored byte, and bytes per token for the size of windows.

    `windows`: the number of windows for each that even windows of the whole budget would need.
    """

    tokens_per_byte: float
    text_per_byte: float
    bytes_per_token: float
    windows: float = 1.0


def forecast_of_sizes(
    query: VariantQuery,
    room: Room,
    sizes: Iterable[int],
    sample: Sequence[SampledDocument],
    *,
    count: Count | None,
    answered: int,
) -> tuple[Forecast, float]:
    """Return the forecast for documents of these stored sizes, and their prompt tokens with lead and overlap.

    `sizes`: of all documents, those of the sample among them. `answered`: the windows of an earlier run that need no
    request.
    """
    split = query.split
    assert split is not None
    measures = _measured(split, sample, count=count)
    size = split.sizer.size(room, measures.bytes_per_token)
    exact = [_windows_of(query, room, sampled.document, count=count) for sampled in sample]
    if size is not None:
        measures = replace(measures, windows=_excess(sample, exact, size))
    before_tokens = room.before_bytes * measures.tokens_per_byte / measures.text_per_byte
    forecast = Forecast()
    tokens = window_tokens = 0.0
    for own, windows in (
        *((sampled.tokens, windows) for sampled, windows in zip(sample, exact, strict=True)),
        *_by_measures(split, room, _without(sizes, sample), measures, size=size),
    ):
        forecast.add(windows)
        if not windows or size is None:
            tokens += room.prompt_tokens + room.copies * own
            continue
        window_tokens += windows * (room.prompt_tokens + room.copies * before_tokens)
        window_tokens += room.copies * (own + (windows - 1) * size.overlap_tokens)
    forecast.answered = min(answered, forecast.windows)
    return forecast, tokens + window_tokens * (1 - forecast.answered / max(forecast.windows, 1))


def _measured(split: SplitQuery, sample: Sequence[SampledDocument], *, count: Count | None) -> _Measures:
    """Return the measures of the sample but that of windows."""
    stored = sum(sampled.size_bytes for sampled in sample)
    texts = [sampled.document.text for sampled in sample]
    ratios = [split.sizer.bytes_per_token(text, endpoint="", count=count) for text in texts]
    text_bytes = sum(map(size_of, texts))
    if not (stored and text_bytes):
        return _Measures(0.0, 1.0, USUAL_BYTES_PER_TOKEN)
    tokens = sum(sampled.tokens for sampled in sample)
    return _Measures(tokens / stored, text_bytes / stored, harmonic_mean(ratios))


def _windows_of(query: VariantQuery, room: Room, document: Document, *, count: Count | None) -> int:
    """Return how many windows of a document of the sample would be sent; none of one that has too many."""
    split = query.split
    assert split is not None
    before = before_bytes(query.resolved, lead_of(document.text, split.settings.lead_chars))
    try:
        return windows_in(document, split.sizer, replace(room, before_bytes=before), endpoint="", count=count)
    except DocumentError:
        return 0


def _excess(sample: Sequence[SampledDocument], exact: Sequence[int], size: WindowSize) -> float:
    """Return the real number of windows for each even one; by all texts as one where none is cut alone."""
    texts = [sampled.document.text for sampled, windows in zip(sample, exact, strict=True) if windows]
    if texts:
        even = sum(_even_windows(size_of(text), size) for text in texts)
        return sum(exact) / even
    text = "\n\n".join(sampled.document.text for sampled in sample)
    even = _even_windows(size_of(text), size)
    return len(cut(text, size.budget_bytes, size.overlap_bytes)) / even if even > 1 else 1.0


def _without(sizes: Iterable[int], sample: Sequence[SampledDocument]) -> Iterable[int]:
    """Yield the sizes of the documents that are not in the sample."""
    sampled_sizes = Counter(sampled.size_bytes for sampled in sample)
    for size in sizes:
        if sampled_sizes[size]:
            sampled_sizes[size] -= 1
        else:
            yield size


def _by_measures(
    split: SplitQuery, room: Room, sizes: Iterable[int], measures: _Measures, *, size: WindowSize | None
) -> Iterable[tuple[float, int]]:
    """Yield the tokens and the windows (0: it is sent whole) of documents of these sizes."""
    for stored in sizes:
        tokens = stored * measures.tokens_per_byte
        text_bytes = stored * measures.text_per_byte
        is_cut = size is not None and _is_cut(split, room, text_bytes / measures.bytes_per_token, tokens)
        even = _even_windows(text_bytes, size) if size is not None and is_cut else 0
        yield tokens, max(2, round(measures.windows * even)) if is_cut else 0


def _is_cut(split: SplitQuery, room: Room, estimated_tokens: float, tokens: float) -> bool:
    return split.sizer.is_cut(estimated_tokens, room, exact=lambda: tokens)


def _even_windows(text_bytes: float, size: WindowSize) -> int:
    """Return how many even windows with an overlap cover a text, with the sizes that windows.cut() aims at."""
    windows = 1
    remaining_bytes = text_bytes
    while (number := math.ceil(remaining_bytes / size.budget_bytes)) > 1:
        windows += 1
        remaining_bytes -= remaining_bytes / number - size.overlap_bytes
    return windows


def room_before(plan: ExtractionPlan, query: VariantQuery, *, prompt_tokens: int, context_length: int | None) -> Room:
    """Return the tokens that a text may take, before any server has been examined; a setting of the context wins."""
    split = query.split
    assert split is not None
    room, _ = room_of(plan, query, "x" * split.settings.lead_chars)
    return replace(room, prompt_tokens=prompt_tokens, context_length=room.context_length or context_length)
