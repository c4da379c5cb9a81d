"""Operators' scenarios of a backfill, simulated with processes: locks, keys, prompts, signals, time limits.

Facts of a real control plane that controller.py follows are in its docstring.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from charts import helm
from conftest import json_log
from fake_llm import FakeLLM
from job_trial.__main__ import AGENT, Trial, documents_of, faults_of
from job_trial.controller import Status, run_job
from job_trial.pod import Cluster, Manifest, Pod, entrypoint, namespace, update_mounts
from job_trial.sites import Volumes

from pipeline.output.lock import acquire
from pipeline.shards import WHOLE

pytestmark = pytest.mark.slow
READ_ONLY = namespace() is not None
CHANGED_AGENT = {"small": json.dumps({**AGENT, "system_prompt": "Sum it up in one word."})}


@pytest.fixture
def trial(tmp_path: Path, request: pytest.FixtureRequest) -> Trial:
    """Return a place for archive, output and pods, with the server that the test requests."""
    helm("version")
    server: FakeLLM = request.getfixturevalue("keyed")
    return Trial(tmp_path, Volumes(tmp_path), server.url)


@pytest.fixture
def keyed() -> Any:
    """Yield a server with a key, slow enough to act on running pods."""
    with FakeLLM(("llama3.1",), api_key="trial-key", latency_s=0.05) as server:
        yield server


def waited(job: tuple[Cluster, Manifest], **more: Any) -> Status:
    """Return the final status of the Job."""
    return run_job(*job, limit_s=120, **{"backoff_s": 0.05, "read_only": READ_ONLY, **more})


def logs(trial: Trial) -> list[dict[str, Any]]:
    """Return the log lines of all pods; each is JSON on whichever stream."""
    texts = [path.read_text(encoding="utf-8") for path in sorted((trial.root / "logs").glob("*.log"))]
    return [line for text in texts for line in json_log(text)]


def test_simultaneous_shards_all_exit_with_0(trial: Trial) -> None:
    """Eight pods start at once: none needs a retry, and the first to end report no missing shards."""
    trial = replace(trial, shards=8, parallelism=8)
    ids = trial.archive(16)
    status = waited(trial.job())
    assert faults_of(trial, ids, status) == []
    assert [code for _, code, _ in status.ends] == [0] * 8
    ends = [line for line in logs(trial) if line["message"] == "run ends"]
    assert "FINISHED" in [line["all_shards"] for line in ends]
    assert not [line for line in ends if "MISSING" in line["all_shards"] or line["missing_shards"]]


def test_prompt_change_during_a_backfill_is_reported(trial: Trial) -> None:
    """The report counts records by fingerprint and warns of two, whatever started the pods."""
    trial = replace(trial, parallelism=1)
    ids = trial.archive(40)
    cluster, job = trial.job()
    changed, _ = trial.job(agents=CHANGED_AGENT)
    pods: list[str] = []

    def change(running: Sequence[Pod]) -> None:
        pods.extend(pod.name for pod in running if pod.name not in pods)
        if len(pods) == 2 and cluster.manifests != changed.manifests:
            object.__setattr__(cluster, "manifests", changed.manifests)  # for the pods that start from now on

    assert faults_of(trial, ids, waited((cluster, job), trouble=change)) == []
    report = trial.report()
    assert len({row["fingerprint"] for row in report["questions"]}) == 2
    assert "changed during the work" in report["mixed_questions"][0]


def test_failed_backfill_resumes_after_a_repair(trial: Trial, keyed: FakeLLM) -> None:
    """The failed pod's last log line has the command, and the next Job finishes."""
    ids = trial.archive(12)
    keyed.api_key = "another-key"
    assert waited(trial.job()).reason == "PodFailurePolicy"
    last = [line for line in logs(trial) if line.get("logs")]
    assert last and all("kubectl" in line["logs"] and "pipeline run" not in str(line) for line in last)
    keyed.api_key = "trial-key"
    assert faults_of(trial, ids, waited(trial.job(backfill__revision=2))) == []


