"""Planted facts, extracted window by window by a perfect reader and merged: all are found, each once."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from planted_facts import Planted, plant, read, schema

from pipeline.answers.schema import compile_schema
from pipeline.evidence import Evidence
from pipeline.long.merging import Merged, Part, merge
from pipeline.long.quotes import find_quotes
from pipeline.long.windows import Span, cut, divide

COMPILED = {quotes: compile_schema(schema(quotes=quotes), where="planted") for quotes in (False, True)}
SENTENCE_BYTES = 140


def part_of(text: str, span: Span, *, quotes: bool) -> Part:
    """Return the window's answer with the positions of its quotes."""
    answer = read(text[span.start : span.end], quotes=quotes)
    assert COMPILED[quotes].window.violation(answer) is None
    if not quotes:
        return Part(span.start, span.end, answer)
    rows = [(f"/{name}/{at}/quote", row) for name in ("payments", "fees") for at, row in enumerate(answer[name])]
    result = find_quotes([row["quote"] for _, row in rows], text, spans=[(span.start, span.end)])
    evidence = []
    for (path, _), place in zip(rows, result, strict=True):
        assert place is not None
        evidence.append(Evidence(path=path, start=place.start, end=place.end, match=place.match, count=place.count))
    return Part(span.start, span.end, answer, evidence)


def merged(document: Planted, spans: Sequence[Span], *, quotes: bool) -> Merged:
    """Return the merged answers about all windows."""
    parts = [part_of(document.text, span, quotes=quotes) for span in spans]
    return merge(COMPILED[quotes].merge_rules, parts, text=document.text)


def without_quotes(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows without their source sentences."""
    return [{name: value for name, value in row.items() if name != "quote"} for row in rows]


def check(document: Planted, result: Merged) -> None:
    """Assert recall 1, precision 1 and no duplicates, and the exact number of each fee."""
    value = result.value
    assert (value["contract"], value["place"], value["due"]) == (document.contract, document.place, document.due)
    payments = without_quotes(value["payments"])
    assert {payment["number"]: payment for payment in payments} == document.payments
    assert len(payments) == len(document.payments)
    fees = Counter((fee["payer"], fee["amount"]) for fee in value["fees"])
    assert fees == Counter((fee["payer"], fee["amount"]) for fee in document.fees)


@pytest.mark.parametrize("quotes", [True, False])
@pytest.mark.parametrize("tokens", [300, 1000, 5000, 30_000])
@pytest.mark.parametrize("overlap_share", [0, 4, 8, 20])
def test_every_planted_fact_is_found_once(tokens: int, overlap_share: int, quotes: bool) -> None:
    """Windows and overlaps have any size; without an overlap cuts are only between sentences."""
    budget = tokens * 3
    overlap = budget // overlap_share if overlap_share else 0
    # a divided sentence is read in the window that contains all of it
    breaks = overlap >= 2 * SENTENCE_BYTES
    kinds = ("prose", "table", "chinese", "base64", "endless") if breaks else ("prose",)
    document = plant(tokens + overlap_share, cuts=range(budget, 30_000, budget), breaks=breaks, kinds=kinds)
    check(document, merged(document, cut(document.text, budget, overlap), quotes=quotes))


@pytest.mark.parametrize("seed", range(4))
def test_divided_windows_keep_each_fact_once(seed: int) -> None:
    """Refused or failed windows are halved, some of them twice."""
    rng = random.Random(seed)
    document = plant(seed, chars=20_000)
    spans: list[Span] = []
    waiting = cut(document.text, 6000, 600)
    while waiting:
        span = waiting.pop()
        halves = divide(document.text, span, 600) if rng.random() < 0.4 else None
        if halves is None:
            spans.append(span)
        else:
            waiting += halves
    check(document, merged(document, spans, quotes=True))


@pytest.mark.parametrize("seed", range(4))
def test_windows_of_different_sizes_are_merged(seed: int) -> None:
    """An earlier run answered some of them at another size."""
    rng = random.Random(seed)
    document = plant(seed, chars=20_000)
    laid = [span for span in cut(document.text, 5000, 600) if rng.random() < 0.5]
    check(document, merged(document, cut(document.text, 3000, 600, laid=laid), quotes=True))


@pytest.mark.parametrize("seed", range(40))
def test_rows_without_quotes_are_kept_at_every_size(seed: int) -> None:
    """Windows and overlaps of random sizes; also rows that the borders of two windows cut where pages end."""
    rng = random.Random(seed)
    budget = rng.choice((1200, 1500, 2000, 3000, 4500, 6000, 15_000))
    overlap = rng.randint(300, budget // 4)
    document = plant(seed, cuts=range(budget, 30_000, budget))
    check(document, merged(document, cut(document.text, budget, overlap), quotes=False))


@pytest.mark.parametrize(("seed", "budget", "overlap"), [(58, 3000, 400)])
def test_rows_without_quotes_that_were_once_lost(seed: int, budget: int, overlap: int) -> None:
    """Two equal rows, one cut by each border of the shared text."""
    document = plant(seed, cuts=range(budget, 30_000, budget))
    check(document, merged(document, cut(document.text, budget, overlap), quotes=False))
