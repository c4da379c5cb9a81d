"""The run's metrics by name. Names and labels are frozen: alerts and dashboards depend on them.

It must not set a value: metrics.py does.
"""

from __future__ import annotations

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

SUCCESS = "pipeline_last_success_timestamp_seconds"
COMMON = ("agent", "shard")
ATTEMPT_BUCKETS_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)
QUEUE_BUCKETS_S = (0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Families:
    """The metrics by name, all with the labels `agent` and `shard` ("" without shards).

    `reason` and `error` are empty for successes. `error` is the wire-level text up to its colon.
    """

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        counter = partial(Counter, registry=self.registry)
        gauge = partial(Gauge, labelnames=COMMON, registry=self.registry)
        histogram = partial(Histogram, labelnames=(*COMMON, "provider"), registry=self.registry)
        self.documents = counter(
            "pipeline_documents_total", "Documents of this run: done, failed, skipped.", (*COMMON, "outcome", "reason")
        )
        self.windows = counter("pipeline_windows_total", "Parts of long documents, by outcome.", (*COMMON, "outcome"))
        self.found = gauge("pipeline_documents_found", "Documents listed so far.")
        self.in_flight = gauge("pipeline_documents_in_flight", "Documents at the workers now.")
        self.limit = gauge("pipeline_concurrency_limit", "Documents that may be in flight.")
        self.attempts = counter(
            "pipeline_attempts_total", "Requests to a provider, by error.", (*COMMON, "provider", "error")
        )
        self.tokens = counter(
            "pipeline_tokens_total", "Tokens that servers counted: prompt, completion.", (*COMMON, "provider", "kind")
        )
        self.overhead_requests = counter(
            "pipeline_overhead_requests_total", "Requests for no document (preflights, verification).", COMMON
        )
        self.overhead_tokens = counter(
            "pipeline_overhead_prompt_tokens_total", "Prompt tokens of requests for no document.", COMMON
        )
        self.latency = histogram(
            "pipeline_attempt_duration_seconds", "From request to whole answer.", buckets=ATTEMPT_BUCKETS_S
        )
        self.queue = histogram(
            "pipeline_queue_wait_seconds", "Queue time that the server reports.", buckets=QUEUE_BUCKETS_S
        )
        self.up = Gauge(
            "pipeline_provider_up", "1 while a provider is available.", (*COMMON, "provider"), registry=self.registry
        )
        self.started = gauge("pipeline_start_timestamp_seconds", "When this run started.")
        self.exit_code = gauge("pipeline_exit_code", "Exit code; absent during the run.")
        by_reason = partial(Gauge, labelnames=(*COMMON, "reason"), registry=self.registry)
        self.remaining = by_reason(
            "pipeline_documents_remaining_failed", "Documents of the input that remain failed; set at the end."
        )
        self.accepted = by_reason(
            "pipeline_documents_accepted_failed", "Failed documents that a person has accepted; set at the end."
        )
        self.success = gauge(SUCCESS, "When a run last ended with exit code 0; absent before.")
