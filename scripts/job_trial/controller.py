"""Simulate the Job controller of Kubernetes on one machine: the pods of an Indexed Job, restarted by its policy.

It is no cluster: it schedules nothing, pulls no image and calls no API server. It follows the manifest:

- At most `parallelism` pods run at a time, the lowest indexes first.
- The rules of podFailurePolicy apply to an exit code or a disruption in order. Any other failure counts against
  backoffLimitPerIndex. More than maxFailedIndexes end the Job at once; indexes that have not begun then never run.
- A pod is replaced only after it has ended (podReplacementPolicy Failed, which a policy implies).
- A deleted pod counts as one failure (exit 143). An evicted pod, and one of a suspended Job, do not count.
- The back-off between two pods of an index doubles from `backoff_s` (in a cluster: from 10 s).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from job_trial.pod import Cluster, Manifest, Pod, start_pod

Action = Literal["Ignore", "Count", "FailIndex", "FailJob"]
Trouble = Callable[[Sequence[Pod]], None]
"""Called with the running pods at each turn; may evict, delete or kill some."""

TURN_S = 0.02
MAX_BACKOFF_S = 360.0


@dataclass(slots=True)
class Index:
    """The state of one completion index."""

    failures: int = 0
    ignored: int = 0
    not_before: float = 0.0
    state: Literal["waiting", "running", "succeeded", "failed"] = "waiting"


@dataclass(slots=True)
class Status:
    """The state of the Job: `reason` is None until it has ended; `ends` are (index, exit code, action) in order."""

    indexes: list[Index]
    reason: str | None = None
    ends: list[tuple[int, int, Action | None]] = field(default_factory=list)

    @property
    def completed(self) -> list[int]:
        """The indexes that succeeded."""
        return [n for n, index in enumerate(self.indexes) if index.state == "succeeded"]

    @property
    def failed(self) -> list[int]:
        """The indexes that failed for good."""
        return [n for n, index in enumerate(self.indexes) if index.state == "failed"]


def no_trouble(_: Sequence[Pod]) -> None:
    """Leave every pod alone."""


def run_job(
    cluster: Cluster,
    job: Manifest,
    *,
    trouble: Trouble = no_trouble,
    suspended: Callable[[], bool] = lambda: False,
    backoff_s: float = 0.1,
    read_only: bool = False,
    limit_s: float = 600.0,
) -> Status:
    """Run the Job; return its status after all pods have ended. TimeoutError after `limit_s`.

    `suspended`: returns the current spec.suspend; the running pods of a suspended Job get SIGTERM, and none is started.
    """
    spec = job["spec"]
    name = job["metadata"]["name"]
    status = Status([Index() for _ in range(spec["completions"])])
    running: list[Pod] = []
    until = time.monotonic() + limit_s
    try:
        while status.reason is None:
            if time.monotonic() > until:
                raise TimeoutError(f"{name}: {len(status.completed)} indexes done after {limit_s:g} s")
            is_suspended = suspended()
            for pod in running if is_suspended else ():
                pod.suspend(spec["template"]["spec"]["terminationGracePeriodSeconds"])
            for index in () if is_suspended else _due(status, spec["parallelism"] - len(running)):
                status.indexes[index].state = "running"
                running.append(start_pod(cluster, spec["template"], job=name, index=index, read_only=read_only))
            trouble(running)
            time.sleep(TURN_S)
            for pod, code in [(pod, code) for pod in running if (code := pod.poll()) is not None]:
                running.remove(pod)
                _record(status, pod, code, spec=spec, backoff_s=backoff_s)
            status.reason = status.reason or _reason(status, spec)
    finally:
        _end(running, spec["template"]["spec"]["terminationGracePeriodSeconds"])
    return status


def _due(status: Status, places: int) -> list[int]:
    now = time.monotonic()
    return [n for n, index in enumerate(status.indexes) if index.state == "waiting" and now >= index.not_before][
        :places
    ]


def _record(status: Status, pod: Pod, code: int, *, spec: Manifest, backoff_s: float) -> None:
    """Record a pod's end in its index, and in the Job if the policy ends it."""
    index = status.indexes[pod.index]
    if code == 0:
        index.state = "succeeded"
        status.ends.append((pod.index, code, None))
        return
    if pod.suspended:
        status.ends.append((pod.index, code, "Ignore"))
        index.state = "waiting"
        return
    action = action_of(spec.get("podFailurePolicy"), code, evicted=pod.evicted)
    status.ends.append((pod.index, code, action))
    index.state = "waiting"
    if action == "FailJob":
        status.reason = "PodFailurePolicy"
    elif action == "FailIndex":
        index.state = "failed"
    elif action == "Ignore":
        index.ignored += 1
    else:
        index.failures += 1
        index.not_before = time.monotonic() + min(backoff_s * 2 ** (index.failures - 1), MAX_BACKOFF_S)
        if index.failures > spec["backoffLimitPerIndex"]:
            index.state = "failed"


def action_of(policy: Manifest | None, code: int, *, evicted: bool) -> Action:
    """Return the action of the first rule that fits a failed pod; Count when none does."""
    for rule in (policy or {}).get("rules", ()):
        conditions = [
            condition["type"]
            for condition in rule.get("onPodConditions", ())
            if condition.get("status", "True") == "True"
        ]
        if (evicted and "DisruptionTarget" in conditions) or _fits(rule.get("onExitCodes"), code):
            action: Action = rule["action"]
            return action
    return "Count"


def _fits(codes: Mapping[str, object] | None, code: int) -> bool:
    if codes is None:
        return False
    values = codes["values"]
    assert isinstance(values, list)
    return (code in values) == (codes["operator"] == "In")


def _reason(status: Status, spec: Manifest) -> str | None:
    if len(status.failed) > spec.get("maxFailedIndexes", len(status.indexes)):
        return "MaxFailedIndexesExceeded"
    if len(status.completed) == len(status.indexes):
        return "Complete"
    return "FailedIndexes" if len(status.completed) + len(status.failed) == len(status.indexes) else None


def _end(running: Sequence[Pod], grace_s: float) -> None:
    for pod in running:
        pod.terminate(grace_s)
    while any(pod.poll() is None for pod in running):
        time.sleep(TURN_S)
