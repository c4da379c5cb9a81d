"""The cost of a run before its start: prompt tokens by a sample, time by the last run's rate, and money.

It calls the provider's tokenizer at most, never a model.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline import documents
from pipeline.agents import render
from pipeline.documents import break_special_tokens
from pipeline.errors import DocumentError
from pipeline.llm.vllm import VLLMClient
from pipeline.records import Document, Entry
from pipeline.report import plain
from pipeline.report.numbers import RunNumbers
from pipeline.report.numbers_text import documents_per_second, duration_text, requests_per_second
from pipeline.run.plan import ExtractionPlan, VariantQuery
from pipeline.run.preview.size_forecast import SampledDocument, forecast_of_sizes, room_before
from pipeline.run.preview.window_forecast import Forecast, forecast_text
from pipeline.shards import hash_fraction

SAMPLE = 20
CHARS_PER_TOKEN = 4
"""A rule of thumb for prose; the report of a run has the servers' own counts."""


@dataclass(slots=True)
class PromptSample:
    """A stable random sample of the entries that would be sent, and the sizes of all these entries.

    `answered`: the number of windows that an earlier run has answered.
    """

    entries: list[tuple[float, str, Entry]] = field(default_factory=list)
    sizes: array[int] = field(default_factory=lambda: array("Q"))
    answered: int = 0

    def add(self, entry: Entry, *, answered: int = 0) -> None:
        """Count the entry, and keep it if its hash is among the smallest."""
        self.answered += answered
        self.sizes.append(entry.size_bytes)
        item = (-hash_fraction("estimate", entry.id), entry.id, entry)
        (heapq.heappushpop if len(self.entries) == SAMPLE else heapq.heappush)(self.entries, item)

    @property
    def documents(self) -> int:
        """The number of all entries that would be sent."""
        return len(self.sizes)

    @property
    def size_bytes(self) -> int:
        """The size of all entries as stored."""
        return sum(self.sizes)


@dataclass(frozen=True, slots=True)
class Estimate:
    """The estimate for all documents. `tokens` and `windows` are sentences ("": none); `requests` is a number."""

    tokens: str
    windows: str
    requests: int


def estimate(plan: ExtractionPlan, sample: PromptSample) -> Estimate:
    """Estimate the prompt tokens and windows of all documents, with the method in words."""
    if not sample.documents:
        return Estimate("no prompt tokens", "", 0)
    prompts = list(_prompts(plan, [entry for _, _, entry in sample.entries]))
    empty_prompt = render(next(iter(plan.queries.values())).resolved, Document("", "", "", ""))
    counts, method = _counts(plan, [empty_prompt, *(prompt.prompt for prompt in prompts)])
    fixed = counts[0]
    sizes = sum(prompt.size_bytes for prompt in prompts)
    for_each_byte = sum(max(0, count - fixed) for count in counts[1:]) / sizes if sizes else 0.0
    total = sample.documents * fixed + sample.size_bytes * for_each_byte
    query = next((prompt for prompt in plan.queries.values() if prompt.split is not None), None)
    forecast = Forecast(sample.documents)
    windows = ""
    if query is not None:
        forecast, total, windows = _split_estimate(
            plan, query, sample, _Prompts(empty_prompt, fixed, prompts, counts[1:])
        )
    tokens = f"about {round(total):,} prompt tokens ({method} on a sample of {len(prompts)})"
    return Estimate(tokens, windows, forecast.requests)


@dataclass(frozen=True, slots=True)
class _Prompts:
    """The empty prompt with its tokens, and those of the sample."""

    empty: Mapping[str, str]
    fixed: int
    sampled: Sequence[_Prompt]
    tokens: Sequence[int]


def _split_estimate(
    plan: ExtractionPlan, query: VariantQuery, sample: PromptSample, prompts: _Prompts
) -> tuple[Forecast, float, str]:
    """Return the forecast of all windows, the prompt tokens with these windows, and a sentence about them."""
    client = plan.client.first_provider.replicas[0].client
    context = client.context_length
    count = None
    if isinstance(client, VLLMClient):
        context = client.count_and_context(prompts.empty)[1]
        count = client.count_text
    room = room_before(plan, query, prompt_tokens=prompts.fixed, context_length=context)
    sampled = [
        SampledDocument(prompt.document, prompt.size_bytes, max(0, tokens - prompts.fixed) / room.copies)
        for prompt, tokens in zip(prompts.sampled, prompts.tokens, strict=True)
    ]
    forecast, tokens = forecast_of_sizes(query, room, sample.sizes, sampled, count=count, answered=sample.answered)
    text = forecast_text(forecast, is_estimate=True)
    if room.context_length is None:
        unknown = "the context of the server is unknown, so documents that do not fit are not counted as cut"
        return forecast, tokens, f"{unknown}; {text}" if forecast.documents_to_cut else unknown
    return forecast, tokens, text


@dataclass(frozen=True, slots=True)
class _Prompt:
    """The prompt of a sampled document, the document, and its size as stored."""

    prompt: Mapping[str, str]
    document: Document
    size_bytes: int


def _prompts(plan: ExtractionPlan, entries: Iterable[Entry]) -> Iterator[_Prompt]:
    """Yield the prompts of the sampled documents that can be read."""
    for entry in entries:
        try:
            document = documents.decode(entry, entry.read(), text_field=plan.text_field, limits=plan.limits)
        except DocumentError:
            continue
        text, _ = break_special_tokens(document.text)
        prompt = render(plan.query_for(entry.id).resolved, replace(document, text=text))
        yield _Prompt(prompt, document, entry.size_bytes)


def _counts(plan: ExtractionPlan, prompts: Sequence[Mapping[str, str]]) -> tuple[list[int], str]:
    """Return the tokens of each prompt, by the first provider's tokenizer if it answers, else by characters."""
    client = plan.client.first_provider.replicas[0].client
    counts: list[int] = []
    if isinstance(client, VLLMClient):
        for prompt in prompts:
            count = client.count_tokens(prompt)
            if count is None:
                break
            counts.append(count)
        else:
            return counts, f"by the tokenizer of {client.model.provider}"
    by_characters = [sum(map(len, prompt.values())) // CHARS_PER_TOKEN for prompt in prompts]
    return by_characters, f"estimated without a tokenizer: {CHARS_PER_TOKEN} characters each,"


def time_text(
    runs: Sequence[Mapping[str, Any]], *, documents: int, requests: int, per_hour: float | None
) -> str | None:
    """Return the time and the cost of that many documents at the rate of the newest run with requests.

    It counts requests, one per window, when that run read documents in windows. None when no document is to be sent, or
    no earlier run has a rate.
    """
    for run in reversed(runs if documents else ()):
        numbers = plain.from_json(RunNumbers, run.get("stats"))
        rate = documents_per_second(numbers)
        if not rate:
            continue
        seconds = documents / rate
        speed = f"{rate:.2f} documents a second"
        if by_window := requests_per_second(numbers):
            seconds = requests / by_window
            speed = f"{by_window:.2f} documents and windows a second"
        money = f", {seconds / 3600 * per_hour:,.2f} at {per_hour:g} an hour (cost.per_hour)" if per_hour else ""
        return f"about {duration_text(seconds)} at the {speed} of run {run['run']}{money}"
    return None
