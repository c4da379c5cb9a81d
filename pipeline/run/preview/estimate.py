"""What a run would cost before it is started: prompt tokens by a sample, time by the last run's rate, and money.

It asks the provider's tokenizer at most, never a model.
"""

from __future__ import annotations

import heapq
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
from pipeline.report.numbers_text import documents_per_second, duration_text
from pipeline.run.plan import ExtractionPlan
from pipeline.shards import hash_fraction

SAMPLE = 20
CHARS_PER_TOKEN = 4
"""A rule of thumb for prose; the servers' own counts stand in the report of a run."""


@dataclass(slots=True)
class PromptSample:
    """A stable random choice of the entries that would be asked, and the size of all of them."""

    entries: list[tuple[float, str, Entry]] = field(default_factory=list)
    documents: int = 0
    size_bytes: int = 0

    def add(self, entry: Entry) -> None:
        """Counts the entry and keeps it if its turn comes."""
        self.documents += 1
        self.size_bytes += entry.size_bytes
        item = (-hash_fraction("estimate", entry.id), entry.id, entry)
        (heapq.heappushpop if len(self.entries) == SAMPLE else heapq.heappush)(self.entries, item)


def tokens_text(plan: ExtractionPlan, sample: PromptSample) -> str:
    """How many prompt tokens all documents would take, and how that is known."""
    if not sample.documents:
        return "no prompt tokens"
    prompts = list(_prompts(plan, [entry for _, _, entry in sample.entries]))
    empty = render(next(iter(plan.queries.values())).resolved, Document("", "", "", ""))
    counts, how = _counts(plan, [empty, *(prompt for prompt, _ in prompts)])
    fixed = counts[0]
    own = counts[1:]
    sizes = sum(size for _, size in prompts)
    for_each_byte = sum(max(0, count - fixed) for count in own) / sizes if sizes else 0.0
    total = round(sample.documents * fixed + sample.size_bytes * for_each_byte)
    return f"about {total:,} prompt tokens ({how} on a sample of {len(prompts)})"


def _prompts(plan: ExtractionPlan, entries: Iterable[Entry]) -> Iterator[tuple[Mapping[str, str], int]]:
    """The prompts of the sampled documents that can be read, with their sizes as stored."""
    for entry in entries:
        try:
            document = documents.decode(entry, entry.read(), text_field=plan.text_field, limits=plan.limits)
        except DocumentError:
            continue
        text, _ = break_special_tokens(document.text)
        yield render(plan.query_for(entry.id).resolved, replace(document, text=text)), entry.size_bytes


def _counts(plan: ExtractionPlan, prompts: Sequence[Mapping[str, str]]) -> tuple[list[int], str]:
    """The tokens of each prompt, by the first provider's tokenizer if it has one that answers, else by characters."""
    client = plan.client.first.replicas[0].client
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
    return by_characters, f"no tokenizer could be asked: {CHARS_PER_TOKEN} characters each,"


def time_text(runs: Sequence[Mapping[str, Any]], *, documents: int, per_hour: float | None) -> str | None:
    """How long that many documents take at the rate of the newest run that asked something, and what that costs.

    None when no document is to be sent, or no earlier run shows a rate.
    """
    for run in reversed(runs if documents else ()):
        rate = documents_per_second(plain.from_json(RunNumbers, run.get("stats")))
        if rate:
            seconds = documents / rate
            money = f", {seconds / 3600 * per_hour:,.2f} at {per_hour:g} an hour (cost.per_hour)" if per_hour else ""
            return f"about {duration_text(seconds)} at the {rate:.2f} documents a second of run {run['run']}{money}"
    return None
