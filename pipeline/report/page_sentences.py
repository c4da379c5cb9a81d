"""The sentences at the top of the report page: the outcome of the documents, and what to check."""

from __future__ import annotations

from pipeline.report.contents import Report
from pipeline.report.profile_text import move_text
from pipeline.report.remaining import untried_reasons
from pipeline.report.run_summary import Counts, RunSummary
from pipeline.report.text import left_text
from pipeline.terminal import percent_text, plural

_SHOWN_MOVES = 5


def sentence(run: RunSummary) -> str:
    """Return the outcome of the attempted documents in a sentence, with the most frequent reason of failure."""
    return f"{_tried_sentence(run)}{_untried_sentence(run)}"


def _untried_sentence(run: RunSummary) -> str:
    """Return the sentence about failed documents that this run did not retry, by reason; "" without any."""
    remaining = run.remaining
    reasons = ", ".join(f"{reason} ({count.untried:,})" for reason, count in untried_reasons(remaining)[:3])
    remain = "remains" if remaining.untried == 1 else "remain"
    if not remaining.untried:
        return ""
    return f" {plural(remaining.untried, 'document')} {remain} failed from earlier runs: {reasons}."


def _tried_sentence(run: RunSummary) -> str:
    counts = run.counts
    reasons = run.stats.reasons
    attempted = counts.tried
    if not attempted:
        return _no_requests_sentence(counts)
    if not counts.failed:
        return (
            f"All {attempted:,} attempted documents are done."
            if attempted > 1
            else "The one attempted document is done."
        )
    most_frequent = min(reasons, key=lambda name: (-reasons[name].count, name), default="")
    cause = (
        f", most often with {most_frequent} ({reasons[most_frequent].count:,})"
        if len(reasons) > 1
        else f", with {most_frequent}"
    )
    share = counts.failed / attempted
    return f"{counts.failed:,} of {plural(attempted, 'attempted document')} failed ({percent_text(share, 1)}){cause}."


def _no_requests_sentence(counts: Counts) -> str:
    if counts.found <= counts.ignored:
        return "No document was found."
    return "No document was processed." if counts.left else "All documents are up to date."


def warnings(report: Report) -> list[str]:
    """Return the points that the reader should check, a sentence each."""
    texts = [f"N{report.lost_text[1:]}."] if report.lost_shards else []
    texts += [f"{warning[:1].upper()}{warning[1:]}." for warning in report.mixed_questions]
    texts += report.compared.warnings
    moved_shares = report.profile.against.moved if report.profile.against else ()
    texts += [f"Values moved: {move_text(move)}." for move in moved_shares[:_SHOWN_MOVES]]
    texts += [f"{warning}." for warning in report.run.merge_warnings or ()]
    return texts + ([f"{message}."] if (message := left_text(report.run)) else [])
