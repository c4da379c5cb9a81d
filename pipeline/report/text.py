"""The report as text for the end of a run: short enough to be understood at 3 a.m.

It must not exceed the given width, and must not show control characters from a document.
"""

from __future__ import annotations

import re
import shlex

from pipeline.config.texts import shorten
from pipeline.errors import EXIT_CONFIG
from pipeline.logs import visible
from pipeline.report.answers import answers_lines
from pipeline.report.contents import Report
from pipeline.report.numbers import ReasonNumbers
from pipeline.report.numbers_text import duration_text, numbers_lines
from pipeline.report.profile_text import profile_lines
from pipeline.report.remaining import untried_reasons
from pipeline.report.run_summary import Counts, RunSummary
from pipeline.terminal import (
    BOLD,
    GREEN,
    MAX_WIDTH,
    RED,
    YELLOW,
    cut,
    grouped,
    in_colour,
    labelled,
    paragraph,
    pasteable,
    plural,
)

SHOWN_REASONS = 4
"""Reasons shown with an example and advice; more would push the verdict off the screen."""


def summary_text(report: Report, *, colour: bool, width: int = MAX_WIDTH) -> str:
    """Return the summary of about 20 lines, at most `width` columns wide, with a final newline."""
    run = report.run
    blocks = [
        _verdict(report, colour=colour, width=width),
        paragraph(run.message, width=width),
        paragraph(_run_line(report), width=width),
        _failures(report, colour=colour, width=width),
        _untried_failures(report, colour=colour, width=width),
        _warnings(report, colour=colour, width=width),
        profile_lines(report, colour=colour, width=width),
        numbers_lines(report, width=width),
        answers_lines(run.eval, width=width),
        _files(run, width=width),
        _next_command(run, width=width),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def counts_text(counts: Counts) -> str:
    """Return `24 found, 19 done, 3 failed, 2 skipped`, without zeros other than found and done."""
    always = ("found", "done")
    return ", ".join(f"{grouped(n)} {name}" for name, n in counts.items() if n or name in always)


def verdict_text(report: Report) -> str:
    """Return the verdict in one sentence, with the counts and the exit code."""
    counts = counts_text(report.run.counts)
    if not report.run.listed_whole:
        counts = f"at least {counts}"
    return f"{report.verdict}: {counts}{remaining_text(report.run)} (exit {report.exit_code})"


def remaining_text(run: RunSummary) -> str:
    """Return `; 36 remain failed from earlier runs, 2 are accepted`; "" when there are none."""
    remaining = run.remaining
    parts = []
    if remaining.untried:
        parts.append(f"{grouped(remaining.untried)} {_remain(remaining.untried)} failed from earlier runs")
    if remaining.accepted:
        parts.append(f"{plural(remaining.accepted, 'failure')} {'is' if remaining.accepted == 1 else 'are'} accepted")
    return f"; {', '.join(parts)}" if parts else ""


def _remain(number: int) -> str:
    return "remains" if number == 1 else "remain"


def rerun_command(run: RunSummary, reason: str) -> str:
    """Return the command that retries the documents that failed for this reason."""
    return f"{run.command} --only-failed {shlex.quote(reason)}"


def story_command(run: RunSummary) -> str:
    """Return the command that shows one failed document; "" without failures or a known output."""
    reasons = sorted(run.stats.reasons.values(), key=lambda row: -row.count)
    examples = [example.id for row in reasons for example in row.examples]
    return show_command(run, examples[0]) if run.place and examples else ""


def show_command(run: RunSummary, document_id: str) -> str:
    """Return the command that shows all details of a document."""
    return shlex.join(["pipeline", "errors", *_output_of(run), "--show", document_id])


def left_text(run: RunSummary) -> str:
    """Return how many documents are left and how to resume; "" when none is left."""
    left = run.counts.left
    if not left:
        return ""
    remaining = f"{plural(left, 'document')} {'is' if left == 1 else 'are'} left"
    if not run.listed_whole:
        remaining = f"At least {remaining}: not all were listed"
    if run.exit_code == EXIT_CONFIG:
        return f"{remaining}. Fix the error, then run the same command to resume"
    if run.resume is None:
        return f"{remaining}. Run the same command to resume"
    return f"{remaining}. {'Resume with' if run.resume.startswith('pipeline ') else 'In Kubernetes, resume with'}"


def _verdict(report: Report, *, colour: bool, width: int) -> list[str]:
    if report.exit_code != 0:
        tint = RED
    elif report.is_fair:
        tint = YELLOW
    else:
        tint = GREEN
    return [in_colour(line, BOLD + tint, colour=colour) for line in paragraph(verdict_text(report), width=width)]


def _run_line(report: Report) -> str:
    run = report.run
    shards = f", {len(report.shards)} {report.name_of_shards}s" if report.shards else ""
    return f"Run {run.run} of agent {run.agent}{shards}, {run.finished_at}, took {duration_text(run.stats.elapsed_s)}"


def _failures(report: Report, *, colour: bool, width: int) -> list[str]:
    reasons = ordered_reasons(report.run)
    lines = ["Failures by reason"] if reasons else []
    for reason, row in reasons[:SHOWN_REASONS]:
        lines.append(f"  {grouped(row.count):>7}  {in_colour(visible(reason), BOLD, colour=colour)}")
        example = row.examples[0] if row.examples else None
        if example:
            lines += labelled("example", cut(visible(example.id), width - 26), indent=11, width=width)
            lines += labelled("message", shorten(visible(example.message), 3 * (width - 26)), indent=11, width=width)
        lines += labelled("to do", report.advice.get(reason, "see the log"), indent=11, width=width)
        lines += pasteable("retry", rerun_command(report.run, reason), indent=11, width=width)
    more_reasons = ", ".join(f"{grouped(row.count)} {visible(reason)}" for reason, row in reasons[SHOWN_REASONS:])
    lines += labelled(
        "and", more_reasons and f"{more_reasons}; see report.html, or `pipeline errors`", indent=2, width=width
    )
    story = story_command(report.run)
    if not story:
        return lines
    return [*lines, "  All details of one document:", *pasteable("", story, indent=11, width=width)]


def ordered_reasons(run: RunSummary) -> list[tuple[str, ReasonNumbers]]:
    """Return the reasons of this run's failures with their numbers, the most frequent first."""
    return sorted(run.stats.reasons.items(), key=lambda item: (-item[1].count, item[0]))


def _untried_failures(report: Report, *, colour: bool, width: int) -> list[str]:
    """Return the failures of earlier runs that this run did not retry, and the commands that retry or accept them."""
    run = report.run
    rows = untried_reasons(run.remaining)
    lines = ["Failed in earlier runs and not retried"] if rows else []
    for reason, count in rows[:SHOWN_REASONS]:
        lines.append(f"  {grouped(count.untried):>7}  {in_colour(visible(reason), BOLD, colour=colour)}")
        example = next(iter(count.examples), "")
        lines += labelled("example", cut(visible(example), width - 26), indent=11, width=width)
        lines += labelled("to do", report.advice.get(reason, "see `pipeline errors`"), indent=11, width=width)
        lines += pasteable("retry", rerun_command(run, reason), indent=11, width=width)
        lines += pasteable("or accept", accept_command(run, reason), indent=11, width=width)
    more_reasons = ", ".join(f"{grouped(count.untried)} {visible(reason)}" for reason, count in rows[SHOWN_REASONS:])
    return lines + labelled(
        "and", more_reasons and f"{more_reasons}; see report.html, or `pipeline errors`", indent=2, width=width
    )


def accept_command(run: RunSummary, reason: str) -> str:
    """Return the command that accepts the failures of a reason."""
    return shlex.join(["pipeline", "errors", *_output_of(run), "--accept", reason])


def _output_of(run: RunSummary) -> list[str]:
    """Return the OUT argument of a command; empty when the run does not name its output."""
    return [run.place] if run.place else []


def _warnings(report: Report, *, colour: bool, width: int) -> list[str]:
    warnings = [visible(text) for text in (*report.mixed_questions, *report.compared.warnings)]
    if report.lost_shards:
        warnings.insert(0, report.lost_text)
    lines = [line for text in warnings for line in labelled("check", text, indent=2, width=width)]
    return [in_colour("Warnings", YELLOW, colour=colour), *lines] if lines else []


def shown_files(run: RunSummary) -> dict[str, str]:
    """Return the place of each file by name; the files of all shards as one, `results-*-of-00016.jsonl`."""
    return {_of_all_shards(name): _of_all_shards(path) for name, path in run.files.items()}


def _of_all_shards(name: str) -> str:
    return re.sub(r"-\d{5}(?=-of-\d{5}\.jsonl$)|(?<=-chunk)-\d{5}(?=\.jsonl$)", "-*", name)


def _files(run: RunSummary, *, width: int) -> list[str]:
    places = shown_files(run).items()
    files = [line for name, path in places for line in labelled(name, visible(path), indent=2, width=width)]
    return ["Files", *files] if files else []


def _next_command(run: RunSummary, *, width: int) -> list[str]:
    message = left_text(run)
    if not message:
        return []
    return [
        *paragraph(f"{message}:", width=width),
        *pasteable("", run.resume or run.command, indent=2, width=width),
    ]
