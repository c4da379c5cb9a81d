"""The numbers of several runs as one, and the figures derived from counts: percentiles and shares.

It must not read a file or count a document.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any, TypeVar

from pipeline.report import plain, timeline
from pipeline.report.numbers import FieldCounts, Latency, RunNumbers, Tally, Timeline

EXAMPLES = 3
TOP = 5
LATENCY_STEP = math.log(1.05)  # a percentile is at most 5 % too high
LATENCY_MIN_S = 0.001
TallyT = TypeVar("TallyT", bound=Tally)


def merge(snapshots: Sequence[RunNumbers]) -> RunNumbers:
    """Return the numbers of several runs (the shards of an output) as one; times count from each start."""
    merged = plain.to_json(RunNumbers())
    spans = Timeline()
    for snapshot in snapshots:
        merged = sum_of(merged, plain.to_json(replace(snapshot, timeline=Timeline())))
        spans = timeline.merged(spans, snapshot.timeline)
    return derived(replace(plain.from_json(RunNumbers, merged), timeline=spans))


def sum_of(left: Any, right: Any, key: str = "") -> Any:
    """Return a new merged value: counts are added, maxima and `elapsed_s` keep the larger, lists their top entries."""
    if isinstance(left, dict):
        names = [*left, *(name for name in right if name not in left)]
        return {name: sum_at(left, right, name) for name in names}
    if isinstance(left, list):
        by = {"slowest": "latency_s", "largest": "chars"}.get(key)
        combined = left + right
        return sorted(combined, key=lambda row: (-row[by], row["id"]))[:TOP] if by else combined[:EXAMPLES]
    if key in ("max_s", "elapsed_s", "most"):
        return max(left, right)
    return (left or 0) + (right or 0)


def sum_at(left: Mapping[str, Any], right: Mapping[str, Any], name: str) -> Any:
    if name in left and name in right:
        return sum_of(left[name], right[name], name)
    return deepcopy(left[name] if name in left else right[name])


def derived(numbers: RunNumbers) -> RunNumbers:
    """Return the numbers with the figures derived from them: percentiles, empty shares, mean items."""
    variants = {
        name: replace(_with_quantiles(variant), fields=_with_shares(variant.fields))
        for name, variant in numbers.variants.items()
    }
    return replace(
        numbers,
        total=_with_quantiles(numbers.total),
        variants=variants,
        providers={name: _with_quantiles(provider) for name, provider in numbers.providers.items()},
        fields=_with_shares(numbers.fields),
    )


def _with_quantiles(tally: TallyT) -> TallyT:
    latency = tally.latency
    quantiles = replace(latency, p50_s=quantile_s(latency, 0.5), p95_s=quantile_s(latency, 0.95))
    return replace(tally, latency=quantiles)


def _with_shares(fields: Mapping[str, FieldCounts]) -> dict[str, FieldCounts]:
    return {
        name: replace(
            counts,
            empty_share=round(counts.empty / counts.documents, 4) if counts.documents else None,
            mean_items=round(counts.items / counts.lists, 4) if counts.lists else None,
        )
        for name, counts in fields.items()
    }


def quantile_s(latency: Latency, share: float) -> float | None:
    """Return the latency that this share of the documents did not exceed, at most 5 % too high; None without any."""
    buckets = sorted((int(index), count) for index, count in latency.buckets.items())
    rank = share * sum(count for _, count in buckets)
    count_so_far = 0
    for index, count in buckets:
        count_so_far += count
        if count_so_far >= rank:
            return float(min(LATENCY_MIN_S * math.exp(index * LATENCY_STEP), latency.max_s))
    return None
