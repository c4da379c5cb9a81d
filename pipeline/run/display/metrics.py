"""The run's metrics for Prometheus: one registry, published through a port, a text file and a push gateway.

The main thread alone changes a value; the server's thread only reads. An error in the metrics must not change how a run
ends.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError
from urllib.parse import unquote, urlsplit

from prometheus_client import pushadd_to_gateway, start_http_server, write_to_textfile
from prometheus_client.exposition import basic_auth_handler, default_handler
from prometheus_client.parser import text_string_to_metric_families

from pipeline.config import mask_url
from pipeline.errors import EXIT_OK, REASONS
from pipeline.llm.overhead import OverheadCounts
from pipeline.records import ExtractionAttempt, Failure, Result
from pipeline.report.remaining import ReasonCount, RemainingFailures
from pipeline.run.display.metric_families import COMMON, SUCCESS, Families
from pipeline.run.display.status import RunStatus
from pipeline.run.document.process import FinishedEntry
from pipeline.run.windows.long_counts import LongCounts

logger = logging.getLogger(__name__)

JOB = "pipeline"
TEXTFILE_EVERY_S = 15.0
PUSH_TIMEOUT_S = 5.0
_KEPT_ERRORS = 40


@dataclass(frozen=True, slots=True)
class Destinations:
    """The destinations of the metrics.

    `port`: a port to scrape (0: any free one) at the address `host`. `textfile`: a file for node_exporter.
    `pushgateway`: the URL of a push gateway.
    """

    port: int | None = None
    host: str = "127.0.0.1"
    textfile: Path | None = None
    pushgateway: str | None = None


class Metrics:
    """The metrics of one run. `outcome`, `turn` and `end` are for the main thread only, and never raise."""

    def __init__(
        self,
        agent: str,
        shard: str | None,
        *,
        destinations: Destinations,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.families = Families()
        self._labels = (agent, shard or "")
        self._destinations = destinations
        self._clock = clock
        self._now = now
        self._skipped_count = 0
        self._windows = LongCounts().outcomes
        self._exported_providers = frozenset[str]()
        self._errors = set[str]()
        self._overhead = OverheadCounts()
        self._written_at = clock()
        self._faulty = False
        for outcome, reason in (("done", ""), ("skipped", ""), *(("failed", name) for name in REASONS)):
            self.families.documents.labels(*self._labels, outcome, reason)
        for outcome in self._windows:
            self.families.windows.labels(*self._labels, outcome)
        self.families.started.labels(*self._labels).set(now())
        self._carry_over()
        self.port = self._serve()
        self._write()

    def outcome(self, finished: FinishedEntry) -> None:
        """Count a document and its requests; a postponed document counts later, skipped ones in `turn`."""
        self._run_safely(lambda: self._outcome(finished))

    def _run_safely(self, step: Callable[[], None]) -> None:
        """Run a step; log the first error in it, which never changes how a run ends."""
        try:
            step()
        except Exception as fault:  # metrics are an extra: no error in them may stop the run
            if not self._faulty:
                logger.warning("Metrics failed and may be incomplete from now on.", exc_info=fault)
            self._faulty = True

    def _outcome(self, finished: FinishedEntry) -> None:
        for attempt in finished.attempts:
            self._attempt(attempt)
        outcome = finished.outcome
        documents = self.families.documents
        if isinstance(outcome, Result):
            documents.labels(*self._labels, "done", "").inc()
        elif isinstance(outcome, Failure):
            documents.labels(*self._labels, "failed", outcome.reason).inc()

    def turn(self, status: RunStatus) -> None:
        """Set the metrics from the run's status; write the text file every TEXTFILE_EVERY_S seconds."""
        self._run_safely(lambda: self._turn(status))

    def _turn(self, status: RunStatus) -> None:
        self._export(status)
        if self._clock() - self._written_at >= TEXTFILE_EVERY_S:
            self._written_at = self._clock()
            self._write()

    def end(self, status: RunStatus, exit_code: int, remaining: RemainingFailures | None = None) -> None:
        """Write the last values to the text file and the push gateway; the time of success only with exit code 0."""
        self._run_safely(lambda: self._end(status, exit_code, remaining))

    def _end(self, status: RunStatus, exit_code: int, remaining: RemainingFailures | None) -> None:
        self._export(status)
        if remaining is not None:
            self._show_remaining(remaining)
        self.families.exit_code.labels(*self._labels).set(exit_code)
        if exit_code == EXIT_OK:
            self.families.success.labels(*self._labels).set(self._now())
        self._write()
        if self._destinations.pushgateway is not None:
            self._push(self._destinations.pushgateway)

    def _export(self, status: RunStatus) -> None:
        counts = status.counts
        families = self.families
        families.documents.labels(*self._labels, "skipped", "").inc(counts["skipped"] - self._skipped_count)
        self._skipped_count = counts["skipped"]
        families.found.labels(*self._labels).set(counts["found"])
        families.in_flight.labels(*self._labels).set(status.in_flight)
        families.limit.labels(*self._labels).set(status.limit)
        self._show_windows(status.long.outcomes)
        self._show_overhead(status.overhead)
        self._show_providers(status.providers_up)

    def _show_windows(self, outcomes: Mapping[str, int]) -> None:
        for outcome, number in outcomes.items():
            self.families.windows.labels(*self._labels, outcome).inc(number - self._windows[outcome])
            self._windows[outcome] = number

    def _show_overhead(self, overhead: OverheadCounts) -> None:
        before = self._overhead
        self._overhead = overhead
        self.families.overhead_requests.labels(*self._labels).inc(overhead.requests - before.requests)
        self.families.overhead_tokens.labels(*self._labels).inc(overhead.prompt_tokens - before.prompt_tokens)

    def _show_remaining(self, remaining: RemainingFailures) -> None:
        """Set every reason, also those without failures, because a gateway keeps series that are not sent again."""
        for reason in {*REASONS, *remaining.reasons}:
            count = remaining.reasons.get(reason, ReasonCount())
            self.families.remaining.labels(*self._labels, reason).set(count.count)
            self.families.accepted.labels(*self._labels, reason).set(count.accepted)

    def _attempt(self, attempt: ExtractionAttempt) -> None:
        labels = (*self._labels, attempt.model.provider)
        families = self.families
        families.attempts.labels(*labels, self._error_label(attempt.error)).inc()
        families.latency.labels(*labels).observe(attempt.latency_s)
        families.tokens.labels(*labels, "prompt").inc(attempt.prompt_tokens or 0)
        families.tokens.labels(*labels, "completion").inc(attempt.completion_tokens or 0)
        if attempt.queue_s is not None:
            families.queue.labels(*labels).observe(attempt.queue_s)

    def _error_label(self, error: str | None) -> str:
        """Return the error as a label; the number of labels is bounded, as servers choose their status codes."""
        name = (error or "").partition(":")[0]
        if name and name not in self._errors:
            if len(self._errors) >= _KEPT_ERRORS:
                return "other"
            self._errors.add(name)
        return name

    def _show_providers(self, providers_up: Mapping[str, bool]) -> None:
        """Set whether each examined provider is available; remove those that a refresh has dropped."""
        for provider, up in providers_up.items():
            self.families.up.labels(*self._labels, provider).set(up)
        for name in self._exported_providers - providers_up.keys():
            self.families.up.remove(*self._labels, name)
        self._exported_providers = frozenset(providers_up)

    def _carry_over(self) -> None:
        """Keep the time of the last success in the text file until a run succeeds again."""
        path = self._destinations.textfile
        try:
            families = list(text_string_to_metric_families(path.read_text(encoding="utf-8"))) if path else []
        except (OSError, ValueError):
            return  # no file yet, or not one of this program
        for sample in (sample for family in families for sample in family.samples if sample.name == SUCCESS):
            if tuple(sample.labels.get(name, "") for name in COMMON) == self._labels:
                self.families.success.labels(*self._labels).set(sample.value)

    def _serve(self) -> int | None:
        """Start serving the metrics and return the port; None when they are not served."""
        if self._destinations.port is None:
            return None
        try:
            server, _ = start_http_server(
                self._destinations.port, self._destinations.host, registry=self.families.registry
            )
        except OSError as error:
            logger.warning("Cannot serve metrics: %s", error, extra={"port": self._destinations.port})
            return None
        logger.info("Serving metrics", extra={"port": server.server_port})
        return int(server.server_port)

    def _write(self) -> None:
        if self._destinations.textfile is None:
            return
        try:
            write_to_textfile(str(self._destinations.textfile), self.families.registry)
        except OSError as error:
            fields = {"file": str(self._destinations.textfile)}  # the error names a temporary one
            logger.warning("Cannot write metrics: %s", error.strerror or error, extra=fields)

    def _push(self, url: str) -> None:
        """Replace the metrics of these names in the run's group; others, such as an earlier success, remain."""
        parts = urlsplit(url)
        bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        user = unquote(parts.username or "")
        password = unquote(parts.password or "")
        handler = partial(basic_auth_handler, username=user, password=password) if user else default_handler
        group = {name: value for name, value in zip(COMMON, self._labels, strict=True) if value}
        try:
            pushadd_to_gateway(
                bare, JOB, self.families.registry, grouping_key=group, timeout=PUSH_TIMEOUT_S, handler=handler
            )
        except (OSError, HTTPException, ValueError) as error:
            # a plain URLError formats its cause as <urlopen error …>; its subclass HTTPError names the status
            cause = error.reason if type(error) is URLError else error
            logger.warning("Cannot push metrics: %s", cause, extra={"endpoint": mask_url(url)})
