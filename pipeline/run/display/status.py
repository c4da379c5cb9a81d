"""Immutable snapshot of a run, which progress and metrics read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from pipeline.config.redaction import SECRETS
from pipeline.llm.failover import Failover
from pipeline.llm.overhead import OverheadCounts
from pipeline.run.dispatch import ahead_of
from pipeline.run.windows.long_counts import LongStatus

if TYPE_CHECKING:
    from pipeline.run.runner import Runner

SHOWN_EVERY_S = 0.1
"""The main loop makes a turn for each document, and a snapshot costs a tenth of a turn."""


class Pace:
    """Schedule of snapshots."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._next = float("-inf")

    def is_due(self, *, busy: bool) -> bool:
        """Return True at most ten times a second while requests are in flight, else at each turn."""
        now = self._clock()
        if busy and now < self._next:
            return False
        self._next = now + SHOWN_EVERY_S
        return True


@dataclass(frozen=True, slots=True)
class RunStatus:
    """A snapshot that the main thread makes at each turn; nothing in it changes afterwards.

    `counts`: documents found, done, failed, skipped and left. `total`: documents to process, None until it is known.
    `waiting_for`: the cause of the present wait. `providers_up`: whether each provider that was examined is available.
    `long`: the documents that are sent in windows.
    """

    counts: Mapping[str, int]
    total: int | None = None
    in_flight: int = 0
    limit: int = 0
    limit_reason: str = ""
    waiting_for: str | None = None
    overhead: OverheadCounts = field(default_factory=OverheadCounts)
    providers_up: Mapping[str, bool] = field(default_factory=dict)
    long: LongStatus = field(default_factory=LongStatus)


def status_of(runner: Runner, *, is_outage: bool) -> RunStatus:
    """Return the present status of a run; `is_outage`: its providers have been unavailable for a while."""
    job = runner.job
    counts = runner.counts
    client = runner.plan.client
    stopping = runner.end is not None and runner.in_flight > 0
    wait_text = waiting_for(
        client, ready=runner.is_ready, is_outage=is_outage, output=job.output.trouble, stopping=stopping
    )
    return RunStatus(
        counts,
        total=total_documents(counts, budget=job.budget, is_listing_complete=runner.is_listing_complete),
        in_flight=runner.in_flight - min(ahead_of(runner), runner.workforce.waiting),
        limit=job.limit.value,
        limit_reason=job.limit.reason,
        waiting_for=wait_text and SECRETS.redact(wait_text),
        overhead=runner.plan.registry.overhead.counts,
        providers_up=client.examined,
        long=runner.long_documents.status,
    )


def total_documents(counts: Mapping[str, int], *, budget: int | None, is_listing_complete: bool) -> int | None:
    """Return the number of documents to process, at most as many as --limit allows; None: not known yet."""
    listed = counts["found"]
    limit = listed if budget is None else counts["skipped"] + budget
    return min(listed, limit) if is_listing_complete or (budget is not None and listed >= limit) else None


def waiting_for(client: Failover, *, ready: bool, is_outage: bool, output: str | None, stopping: bool) -> str | None:
    """Return the cause of a run's wait; None when it does not wait.

    Causes: requests in flight while it stops, providers not examined yet or unavailable (`is_outage`), an outage of the
    `output`, and other clients of a server.
    """
    if stopping:
        return "requests in flight; a second Ctrl-C stops at once"
    model = client.load_conflict
    conflict_text = model.short_message(datetime.now(timezone.utc)) if model is not None else None
    if ready and (output is not None or conflict_text is not None):
        return output or conflict_text
    trouble = client.trouble if is_outage or (not ready and client.examined) else None
    if trouble is not None:
        return conflict_text or trouble.message
    return None if ready else conflict_text or "the first request to each server"
