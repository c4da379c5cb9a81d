"""The last runs of an output, a row for each: their documents, duration and cost, and the quality of the answers.

It must not read a file: it is given the summaries of the runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pipeline.errors import EXIT_FAILURES, EXIT_OK
from pipeline.output import RunIndex
from pipeline.report.grades import Metric, grades_of
from pipeline.report.run_summary import RunSummary

SHOWN_RUNS = 30


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """One run; for a set of shards, one run of each of them.

    `run`: its number, or the highest of the shards. `elapsed_s`: of the longest shard. `f1`: over all judged values.
    `document_s`: median seconds of a graded document. `per_1000`: money for 1,000 documents. None: not known.
    """

    run: int = 0
    finished_at: str = ""
    exit_code: int = 0
    done: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    elapsed_s: float = 0.0
    f1: Metric | None = None
    document_s: float | None = None
    per_1000: float | None = None


@dataclass(frozen=True, slots=True)
class EarlierRuns:
    """The data in the index of runs that replaces the summaries of earlier runs.

    `profiles`: summaries that hold only profiles, several runs in one. `history`: summaries of the last runs of
    this set of shards, including the newest, with the values of a row; empty: all runs are read completely.
    """

    profiles: Sequence[RunSummary] = ()
    history: Sequence[RunSummary] = ()

    @classmethod
    def of_index(cls, index: RunIndex) -> EarlierRuns:
        """Return the earlier runs that an index keeps."""
        profiles = tuple(map(RunSummary.from_json, index.earlier()))
        return cls(profiles, tuple(map(RunSummary.from_json, index.history())))


NO_EARLIER_RUNS = EarlierRuns()


def history_rows(runs: Sequence[RunSummary], *, of: int) -> tuple[HistoryRow, ...]:
    """Return a row for each of the last runs, oldest first.

    `runs`: the runs of one set of `of` shards, oldest first.
    """
    rounds = _rounds(runs) if of > 1 else ([run] for run in runs)
    return tuple(_row(round_) for round_ in list(rounds)[-SHOWN_RUNS:])


def _rounds(runs: Sequence[RunSummary]) -> Iterator[list[RunSummary]]:
    """Yield the runs of shards that belong together: a shard that has already finished begins a new round."""
    current_runs: list[RunSummary] = []
    finished_shards: set[str | None] = set()
    for run in runs:
        if run.shard in finished_shards:
            yield current_runs
            current_runs = []
            finished_shards = set()
        current_runs.append(run)
        if run.exit_code in (EXIT_OK, EXIT_FAILURES) and not run.counts.left:
            finished_shards.add(run.shard)
    if current_runs:
        yield current_runs


def _row(runs: Sequence[RunSummary]) -> HistoryRow:
    newest = max(runs, key=lambda run: run.finished_at)
    elapsed: dict[str | None, float] = {}
    for run in runs:
        elapsed[run.shard] = elapsed.get(run.shard, 0.0) + run.stats.elapsed_s
    row = HistoryRow(
        run=max(run.run for run in runs),
        finished_at=newest.finished_at,
        exit_code=max({run.shard: run.exit_code for run in runs}.values()),
        done=sum(run.counts.done for run in runs),
        failed=sum(run.counts.failed for run in runs),
        prompt_tokens=sum(run.stats.total.prompt_tokens for run in runs),
        completion_tokens=sum(run.stats.total.completion_tokens for run in runs),
        elapsed_s=round(max(elapsed.values()), 3),
    )
    grades = grades_of(next((run.eval for run in reversed(runs) if run.eval is not None), None))
    if grades is None or not grades.outputs:
        return row
    cost = grades.first.cost
    return replace(row, f1=grades.first.overall.f1, document_s=cost.p50_s, per_1000=cost.per_1000)
