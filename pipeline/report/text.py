"""The report as text for the end of a run: what a tired person understands at 3 a.m.

It must not exceed 100 columns, and shows nothing from a document that a terminal could act on.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.errors import EXIT_CONFIG
from pipeline.logs import visible
from pipeline.report.questions import SHOWN_CHARS
from pipeline.report.remaining import RemainingFailures, untried_reasons
from pipeline.terminal import (
    BOLD,
    GREEN,
    RED,
    WIDTH,
    YELLOW,
    cut,
    grouped,
    labelled,
    paragraph,
    pasteable,
    plural,
    tinted,
)

SHOWN_REASONS = 4
"""Reasons that are told at length; more would push the verdict off the screen."""


def summary_text(report: Mapping[str, Any], *, colour: bool) -> str:
    """The summary, some 20 lines, ending with a line end."""
    run = report["run"]
    blocks = [
        _verdict(report, colour=colour),
        paragraph(run["message"]),
        [_run_line(report)],
        _failures(report, colour=colour),
        _untried(report, colour=colour),
        _warnings(report, colour=colour),
        list(_numbers(report)),
        _files(run),
        _next(run),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def counts_text(counts: Mapping[str, int]) -> str:
    """`24 found, 19 done, 3 failed, 2 skipped`; what is zero is left out, except found and done."""
    always = ("found", "done")
    return ", ".join(f"{grouped(n)} {name}" for name, n in counts.items() if n or name in always)


def verdict_text(report: Mapping[str, Any]) -> str:
    """The verdict in one sentence, with the counts and the exit code."""
    counts = counts_text(report["run"]["counts"])
    if not report["run"].get("listed_whole", True):
        counts = f"at least {counts}"
    return f"{report['verdict']}: {counts}{remaining_text(report['run'])} (exit {report['exit_code']})"


def remaining_text(run: Mapping[str, Any]) -> str:
    """`; 36 remain failed from earlier runs, 2 are accepted`; "" when there are none."""
    remaining = RemainingFailures.from_json(run.get("remaining"))
    parts = []
    if remaining.untried:
        parts.append(f"{grouped(remaining.untried)} {_remain(remaining.untried)} failed from earlier runs")
    if remaining.accepted:
        parts.append(f"{plural(remaining.accepted, 'failure')} {'is' if remaining.accepted == 1 else 'are'} accepted")
    return f"; {', '.join(parts)}" if parts else ""


def _remain(number: int) -> str:
    return "remains" if number == 1 else "remain"


def rerun_command(run: Mapping[str, Any], reason: str) -> str:
    """What to type to do the documents again that failed for this reason."""
    return f"{run['command']} --only-failed {shlex.quote(reason)}"


def story_command(run: Mapping[str, Any]) -> str:
    """What to type for one document's whole story; nothing when none failed, or nobody knows where the output is."""
    where = run["files"].get("report.html", "").rpartition("/")[0]
    reasons = sorted(run["stats"]["reasons"].values(), key=lambda row: -row["count"])
    examples = [each["id"] for row in reasons for each in row["examples"]]
    return shlex.join(["pipeline", "errors", where, "--show", examples[0]]) if where and examples else ""


def left_text(run: Mapping[str, Any]) -> str:
    """How many documents are left, and what goes on with them; nothing when none is."""
    left = run["counts"]["left"]
    if not left:
        return ""
    are_left = f"{plural(left, 'document')} {'is' if left == 1 else 'are'} left"
    told = f"{are_left}." if run.get("listed_whole", True) else f"At least {are_left}: not all were listed."
    when = "With that changed, the" if run["exit_code"] == EXIT_CONFIG else "The"
    return f"{told} {when} same command goes on from here"


def duration_text(seconds: float) -> str:
    """`8.4 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def documents_per_second(stats: Mapping[str, Any]) -> float | None:
    """Documents that were asked, for each second of the run; None when nothing was."""
    outcomes, elapsed_s = stats["outcomes"], stats["elapsed_s"]
    asked = outcomes["done"] + outcomes["failed"] - sum(copied(stats))
    return asked / elapsed_s if asked and elapsed_s > 0 else None


def copied(stats: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many documents got the record of one that was asked the same: in this run, and before it."""
    notes = stats.get("notes", {})
    return notes.get("shared", 0), notes.get("reused", 0)


def copied_text(stats: Mapping[str, Any]) -> str:
    """Return what was not sent again; nothing where all was."""
    shared, reused = copied(stats)
    parts = [f"{plural(shared, 'document')} identical to another one of this run"] if shared else []
    return ", ".join([*parts, *([f"{plural(reused, 'document')} done before under another id"] if reused else [])])


