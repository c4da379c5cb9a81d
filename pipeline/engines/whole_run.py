"""`pipeline run --engine`: plan, distribute the chunks, write one report, and return one exit code.

It must not import the library of an engine.
"""

from __future__ import annotations

import logging
import secrets
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial

from pipeline.config import AppConfig
from pipeline.engines.driver import Engine, HandOut, hand_out
from pipeline.errors import EXIT_CONFIG, EXIT_FAILURES, EXIT_OK, EXIT_SIGINT, EXIT_SIGTERM, PipelineError
from pipeline.output import RunIndex, backend_of
from pipeline.output.chunk_plan import PLAN
from pipeline.report import RunSummary, write_newest, write_report
from pipeline.report.contents import Report
from pipeline.report.history import EarlierRuns
from pipeline.report.text import summary_text
from pipeline.run.chunks.planning import make_plan
from pipeline.run.display.observer import Signals
from pipeline.run.display.progress import ProgressMode, make_progress
from pipeline.run.display.rates import ProgressState
from pipeline.run.stop_rules import StopReason
from pipeline.shards import CHUNKED, Shard
from pipeline.terminal import pasteable, plural, wants_colour, width_of, write_out

logger = logging.getLogger(__name__)

CHUNKS_OF_A_SLOT = 4
"""The least number of chunks for each slot in a first plan, so that a slow machine can process fewer of them."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """The flags of a run on an engine that are not those of its chunks.

    `command`: the one that resumes it, which the report names. `max_duration_s`: None for no limit.
    """

    slots: int
    command: str = "pipeline run --engine ray"
    run_id: str | None = None
    max_duration_s: float | None = None
    incomplete_exit: int = EXIT_OK
    progress: ProgressMode = "auto"
    quiet: bool = False


def new_run_id() -> str:
    """Return an id that all chunks of this run share."""
    return datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ-") + secrets.token_hex(3)


def run_whole(
    app: AppConfig, options: EngineOptions, *, connect: Callable[[], Engine], environ: Mapping[str, str]
) -> int:
    """Run all chunks of the plan, which is made or extended first; return the exit code of the whole.

    Chunks without a finished run come first, so that a restart begins with what remains.
    """
    started = time.monotonic()
    planned = make_plan(app, chunks=None, chunk_bytes=None, least=CHUNKS_OF_A_SLOT * options.slots)
    stop = threading.Event()
    engine = connect()
    signals = Signals(stop)  # after connect: engines install handlers of their own
    progress = make_progress(
        "none" if options.quiet else options.progress,
        stream=sys.stderr,
        clock=time.monotonic,
        log=logger,
        environ=environ,
    )
    logger.info("run starts", extra={"chunks": planned.head.chunks, "slots": options.slots, "output": app.output.uri})

    def may_start() -> bool:
        limit_s = options.max_duration_s
        return limit_s is None or time.monotonic() - started < limit_s

    def watch(state: HandOut) -> None:
        progress.update(_progress(state, options.slots, elapsed_s=time.monotonic() - started))

    try:
        chunks = _in_order(app, planned.head.chunks)
        state = hand_out(engine, chunks, slots=options.slots, is_stopped=stop.is_set, may_start=may_start, watch=watch)
    finally:
        progress.close()
        engine.close()
    _say_unshared_output(state, app.output.uri)
    code = state.exit_code
    if signals.number is not None:
        code = StopReason.of_signal(signals.number).exit_code or code
    elif code == EXIT_OK and not state.is_whole:
        code = options.incomplete_exit
    elif code == EXIT_OK and planned.listing.files < min(1, app.input.min_documents):
        code = EXIT_FAILURES
    _report(app, code, options, environ, chunks_left=len(state.left))
    return code


def _say_unshared_output(state: HandOut, output: str) -> None:
    if lacks_plan(state):
        logger.error(
            "the nodes do not see the plan that this command has written into %s: the output must be a bucket, or a "
            "folder that all nodes share, as an absolute path",
            output,
        )


def lacks_plan(state: HandOut) -> bool:
    """Return True when a chunk did not find the plan that has just been written."""
    return any(f"no {PLAN}" in result.message for result in state.ended.values() if result.exit_code == EXIT_CONFIG)


def _in_order(app: AppConfig, chunks: int) -> list[int]:
    index = RunIndex(backend_of(app.output), Shard(0, CHUNKED, chunks))
    ended = {shard.index for shard in index.finished_shards() if shard.is_chunk}
    return sorted(range(chunks), key=lambda chunk: (chunk in ended, chunk))


def _progress(state: HandOut, slots: int, *, elapsed_s: float) -> ProgressState:
    counts = [result.counts for result in state.ended.values()]
    of = len(state.tries.keys() | set(state.waiting))
    return ProgressState(
        done=sum(entry.done for entry in counts),
        failed=sum(entry.failed for entry in counts),
        skipped=sum(entry.skipped for entry in counts),
        found=sum(entry.found for entry in counts),
        in_flight=len(state.running),
        limit=slots,
        limit_reason=f"chunks; {len(state.ended):,} of {of:,} have ended",
        elapsed_s=elapsed_s,
    )


def _report(app: AppConfig, code: int, options: EngineOptions, environ: Mapping[str, str], *, chunks_left: int) -> None:
    """Write the report of all chunks and print the summary; log a warning for an error here."""
    backend = backend_of(app.output)
    try:
        index = RunIndex(backend, next(iter(_chunk_shards(app)), Shard()))

        def runs() -> list[RunSummary]:
            index.refresh()
            return [replace(RunSummary.from_json(run), command=options.command) for run in index.of_all_shards()]

        if not runs():
            return
        report = write_newest(backend.replace, runs=runs, earlier=partial(EarlierRuns.of_index, index))
        report = _of_the_whole(report, code)
        write_report(backend.replace, report)
    except PipelineError as error:
        logger.warning("the report was not written; `pipeline report` writes it: %s", error)
        return
    if not options.quiet or code != EXIT_OK:
        width = width_of(sys.stdout, environ)
        text = summary_text(report, colour=wants_colour(sys.stdout, environ), width=width)
        if chunks_left and not report.run.counts.left:
            left = f"{plural(chunks_left, 'chunk')} {'is' if chunks_left == 1 else 'are'} left"
            lines = [f"{left}. Run the same command to resume:", *pasteable("", options.command, indent=2, width=width)]
            text += "\n".join(["", *lines, ""])
        write_out(text)
    logger.info("run ends", extra={"exit_code": code, "verdict": report.verdict})


def _of_the_whole(report: Report, code: int) -> Report:
    """Return the report with the command's exit code, which differs from the chunks' codes after an interrupt."""
    if code == report.exit_code:
        return report
    run = replace(report.run, exit_code=code)
    if code in (EXIT_SIGINT, EXIT_SIGTERM):
        name = "SIGINT" if code == EXIT_SIGINT else "SIGTERM"
        run = replace(run, verdict="INTERRUPTED", message=f"interrupted by {name}")
    return replace(report, exit_code=code, verdict=run.verdict, run=run)


def _chunk_shards(app: AppConfig) -> list[Shard]:
    index = RunIndex(backend_of(app.output), Shard())
    return [shard for shard in index.finished_shards() if shard.is_chunk]
