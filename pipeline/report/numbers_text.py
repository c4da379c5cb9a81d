"""The numbers of a run as lines of text: speed, latency, tokens, requests, who answered.

It must not compute what the report does not hold, except rates and shares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.logs import visible
from pipeline.report.questions import SHOWN_CHARS
from pipeline.terminal import grouped, labelled, plural


def numbers_lines(report: Mapping[str, Any], *, width: int) -> list[str]:
    """Return the numbers of the run, a label and a text per line; no lines when no document was processed."""
    run = report["run"]
    stats = run["stats"]
    total = stats["total"]
    if not total["done"] and not total["failed"]:
        return []
    rate = documents_per_second(stats)
    cached = cached_share(stats)
    rows = {
        "speed": f"{rate:.2f} documents per second" if rate else "",
        "latency": _latency(total["latency"]) if total["latency"]["p50_s"] is not None else "",
        "tokens": _tokens(total),
        "prompt cache": "" if cached is None else f"{cached:.0%} of the prompt tokens",
        "requests": _requests(total),
        "not sent": copied_text(stats),
        "overhead": _overhead(run.get("overhead")),
        "in flight": _limit(run.get("concurrency")),
        "answered by": _shares(stats["providers"], models=True),
        "variants": _shares(stats["variants"], models=False),
        "questions": _questions(report["questions"]),
        "ignored": ", ".join(f"{grouped(count)} {visible(kind)}" for kind, count in run["ignored"].items()),
    }
    lines = [line for label, text in rows.items() for line in labelled(label, text, indent=2, width=width)]
    return ["Numbers", *lines]


def _latency(latency: Mapping[str, Any]) -> str:
    median = duration_text(latency["p50_s"])
    p95 = duration_text(latency["p95_s"])
    return f"median {median}, 95 % within {p95}, longest {duration_text(latency['max_s'])}"


def _tokens(total: Mapping[str, Any]) -> str:
    unknown = f" (not reported for {plural(total['tokens_unknown'], 'document')})" if total["tokens_unknown"] else ""
    return f"{grouped(total['prompt_tokens'])} in, {grouped(total['completion_tokens'])} out{unknown}"


def _questions(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the documents done per question in this run, with the variant where there are several."""
    asked = [row for row in rows if row["done"]]
    several = len({row["variant"] for row in asked}) > 1
    return "; ".join(
        f"{row['variant'] + ' ' if several else ''}{row['fingerprint'][:SHOWN_CHARS]} {grouped(row['done'])} done"
        for row in asked
    )


def cached_share(stats: Mapping[str, Any]) -> float | None:
    """Return the share of the prompt tokens found in servers' caches; None when no server reports it."""
    cache = stats.get("prompt_cache")
    return cache["cached_tokens"] / cache["prompt_tokens"] if cache and cache["prompt_tokens"] else None


def _overhead(spent: Mapping[str, int] | None) -> str:
    """Return the cost of preflights, liveness requests and proofs; "" where a run does not report it."""
    if not spent or not spent["requests"]:
        return ""
    return f"{plural(spent['requests'], 'request')} for no document (preflight, proofs)"


def _limit(concurrency: Mapping[str, Any] | None) -> str:
    """Return the concurrency limit at the end of the run and its reason; "" when the user has set it."""
    if not concurrency or concurrency["reason"] == "set":
        return ""
    return f"up to {concurrency['limit']}: {concurrency['reason']}"


def _requests(total: Mapping[str, Any]) -> str:
    parts = [f"{grouped(total['attempts'])} sent"]
    parts += [f"{grouped(total['reasks'])} to correct an invalid answer"] if total["reasks"] else []
    parts += [f"{plural(total['repaired'], 'answer')} repaired (not clean JSON)"] if total["repaired"] else []
    return ", ".join(parts)


def _shares(table: Mapping[str, Mapping[str, Any]], *, models: bool) -> str:
    parts = []
    for name, row in sorted(table.items()):
        named = f" ({', '.join(map(visible, row['models']))})" if models and row["models"] else ""
        failed = f" and {grouped(row['failed'])} failed" if row["failed"] else ""
        errors = f", {plural(sum(row['errors'].values()), 'error')}" if models and row["errors"] else ""
        parts.append(f"{visible(name)}{named} {grouped(row['done'])} done{failed}{errors}")
    return "; ".join(parts)


def duration_text(seconds: float) -> str:
    """Return `8.4 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def copied(stats: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many documents got the record of an identical one: of this run, and of an earlier one."""
    notes = stats.get("notes", {})
    return notes.get("shared", 0), notes.get("reused", 0)


def copied_text(stats: Mapping[str, Any]) -> str:
    """Return how many documents were not sent, and why; empty without any."""
    shared, reused = copied(stats)
    parts = [f"{plural(shared, 'document')} identical to another one of this run"] if shared else []
    return ", ".join([*parts, *([f"{plural(reused, 'document')} done before under another id"] if reused else [])])


def documents_per_second(stats: Mapping[str, Any]) -> float | None:
    """Return the documents done or failed per second of the run, without copies; None without any."""
    processed = stats["outcomes"]["done"] + stats["outcomes"]["failed"] - sum(copied(stats))
    elapsed_s = stats["elapsed_s"]
    return processed / elapsed_s if processed and elapsed_s > 0 else None