def _verdict(report: Mapping[str, Any], *, colour: bool) -> list[str]:
    bad = report["exit_code"] != 0
    tint = RED if bad else (YELLOW if is_fair(report) else GREEN)
    return [tinted(line, BOLD + tint, colour=colour) for line in paragraph(verdict_text(report))]


def is_fair(report: Mapping[str, Any]) -> bool:
    """True when a run that ended with 0 has failures, its own or remaining ones, mixed questions or missing shards."""
    failed = report["run"]["counts"]["failed"] or report["run"].get("remaining", {}).get("failed", 0)
    return bool(failed or report["missing_shards"] or report["mixed_questions"])


def _run_line(report: Mapping[str, Any]) -> str:
    run = report["run"]
    shards = f", {len(report['shards'])} shards" if report["shards"] else ""
    took = duration_text(run["stats"]["elapsed_s"])
    return f"Run {run['run']} of agent {visible(run['agent'])}{shards}, {run['finished_at']}, took {took}"[:WIDTH]


def _failures(report: Mapping[str, Any], *, colour: bool) -> list[str]:
    reasons = sorted(report["run"]["stats"]["reasons"].items(), key=lambda item: (-item[1]["count"], item[0]))
    lines = ["What failed, and what to do about it"] if reasons else []
    for reason, row in reasons[:SHOWN_REASONS]:
        lines.append(f"  {grouped(row['count']):>7}  {tinted(visible(reason), BOLD, colour=colour)}")
        example = row["examples"][0] if row["examples"] else None
        if example:
            lines += labelled("example", cut(visible(example["id"]), WIDTH - 26), indent=11)
            lines += labelled("said", cut(visible(example["message"]), 3 * (WIDTH - 26)), indent=11)
        lines += labelled("to do", report["advice"].get(reason, "see the log"), indent=11)
        lines += pasteable("again", rerun_command(report["run"], reason), indent=11)
    rest = ", ".join(f"{grouped(row['count'])} {visible(reason)}" for reason, row in reasons[SHOWN_REASONS:])
    lines += labelled("and", rest and f"{rest}; see report.html, or `pipeline errors`", indent=2)
    story = story_command(report["run"])
    return [*lines, "  One document's whole story:", *pasteable("", story, indent=11)] if story else lines


def _untried(report: Mapping[str, Any], *, colour: bool) -> list[str]:
    """The failures of earlier runs that this run did not try again, and the commands that retry or accept them."""
    run = report["run"]
    rows = list(untried_reasons(RemainingFailures.from_json(run.get("remaining"))))
    lines = ["Failed in earlier runs and not tried again"] if rows else []
    for reason, count in rows[:SHOWN_REASONS]:
        lines.append(f"  {grouped(count.untried):>7}  {tinted(visible(reason), BOLD, colour=colour)}")
        lines += labelled("example", cut(visible(next(iter(count.examples), "")), WIDTH - 26), indent=11)
        lines += labelled("to do", report["advice"].get(reason, "see `pipeline errors`"), indent=11)
        lines += pasteable("again", rerun_command(run, reason), indent=11)
        lines += pasteable("or accept", accept_command(run, reason), indent=11)
    rest = ", ".join(f"{grouped(count.untried)} {visible(reason)}" for reason, count in rows[SHOWN_REASONS:])
    return [*lines, *labelled("and", rest and f"{rest}; see report.html, or `pipeline errors`", indent=2)]


def accept_command(run: Mapping[str, Any], reason: str) -> str:
    """The command that accepts the failures of a reason."""
    return shlex.join(["pipeline", "errors", *_output_of(run), "--accept", reason])


def _output_of(run: Mapping[str, Any]) -> list[str]:
    """Where the output is, as a command names it; empty when the run does not say."""
    where = run["files"].get("report.html", "").rpartition("/")[0]
    return [where] if where else []


def _warnings(report: Mapping[str, Any], *, colour: bool) -> list[str]:
    warnings = [visible(text) for text in (*report["mixed_questions"], *report["compared"]["warnings"])]
    if report["missing_shards"]:
        warnings.insert(0, f"no run of shard {', '.join(map(str, report['missing_shards']))} is in this output")
    lines = [line for text in warnings for line in labelled("look at", text, indent=2)]
    return [tinted("Warnings", YELLOW, colour=colour), *lines] if lines else []


