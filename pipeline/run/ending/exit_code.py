"""The exit code of a run with its explanation (docs/nightly.md); no other decision."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.config import RunnerConfig
from pipeline.errors import EXIT_FAILURES, EXIT_OK
from pipeline.report.remaining import RemainingFailures
from pipeline.run.stop_rules import StopReason
from pipeline.terminal import plural

ENOUGH_TRIED = 20
"""With fewer documents tried, a share of failures means little: then only a run of failures alone is too many."""


def exit_code(
    end: StopReason | None,
    *,
    counts: Mapping[str, int],
    remaining: RemainingFailures,
    listed: int | None,
    ignored: Mapping[str, int],
    config: RunnerConfig,
    min_documents: int,
    incomplete_exit: int = EXIT_OK,
    doubtful: int = 0,
    moved: str = "",
) -> tuple[int, str, str | None]:
    """Return the exit code, its explanation ("" for none), and a headline.

    `counts`: done, failed and left documents of this run. `listed`: documents in the whole input; None when its listing
    is incomplete. `ignored`: files that were passed over, by extension. `incomplete_exit`: the code of a run that has
    left documents. `doubtful`: results that may have been cut. `moved`: the sentence about values that moved too far.
    Headline None: the one for the exit code and the counts.
    """
    if end is not None and end.exit_code is not None:
        return end.exit_code, end.message, None
    complaint = _too_many_now(counts, remaining, config) or _too_many_remain(remaining, config)
    if complaint:
        return EXIT_FAILURES, complaint, None
    if doubtful:
        complaint = f"{plural(doubtful, 'result')} may come from a cut prompt; the next run extracts them again"
        return EXIT_FAILURES, complaint, "PROMPTS MAY BE CUT"
    if moved:
        return EXIT_FAILURES, moved, "VALUES MOVED"
    if listed is not None and listed < min_documents:
        complaint = f"found {plural(listed, 'document')}, need at least {min_documents} (input.min_documents)"
        passed_over = ", ".join(f"{count:,} {kind}" for kind, count in ignored.items())
        return EXIT_FAILURES, f"{complaint}; ignored: {passed_over}" if ignored else complaint, "TOO FEW DOCUMENTS"
    message = end.message if end else ""
    if incomplete_exit and (counts["left"] or listed is None):
        return incomplete_exit, message or "documents were left for the next run (--incomplete-exit)", None
    return EXIT_OK, message, None


def _too_many_now(counts: Mapping[str, int], remaining: RemainingFailures, config: RunnerConfig) -> str:
    """Return a complaint about the share of failures among the documents that this run tried; "" for none."""
    failed = counts["failed"] - remaining.accepted_now
    attempted = counts["done"] + failed
    if not failed or failed / attempted <= config.max_error_rate or (attempted < ENOUGH_TRIED and failed < attempted):
        return ""
    return f"{failed:,} of {attempted:,} documents failed: more than runner.max_error_rate {config.max_error_rate:g}"


def _too_many_remain(remaining: RemainingFailures, config: RunnerConfig) -> str:
    """Return a complaint about the share of documents in the input that remain failed; "" for none."""
    failed = remaining.failed
    documents = remaining.documents
    if not failed or failed <= config.max_error_rate * documents:
        return ""
    share = f"{failed:,} of {plural(documents, 'document')} in the input remain failed"
    ways = "fix them, exclude them (input.exclude), or accept them (pipeline errors --accept)"
    return f"{share}: more than runner.max_error_rate {config.max_error_rate:g}; {ways}"
