"""The tables of the report page: variants side by side, who answered, fields, shards, extremes.

They must show numbers as the report has them, and work none out that it does not have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.report.markup import Row, table
from pipeline.report.questions import SHOWN_CHARS
from pipeline.report.remaining import RemainingFailures
from pipeline.report.text import counts_text, duration_text, rerun_command

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
    head = ("Provider", "Models", "Answered", "Tokens in", "Tokens out", "Half within", "95 % within", "Errors")
    rows = [
        (
            name,
            ", ".join(row["models"]) or None,
            row["done"],
            row["prompt_tokens"],
            row["completion_tokens"],
            *(seconds(row["latency"][key]) for key in ("p50_s", "p95_s")),
            ", ".join(f"{error} {count:,}" for error, count in row["errors"].items()) or None,
        )
        for name, row in sorted(providers.items())
    ]
    return table("Who answered", head, rows)


def fields(compared: Mapping[str, Any]) -> str:
    """How often each field is filled, its mean items, beside the run before; without columns that are empty."""
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


def remaining(report: Mapping[str, Any]) -> str:
    """The failures that remain in the input, by reason, with the command that retries those not tried in this run."""
    run, head = report["run"], ("Reason", "Remain failed", "Not tried in this run", "Accepted", "Example", "Again")
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
    return table("Failures that remain", head, rows)


def questions(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many documents are done with each question."""
    shown = [(row["fingerprint"][:SHOWN_CHARS], row["variant"], row["done"], row["done_in_output"]) for row in rows]
    return table("Results by question", ("Fingerprint", "Variant", "Done in this run", "Done in all runs"), shown)


def whole_output(output: Mapping[str, Any]) -> str:
    """How the documents of the whole output stand, over all runs."""
    rows: list[Row] = [(name, output[name]) for name in ("done", "failed") if name in output]
    rows += [("of the failed: accepted", output["accepted"])] if output.get("accepted") else []
    rows += [("failed now, with an older result", output["stale"])] if output.get("stale") else []
    rows += [(f"failed: {reason}", number) for reason, number in output.get("reasons", {}).items()]
    variants = output.get("variants", {})
    for name, row in sorted(variants.items()) if len(variants) > 1 else ():
        rows += [(f"variant {name}: {state}", number) for state, number in row.items()]
    return table("Whole output, over all runs", ("", "Documents"), rows)
