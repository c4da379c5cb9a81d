"""One run: build its parts, connect them, and report the outcome of every document at the end."""

from __future__ import annotations

import logging
import random
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import AppConfig
from pipeline.documents import ListingCounts
from pipeline.errors import EXIT_INTERNAL, PipelineError
from pipeline.logs import active_handler
from pipeline.output import Output
from pipeline.records import Entry, LatestRecord
from pipeline.report.stats import RunStats
from pipeline.run import machine
from pipeline.run.concurrency import limit_of
from pipeline.run.display.observer import Display, Signals
from pipeline.run.display.progress import Progress, make_progress
from pipeline.run.ending.closing import RunClosing
from pipeline.run.ending.graded_run import check_gold
from pipeline.run.ending.report_of_shards import write_report_of_set
from pipeline.run.garbage import rare_collections
from pipeline.run.job import Job
from pipeline.run.listing import Chunk, InputListing, open_chunk
from pipeline.run.options import RunOptions
from pipeline.run.plan import ExtractionPlan, build_plan, log_warnings
from pipeline.run.preview import dry_run
from pipeline.run.preview.placeholders import PlaceholderWatch
from pipeline.run.refresh import Refresher
from pipeline.run.runner import Runner
from pipeline.run.selection.deciding import current_digest
from pipeline.run.selection.prompt_change import check_redo, log_change, prompt_change
from pipeline.run.selection.redoing import copies_of, equate_former, rules_of
from pipeline.run.selection.resuming import has_records
from pipeline.run.selection.selection import Selection, SelectionRules
from pipeline.run.stop_rules import StopReason
from pipeline.run.windows.stored_answers import stored_answers
from pipeline.shards import Shard, find_chunk, find_shard
from pipeline.stores import OutageRetry
from pipeline.values.profiling import ProfileBuilder

if TYPE_CHECKING:
    from pipeline.run.display.metrics import Metrics

logger = logging.getLogger(__name__)

LOOK_S = 0.05


def run(options: RunOptions, *, load: Callable[[], AppConfig], environ: Mapping[str, str]) -> int:
    """Run to the end, write the report, print the summary; return the exit code (docs/nightly.md).

    `load` reads the configuration; it is called again whenever the running configuration is refreshed.
    """
    app = load()
    machine.raise_open_files()
    machine.limit_arenas()
    chunk, shard, shard_from = _share(app, options, environ)
    listing = InputListing(app, chunk)
    run_id = options.run_id or _new_run_id()
    _identify(run_id, shard, shard_from)
    ends_at = None if options.max_duration_s is None else time.monotonic() + options.max_duration_s
    stop = threading.Event()
    plan = build_plan(app, stop=stop)
    log_warnings(app, plan)
    grading = check_gold(app, plan)
    counts = ListingCounts()
    rules = rules_of(options, app, run_id=run_id, shard=shard, listing=listing)
    if options.dry_run:
        return dry_run.main(app, plan, rules=rules, shard=shard, listing=listing)
    outage_retry = OutageRetry(app.runner.max_outage_s, stop, time.monotonic, max_retries=_max_retries(app, plan))
    signals = Signals(stop)
    try:
        entries = listing.start(plan, counts=counts, outage_retry=outage_retry)
        with _open_output(app, plan, shard=shard, run_id=run_id, stop=stop, ends_at=ends_at) as output:
            equate_former(app, plan, index=output.index, backend=output.backend, runs=output.run_index)
            change = prompt_change(app, plan, index=output.index, runs=output.run_index)
            check_redo(change, app, rules=rules)
            log_change(change, rules, limited=options.limit is not None)
            end = RunClosing(app, options, output, listing=counts, environ=environ, grading=grading)
            session = _Session(app, options, end, plan=plan, output=output, counts=counts, load=load, environ=environ)
            session.listing = listing
            session.outage_retry, session.ends_at, session.stop = outage_retry, ends_at, stop
            selection = session.select(rules, shard=shard)
            code = session.run(lambda: entries, selection, signals=signals)
        if signals.number is None:
            write_report_of_set(app, shard, stop=lambda: signals.number is not None)
        return code
    except PipelineError as error:
        if signals.number is None:
            raise
        logger.error("%s", error)
        return StopReason.of_signal(signals.number).exit_code or EXIT_INTERNAL


