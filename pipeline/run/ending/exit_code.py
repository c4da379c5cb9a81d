"""The exit code of a run and its explanation (docs/nightly.md)."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.config import RunnerConfig
from pipeline.errors import EXIT_FAILURES, EXIT_OK
from pipeline.report.remaining import RemainingFailures
from pipeline.run.stop_rules import StopReason
from pipeline.terminal import plural

ENOUGH_TRIED = 20
"""With fewer documents tried, a share of failures means little: the run fails only if all of them failed."""


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
    moved_sentence: str = "",
) -> tuple[int, str, str | None]:
    """Return the exit code, its explanation ("" for none), and a headline.

    `counts`: done, failed and left documents of this run. `listed`: documents in the whole input; None when its listing
    is incomplete. `ignored`: files that were passed over, by extension. `incomplete_exit`: the code of a run that has
    left documents. `doubtful`: results that may have been cut. `moved_sentence`: the sentence about values that moved
    too far. Headline None: the one for the exit code and the counts.
    """
    if end is not None and end.exit_code is not None:
        return end.exit_code, end.message, None
    complaint = _too_many_now(counts, remaining, config) or _too_many_remain(remaining, config)
    if complaint:
        return EXIT_FAILURES, complaint, None
    if doubtful:
        complaint = f"{plural(doubtful, 'result')} may come from a cut prompt; the next run extracts them again"
        return EXIT_FAILURES, complaint, "PROMPTS MAY BE CUT"
    if moved_sentence:
        return EXIT_FAILURES, moved_sentence, "VALUES MOVED"
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
    failed_count = counts["failed"] - remaining.accepted_now
    attempted = counts["done"] + failed_count
    if (
        not failed_count
        or failed_count / attempted <= config.max_error_rate
        or (attempted < ENOUGH_TRIED and failed_count < attempted)
    ):
        return ""
    return (
        f"{failed_count:,} of {attempted:,} documents failed: more than runner.max_error_rate {config.max_error_rate:g}"
    )


def _too_many_remain(remaining: RemainingFailures, config: RunnerConfig) -> str:
    """Return a complaint about the share of documents in the input that remain failed; "" for none."""
    failed_count = remaining.failed
    documents = remaining.documents
    if not failed_count or failed_count <= config.max_error_rate * documents:
        return ""
    share = f"{failed_count:,} of {plural(documents, 'document')} in the input remain failed"
    ways = "fix them, exclude them (input.exclude), or accept them (pipeline errors --accept)"
    return f"{share}: more than runner.max_error_rate {config.max_error_rate:g}; {ways}"
