"""The tables of the report page: variants, providers, fields, shards, extremes.

They must show the numbers of the report and compute no others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.report.markup import Row, table
from pipeline.report.numbers_text import duration_text
from pipeline.report.questions import SHOWN_CHARS
from pipeline.report.remaining import RemainingFailures
from pipeline.report.text import counts_text, rerun_command

_COUNTS = {
    "Done": "done",
    "Failed": "failed",
    "Requests": "attempts",
    "Corrections": "reasks",
    "Repaired": "repaired",
    "Tokens in": "prompt_tokens",
    "Tokens out": "completion_tokens",
}


def variants(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a table with a column per variant; "" for a single variant, which the other sections cover."""
    if len(rows) < 2:
        return ""
    names = sorted(rows)
    columns = [rows[name] for name in names]
    reasons = sorted({reason for row in columns for reason in row["reasons"]})
    fields = list(dict.fromkeys(field for row in columns for field in row["fields"]))
    lines: list[Row] = [(label, *(row[key] for row in columns)) for label, key in _COUNTS.items()]
    lines.insert(2, ("Share done", *(percent(row["done"] / ((row["done"] + row["failed"]) or 1)) for row in columns)))
    lines += [(label, *(seconds(row["latency"][key]) for row in columns)) for label, key in _LATENCY.items()]
    lines += [(f"failed: {reason}", *(row["reasons"].get(reason, 0) for row in columns)) for reason in reasons]
    lines += [(f"filled: {field}", *(_filled(row["fields"].get(field)) for row in columns)) for field in fields]
    return table("Variants side by side", ("", *names), lines)


_LATENCY = {"Median latency": "p50_s", "95 % latency": "p95_s"}


def _filled(counts: Mapping[str, Any] | None) -> str:
    share = counts["empty_share"] if counts else None
    return percent(None if share is None else 1 - share)


def seconds(value: float | None) -> str:
    """Return a duration as text, or a dash for None."""
    return "–" if value is None else duration_text(value)


def percent(share: float | None) -> str:
    """Return a share in percent, or a dash for None."""
    return "–" if share is None else f"{share:.0%}"


def providers(providers: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the table of providers: models, results, tokens, latency and errors."""
    head = ("Provider", "Models", "Done", "Tokens in", "Tokens out", *_LATENCY, "Errors")
    rows = [
        (
            name,
            ", ".join(row["models"]) or None,
            row["done"],
            row["prompt_tokens"],
            row["completion_tokens"],
            *(seconds(row["latency"][key]) for key in _LATENCY.values()),
            ", ".join(f"{error} {count:,}" for error, count in row["errors"].items()) or None,
        )
        for name, row in sorted(providers.items())
    ]
    return table("Providers", head, rows)


def fields(compared: Mapping[str, Any]) -> str:
    """Return how often each field is filled and its mean items, now and in the run before; no empty columns."""
    rows = compared["fields"].items()
    columns = [(title, key) for title, key in _FIELD.items() if any(row[key] is not None for _, row in rows)]
    shown = [(name, *(_field_value(row[key], key) for _, key in columns)) for name, row in rows]
    return table("Fields of the results", ("Field", *(title for title, _ in columns)), shown if columns else ())


_FIELD = {
    "Filled": "filled",
    "Filled in the run before": "filled_before",
    "Mean items": "mean_items",
    "Mean items in the run before": "mean_items_before",
}


def _field_value(value: float | None, key: str) -> float | str | None:
    return percent(value) if key.startswith("filled") else value


def shards(report: Mapping[str, Any]) -> str:
    """Return a table with a row per shard of a merged report."""
    rows = [
        (
            shard["shard"],
            shard["verdict"],
            shard["exit_code"],
            counts_text(shard["counts"]),
            duration_text(shard["elapsed_s"]),
        )
        for shard in report["shards"]
    ]
    return table("Shards", ("Shard", "Verdict", "Exit code", "Documents", "Duration"), rows)


def extremes(stats: Mapping[str, Any]) -> str:
    """Return the tables of the slowest and the largest documents."""
    slowest = [(document["id"], duration_text(document["latency_s"])) for document in stats["slowest"]]
    largest = [(document["id"], document["chars"]) for document in stats["largest"]]
    return table("Slowest documents", ("Document", "Latency"), slowest) + table(
        "Largest documents", ("Document", "Characters"), largest
    )


def remaining(report: Mapping[str, Any]) -> str:
    """Return the remaining failures of the input by reason, with the commands that retry them."""
    run = report["run"]
    head = ("Reason", "Remaining", "Not retried in this run", "Accepted", "Example", "Retry")
    rows = [
        (
            reason,
            count.count,
            count.untried,
            count.accepted,
            next(iter(count.examples), None),
            rerun_command(run, reason) if count.count else None,
        )
        for reason, count in RemainingFailures.from_json(run.get("remaining")).reasons.items()
        if count.untried or count.accepted
    ]
    return table("Remaining failures", head, rows)


def questions(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return how many documents are done per question."""
    shown = [(row["fingerprint"][:SHOWN_CHARS], row["variant"], row["done"], row["done_in_output"]) for row in rows]
    return table("Results by question", ("Fingerprint", "Variant", "Done in this run", "Done in all runs"), shown)


def whole_output(output: Mapping[str, Any]) -> str:
    """Return the state of all documents of the output, over all runs."""
    rows: list[Row] = [(name, output[name]) for name in ("done", "failed") if name in output]
    rows += [("of the failed: accepted", output["accepted"])] if output.get("accepted") else []
    rows += [("failed now, with an older result", output["stale"])] if output.get("stale") else []
    rows += [(f"failed: {reason}", number) for reason, number in output.get("reasons", {}).items()]
    variants = output.get("variants", {})
    for name, row in sorted(variants.items()) if len(variants) > 1 else ():
        rows += [(f"variant {name}: {state}", number) for state, number in row.items()]
    return table("Whole output, over all runs", ("", "Documents"), rows)
