"""The report as one self-contained HTML page: no network, no script, light and dark, fit for a phone.

It must not write unescaped text: ids, messages and names come from documents, servers and models.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from itertools import zip_longest
from string import Template
from typing import Any
from urllib.parse import quote

from pipeline.report import tables
from pipeline.report.answers import answers_section
from pipeline.report.markup import section, table, text
from pipeline.report.numbers_text import cached_share, copied, documents_per_second, duration_text
from pipeline.report.profile_page import profile_section
from pipeline.report.profile_text import move_text
from pipeline.report.remaining import RemainingFailures, untried_reasons
from pipeline.report.svg import Series, chart
from pipeline.report.tables import percent, seconds
from pipeline.report.text import (
    counts_text,
    is_fair,
    left_text,
    lost_shards,
    remaining_text,
    rerun_command,
    shown_files,
    story_command,
)
from pipeline.shards import Shard, owner
from pipeline.terminal import plural

_ALWAYS = ("found", "done", "failed")
_SHOWN_MOVES = 5
_SHOWN_REASONS = 5
"""Reasons with their own colour in the chart of failures; the others share one."""


def page(report: Mapping[str, Any]) -> str:
    """Return the HTML file."""
    template = Template((files("pipeline.report") / "report.html.tmpl").read_text(encoding="utf-8"))
    run = report["run"]
    sections = [
        _warnings(report),
        _numbers(report),
        _failures(report),
        tables.remaining(report),
        answers_section(run.get("eval")),
        _timeline(run["stats"]["timeline"]),
        tables.variants(run["stats"]["variants"]),
        tables.providers(run["stats"]["providers"]),
        tables.fields(report["compared"]),
        profile_section(report.get("profile")),
        tables.shards(report),
        tables.extremes(run["stats"]),
        table("Notes on documents", ("Note", "Documents"), run["stats"]["notes"].items()),
        table("Ignored files", ("Kind", "Files"), run["ignored"].items()),
        tables.questions(report["questions"]),
        tables.whole_output(report["output"]),
        table("Files", ("What", "Where"), shown_files(run).items()),
        _config(run["config"]),
    ]
    return template.substitute(
        title=text(f"{report['verdict']} – {run['agent']} in {_output_of(run)}, run {run['run']}"),
        tone=_tone(report),
        verdict=text(report["verdict"]),
        sentence=text(_sentence(run)),
        counts=text(f"{counts_text(run['counts'])}{remaining_text(run)} (exit {report['exit_code']})"),
        message=f"<p>{text(run['message'])}</p>" if run["message"] else "",
        about=text(
            f"Agent {run['agent']}, output {_output_of(run)}, run {run['run']} ({run['run_id']}), "
            f"{_minute(run['started_at'])} to {_minute(run['finished_at'])} UTC"
        ),
        sections="\n".join(filter(None, sections)),
    )


def _output_of(run: Mapping[str, Any]) -> str:
    """Return the folder or the address of the output, from the place of its page."""
    return str(run["files"].get("report.html", "out/report.html")).rpartition("/")[0]


def _sentence(run: Mapping[str, Any]) -> str:
    """Return the outcome of the attempted documents in a sentence, with the most frequent reason of failure."""
    return f"{_tried_sentence(run)}{_untried_sentence(run)}"


def _untried_sentence(run: Mapping[str, Any]) -> str:
    """Return how many documents remain failed that this run did not retry, by reason; "" without any."""
    remaining = RemainingFailures.from_json(run.get("remaining"))
    reasons = ", ".join(f"{reason} ({count.untried:,})" for reason, count in untried_reasons(remaining)[:3])
    remain = "remains" if remaining.untried == 1 else "remain"
    if not remaining.untried:
        return ""
    return f" {plural(remaining.untried, 'document')} {remain} failed from earlier runs: {reasons}."


def _tried_sentence(run: Mapping[str, Any]) -> str:
    counts = run["counts"]
    reasons = run["stats"]["reasons"]
    tried = counts["done"] + counts["failed"]
    if not tried:
        return _no_requests_sentence(counts)
    if not counts["failed"]:
        return f"All {tried:,} attempted documents are done." if tried > 1 else "The one attempted document is done."
    most = min(reasons, key=lambda name: (-reasons[name]["count"], name), default="")
    cause = f", most often with {most} ({reasons[most]['count']:,})" if len(reasons) > 1 else f", with {most}"
    share = counts["failed"] / tried
    return f"{counts['failed']:,} of {plural(tried, 'attempted document')} failed ({share:.1%}){cause}."


def _no_requests_sentence(counts: Mapping[str, int]) -> str:
    if counts["found"] <= counts["ignored"]:
        return "No document was found."
    return "No document was processed." if counts["left"] else "All documents are up to date."


def _minute(moment: str) -> str:
    """Return a record's time without its seconds."""
    return moment[:16].replace("T", " ")


