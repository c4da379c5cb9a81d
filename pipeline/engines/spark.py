"""The adapter of Spark: each chunk of a plan is a task of a job, which Spark starts again when it is lost.

The records go into the output, as in any run; the driver receives only the result of each run (ChunkResult).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.discovery import ConfigFile, find_config
from pipeline.config.loading import load_config
from pipeline.engines import ChunkResult, run_chunk
from pipeline.errors import EXIT_CONFIG, EXIT_FAILURES, EXIT_OK, ConfigError
from pipeline.output import backend_of
from pipeline.output.chunk_plan import PLAN, read_head

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_FINAL = (EXIT_OK, EXIT_FAILURES, EXIT_CONFIG)
"""Exit codes that a repeated run would have again; after all others the run can resume."""
_ATTEMPTS = 4
"""The default of spark.task.maxFailures."""
_LOCAL_ATTEMPTS = re.compile(r"local\[[^,\]]*,\s*(\d+)\]")


class ChunkFailedError(Exception):
    """The chunk did not finish: the task fails, and Spark starts it again."""


def run_plan(
    session: SparkSession,
    config: str | os.PathLike[str] | None = None,
    plan: str | None = None,
    *,
    flags: Sequence[str] = (),
    chunks: Sequence[int] | None = None,
) -> list[ChunkResult]:
    """Run chunks (None: all of the plan) as the tasks of one Spark job; return their results, in order.

    `config`, `plan` and `flags` as for `run_chunk`: the files they name must exist on every executor, and so must the
    package. As many chunks run at a time as the job has task slots. A task whose executor or Python worker is lost,
    and a run that can resume (exit code 3, 70 or a signal), starts again, up to spark.task.maxFailures times.
    ConfigError when the output has no plan.
    """
    indexes = range(_planned_chunks(config, plan)) if chunks is None else chunks
    if not indexes:
        return []
    context = session.sparkContext
    attempts = attempts_of(context.master, context.getConf().get("spark.task.maxFailures"))
    task = _ChunkTask(None if config is None else os.fspath(config), plan, tuple(flags), attempts)
    return list(context.parallelize(indexes, len(indexes)).mapPartitions(task).collect())


def exit_code_of(results: Sequence[ChunkResult]) -> int:
    """Return the exit code of a driver: the largest of its chunks' codes, so that 0 means that all are done."""
    return max((result.exit_code for result in results), default=EXIT_OK)


def attempts_of(master: str, max_failures: str | None) -> int:
    """Return how often Spark starts a task: local[N,F]: F times, local[N]: once; else spark.task.maxFailures times."""
    if master.startswith("local") and "cluster" not in master:
        local = _LOCAL_ATTEMPTS.fullmatch(master)
        return int(local[1]) if local else 1
    return int(max_failures or _ATTEMPTS)


@dataclass(frozen=True, slots=True)
class _ChunkTask:
    """The function of a task: it runs the chunks of a partition, which holds one."""

    config: str | None
    plan: str | None
    flags: tuple[str, ...]
    attempts: int

    def __call__(self, indexes: Iterator[int]) -> Iterator[ChunkResult]:
        """Yield the result of each chunk; ChunkFailedError for one that can resume, while there are attempts left.

        The last attempt returns its result: a task that fails too often would end the whole job.
        """
        from pyspark import TaskContext

        context = TaskContext.get()
        is_last = context is None or context.attemptNumber() + 1 >= self.attempts
        for index in indexes:
            result = run_chunk(self.config, self.plan, index, flags=self.flags)
            if result.exit_code not in _FINAL and not is_last:
                raise ChunkFailedError(f"chunk {index}: exit code {result.exit_code}: {result.message}")
            yield result


def _planned_chunks(config: str | os.PathLike[str] | None, plan: str | None) -> int:
    """Return the number of chunks in the plan of an output."""
    file = find_config(os.environ) if config is None else ConfigFile(Path(config))
    overrides = {} if plan is None else {"output.uri": plan}
    backend = backend_of(load_config(file, environ=os.environ, overrides=overrides).output)
    head = read_head(backend)
    if head is None:
        raise ConfigError(f"{backend.where} has no {PLAN}; `pipeline plan` writes one")
    return head.chunks
