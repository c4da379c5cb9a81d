"""The numbers of a run as lines of text: speed, latency, tokens, requests, providers.

It must not compute values other than rates and shares.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.logs import visible
from pipeline.report.contents import QuestionRow, Report
from pipeline.report.numbers import Latency, LongDocumentNumbers, ProviderNumbers, RunNumbers, Tally
from pipeline.report.questions import SHOWN_CHARS
from pipeline.report.run_summary import Concurrency, Overhead
from pipeline.terminal import grouped, labelled, percent_text, plural


def numbers_lines(report: Report, *, width: int) -> list[str]:
    """Return the numbers of the run, a label and a text per line; no lines when nothing was processed.

    A run that was stopped in its first long document has the number of its windows only.
    """
    run = report.run
    stats = run.stats
    total = stats.total
    windows = long_documents_text(stats.long_documents)
    if not total.done and not total.failed:
        return ["Numbers", *labelled("windows", windows, indent=2, width=width)] if windows else []
    rate = documents_per_second(stats)
    cached = cached_share(stats)
    rows = {
        "speed": f"{rate:.2f} documents per second" if rate else "",
        "latency": _latency(total.latency),
        "tokens": _tokens(total),
        "prompt cache": "" if cached is None else f"{percent_text(cached)} of the prompt tokens",
        "requests": _requests(total),
        "windows": windows,
        "not sent": copied_text(stats),
        "overhead": _overhead(run.overhead),
        "concurrency": _limit(run.concurrency),
        "answered by": "; ".join(_provider_text(*item) for item in sorted(stats.providers.items())),
        "variants": "; ".join(_share(name, row) for name, row in sorted(stats.variants.items())),
        "fingerprints": _questions(report.questions),
        "ignored": ", ".join(f"{grouped(count)} {visible(kind)}" for kind, count in run.ignored.items()),
    }
    lines = [line for label, text in rows.items() for line in labelled(label, text, indent=2, width=width)]
    return ["Numbers", *lines]


def _latency(latency: Latency) -> str:
    if latency.p50_s is None or latency.p95_s is None:
        return ""
    median = duration_text(latency.p50_s)
    p95 = duration_text(latency.p95_s)
    return f"median {median}, 95 % within {p95}, longest {duration_text(latency.max_s)}"


def _tokens(total: Tally) -> str:
    unknown = f" (not reported for {plural(total.tokens_unknown, 'document')})" if total.tokens_unknown else ""
    return f"{grouped(total.prompt_tokens)} in, {grouped(total.completion_tokens)} out{unknown}"


def _questions(rows: Sequence[QuestionRow]) -> str:
    """Return the documents done per fingerprint in this run, with the variant where there are several."""
    done_rows = [row for row in rows if row.done]
    several = len({row.variant for row in done_rows}) > 1
    return "; ".join(
        f"{row.variant + ' ' if several else ''}{row.fingerprint[:SHOWN_CHARS]} {grouped(row.done)} done"
        for row in done_rows
    )


def cached_share(stats: RunNumbers) -> float | None:
    """Return the share of the prompt tokens found in servers' caches; None when no server reports it."""
    cache = stats.prompt_cache
    return cache.cached_tokens / cache.prompt_tokens if cache.prompt_tokens else None


def _overhead(spent: Overhead | None) -> str:
    """Return the cost of preflights, liveness and verification requests; "" where a run does not report it."""
    if not spent or not spent.requests:
        return ""
    return f"{plural(spent.requests, 'request')} (checks of the servers and of long prompts)"


def _limit(concurrency: Concurrency | None) -> str:
    """Return the concurrency limit at the end of the run and its reason; "" for one that was set or not measured."""
    if not concurrency or concurrency.reason in ("", "set"):
        return ""
    return f"{concurrency.limit} requests at a time: {concurrency.reason}"


def _requests(total: Tally) -> str:
    parts = [f"{grouped(total.attempts)} sent"]
    parts += [f"{grouped(total.reasks)} to correct an invalid answer"] if total.reasks else []
    parts += [f"{plural(total.repaired, 'answer')} repaired (not clean JSON)"] if total.repaired else []
    return ", ".join(parts)


def long_documents_text(numbers: LongDocumentNumbers | None) -> str:
    """Return the number of windows by outcome, and of their documents; "" without any."""
    if numbers is None:
        return ""
    reused = f" ({grouped(numbers.reused)} of them in an earlier run)" if numbers.reused else ""
    most_text = f", of {grouped(numbers.most)} at most" if numbers.documents > 1 else ""
    parts = [
        f"{grouped(numbers.windows)} answered{reused}",
        f"{plural(numbers.documents, 'long document')} ended{most_text}",
    ]
    parts += [f"{grouped(numbers.divided)} divided into smaller ones"] if numbers.divided else []
    parts += [f"{plural(numbers.conflicts, 'value')} differed between windows"] if numbers.conflicts else []
    parts += [f"{plural(numbers.dropped, 'item')} left out by x-over"] if numbers.dropped else []
    return ", ".join(parts + ([f"{grouped(numbers.merge_failed)} not merged"] if numbers.merge_failed else []))


def _provider_text(name: str, row: ProviderNumbers) -> str:
    models = f" ({', '.join(map(visible, row.models))})" if row.models else ""
    errors = f", {plural(sum(row.errors.values()), 'error')}" if row.errors else ""
    return f"{_share(name, row, models=models)}{errors}"


def _share(name: str, row: Tally, *, models: str = "") -> str:
    failed = f" and {grouped(row.failed)} failed" if row.failed else ""
    return f"{visible(name)}{models} {grouped(row.done)} done{failed}"


def duration_text(seconds: float) -> str:
    """Return `35 ms`, `8.4 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 0.9995:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    return f"{minutes} min {rest_s} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def copied(stats: RunNumbers) -> tuple[int, int]:
    """Return the numbers of documents with the record of an identical one, of this run and of an earlier run."""
    return stats.notes.get("shared", 0), stats.notes.get("reused", 0)


def copied_text(stats: RunNumbers) -> str:
    """Return how many documents were not sent, and why; empty without any."""
    shared, reused = copied(stats)
    parts = [f"{plural(shared, 'document')} identical to another one of this run"] if shared else []
    return ", ".join([*parts, *([f"{plural(reused, 'document')} done before under another id"] if reused else [])])


def documents_per_second(stats: RunNumbers) -> float | None:
    """Return the documents done or failed per second of the run, without copies; None without any."""
    processed = stats.outcomes.done + stats.outcomes.failed - sum(copied(stats))
    elapsed_s = stats.elapsed_s
    return processed / elapsed_s if processed and elapsed_s > 0 else None


def requests_per_second(stats: RunNumbers) -> float | None:
    """Return the documents sent whole and the windows answered per second of a run; None without windows."""
    long_documents = stats.long_documents
    if long_documents is None or not long_documents.sent or stats.elapsed_s <= 0:
        return None
    documents = stats.outcomes.done + stats.outcomes.failed - sum(copied(stats))
    return (max(0, documents - long_documents.documents) + long_documents.sent) / stats.elapsed_s