def _tone(report: Mapping[str, Any]) -> str:
    if report["exit_code"]:
        return "bad"
    return "fair" if is_fair(report) else "good"


def _warnings(report: Mapping[str, Any]) -> str:
    texts = [f"No run of shard {index} is in this output." for index in lost_shards(report)]
    texts += [f"{warning[:1].upper()}{warning[1:]}." for warning in report["mixed_questions"]]
    texts += report["compared"]["warnings"]
    moved = (report.get("profile") or {}).get("against") or {"moved": []}
    texts += [f"Values moved: {move_text(move)}." for move in moved["moved"][:_SHOWN_MOVES]]
    texts += [f"{message}."] if (message := left_text(report["run"])) else []
    items = "".join(f"<li>{text(warning)}</li>" for warning in texts)
    return f"<section class=warn><h2>Warnings</h2><ul>{items}</ul></section>" if items else ""


def _numbers(report: Mapping[str, Any]) -> str:
    run = report["run"]
    partial = () if run.get("listed_whole", True) else ("found", "left")
    tiles = [
        (name, f"at least {number:,}" if name in partial else f"{number:,}", "")
        for name, number in run["counts"].items()
        if number or name in _ALWAYS
    ]
    tiles.append(("duration", duration_text(run["stats"]["elapsed_s"]), ""))
    if run["stats"]["total"]["done"] or run["stats"]["total"]["failed"]:
        tiles += _request_tiles(run)
    return section("Numbers", "<dl class=tiles>" + "".join(_tile(*tile) for tile in tiles) + "</dl>")


