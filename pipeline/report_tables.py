"""The tables of the report page: variants side by side, who answered, fields, shards, extremes.

They must show numbers as the report has them, and work none out that it does not have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.markup import Row, table
from pipeline.summary_text import counts_text, duration_text

_TALLY = {
    "Done": "done",
    "Failed": "failed",
    "Requests": "attempts",
    "Re-asked": "reasks",
    "Mended": "repaired",
    "Tokens in": "prompt_tokens",
    "Tokens out": "completion_tokens",
}


def variants(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """A column for each variant; nothing when there is one only, as the other sections say it all."""
    if len(rows) < 2:
        return ""
    names = sorted(rows)
    each = [rows[name] for name in names]
    reasons = sorted({reason for row in each for reason in row["reasons"]})
    fields = list(dict.fromkeys(field for row in each for field in row["fields"]))
    lines: list[Row] = [(label, *(row[key] for row in each)) for label, key in _TALLY.items()]
    lines.insert(2, ("Share done", *(percent(row["done"] / ((row["done"] + row["failed"]) or 1)) for row in each)))
    lines += [(label, *(seconds(row["latency"][key]) for row in each)) for label, key in _LATENCY.items()]
    lines += [(f"failed: {reason}", *(row["reasons"].get(reason, 0) for row in each)) for reason in reasons]
    lines += [(f"filled: {field}", *(_filled(row["fields"].get(field)) for row in each)) for field in fields]
    return table("Variants side by side", ("", *names), lines)


_LATENCY = {"Half within": "p50_s", "95 % within": "p95_s"}


def _filled(counts: Mapping[str, Any] | None) -> str:
    share = counts["empty_share"] if counts else None
    return percent(None if share is None else 1 - share)


def seconds(value: float | None) -> str:
    """A time for people, or a dash."""
    return "–" if value is None else duration_text(value)


def percent(share: float | None) -> str:
    """A share for people, or a dash."""
    return "–" if share is None else f"{share:.0%}"


def providers(providers: Mapping[str, Mapping[str, Any]]) -> str:
    """Who answered, with which models, and the errors on the way."""
    head = ("Provider", "Models", "Answered", "Errors", "Tokens in", "Tokens out", "Half within", "95 % within")
    rows = [
        (
            name,
            ", ".join(row["models"]) or None,
            row["done"],
            ", ".join(f"{error} {count}" for error, count in row["errors"].items()) or None,
            row["prompt_tokens"],
            row["completion_tokens"],
            *(seconds(row["latency"][key]) for key in ("p50_s", "p95_s")),
        )
        for name, row in sorted(providers.items())
    ]
    return table("Who answered", head, rows)


def fields(compared: Mapping[str, Any]) -> str:
    """How often each field is filled, beside the run before."""
    head = ("Field", "Filled", "In the run before", "Mean items", "In the run before")
    rows = [
        (name, percent(row["filled"]), percent(row["filled_before"]), row["mean_items"], row["mean_items_before"])
        for name, row in compared["fields"].items()
    ]
    return table("Fields of the results", head, rows)


def shards(report: Mapping[str, Any]) -> str:
    """A row for each shard of a merged report."""
    rows = [
        (
            each["shard"],
            each["verdict"],
            each["exit_code"],
            counts_text(each["counts"]),
            duration_text(each["elapsed_s"]),
        )
        for each in report["shards"]
    ]
    return table("Shards", ("Shard", "Verdict", "Exit code", "Documents", "Took"), rows)


def extremes(stats: Mapping[str, Any]) -> str:
    """The slowest and the largest documents."""
    slowest = [(each["id"], duration_text(each["latency_s"])) for each in stats["slowest"]]
    largest = [(each["id"], each["chars"]) for each in stats["largest"]]
    return table("Slowest documents", ("Document", "Took"), slowest) + table(
        "Largest documents", ("Document", "Characters"), largest
    )


def flat(values: Mapping[str, Any], before: str = "") -> list[Row]:
    """Nested numbers as rows, `a.b` for b within a."""
    rows: list[Row] = []
    for key, value in values.items():
        rows += flat(value, f"{before}{key}.") if isinstance(value, Mapping) else [(f"{before}{key}", value)]
    return rows
