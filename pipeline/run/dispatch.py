"""Send waiting entries to workers while there is room for them. Used by the main thread."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pipeline.run.document.process import is_suspect
from pipeline.run.reader import Reader

if TYPE_CHECKING:
    from pipeline.run.runner import Runner

PAUSE_S = 0.003
"""At 5,000 documents a second, 15 of them finish in a pause."""


def send_entry(runner: Runner, feeder: Reader) -> bool:
    """Send an entry; return False when none may be sent. An entry that may have killed its server is sent alone."""
    entry = runner.backlog.take(idle=runner.in_flight == 0) if _has_room(runner) else None
    if entry is None:
        return False
    if entry.earlier_failure is None and not entry.is_long:
        feeder.count_sent(entry)
    runner.flight.add(entry, runner.plan)
    runner.send(entry, alone=is_suspect(entry))
    return True


def ahead_of(runner: Runner) -> int:
    """Return how many documents may wait for a worker besides those in flight; none beside windows."""
    return 0 if runner.long_documents.documents else runner.workforce.ahead


def pause(runner: Runner) -> None:
    """Pause while enough documents wait for workers: else each outcome would wake the main thread for itself."""
    if runner.workforce.waiting > ahead_of(runner) // 2 > 0:
        time.sleep(PAUSE_S)


def take_back(runner: Runner) -> None:
    """Take back the documents that wait for a worker when the run ends: they are left for the next run."""
    for task in runner.workforce.take_back():
        runner.flight.remove(task.entry, task.plan)
        runner.backlog.append(task.entry)


def _has_room(runner: Runner) -> bool:
    long_documents = runner.long_documents
    if not runner.job.allows(runner.run_counts.tried + runner.flight.documents + long_documents.documents):
        return False
    # a postponed document may be a parked one that is to be opened, or one for which all windows wait: the run would
    # hang if it waited until fewer documents are parked
    if long_documents.is_full and not runner.backlog.has_postponed:
        return False
    if runner.job.output.is_full:
        return False
    return runner.flight.has_room(
        runner.most_in_flight + ahead_of(runner),
        other_requests=long_documents.in_flight,
        others_bytes=long_documents.size_bytes,
    )
