"""The counts of a run and its verdict in capital letters. It does not decide the exit code."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.report.run_summary import Counts

_HEADLINES: Mapping[int, str] = {
    1: "TOO MANY FAILURES",
    2: "CONFIGURATION ERROR",
    3: "STOPPED BEFORE THE END",
    70: "INTERNAL ERROR",
    130: "INTERRUPTED",
    143: "INTERRUPTED",
}


def reconciles(counts: Counts) -> bool:
    """Return True when found = done + failed + skipped + ignored + left."""
    return counts.found == counts.tried + counts.skipped + counts.ignored + counts.left


def headline(counts: Counts, exit_code: int, *, remaining: int = 0) -> str:
    """Return the verdict in capital letters; `remaining`: failures that remain, of earlier runs too."""
    if exit_code:
        return _HEADLINES.get(exit_code, "STOPPED")
    if counts.left:
        return "STOPPED AS REQUESTED"
    return "FINISHED WITH FAILURES" if counts.failed or remaining else "FINISHED"
