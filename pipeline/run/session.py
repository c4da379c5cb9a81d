"""One run: build the parts, connect them, and report at the end what became of every document."""

from __future__ import annotations

import logging
import secrets
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import AppConfig
from pipeline.config.loading import describe
from pipeline.config.redaction import SECRETS
from pipeline.documents import ListingCounts, load_entries
from pipeline.errors import EXIT_INTERNAL, EXIT_OK, OutputError, PipelineError
from pipeline.logs import active_handler
from pipeline.output import Output, left_out, scan, tidy
from pipeline.records import utc_now
from pipeline.report import build_report, reconciles, run_summary, write_newest
from pipeline.report.stats import RunStats
from pipeline.report.text import summary_text
from pipeline.run import dry_run
from pipeline.run.concurrency import Auto, Fixed, Limit
from pipeline.run.job import Job
from pipeline.run.observer import Display, Signals
from pipeline.run.options import RunOptions
from pipeline.run.plan import ExtractionPlan, build_plan
from pipeline.run.progress import make_progress
from pipeline.run.redoing import check_redo, questions, rules_of
from pipeline.run.refresh import Refresher
from pipeline.run.runner import Runner
from pipeline.run.selection import Selection
from pipeline.run.stop_rules import StopReason, exit_code
from pipeline.shards import find_shard
from pipeline.terminal import wants_colour, write_out

if TYPE_CHECKING:
    from pipeline.run.metrics import Metrics

logger = logging.getLogger(__name__)


def run(options: RunOptions, *, load: Callable[[], AppConfig], environ: Mapping[str, str]) -> int:
    """Run to the end, write the report, print the summary; return the exit code of section 8 of the contract.

    `load` reads the configuration; it is called again whenever the running configuration is refreshed.
    """
    app = load()
    shard, shard_from = find_shard(options.shard, environ)
    run_id = options.run_id or _new_run_id()
    if (handler := active_handler()) is not None:
        handler.bind({"run_id": run_id, "shard": shard.label})
    if shard_from:
        logger.info("one shard of the documents", extra={"shard": shard.label, "from": shard_from})
    stop = threading.Event()
    plan = build_plan(app, stop=stop)
    counts = ListingCounts()
    rules = rules_of(options, app, run_id=run_id, shard=shard)
    if options.dry_run:
        return dry_run.main(app, plan, rules=rules, shard=shard)
    entries = load_entries(app.input, output=left_out(app), counts=counts)
    signals = Signals(stop)
    try:
        with Output.open(
            app.output,
            agent=plan.agent.name,
            shard=shard if shard.count else None,
            lock_wait_s=app.runner.lock_wait_s,
            run_id=run_id,
            wait=stop.wait,
        ) as output:
            check_redo(app, plan, output=output, rules=rules)
            session = _Session(app, options, plan=plan, output=output, counts=counts, load=load, environ=environ)
            counts.whole = output.index.mended
            selection = Selection(output.index, rules, shard=shard, fingerprint=session.fingerprint)
            code = session.go(lambda: entries, selection, stop=stop, signals=signals)
        if session.has_settled_errors and signals.number is None:
            _tidy(app, run_id=run_id, stop=stop)
        return code
    except PipelineError as error:
        if signals.number is None:
            raise
        logger.error("%s", error)
        return StopReason.of_signal(signals.number).exit_code or EXIT_INTERNAL


