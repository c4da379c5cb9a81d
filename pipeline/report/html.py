"""The report as one self-contained HTML page: no network, no script, light and dark, fit for a phone and for print.

It must not write markup: `report.html.jinja` does, and escapes every value, as ids, messages and names come from
documents, servers and models.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from pipeline.report import tables
from pipeline.report.contents import Report
from pipeline.report.grades import grades_of
from pipeline.report.numbers import Example
from pipeline.report.numbers_text import cached_share, copied, documents_per_second, duration_text
from pipeline.report.page_answers import answers, quality_chart
from pipeline.report.page_charts import history_charts, timeline_charts
from pipeline.report.page_sentences import sentence, warnings
from pipeline.report.page_template import render
from pipeline.report.run_summary import Json, RunSummary
from pipeline.report.tables import percent, seconds
from pipeline.report.text import (
    counts_text,
    ordered_reasons,
    remaining_text,
    rerun_command,
    show_command,
    story_command,
)
from pipeline.shards import Shard, owner
from pipeline.terminal import percent_text

_ALWAYS = ("found", "done", "failed")
_TONES = {False: "good", True: "fair"}
_MARKS = {"good": "✓", "fair": "!", "bad": "✕"}


@dataclass(frozen=True, slots=True)
class Tile:
    """A number with its name, and its meaning where the name does not explain it."""

    name: str
    value: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Story:
    """A failed document with its requests. `link`: to its error line; "" where there is no file beside the page."""

    example: Example
    link: str
    command: str


@dataclass(frozen=True, slots=True)
class FailedReason:
    """The failures of one reason. `share`: of all attempted documents. `advice`: with `code`."""

    reason: str
    count: int
    share: str
    width: str
    advice: str
    stories: tuple[Story, ...]
    command: str


def page(report: Report) -> str:
    """Return the HTML file."""
    run = report.run
    grades = grades_of(run.eval)
    tone = "bad" if report.exit_code else _TONES[report.is_fair]
    return render(
        "report.html.jinja",
        {
            "report": report,
            "run": run,
            "place": run.place or "out",
            "tone": tone,
            "mark": _MARKS[tone],
            "sentence": sentence(run),
            "counts": f"{counts_text(run.counts)}{remaining_text(run)} (exit {report.exit_code})",
            "period": _period(run.started_at, run.finished_at),
            "warnings": warnings(report),
            "resume": (run.resume or run.command) if run.counts.left else "",
            "tiles": list(_tiles(run)),
            "failures": list(_failures(report)),
            "details": story_command(run),
            "answers": answers(grades) if grades else None,
            "quality": quality_chart(report.history),
            "history": history_charts(report.history),
            "timeline": timeline_charts(run.stats.timeline),
            "config": _lines(run.config),
            **_tables(report),
        },
    )


def _tables(report: Report) -> dict[str, Any]:
    run = report.run
    return {
        "remaining": tables.remaining(report),
        "compared": [
            tables.variants(run.stats.variants),
            tables.providers(run.stats.providers),
            *([tables.fields(report.compared)] if _compares(report) else []),
            *tables.values(report.profile),
            tables.shards(report),
        ],
        "small": [
            tables.slowest(run.stats),
            tables.longest_documents(run.stats),
            tables.long_documents(run.stats),
            tables.notes(run.stats),
            tables.ignored(run),
            tables.questions(report.questions),
            tables.whole_output(report.output),
            tables.places(run),
        ],
    }


def _compares(report: Report) -> bool:
    """Return True when the table of fields compares runs, or when the report has no table of values."""
    return bool(report.compared.with_runs) or not report.profile.documents


def _lines(config: Json) -> list[str]:
    """Return the configuration as lines of JSON."""
    return json.dumps(config, ensure_ascii=False, indent=2, default=str).split("\n") if config else []


def _period(start: str, end: str) -> str:
    """Return start and end of a run to the minute; omit the date of the end if it is that of the start."""
    first = start[:16].replace("T", " ")
    last = end[:16].replace("T", " ")
    if first == last:
        return f"{first} UTC"
    return f"{first} to {last[11:] if first[:10] == last[:10] else last} UTC"


def _tiles(run: RunSummary) -> Iterator[Tile]:
    partial = () if run.listed_whole else ("found", "left")
    for name, number in run.counts.items():
        if number or name in _ALWAYS:
            yield Tile(name, f"at least {number:,}" if name in partial else f"{number:,}")
    yield Tile("duration", duration_text(run.stats.elapsed_s))
    if run.stats.total.done or run.stats.total.failed:
        yield from (tile for tile in _request_tiles(run) if tile.value)


def _request_tiles(run: RunSummary) -> list[Tile]:
    """Return the figures about the requests, for a run that sent some."""
    stats = run.stats
    total = stats.total
    limit = run.concurrency
    rate = documents_per_second(stats)
    cached = cached_share(stats)
    not_sent = sum(copied(stats))
    return [
        Tile("documents / s", f"{rate:.2f}" if rate else "–"),
        Tile("median latency", seconds(total.latency.p50_s), "half of the documents took no longer"),
        Tile("95 % latency", seconds(total.latency.p95_s), "95 % of the documents took no longer"),
        Tile("longest", seconds(total.latency.max_s or None)),
        Tile("concurrency", f"{limit.limit:,}" if limit else "", "requests at a time, at most"),
        Tile("tokens in", f"{total.prompt_tokens:,}", "tokens of the prompts"),
        Tile("tokens out", f"{total.completion_tokens:,}", "tokens of the answers"),
        Tile("cached tokens", "" if cached is None else percent(cached), "share of the prompt tokens"),
        Tile("requests", f"{total.attempts:,}"),
        Tile("not sent", f"{not_sent:,}" if not_sent else "", "documents identical to others"),
        Tile("corrections", f"{total.reasks:,}" if total.reasks else "", "requests after an invalid answer"),
        Tile("repaired answers", f"{total.repaired:,}" if total.repaired else "", "valid, but not clean JSON"),
    ]


def _failures(report: Report) -> Iterator[FailedReason]:
    run = report.run
    reasons = ordered_reasons(run)
    total = max(1, run.counts.tried, *(row.count for _, row in reasons))
    for reason, row in reasons:
        yield FailedReason(
            reason=reason,
            count=row.count,
            share=percent_text(row.count / total, 1),
            width=f"{100 * row.count / total:.1f}",
            advice=report.advice.get(reason, "see the log"),
            stories=tuple(_story(report, example) for example in row.examples),
            command=rerun_command(run, reason),
        )


def _story(report: Report, example: Example) -> Story:
    file = _errors_file(report, example.id)
    fragment = quote(example.id, safe="", errors="replace").replace("-", "%2D")
    link = f"{quote(file)}#:~:text={fragment}" if file else ""
    return Story(example, link, show_command(report.run, example.id) if example.history is not None else "")


def _errors_file(report: Report, id: str) -> str:
    """Return the file beside the report with the document's error line; "" for parts in an object store."""
    if any(str(row.shard).startswith("chunk") for row in report.shards):
        return ""  # which chunk holds a document is in the plan only
    shards = len(report.shards) + len(report.missing_shards) if report.shards else 0
    name = f"errors{Shard(owner(id, shards), shards).suffix}.jsonl"
    return name if name in report.run.files else ""