def _request_tiles(run: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return (name, value, hint) of what the requests took; for a run that sent some."""
    stats = run["stats"]
    total = stats["total"]
    latency = total["latency"]
    limit = run.get("concurrency")
    rate = documents_per_second(stats)
    cached = cached_share(stats)
    tiles = [
        ("documents / s", f"{rate:.2f}" if rate else "–", ""),
        ("median latency", seconds(latency["p50_s"]), "half of the documents took no longer"),
        ("95 % latency", seconds(latency["p95_s"]), "95 % of the documents took no longer"),
        ("longest", seconds(latency["max_s"] or None), ""),
        ("concurrency", f"{limit['limit']:,}" if limit else "", "documents in flight at most"),
        ("tokens in", f"{total['prompt_tokens']:,}", ""),
        ("tokens out", f"{total['completion_tokens']:,}", ""),
        ("cached tokens", "" if cached is None else percent(cached), "share of the prompt tokens"),
        ("requests", f"{total['attempts']:,}", ""),
        ("not sent", f"{sum(copied(stats)):,}" if sum(copied(stats)) else "", "documents identical to others"),
        ("corrections", f"{total['reasks']:,}" if total["reasks"] else "", "requests after an invalid answer"),
        ("repaired answers", f"{total['repaired']:,}" if total["repaired"] else "", "valid, but not clean JSON"),
    ]
    return [tile for tile in tiles if tile[1]]


def _tile(name: str, value: str, hint: str) -> str:
    small = f"<small>{text(hint)}</small>" if hint else ""
    return f"<div><dt>{text(name)}</dt><dd>{text(value)}{small}</dd></div>"


def _failures(report: Mapping[str, Any]) -> str:
    reasons = sorted(report["run"]["stats"]["reasons"].items(), key=lambda item: (-item[1]["count"], item[0]))
    counts = report["run"]["counts"]
    tried = max(1, counts["done"] + counts["failed"], *(row["count"] for _, row in reasons))
    failed = "".join(_failure(report, *item, tried=tried) for item in reasons)
    return section("What failed, and what to do about it", failed + _details(report) if failed else "")


def _details(report: Mapping[str, Any]) -> str:
    """Return the command that shows each request, answer and complaint of one document; "" without failures."""
    command = story_command(report["run"])
    return f"<p>All details of one document:</p><pre>{text(command)}</pre>" if command else ""


def _failure(report: Mapping[str, Any], reason: str, row: Mapping[str, Any], *, tried: int) -> str:
    examples = "".join(_example(report, example) for example in row["examples"])
    share = row["count"] / tried
    return (
        f"<article><h3>{text(reason)} <span class=count>{text(row['count'])}, {share:.1%} of all attempted</span></h3>"
        f'<div class=share><i style="width:{100 * share:.1f}%"></i></div>'
        f"<p>{_marked(report['advice'].get(reason, 'see the log'))}</p><ul>{examples}</ul>"
        f"<pre>{text(rerun_command(report['run'], reason))}</pre></article>\n"
    )


def _example(report: Mapping[str, Any], example: Mapping[str, Any]) -> str:
    document = _linked(example["id"], _errors_file(report, example["id"]))
    return f"<li>{document} <span>{text(example['message'])}</span></li>"


def _errors_file(report: Mapping[str, Any], id: str) -> str:
    """Return the file beside the report with the document's error line; "" for parts in an object store."""
    shards = len(report["shards"]) + len(report["missing_shards"]) if report["shards"] else 0
    name = f"errors{Shard(owner(id, shards), shards).suffix}.jsonl"
    return name if name in report["run"]["files"] else ""


def _linked(id: str, file: str) -> str:
    """Return the id as a link to its line in the error file (a text fragment), or as text without a file."""
    shown = f"<code>{text(id)}</code>"
    fragment = quote(id, safe="", errors="replace").replace("-", "%2D")
    return f'<a href="{quote(file)}#:~:text={fragment}">{shown}</a>' if file else shown


def _marked(advice: str) -> str:
    """Return the advice as HTML, its `names` as code."""
    parts = text(advice).split("`")
    return "".join(f"<code>{part}</code>" if at % 2 else part for at, part in enumerate(parts))


def _timeline(timeline: Mapping[str, Any]) -> str:
    rows = timeline["rows"]
    bucket_s = timeline["bucket_s"]
    if len(rows) < 2:
        return ""
    mean_s = [row[4] / row[0] if row[0] else None for row in rows]
    tokens = [Series(name, [row[at] / bucket_s for row in rows], tone) for name, at, tone in _TOKENS]
    charts = {
        "Documents done per second": [Series("done", [row[0] / bucket_s for row in rows], "ok")],
        "Documents failed, by reason": _reasons(timeline["reasons"]),
        "Mean seconds per document": [Series("seconds", mean_s, "ok")],
        "Tokens per second": tokens,
    }
    shown = {title: series for title, series in charts.items() if _holds(series)}
    drawn = [chart(title, series, spans=len(rows), bucket_s=bucket_s) for title, series in shown.items()]
    return section("Over time", f"<div class=charts>{''.join(drawn)}</div>")


_TOKENS = (("in", 2, "r3"), ("out", 3, "ok"))


def _holds(series: list[Series]) -> bool:
    return any(value for one in series for value in one.values)


def _reasons(counts: Mapping[str, list[int]]) -> list[Series]:
    """Return the most frequent reasons, each in its own colour, and the others as one series."""
    ordered = sorted(counts, key=lambda name: (-sum(counts[name]), name))
    shown = ordered[:_SHOWN_REASONS]
    rest = ordered[_SHOWN_REASONS:]
    series = [Series(name, counts[name], f"r{at}") for at, name in enumerate(shown)]
    others = [sum(span) for span in zip_longest(*(counts[name] for name in rest), fillvalue=0)]
    return [*series, Series("others", others, "r5")] if rest else series


def _config(config: Mapping[str, Any]) -> str:
    if not config:
        return ""
    dumped = json.dumps(config, ensure_ascii=False, indent=2, default=str)
    lines = "\n".join(text(line) for line in dumped.split("\n"))
    return section("Resolved configuration", f"<details><summary>show</summary><pre>{lines}</pre></details>")
