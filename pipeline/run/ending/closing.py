"""The end of a run after its last document: counts, exit code, report and summary."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pipeline.answers.list_keys import list_keys
from pipeline.config import AppConfig
from pipeline.config.loading import describe
from pipeline.config.redaction import SECRETS
from pipeline.documents import ListingCounts
from pipeline.errors import EXIT_FAILURES, EXIT_INTERNAL, EXIT_OK, OutputError, PipelineError
from pipeline.output import Output
from pipeline.output.newest_prompt import FINGERPRINTS
from pipeline.records import utc_now
from pipeline.report import RunSummary, headline, reconciles
from pipeline.report.contents import Report
from pipeline.report.event import summary_fields
from pipeline.report.numbers import RunNumbers
from pipeline.report.profile import drift_of, kept_profiles
from pipeline.report.remaining import NONE_REMAIN, RemainingFailures
from pipeline.report.run_summary import Concurrency, Counts, OutputCounts
from pipeline.report.stats import RunStats
from pipeline.report.text import summary_text
from pipeline.run.ending.exit_code import exit_code
from pipeline.run.ending.graded_run import UngradedError, failed_gates, grade_run, run_content, unevaluated_gates
from pipeline.run.ending.remaining import remaining_failures
from pipeline.run.ending.report_of_shards import write_report_of
from pipeline.run.options import RunOptions
from pipeline.run.plan import ExtractionPlan, split_warnings
from pipeline.run.pod import EMPTY_INPUT, in_pod, resume_command
from pipeline.run.prompt_length import doubtful_results, limits, overhead
from pipeline.run.runner import Runner
from pipeline.run.selection.redoing import questions
from pipeline.run.selection.selection import Selection
from pipeline.terminal import is_terminal, plural, wants_colour, width_of, write_out
from pipeline.values.profiling import ProfileBuilder

if TYPE_CHECKING:
    from pipeline.truth.evaluate import EvalOptions, Evaluation

logger = logging.getLogger(__name__)


class RunClosing:
    """The end of one run, with its output still open and locked.

    `remaining`: the failures that remain; None before `finish`.
    """

    def __init__(
        self,
        app: AppConfig,
        options: RunOptions,
        output: Output,
        *,
        listing: ListingCounts,
        environ: Mapping[str, str],
        grading: EvalOptions | None = None,
    ) -> None:
        self.remaining: RemainingFailures | None = None
        self._app = app
        self._options = options
        self._output = output
        self._listing = listing
        self._environ = environ
        self._started_at = utc_now()
        self._grading = grading

    def finish(self, runner: Runner, stats: RunStats, profile: ProfileBuilder, *, selection: Selection) -> int:
        """Return the exit code; OutputError when the summary of a successful run cannot be written."""
        counts = runner.counts
        listed_whole = runner.is_listing_complete
        documents = counts["found"] if listed_whole else None
        self.remaining = remaining_failures(self._output, selection, found=documents)
        doubtful = doubtful_results(self._output, runner.plan.registry)
        code, message, verdict = exit_code(
            runner.end,
            counts=counts,
            remaining=self.remaining,
            listed=self._listing.listed if listed_whole else None,
            ignored=self._listing.ignored,
            config=self._app.runner,
            min_documents=0 if self._output.shard.is_chunk else self._app.input.min_documents,
            incomplete_exit=self._options.incomplete_exit,
            doubtful=len(doubtful),
            moved_sentence=self._drift_sentence(profile),
        )
        if listed_whole and not self._listing.listed and in_pod(self._environ):
            logger.info(EMPTY_INPUT)
        ignored = sum(self._listing.ignored.values())
        all_counts = Counts(**{**counts, "found": counts["found"] + ignored, "ignored": ignored})
        if not reconciles(all_counts):
            code = EXIT_INTERNAL
            message = f"the numbers of this run do not add up: {dict(all_counts.items())}"
            verdict = None
        evaluation, below = self._graded(code, left=counts["left"])
        if below is not None and code == EXIT_OK:
            code, message, verdict = below
        if code != EXIT_OK and not self._is_read_on_terminal():
            logger.error("%s", message)
        verdict = verdict or headline(all_counts, code, remaining=self.remaining.failed)
        summary = replace(
            self._summary(runner, stats.snapshot(), counts=all_counts),
            exit_code=code,
            verdict=verdict,
            message=message,
            ask_again=tuple(doubtful),
            profile=kept_profiles(profile.profiles()),
            eval=None if evaluation is None else run_content(evaluation),
        )
        report = self._write(summary)
        self._show(summary, report)
        return code

    def _graded(self, code: int, *, left: int) -> tuple[Evaluation | None, tuple[int, str, str] | None]:
        """Return the grades of a completed run, and how failed gates end it; each is None if it does not apply.

        An output that cannot be read or written never changes how the run ended.
        """
        if self._grading is None or code not in (EXIT_OK, EXIT_FAILURES):
            return None, None
        try:
            evaluation = grade_run(self._output, self._grading)
        except UngradedError as error:
            logger.warning("Answers not graded: %s", error)
            # a run that left documents may not have reached the judged ones yet
            return None, unevaluated_gates(error) if self._grading.is_gated and not left else None
        except OutputError as error:
            logger.warning("Answers not graded: %s", error)
            return None, None
        return evaluation, None if evaluation is None or not evaluation.exit_code else failed_gates(evaluation)

    def _drift_sentence(self, profile: ProfileBuilder) -> str:
        """Return a sentence on values that moved since the run before by more than `runner.max_drift`; "" for none."""
        max_drift = self._app.runner.max_drift
        if max_drift is None:
            return ""
        now = RunSummary(profile=kept_profiles(profile.profiles()))
        before = self._output.run_index.of_this_shard()
        drift, _ = drift_of([now], [list(map(RunSummary.from_json, before))])
        moves = [] if drift is None else [move for move in drift.moves if move.size > max_drift]
        if not moves:
            return ""
        return (
            f"{plural(len(moves), 'share')} of values moved by more than runner.max_drift {max_drift:g}: see the report"
        )

    def _summary(self, runner: Runner, numbers: RunNumbers, *, counts: Counts) -> RunSummary:
        """Return the run's summary without exit code and verdict."""
        stamp = self._output.stamp
        output = self._output
        plan = runner.plan
        long_documents = runner.long_documents.counts.numbers()
        limit = runner.job.limit
        for merged_fingerprint, whole_fingerprint in plan.same_questions.items():
            output.index.equate([merged_fingerprint], whole_fingerprint)
        return RunSummary(
            run=stamp.run,
            run_id=stamp.run_id,
            shard=stamp.shard,
            chunks=output.shard.chunks if output.shard.is_chunk else None,
            agent=plan.agent.name,
            started_at=self._started_at,
            finished_at=utc_now(),
            command=self._options.command,
            counts=counts,
            ignored=self._listing.ignored,
            remaining=self.remaining or NONE_REMAIN,
            files={name: f"{output.where}/{name}" for name in (*output.names, "report.html")},
            stats=replace(numbers, long_documents=long_documents),
            config=self._config(plan),
            listed_whole=runner.is_listing_complete,
            all_current=(runner.is_listing_complete and not counts.left and self._options.repeats_changed) or None,
            agent_file=plan.agent.editable,
            overhead=overhead(plan.registry),
            prompt_length=tuple(limits(plan.registry)),
            resume=self._resume_command(),
            former_fingerprints=output.index.former_fingerprints(),
            output=OutputCounts.from_json(output.index.counts()),
            concurrency=Concurrency(limit.value, limit.reason),
            merge_warnings=None if long_documents is None else tuple(split_warnings(plan)) or None,
        )

    def _resume_command(self) -> str | None:
        """Return the command that resumes the run; None when it is the same command."""
        if in_pod(self._environ):
            return resume_command(self._environ)
        if self._options.redo == "all":  # without the id, all documents would be done again from the start
            return f"{self._options.command} --redo all --run-id {shlex.quote(self._output.stamp.run_id)}"
        return None

    def _config(self, plan: ExtractionPlan) -> dict[str, Any]:
        """Return the settings, the prompts and schemas, and the keys of lists, by which `diff` pairs their items."""
        keys = list_keys(plan.agent.schema)
        fingerprints = {name: query.fingerprint for name, query in plan.queries.items()}
        question_facts = {"question": questions(self._app, plan), FINGERPRINTS: fingerprints}
        return {**describe(self._app), **question_facts, **({"list_keys": keys} if keys else {})}

    def _write(self, summary: RunSummary) -> Report:
        """Write the run's summary and the report; return the report even when it could not be written."""
        try:
            self._output.write_run(summary.to_json())
        except PipelineError as error:
            if summary.exit_code == EXIT_OK:
                raise
            if str(error) not in summary.message:
                logger.error("%s", error)
        return write_report_of(self._output, summary)

    def _show(self, summary: RunSummary, report: Report) -> None:
        """Print the summary and end the log; without a terminal a JSON log contains it, so that stderr stays JSON."""
        code = summary.exit_code
        is_json = self._options.log_format == "json"
        is_quiet = self._options.quiet and code == EXIT_OK
        if not is_quiet and not (is_json and not sys.stdout.isatty()):
            self._print(report)
        fields = summary_fields(summary, report) if is_json else {"exit_code": code, "verdict": summary.verdict}
        level = logging.WARNING if is_json and self._options.quiet and code != EXIT_OK else logging.INFO
        logger.log(level, "run ends", extra=fields)

    def _is_read_on_terminal(self) -> bool:
        """True when log and summary go to terminals: the summary begins with the message, so one copy is enough."""
        return self._options.log_format == "text" and not self._options.quiet and is_terminal(sys.stdout, sys.stderr)

    def _print(self, report: Report) -> None:
        colour = wants_colour(sys.stdout, self._environ)
        text = summary_text(report, colour=colour, width=width_of(sys.stdout, self._environ))
        if self._options.quiet and self._options.log_format == "text":
            with suppress(OSError):  # stderr may be closed
                sys.stderr.write(SECRETS.redact(text))
            return
        try:
            write_out(text)
        except OutputError as error:
            logger.warning("the summary was not printed: %s", error)