def _share(app: AppConfig, options: RunOptions, environ: Mapping[str, str]) -> tuple[Chunk | None, Shard, str]:
    """Return the chunk of this run, if it has one, its shard, and the flag or variable that names it."""
    index, source = find_chunk(options.chunk, environ) if options.shard is None else (None, "")
    if index is None:
        return None, *find_shard(options.shard, environ)
    chunk = open_chunk(app, index)
    return chunk, chunk.shard, source


def _identify(run_id: str, shard: Shard, shard_from: str) -> None:
    """Add the run and the shard to every line of the log, and log the source of the shard."""
    if (handler := active_handler()) is not None:
        handler.bind({"run_id": run_id, "shard": shard.label})
    if shard_from:
        share = "one chunk of the plan" if shard.is_chunk else "one shard of the documents"
        logger.info(share, extra={"shard": shard.label, "from": shard_from})


def _lock_wait_s(app: AppConfig, ends_at: float | None) -> float:
    """Return how long to wait for the lock: never longer than the run may last."""
    wait_s = app.runner.lock_wait_s
    return wait_s if ends_at is None else max(0.0, min(wait_s, ends_at - time.monotonic()))


class _Session:
    """One run with its output open."""

    def __init__(
        self,
        app: AppConfig,
        options: RunOptions,
        end: RunClosing,
        *,
        plan: ExtractionPlan,
        output: Output,
        counts: ListingCounts,
        load: Callable[[], AppConfig],
        environ: Mapping[str, str],
    ) -> None:
        self.outage_retry: OutageRetry | None = None
        self.listing = InputListing(app)
        self.stop = threading.Event()
        self.ends_at: float | None = None
        self.counts = counts
        self.app, self.options, self.plan, self.output = app, options, plan, output
        self.load, self.environ, self.started_at = load, environ, time.monotonic()
        self.runner: Runner | None = None
        self.closing = end

    def fingerprint(self, document_id: str, latest: LatestRecord) -> str:
        """Return the present fingerprint of a document, with which that of its latest record is compared."""
        return self._plan_now.query_for(document_id).present(latest.fingerprint, failed=latest.failed)

    def decided_by(self, document_id: str, latest: LatestRecord) -> str | None:
        """Return the present digest of the settings that a failure depends on; called by the reader's thread."""
        query = self._plan_now.query_for(document_id)
        digest = query.decided_by.get(latest.reason or "")
        return current_digest(digest, latest, context=partial(self._context, query.resolved.variant))

    def _context(self, variant: str) -> int | None:
        """Return the context of the servers in use after their first preflight; None: not reported, or no server."""
        while self.runner is not None and not self.runner.is_ready and not self.stop.wait(LOOK_S):
            pass
        return self._plan_now.client.context_length(variant)

    @property
    def _plan_now(self) -> ExtractionPlan:
        return self.runner.plan if self.runner else self.plan

    def select(self, rules: SelectionRules, *, shard: Shard) -> Selection:
        """Connect waiting documents and the listing with the index; return the selection of entries."""
        index = self.output.index
        self.counts.on_complete = index.clear_archive_failure
        self.counts.latest_record = index.latest
        self.counts.look_up = index.look_up
        rules = replace(rules, ask_again=self.output.run_index.ask_again())
        return Selection(index, rules, shard=shard, fingerprint=self.fingerprint, decided_by=self.decided_by)

    def run(self, entries: Any, selection: Selection, *, signals: Signals) -> int:
        """Run, report, and return the exit code."""
        options, config = self.options, self.app.runner
        mode = "none" if options.quiet else options.progress
        progress = make_progress(mode, stream=sys.stderr, clock=time.monotonic, log=logger, environ=self.environ)
        stats = RunStats(self.plan.agent.schema, time.monotonic, same_questions=self.plan.same_questions)
        display = self._display(stats, progress)
        job = Job(
            entries,
            self._relist,
            selection,
            self.output,
            config,
            limit=limit_of(config),
            supervisor=self._supervisor(),
            watcher=display,
            budget=options.limit,
            copies=copies_of(options, self.app, output=self.output),
            ends_at=self.ends_at,
            earlier=stored_answers(self.output, redo=options.redo),
            outage_retry=self.outage_retry,
        )
        self.runner = signals.runner = Runner(job, self.plan, stop=self.stop)
        self.output.wait_by(self.runner.end_wait)
        if signals.number is not None:
            self.runner.interrupt(signals.number)
        logger.info("run starts", extra=self._identity())
        code = EXIT_INTERNAL
        try:
            try:
                with rare_collections():
                    self.runner.run()
            finally:
                progress.close()
                display.placeholders.close()
                _flush_log()
            code = self.closing.finish(self.runner, stats, display.profile, selection=selection)
        except PipelineError as error:
            code = error.exit_code
            raise
        finally:
            display.end(self.runner.status, code, self.closing.remaining)
        return code

    def _display(self, stats: RunStats, progress: Progress) -> Display:
        """Return the observers of each outcome; the profile takes the same samples for the same results."""
        templates = {name: query.resolved.user_prompt for name, query in self.plan.queries.items()}
        show_texts = self.options.profile_values
        profile = ProfileBuilder(self.plan.agent.schema, random=random.Random(0).random, show_texts=show_texts)
        return Display(stats, progress, self.started_at, profile, PlaceholderWatch(templates), metrics=self._metrics())

    def _relist(self) -> Iterator[Entry]:
        """List the input once more, without counting it."""
        return self.listing(ListingCounts(), self.outage_retry)

    def _supervisor(self) -> Refresher:
        resumes = has_records(self.output, self.app, self.plan)
        if self.outage_retry is not None:
            self.outage_retry.resumed = resumes
        return Refresher(self.app, load=self.load, watched_files=self._watched_files(), stop=self.stop, resumes=resumes)

    def _identity(self) -> dict[str, object]:
        """Return the fields of the log's first line: run, agent, output and configuration."""
        file = self.options.config_file
        fields = {"run": self.output.stamp.run, "agent": self.plan.agent.name, "output": self.output.where}
        return fields if file is None else {**fields, "config": str(file)}

    def _metrics(self) -> Metrics | None:
        """Return the metrics of the run; None when no flag asks for them."""
        flags = self.options
        if (flags.metrics_port, flags.metrics_textfile, flags.pushgateway) == (None, None, None):
            return None
        from pipeline.run.display.metrics import Destinations, Metrics  # slow to import

        destinations = Destinations(flags.metrics_port, flags.metrics_host, flags.metrics_textfile, flags.pushgateway)
        return Metrics(self.plan.agent.name, self.output.stamp.shard, destinations=destinations)

    def _watched_files(self) -> list[Path]:
        """Return the files that are checked for changes during the run."""
        config, agent = self.options.config_file, self.plan.agent
        schema = agent.settings.schema
        return [
            *([config] if config else []),
            agent.path,
            *([agent.path.parent / schema] if isinstance(schema, str) else []),
        ]


def _max_retries(app: AppConfig, plan: ExtractionPlan) -> int:
    """Return how often one object is read again before it fails: as often as a request to the first provider."""
    return max(app.provider_config(query.resolved.provider).max_retries for query in plan.queries.values())


def _open_output(
    app: AppConfig, plan: ExtractionPlan, *, shard: Shard, run_id: str, stop: threading.Event, ends_at: float | None
) -> Output:
    return Output.open(
        app.output,
        agent=plan.agent.name,
        shard=shard if shard.count else None,
        lock_wait_s=_lock_wait_s(app, ends_at),
        run_id=run_id,
        wait=stop.wait,
        max_outage_s=app.runner.max_outage_s,
        windows=plan.splits,
    )


def _flush_log() -> None:
    """Log the counts of repeated warnings before the summary, so that the verdict is the last line."""
    if (handler := active_handler()) is not None:
        handler.flush()


def _new_run_id() -> str:
    return datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ-") + secrets.token_hex(3)
