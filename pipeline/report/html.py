"""The report as one self-contained HTML page: no network, no script, light and dark, fit for a phone.

It must not let anything through unescaped: ids, messages and names come from documents, servers and models.
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
from pipeline.report.markup import section, table, text
from pipeline.report.remaining import RemainingFailures, untried_reasons
from pipeline.report.svg import Series, chart
from pipeline.report.tables import percent, seconds
from pipeline.report.text import (
    cached_share,
    counts_text,
    documents_per_second,
    duration_text,
    is_fair,
    left_text,
    remaining_text,
    rerun_command,
    shown_files,
    story_command,
)
from pipeline.shards import Shard, owner
from pipeline.terminal import plural

_ALWAYS = ("found", "done", "failed")
_SHOWN_REASONS = 5
"""Reasons with a tone of their own in the chart of failures; the rest is one."""


def page(report: Mapping[str, Any]) -> str:
    """The whole HTML file."""
    template = Template((files("pipeline.report") / "report.html.tmpl").read_text(encoding="utf-8"))
    run = report["run"]
    sections = [
        _warnings(report),
        _numbers(report),
        _failures(report),
        tables.remaining(report),
        _timeline(run["stats"]["timeline"]),
        tables.variants(run["stats"]["variants"]),
        tables.providers(run["stats"]["providers"]),
        tables.fields(report["compared"]),
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
        title=text(f"{report['verdict']} – run {run['run']}"),
        tone=_tone(report),
        verdict=text(report["verdict"]),
        sentence=text(_sentence(run)),
        counts=text(f"{counts_text(run['counts'])}{remaining_text(run)} (exit {report['exit_code']})"),
        message=f"<p>{text(run['message'])}</p>" if run["message"] else "",
        about=text(
            f"Run {run['run']} ({run['run_id']}) of agent {run['agent']}, "
            f"{_minute(run['started_at'])} to {_minute(run['finished_at'])} UTC"
        ),
        sections="\n".join(filter(None, sections)),
    )


def _sentence(run: Mapping[str, Any]) -> str:
    """What became of the documents that this run tried, and why most of the failed ones failed."""
    return f"{_tried_sentence(run)}{_untried_sentence(run)}"


def _untried_sentence(run: Mapping[str, Any]) -> str:
    """How many documents remain failed that this run did not try, and for what; "" without any."""
    remaining = RemainingFailures.from_json(run.get("remaining"))
    reasons = ", ".join(f"{reason} ({count.untried:,})" for reason, count in untried_reasons(remaining)[:3])
    remain = "remains" if remaining.untried == 1 else "remain"
    told = f" {plural(remaining.untried, 'document')} {remain} failed from earlier runs: {reasons}."
    return told if remaining.untried else ""


def _tried_sentence(run: Mapping[str, Any]) -> str:
    counts, reasons = run["counts"], run["stats"]["reasons"]
    tried = counts["done"] + counts["failed"]
    if not tried:
        nothing = "Nothing was asked." if counts["left"] else "Nothing had to be asked."
        return nothing if counts["found"] > counts["ignored"] else "No document was found."
    if not counts["failed"]:
        all_of_them = f"All {tried:,} documents that were tried are" if tried > 1 else "The document that was tried is"
        return f"{all_of_them} done."
    most = min(reasons, key=lambda name: (-reasons[name]["count"], name), default="")
    because = f", most often for {most} ({reasons[most]['count']:,})" if len(reasons) > 1 else f", for {most}"
    share = counts["failed"] / tried
    return f"Of {plural(tried, 'document')} that were tried {counts['failed']:,} failed ({share:.1%}){because}."


def _minute(moment: str) -> str:
    """A record's time without its seconds."""
    return moment[:16].replace("T", " ")


def _tone(report: Mapping[str, Any]) -> str:
    if report["exit_code"]:
        return "bad"
    return "fair" if is_fair(report) else "good"


def _warnings(report: Mapping[str, Any]) -> str:
    texts = [f"No run of shard {index} is in this output." for index in report["missing_shards"]]
    texts += [f"{each[:1].upper()}{each[1:]}." for each in report["mixed_questions"]]
    texts += report["compared"]["warnings"]
    texts += [f"{told}."] if (told := left_text(report["run"])) else []
    items = "".join(f"<li>{text(each)}</li>" for each in texts)
    return f"<section class=warn><h2>Look at this</h2><ul>{items}</ul></section>" if items else ""


def _numbers(report: Mapping[str, Any]) -> str:
    run = report["run"]
    tiles = [(name, f"{number:,}") for name, number in run["counts"].items() if number or name in _ALWAYS]
    tiles.append(("took", duration_text(run["stats"]["elapsed_s"])))
    if run["stats"]["total"]["done"] or run["stats"]["total"]["failed"]:
        tiles += _asked_tiles(run)
    return section("Numbers", "<dl class=tiles>" + "".join(_tile(*tile) for tile in tiles) + "</dl>")