def _numbers(report: Mapping[str, Any]) -> Iterator[str]:
    run = report["run"]
    stats, total = run["stats"], run["stats"]["total"]
    if not total["done"] and not total["failed"]:
        return
    yield "Numbers"
    rate, latency = documents_per_second(stats), total["latency"]
    yield from labelled("speed", f"{rate:.2f} documents a second" if rate else "", indent=2)
    if latency["p50_s"] is not None:
        half, most = duration_text(latency["p50_s"]), duration_text(latency["p95_s"])
        yield from labelled(
            "time each", f"half within {half}, 95 % within {most}, longest {duration_text(latency['max_s'])}", indent=2
        )
    unknown = f" (not told for {plural(total['tokens_unknown'], 'document')})" if total["tokens_unknown"] else ""
    yield from labelled(
        "tokens", f"{grouped(total['prompt_tokens'])} in, {grouped(total['completion_tokens'])} out{unknown}", indent=2
    )
    cached = cached_share(stats)
    yield from labelled("prompt cache", "" if cached is None else f"{cached:.0%} of the prompt tokens", indent=2)
    yield from labelled("requests", _requests(total), indent=2)
    yield from labelled("not sent", copied_text(stats), indent=2)
    yield from labelled("overhead", _overhead(run.get("overhead")), indent=2)
    yield from labelled("in flight", _limit(run.get("concurrency")), indent=2)
    yield from labelled("answered by", _shares(stats["providers"], models=True), indent=2)
    yield from labelled("variants", _shares(stats["variants"], models=False), indent=2)
    yield from labelled("questions", _questions(report["questions"]), indent=2)
    yield from labelled("ignored", ", ".join(f"{grouped(n)} {visible(k)}" for k, n in run["ignored"].items()), indent=2)


def _questions(rows: Sequence[Mapping[str, Any]]) -> str:
    """The documents done with each question in this run; the variant is named where there are several."""
    asked = [row for row in rows if row["done"]]
    several = len({row["variant"] for row in asked}) > 1
    return "; ".join(
        f"{row['variant'] + ' ' if several else ''}{row['fingerprint'][:SHOWN_CHARS]} {grouped(row['done'])} done"
        for row in asked
    )


def cached_share(stats: Mapping[str, Any]) -> float | None:
    """The share of the prompt tokens that servers had already; None when none of them tells."""
    cache = stats.get("prompt_cache")
    return cache["cached_tokens"] / cache["prompt_tokens"] if cache and cache["prompt_tokens"] else None


def _overhead(spent: Mapping[str, int] | None) -> str:
    """Return what preflights, life signs and proofs cost; nothing where a run does not tell."""
    if not spent or not spent["requests"]:
        return ""
    return f"{plural(spent['requests'], 'request')} for no document (preflight, proofs)"


def _limit(found: Mapping[str, Any] | None) -> str:
    """How many documents might be in flight at the end; nothing when the user has set it."""
    return f"up to {found['limit']}: {found['reason']}" if found and found["reason"] != "set" else ""


def _requests(total: Mapping[str, Any]) -> str:
    parts = [f"{grouped(total['attempts'])} sent"]
    parts += [f"{grouped(total['reasks'])} to have a wrong answer corrected"] if total["reasks"] else []
    parts += [f"{grouped(total['repaired'])} answers mended (not clean JSON)"] if total["repaired"] else []
    return ", ".join(parts)


def _shares(table: Mapping[str, Mapping[str, Any]], *, models: bool) -> str:
    parts = []
    for name, row in sorted(table.items()):
        of = f" ({', '.join(map(visible, row['models']))})" if models and row["models"] else ""
        failed = f" and {grouped(row['failed'])} failed" if row["failed"] else ""
        errors = f", {grouped(sum(row['errors'].values()))} errors" if models and row["errors"] else ""
        parts.append(f"{visible(name)}{of} {grouped(row['done'])} done{failed}{errors}")
    return "; ".join(parts)


def shown_files(run: Mapping[str, Any]) -> dict[str, str]:
    """Where each file is; those of all shards as one, `results-*-of-00016.jsonl`."""
    return {_of_all_shards(name): _of_all_shards(path) for name, path in run["files"].items()}


def _of_all_shards(name: str) -> str:
    return re.sub(r"-\d{5}(?=-of-\d{5}\.jsonl$)", "-*", name)


def _files(run: Mapping[str, Any]) -> list[str]:
    files = [line for name, path in shown_files(run).items() for line in labelled(name, visible(path), indent=2)]
    return ["Files", *files] if files else []


def _next(run: Mapping[str, Any]) -> list[str]:
    told = left_text(run)
    return [f"{told}:", *pasteable("", run["command"], indent=2)] if told else []
