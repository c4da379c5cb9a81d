"""The documents of the input that remain failed at the end of a run. Reads the index only."""

from __future__ import annotations

from pipeline.output import Output
from pipeline.report.remaining import RemainingFailures
from pipeline.run.selection.selection import Selection


def remaining_failures(output: Output, selection: Selection, *, found: int | None) -> RemainingFailures:
    """Return the documents met by this run whose last line is an error for the current prompt and schema.

    `found`: documents in the input (of this shard); None when the listing is incomplete; then the count includes only
    documents with a line.
    """
    remaining = RemainingFailures()
    for document_id, latest in output.index.failed(only_met=True):
        if selection.counts_as_failed(document_id, latest):
            remaining = remaining.with_one(
                latest.reason or "",
                document_id=document_id,
                tried=latest.run == output.stamp.run,
                accepted=latest.accepted,
            )
    return remaining.of(_documents(output, remaining) if found is None else found)


def _documents(output: Output, remaining: RemainingFailures) -> int:
    if not remaining.reasons:
        return 0
    return output.index.met_done_count() + remaining.failed + remaining.accepted
