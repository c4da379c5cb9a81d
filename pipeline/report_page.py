"""The report as one self-contained HTML page: no network, no script, light and dark, fit for a phone.

It must not let anything through unescaped: ids, messages and names come from documents, servers and models.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from pipeline.charts import series_chart
from pipeline.logs import visible
from pipeline.summary_text import (
    counts_text,
    documents_per_second,
    duration_text,
    rerun_command,
)

Row = Sequence[Any]


def page(report: Mapping[str, Any]) -> str:
    """The whole HTML file."""
    template = Template((files("pipeline") / "report.html.tmpl").read_text(encoding="utf-8"))
    run = report["run"]
    sections = [
        _warnings(report),
        _numbers(report),
        _failures(report),
        _timeline(run["stats"]["timeline"]),
        _table("Variants", _TALLY_HEAD, [_tally_row(*item) for item in sorted(run["stats"]["variants"].items())]),
        _providers(run["stats"]["providers"]),
        _fields(report["compared"]),
        _shards(report),
        _extremes(run["stats"]),
        _table("Notes on documents", ("Note", "Documents"), run["stats"]["notes"].items()),
        _table("Ignored files", ("Kind", "Files"), run["ignored"].items()),
        _table("Whole output", ("", "Documents"), _flat(report["output"])),
        _table("Files", ("What", "Where"), run["files"].items()),
        _config(run["config"]),
    ]
    return template.substitute(
        title=_text(f"{report['verdict']} – run {run['run']}"),
        tone=_tone(report),
        verdict=_text(report["verdict"]),
        counts=_text(f"{counts_text(run['counts'])} (exit {report['exit_code']})"),
        message=f"<p>{_text(run['message'])}</p>" if run["message"] else "",
        about=_text(
            f"Run {run['run']} ({run['run_id']}) of agent {run['agent']}, {run['started_at']} to {run['finished_at']}"
        ),
        sections="\n".join(filter(None, sections)),
    )


def _text(value: Any) -> str:
    """Any value as HTML text: escaped, controls and bidi characters spelled out, None as a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"
    return escape(visible(str(value)))


def _tone(report: Mapping[str, Any]) -> str:
    if report["exit_code"]:
        return "bad"
    return "fair" if report["run"]["counts"]["failed"] or report["missing_shards"] else "good"


def _section(title: str, body: str) -> str:
    return f"<section><h2>{_text(title)}</h2>\n{body}</section>" if body else ""


def _table(title: str, head: Sequence[str], rows: Iterable[Row]) -> str:
    """A section with a table whose first column is its name column; nothing without rows."""
    body = "".join(f"<tr><th scope=row>{_text(row[0])}</th>{''.join(map(_cell, row[1:]))}</tr>\n" for row in rows)
    if not body:
        return ""
    tops = "".join(f"<th scope=col>{_text(name)}</th>" for name in head)
    return _section(title, f"<div class=wide><table><thead><tr>{tops}</tr></thead><tbody>{body}</tbody></table></div>")


def _cell(value: Any) -> str:
    kind = " class=n" if value is None or isinstance(value, (int, float)) else ""
    return f"<td{kind}>{_text(value)}</td>"


def _warnings(report: Mapping[str, Any]) -> str:
    texts = [f"No run of shard {index} is in this output." for index in report["missing_shards"]]
    texts += report["compared"]["warnings"]
    left = report["run"]["counts"]["left"]
    texts += [f"{left:,} documents are left: the same command goes on from here."] if left else []
    items = "".join(f"<li>{_text(text)}</li>" for text in texts)
    return f"<section class=warn><h2>Look at this</h2><ul>{items}</ul></section>" if items else ""


def _numbers(report: Mapping[str, Any]) -> str:
    stats, total = report["run"]["stats"], report["run"]["stats"]["total"]
    rate, latency = documents_per_second(stats), total["latency"]
    tiles = [(name, f"{number:,}") for name, number in report["run"]["counts"].items()]
    tiles += [
        ("took", duration_text(stats["elapsed_s"])),
        ("documents a second", f"{rate:.2f}" if rate else "–"),
        ("half done within", _seconds(latency["p50_s"])),
        ("95 % done within", _seconds(latency["p95_s"])),
        ("longest", _seconds(latency["max_s"] or None)),
        ("tokens in", f"{total['prompt_tokens']:,}"),
        ("tokens out", f"{total['completion_tokens']:,}"),
        ("requests", f"{total['attempts']:,}"),
        ("re-asked", f"{total['reasks']:,}"),
        ("mended answers", f"{total['repaired']:,}"),
    ]
    return _section("Numbers", "<dl class=tiles>" + "".join(_tile(*tile) for tile in tiles) + "</dl>")


def _tile(name: str, value: str) -> str:
    return f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>"


def _seconds(value: float | None) -> str:
    return "–" if value is None else duration_text(value)


