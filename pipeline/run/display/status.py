"""Immutable snapshot of a run, which progress and metrics read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from pipeline.config.redaction import SECRETS
from pipeline.llm.failover import Failover
from pipeline.llm.overhead import Spent
from pipeline.run.windows.long_counts import LongStatus

if TYPE_CHECKING:
    from pipeline.run.runner import Runner

SHOWN_EVERY_S = 0.1
"""A turn comes with each document, and a snapshot costs as much as a tenth of one."""


class Pace:
    """Schedule of snapshots."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._next = float("-inf")

    def is_due(self, *, busy: bool) -> bool:
        """Return True ten times a second, and at each turn in which nothing is in flight."""
        now = self._clock()
        if busy and now < self._next:
            return False
        self._next = now + SHOWN_EVERY_S
        return True


@dataclass(frozen=True, slots=True)
class RunStatus:
    """A snapshot that the main thread makes at each turn; nothing in it changes afterwards.

    `counts`: documents found, done, failed, skipped and left. `total`: documents to go through, None until it is known.
    `waiting_for` says what keeps the run waiting. `providers_up`: whether each provider that was examined can be asked.
    `long`: the documents that are read in windows.
    """

    counts: Mapping[str, int]
    total: int | None = None
    in_flight: int = 0
    limit: int = 0
    limit_reason: str = ""
    waiting_for: str | None = None
    overhead: Spent = field(default_factory=Spent)
    providers_up: Mapping[str, bool] = field(default_factory=dict)
    long: LongStatus = field(default_factory=LongStatus)


def status_of(runner: Runner, *, lost: bool) -> RunStatus:
    """Return the present status of a run; `lost`: its providers have been unavailable for a while."""
    job = runner.job
    counts = runner.counts
    client = runner.plan.client
    stopping = runner.end is not None and runner.in_flight > 0
    waits = waiting_for(client, ready=runner.ready, lost=lost, output=job.output.trouble, stopping=stopping)
    return RunStatus(
        counts,
        total=total_documents(counts, budget=job.budget, listed_whole=runner.listed_whole),
        in_flight=runner.in_flight,
        limit=job.limit.value,
        limit_reason=job.limit.reason,
        waiting_for=waits and SECRETS.redact(waits),
        overhead=runner.plan.registry.overhead.spent,
        providers_up=client.examined,
        long=runner.long.status,
    )


def total_documents(counts: Mapping[str, int], *, budget: int | None, listed_whole: bool) -> int | None:
    """Return how many documents there are to go through, all or as many as --limit allows; None: not known yet."""
    listed = counts["found"]
    most = listed if budget is None else counts["skipped"] + budget
    return min(listed, most) if listed_whole or (budget is not None and listed >= most) else None


def waiting_for(client: Failover, *, ready: bool, lost: bool, output: str | None, stopping: bool) -> str | None:
    """Return what keeps a run waiting: providers not examined yet or `lost`, an outage of the `output`, other clients.

    None when nothing does.
    """
    if stopping:
        return "requests in flight; a second Ctrl-C stops at once"
    model = client.load_conflict
    conflict_text = model.short(datetime.now(timezone.utc)) if model is not None else None
    if not ready:
        return conflict_text or "preflight of the providers"
    if output is not None or conflict_text is not None:
        return output or conflict_text
    trouble = client.trouble if lost else None
    return trouble.message if trouble else None