def _asked_tiles(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What asking took: a run that asked nothing has none of it."""
    stats, total, limit = run["stats"], run["stats"]["total"], run.get("concurrency")
    rate, latency = documents_per_second(stats), total["latency"]
    tiles = [
        ("documents / s", f"{rate:.2f}" if rate else "–"),
        ("half done within", seconds(latency["p50_s"])),
        ("95 % done within", seconds(latency["p95_s"])),
        ("longest", seconds(latency["max_s"] or None)),
        ("in flight, up to", f"{limit['limit']:,}" if limit else ""),
        ("tokens in", f"{total['prompt_tokens']:,}"),
        ("tokens out", f"{total['completion_tokens']:,}"),
        ("prompt tokens cached", percent(cached_share(stats)) if cached_share(stats) is not None else ""),
        ("requests", f"{total['attempts']:,}"),
        ("re-asked", f"{total['reasks']:,}" if total["reasks"] else ""),
        ("mended answers", f"{total['repaired']:,}" if total["repaired"] else ""),
    ]
    return [(name, value) for name, value in tiles if value]


def _tile(name: str, value: str) -> str:
    return f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>"


def _failures(report: Mapping[str, Any]) -> str:
    reasons = sorted(report["run"]["stats"]["reasons"].items(), key=lambda item: (-item[1]["count"], item[0]))
    most = max((row["count"] for _, row in reasons), default=1)
    failed = "".join(_failure(report, *item, most=most) for item in reasons)
    return section("What failed, and what to do", failed + _whole_story(report) if failed else "")


def _whole_story(report: Mapping[str, Any]) -> str:
    """What shows each request, the answer and the complaint of one document."""
    command = story_command(report["run"])
    return f"<p>One document's whole story:</p><pre>{text(command)}</pre>" if command else ""


def _failure(report: Mapping[str, Any], reason: str, row: Mapping[str, Any], *, most: int) -> str:
    examples = "".join(
        f"<li>{_linked(each['id'], _errors_file(report, each['id']))} <span>{text(each['message'])}</span></li>"
        for each in row["examples"]
    )
    return (
        f"<article><h3>{text(reason)} <span class=count>{text(row['count'])}</span></h3>"
        f'<div class=share><i style="width:{100 * row["count"] / most:.0f}%"></i></div>'
        f"<p>{_marked(report['advice'].get(reason, 'see the log'))}</p><ul>{examples}</ul>"
        f"<pre>{text(rerun_command(report['run'], reason))}</pre></article>\n"
    )


def _errors_file(report: Mapping[str, Any], id: str) -> str:
    """The file beside the report that holds the document's error line; "" when it is one of a store's parts."""
    shards = len(report["shards"]) + len(report["missing_shards"]) if report["shards"] else 0
    name = f"errors{Shard(owner(id, shards), shards).suffix}.jsonl"
    return name if name in report["run"]["files"] else ""


def _linked(id: str, file: str) -> str:
    """The id, leading to its line in the file of errors: browsers that know text fragments jump to it."""
    shown = f"<code>{text(id)}</code>"
    fragment = quote(id, safe="", errors="replace").replace("-", "%2D")
    return f'<a href="{quote(file)}#:~:text={fragment}">{shown}</a>' if file else shown


def _marked(advice: str) -> str:
    """Advice with its `names` as code."""
    parts = text(advice).split("`")
    return "".join(f"<code>{part}</code>" if at % 2 else part for at, part in enumerate(parts))


def _timeline(timeline: Mapping[str, Any]) -> str:
    rows, bucket_s = timeline["rows"], timeline["bucket_s"]
    if len(rows) < 2:
        return ""
    mean_s = [row[4] / row[0] if row[0] else None for row in rows]
    tokens = [Series(name, [row[at] / bucket_s for row in rows], tone) for name, at, tone in _TOKENS]
    charts = {
        "Documents done a second": [Series("done", [row[0] / bucket_s for row in rows], "ok")],
        "Documents failed, by reason": _reasons(timeline["reasons"]),
        "Mean seconds for a document": [Series("seconds", mean_s, "ok")],
        "Tokens a second": tokens,
    }
    shown = {title: series for title, series in charts.items() if _holds(series)}
    drawn = [chart(title, series, spans=len(rows), bucket_s=bucket_s) for title, series in shown.items()]
    return section("Over time", f"<div class=charts>{''.join(drawn)}</div>")


_TOKENS = (("in", 2, "r4"), ("out", 3, "ok"))


def _holds(series: list[Series]) -> bool:
    return any(value for each in series for value in each.values)


def _reasons(counts: Mapping[str, list[int]]) -> list[Series]:
    """The most frequent reasons, each with its tone, and the rest as one."""
    ordered = sorted(counts, key=lambda name: (-sum(counts[name]), name))
    shown, rest = ordered[:_SHOWN_REASONS], ordered[_SHOWN_REASONS:]
    series = [Series(name, counts[name], f"r{at}") for at, name in enumerate(shown)]
    others = [sum(each) for each in zip_longest(*(counts[name] for name in rest), fillvalue=0)]
    return [*series, Series("others", others, "r5")] if rest else series


def _config(config: Mapping[str, Any]) -> str:
    if not config:
        return ""
    dumped = json.dumps(config, ensure_ascii=False, indent=2, default=str)
    lines = "\n".join(text(line) for line in dumped.split("\n"))
    return section("Configuration, as resolved", f"<details><summary>show</summary><pre>{lines}</pre></details>")