def _failures(report: Mapping[str, Any]) -> str:
    reasons = sorted(report["run"]["stats"]["reasons"].items(), key=lambda item: (-item[1]["count"], item[0]))
    most = max((row["count"] for _, row in reasons), default=1)
    return _section("What failed, and what to do", "".join(_failure(report, *item, most=most) for item in reasons))


def _failure(report: Mapping[str, Any], reason: str, row: Mapping[str, Any], *, most: int) -> str:
    examples = "".join(
        f"<li><code>{_text(each['id'])}</code> <span>{_text(each['message'])}</span></li>" for each in row["examples"]
    )
    return (
        f"<article><h3>{_text(reason)} <span class=count>{_text(row['count'])}</span></h3>"
        f'<div class=share><i style="width:{100 * row["count"] / most:.0f}%"></i></div>'
        f"<p>{_marked(report['advice'].get(reason, 'see the log'))}</p><ul>{examples}</ul>"
        f"<pre>{_text(rerun_command(report['run'], reason))}</pre></article>\n"
    )


def _marked(advice: str) -> str:
    """Advice with its `names` as code."""
    parts = _text(advice).split("`")
    return "".join(f"<code>{part}</code>" if at % 2 else part for at, part in enumerate(parts))


def _timeline(timeline: Mapping[str, Any]) -> str:
    rows, bucket_s = timeline["rows"], timeline["bucket_s"]
    if len(rows) < 2:
        return ""
    charts = [
        ("Documents done a second", [row[0] / bucket_s for row in rows], "ok"),
        ("Documents failed a second", [row[1] / bucket_s for row in rows], "no"),
        ("Tokens a second, in and out", [(row[2] + row[3]) / bucket_s for row in rows], "ok"),
        ("Mean seconds for each document", [row[4] / row[0] if row[0] else None for row in rows], "ok"),
    ]
    drawn = [series_chart(title, values, bucket_s=bucket_s, tone=tone) for title, values, tone in charts if any(values)]
    return _section("Over time", f"<div class=charts>{''.join(drawn)}</div>")


_TALLY_HEAD = (
    "Name",
    "Done",
    "Failed",
    "Requests",
    "Re-asked",
    "Mended",
    "Tokens in",
    "Tokens out",
    "Half within",
    "95 % within",
)


def _tally_row(name: str, row: Mapping[str, Any]) -> Row:
    numbers = ("done", "failed", "attempts", "reasks", "repaired", "prompt_tokens", "completion_tokens")
    quantiles = (_seconds(row["latency"]["p50_s"]), _seconds(row["latency"]["p95_s"]))
    return (name, *(row[key] for key in numbers), *quantiles)


def _providers(providers: Mapping[str, Mapping[str, Any]]) -> str:
    head = ("Provider", "Models", "Answered", "Errors", "Tokens in", "Tokens out", "Half within", "95 % within")
    rows = [
        (
            name,
            ", ".join(row["models"]) or None,
            row["done"],
            ", ".join(f"{error} {count}" for error, count in row["errors"].items()) or None,
            row["prompt_tokens"],
            row["completion_tokens"],
            *(_seconds(row["latency"][key]) for key in ("p50_s", "p95_s")),
        )
        for name, row in sorted(providers.items())
    ]
    return _table("Who answered", head, rows)


def _fields(compared: Mapping[str, Any]) -> str:
    head = ("Field", "Filled", "In the run before", "Mean items", "In the run before")
    rows = [
        (name, _percent(row["filled"]), _percent(row["filled_before"]), row["mean_items"], row["mean_items_before"])
        for name, row in compared["fields"].items()
    ]
    return _table("Fields of the results", head, rows)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}"


def _shards(report: Mapping[str, Any]) -> str:
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
    return _table("Shards", ("Shard", "Verdict", "Exit code", "Documents", "Took"), rows)


def _extremes(stats: Mapping[str, Any]) -> str:
    slowest = [(each["id"], duration_text(each["latency_s"])) for each in stats["slowest"]]
    largest = [(each["id"], each["chars"]) for each in stats["largest"]]
    return _table("Slowest documents", ("Document", "Took"), slowest) + _table(
        "Largest documents", ("Document", "Characters"), largest
    )


def _flat(values: Mapping[str, Any], before: str = "") -> list[Row]:
    """Nested numbers as rows, `a.b` for b within a."""
    rows: list[Row] = []
    for key, value in values.items():
        rows += _flat(value, f"{before}{key}.") if isinstance(value, Mapping) else [(f"{before}{key}", value)]
    return rows


def _config(config: Mapping[str, Any]) -> str:
    if not config:
        return ""
    text = json.dumps(config, ensure_ascii=False, indent=2, default=str)
    lines = "\n".join(_text(line) for line in text.split("\n"))
    return _section("Configuration, as resolved", f"<details><summary>show</summary><pre>{lines}</pre></details>")
