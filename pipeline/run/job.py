"""What a run is made of, handed to the runner whole; nothing here does anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pipeline.config import RunnerConfig
from pipeline.llm.replica import Start
from pipeline.output import Output
from pipeline.records import Entry
from pipeline.run.concurrency import Limit
from pipeline.run.plan import ExtractionPlan
from pipeline.run.process import Finished
from pipeline.run.selection import Selection

if TYPE_CHECKING:
    from pipeline.run.runner import Runner


class Watcher(Protocol):
    """What sees each outcome and each turn, in the main thread."""

    def outcome(self, finished: Finished) -> None: ...

    def turn(self, runner: Runner) -> None: ...


class Supervisor(Protocol):
    """Called by one thread at a time: `establish` before the first document, `refresh` for a new plan, or None.

    What takes time is handed to `start`, which runs it in a thread of its own.
    """

    def establish(self, plan: ExtractionPlan, *, start: Start) -> None: ...

    def refresh(self, *, start: Start) -> ExtractionPlan | None: ...


@dataclass(frozen=True, slots=True)
class Job:
    """What a run is made of. `budget`: how many documents may be tried (None: all); `until`: monotonic end time."""

    entries: Callable[[], Iterator[Entry]]
    selection: Selection
    output: Output
    config: RunnerConfig
    limit: Limit
    supervisor: Supervisor
    watcher: Watcher
    budget: int | None = None
    until: float | None = None