def test_waiting_for_the_lock_needs_no_retry(trial: Trial) -> None:
    """A nightly run holds the output: the pods wait, name it, and continue when it ends."""
    ids = trial.archive(12)
    out = trial.root / "data" / "out"
    out.mkdir(parents=True)
    lock = acquire(out, "nightly-run", shard=WHOLE, lock_wait_s=0, wait=lambda _: True, clock=time.monotonic)

    def release(running: Sequence[Pod]) -> None:
        if any("Waiting for the output" in pod.log.read_text(encoding="utf-8") for pod in running):
            lock.release()

    status = waited(trial.job(), trouble=release)
    assert faults_of(trial, ids, status) == []
    assert [code for _, code, _ in status.ends] == [0] * 4
    lines = [line for line in logs(trial) if line["message"] == "Waiting for the output"]
    assert lines and all("nightly-run" in line["holder"] for line in lines)


def test_pod_waits_for_a_rotated_key(trial: Trial, keyed: FakeLLM) -> None:
    """It starts before the new key has reached its volume, and must not exit with 2, which ends the Job."""
    trial = replace(trial, shards=1, parallelism=1)
    ids = trial.archive(60)
    old, job = trial.job(pipelineConfig__runner={"concurrency": 2, "grace_s": 1, "config_grace_s": 60})
    new, _ = trial.job(config__VLLM_API_KEY="new-key")
    pods: list[str] = []
    refused_at: list[float] = []

    def rotate(running: Sequence[Pod]) -> None:
        pods.extend(pod.name for pod in running if pod.name not in pods)
        if len(pods) == 1 and running and len(documents_of(keyed)) > 5:
            keyed.api_key = "new-key"
            running[0].process.kill()
        elif len(pods) == 2 and running and "401" in running[0].log.read_text(encoding="utf-8"):
            refused_at.append(time.monotonic())
            if refused_at[-1] - refused_at[0] > 1:
                update_mounts(new, job["spec"]["template"], running[0])

    status = waited((old, job), trouble=rotate)
    assert faults_of(trial, ids, status) == []
    assert [code for _, code, _ in status.ends] == [137, 0]


@pytest.mark.skipif(not READ_ONLY or entrypoint()[0] != "tini", reason="needs a namespace and tini")
def test_pod_deleted_during_start_up_ends_at_once(trial: Trial, keyed: FakeLLM) -> None:
    """PID 1 gets the SIGTERM at any time; the deletion counts as one failure, and the pod is replaced."""
    trial = replace(trial, shards=1, parallelism=1)
    ids = trial.archive(4)
    delays, noticed_at = [0.0, 0.1, 0.3, 0.6], dict[str, float]()
    answers_in_s, keyed.latency_s = keyed.latency_s, 30.0  # a fast machine finishes no pod before its deletion

    def delete(running: Sequence[Pod]) -> None:
        for pod in running:
            begun = noticed_at.setdefault(pod.name, time.monotonic())
            if len(noticed_at) > len(delays):
                keyed.latency_s = answers_in_s
            if len(noticed_at) <= len(delays) and time.monotonic() - begun >= delays[len(noticed_at) - 1]:
                pod.terminate(20.0)

    begun = time.monotonic()
    status = waited(trial.job(backfill__backoffLimitPerIndex=4), trouble=delete)
    assert faults_of(trial, ids, status) == []
    assert [(code, action) for _, code, action in status.ends] == [(143, "Count")] * 4 + [(0, None)]
    assert time.monotonic() - begun < 60


def test_suspended_job_resumes_without_a_failure(trial: Trial) -> None:
    """The pods get SIGTERM without counting; after the resumption the rest is done."""
    trial = replace(trial, shards=2)
    ids = trial.archive(100)
    begun = time.monotonic()

    def suspended() -> bool:
        has_results = any((trial.root / "data" / "out").glob("results*.jsonl"))
        if has_results and not spans:
            spans.append(time.monotonic())
        return bool(spans) and time.monotonic() - spans[0] < 4

    spans: list[float] = []
    status = waited(trial.job(), suspended=suspended)
    assert faults_of(trial, ids, status) == []
    assert {action for _, code, action in status.ends if code} == {"Ignore"}
    assert time.monotonic() - begun > 4


def test_pod_with_elapsed_time_is_retried(trial: Trial) -> None:
    """With --incomplete-exit 3 no index is complete while documents are left."""
    trial = replace(trial, shards=1, parallelism=1)
    ids = trial.archive(400)
    extra = ["--max-duration=1s", "--incomplete-exit=3"]
    status = waited(trial.job(backfill__extraArgs=extra, backfill__backoffLimitPerIndex=50))
    assert faults_of(trial, ids, status) == []
    codes = [code for _, code, _ in status.ends]
    assert codes[-1] == 0
    assert set(codes[:-1]) == {3}