class _Session:
    """One run with its output open."""

    def __init__(
        self,
        app: AppConfig,
        options: RunOptions,
        *,
        plan: ExtractionPlan,
        output: Output,
        counts: ListingCounts,
        load: Callable[[], AppConfig],
        environ: Mapping[str, str],
    ) -> None:
        self.app, self.options, self.plan, self.output = app, options, plan, output
        self.listing, self.load, self.environ = counts, load, environ
        self.started_at, self.started = utc_now(), time.monotonic()
        self.runner: Runner | None = None
        self.has_settled_errors = False

    def fingerprint(self, document_id: str) -> str:
        """The fingerprint of what this document would be asked now."""
        plan = self.runner.plan if self.runner else self.plan
        return plan.query_for(document_id).fingerprint

    def go(self, entries: Any, selection: Selection, *, stop: threading.Event, signals: Signals) -> int:
        """Runs, reports, and gives the exit code."""
        options, config = self.options, self.app.runner
        mode = "none" if options.quiet else options.progress
        progress = make_progress(mode, stream=sys.stderr, clock=time.monotonic, log=logger, environ=self.environ)
        stats = RunStats(self.plan.agent.schema, time.monotonic)
        display = Display(stats, progress, self.started, metrics=self._metrics())
        job = Job(
            entries,
            selection,
            self.output,
            config,
            limit=_limit(self.app),
            supervisor=Refresher(self.app, load=self.load, watched=self._watched(), stop=stop),
            watcher=display,
            budget=options.limit,
            until=None if options.max_duration_s is None else self.started + options.max_duration_s,
        )
        self.runner = signals.runner = Runner(job, self.plan, stop=stop)
        if signals.number is not None:
            self.runner.interrupt(signals.number)
        fields = {"run": self.output.stamp.run, "agent": self.plan.agent.name, "output": self.output.where}
        logger.info("run starts", extra=fields)
        code = EXIT_INTERNAL
        try:
            try:
                self.runner.run()
            finally:
                progress.close()
                _flush_log()
            code = self._finish(stats)
        except PipelineError as error:
            code = error.exit_code
            raise
        finally:
            display.end(self.runner, code)
        return code

    def _metrics(self) -> Metrics | None:
        """The metrics, when there is a way for them to go."""
        flags = self.options
        if (flags.metrics_port, flags.metrics_textfile, flags.pushgateway) == (None, None, None):
            return None
        from pipeline.run.metrics import Metrics, Ways  # slow to import

        ways = Ways(flags.metrics_port, flags.metrics_textfile, flags.pushgateway)
        return Metrics(self.plan.agent.name, self.output.stamp.shard, ways=ways)

    def _watched(self) -> list[Path]:
        """The files whose change in mid-run is looked at."""
        config, agent = self.options.config_file, self.plan.agent
        schema = agent.settings.schema
        return [
            *([config] if config else []),
            agent.path,
            *([agent.path.parent / schema] if isinstance(schema, str) else []),
        ]

    def _finish(self, stats: RunStats) -> int:
        """Adds up, writes what is written last, prints the summary; an output that fails now is exit 3."""
        assert self.runner is not None
        self.plan = self.runner.plan
        ignored = sum(self.listing.ignored.values())
        counts = {**self.runner.counts, "ignored": ignored}
        counts["found"] += ignored
        code, message, verdict = exit_code(
            self.runner.end,
            done=counts["done"],
            failed=counts["failed"],
            skipped=counts["skipped"],
            listed=self.listing.listed if self.runner.listed_whole else None,
            ignored=self.listing.ignored,
            config=self.app.runner,
            min_documents=self.app.input.min_documents,
        )
        if not reconciles(counts):
            code, message, verdict = EXIT_INTERNAL, f"the numbers of this run do not add up: {counts}", None
        if code != EXIT_OK:
            logger.error("%s", message)
        summary = self._summary(stats, counts=counts, code=code, verdict=verdict, message=message)
        limit = self.runner.job.limit
        summary["listed_whole"] = self.runner.listed_whole
        summary["concurrency"] = {"limit": limit.value, "reason": limit.reason}
        report = self._write(summary)
        if not (self.options.quiet and code == EXIT_OK):
            self._print(report)
        logger.info("run ends", extra={"exit_code": code, "verdict": summary["verdict"]})
        return code

    def _summary(
        self, stats: RunStats, *, counts: Mapping[str, int], code: int, verdict: str | None, message: str
    ) -> dict[str, Any]:
        stamp, output = self.output.stamp, self.output
        return run_summary(
            stats,
            counts=counts,
            exit_code=code,
            started_at=self.started_at,
            finished_at=utc_now(),
            run_id=stamp.run_id,
            run=stamp.run,
            shard=stamp.shard,
            agent=self.plan.agent.name,
            config={**describe(self.app), "question": questions(self.app, self.plan)},
            verdict=verdict,
            message=message,
            command=self.options.command,
            files={name: f"{output.where}/{name}" for name in (*output.names, "report.html")},
            ignored=self.listing.ignored,
        )

    def _write(self, summary: dict[str, Any]) -> dict[str, Any]:
        """The run's file and the report; the report is returned also when it could not be written."""
        try:
            self.output.write_run(summary)
            report = write_newest(self.output.medium.replace, runs=self.output.runs, counts=self._counts)
        except PipelineError as error:
            if summary["exit_code"] == EXIT_OK:
                raise
            logger.error("%s", error)
            report = build_report([summary], self.output.index.counts())
        return report

    def _counts(self) -> dict[str, Any]:
        """The numbers of the whole output; a shard's own index knows its own documents only."""
        if self.output.stamp.shard is None:
            return self.output.index.counts()
        with closing(scan(self.app.output)) as whole:
            self.has_settled_errors = whole.error_lines > whole.failed_count()
            return whole.counts()

    def _print(self, report: Mapping[str, Any]) -> None:
        colour = wants_colour(sys.stdout, self.environ)
        text = summary_text(report, colour=colour)
        if self.options.quiet and self.options.log_format == "text":
            with suppress(OSError):  # nobody is left to be told
                sys.stderr.write(SECRETS.redact(text))
            return
        try:
            write_out(text)
        except OutputError as error:
            logger.warning("the summary was not printed: %s", error)


def _tidy(app: AppConfig, *, run_id: str, stop: threading.Event) -> None:
    """Takes settled errors of other numbers of shards out; the run has its report, and ends as that says."""
    try:
        tidy(app.output, run_id=run_id, wait=stop.wait)
    except PipelineError as error:
        logger.warning("errors that no longer stand were left: %s", error)


def _flush_log() -> None:
    """What repeated is told before the summary: a run's last line is how it ended."""
    if (handler := active_handler()) is not None:
        handler.flush()


def _limit(app: AppConfig) -> Limit:
    config = app.runner
    if config.concurrency != "auto":
        return Fixed(config.concurrency)
    return Auto(ceiling=config.max_concurrency)


def _new_run_id() -> str:
    return datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ-") + secrets.token_hex(3)
