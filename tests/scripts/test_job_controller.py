"""The chart's backfill, simulated: pods are local processes, ended and restarted by the chart's own policy.

No cluster is needed: scripts/job_trial/pod.py and scripts/job_trial/controller.py list what they simulate.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from charts import helm
from fake_llm import FakeLLM
from job_trial.__main__ import Kills, Trial, documents_of, faults_of
from job_trial.controller import action_of, run_job
from job_trial.pod import Cluster, Manifest, Pod, expanded, moved, namespace, update_mounts
from job_trial.sites import Bucket, Volumes
from s3_server import S3Server

POLICY = {
    "rules": [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [1]}},
        {"action": "FailJob", "onExitCodes": {"operator": "NotIn", "values": [1, 3, 137]}},
    ]
}


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    """Return a place for archive, output and pods; its URL is a port without a listener."""
    helm("version")
    return Trial(tmp_path, Volumes(tmp_path), "http://127.0.0.1:9")


def at(trial: Trial, server: FakeLLM) -> Trial:
    """Return the same place with this server."""
    return replace(trial, url=server.url)


def waited(job: tuple[Cluster, Manifest], **more: Any) -> Any:
    """Return the final status of the Job."""
    return run_job(*job, limit_s=120, backoff_s=0.05, **more)


def logged(trial: Trial, text: str) -> int:
    """Return how many pods have logged this."""
    return sum(text in path.read_text(encoding="utf-8") for path in (trial.root / "logs").glob("*.log"))


@pytest.mark.slow
@pytest.mark.parametrize("in_bucket", [False, True], ids=["volumes", "s3"])
def test_backfill_does_each_document_once_despite_kills(
    trial: Trial, s3: S3Server, bucket: str, in_bucket: bool
) -> None:
    """Four shards, two at a time, some evicted or killed: one result each, and a report that adds up."""
    site = Bucket(s3, bucket) if in_bucket else trial.site
    with FakeLLM(("llama3.1",), api_key="trial-key", latency_s=0.05) as server:
        trial = replace(at(trial, server), site=site)
        ids = trial.archive(200)
        kills = Kills(random.Random(6), remaining=4, every_s=0.6)
        status = waited(trial.job(), trouble=kills, read_only=namespace() is not None)
        assert faults_of(trial, ids, status) == []
        assert len(status.ends) > trial.shards, "no pod was restarted"
        server.requests.clear()
        again = waited(trial.job(backfill__revision=2, backfill__shards=3))
        assert documents_of(server) == []
        assert (again.reason, trial.report()["output"]["done"]) == ("Complete", 200)


@pytest.mark.slow
def test_backfill_by_chunks_does_each_document_once_despite_kills(trial: Trial) -> None:
    """Six chunks, two at a time; a second plan has no new document, nor has a run by shards."""
    with FakeLLM(("llama3.1",), api_key="trial-key", latency_s=0.05) as server:
        trial = replace(at(trial, server), chunks=6)
        ids = trial.archive(200)
        trial.plan()
        kills = Kills(random.Random(6), remaining=4, every_s=0.6)
        status = waited(trial.job(), trouble=kills, read_only=namespace() is not None)
        assert faults_of(trial, ids, status) == []
        assert len(status.indexes) == 6
        server.requests.clear()
        trial.plan()
        again = waited(replace(trial, chunks=0).job())
        assert documents_of(server) == []
        assert (again.reason, trial.report()["output"]["done"]) == ("Complete", 200)


def test_exit_code_2_fails_the_job_at_once(trial: Trial) -> None:
    """The model is wrong, so a retry would not help."""
    with FakeLLM(("another-model",), api_key="trial-key") as server:
        trial = at(trial, server)
        trial.archive(10)
        status = waited(trial.job())
    assert status.reason == "PodFailurePolicy"
    assert status.ends[0][1:] == (2, "FailJob")
    assert len(list((trial.root / "logs").iterdir())) <= trial.parallelism


def test_exit_code_1_fails_only_its_index(trial: Trial) -> None:
    """More of them than maxFailedIndexes end the Job."""
    with FakeLLM(("llama3.1",), api_key="trial-key", answer=lambda *_: "no JSON") as server:
        trial = at(trial, server)
        trial.archive(40)
        status = waited(trial.job(backfill__maxFailedIndexes=2, backfill__parallelism=1))
    assert status.reason == "MaxFailedIndexesExceeded"
    assert [end[1:] for end in status.ends] == [(1, "FailIndex")] * 3
    assert sorted(status.failed) == [0, 1, 2]


def test_exit_code_3_is_retried_per_index(trial: Trial) -> None:
    """After backoffLimitPerIndex + 1 pods the index has failed."""
    trial.archive(4)
    soon = {"pipelineConfig.runner": {"startup_wait_s": 0, "max_outage_s": 1, "grace_s": 1}}
    job = trial.job(backfill__shards=1, backfill__backoffLimitPerIndex=1, **soon)
    status = waited(job)
    assert [end[1:] for end in status.ends] == [(3, "Count")] * 2
    assert status.reason in ("FailedIndexes", "MaxFailedIndexesExceeded")


def test_pods_find_their_shard_key_and_agent(trial: Trial) -> None:
    """They use only variables and mounted files; the server refuses requests without the key."""
    with FakeLLM(("llama3.1",), api_key="trial-key") as server:
        trial = at(trial, server)
        trial.archive(8)
        cluster, job = trial.job()
        assert waited((cluster, job)).reason == "Complete"
    assert logged(trial, "JOB_COMPLETION_INDEX and PIPELINE_SHARDS") == 4
    names = sorted(path.name for path in (trial.root / "data" / "out" / "runs").iterdir())
    assert names == [f"{job['metadata']['name']}-{index:05d}-of-00004.json" for index in range(4)]


def test_upgrade_reaches_the_running_pods(trial: Trial) -> None:
    """The mounted ConfigMap changes by the kubelet's swap of links; the Job stays the same."""
    runner = {"runner": {"concurrency": 1, "refresh_every": 2, "grace_s": 1}}
    with (
        FakeLLM(("llama3.1",), api_key="trial-key", latency_s=0.05) as first,
        FakeLLM(("llama3.1",), api_key="trial-key") as second,
    ):
        trial = replace(at(trial, first), shards=1, parallelism=1)
        ids = trial.archive(60)
        values = {f"pipelineConfig__{key}": value for key, value in runner.items()}
        cluster, job = trial.job(**values)
        upgraded, same = at(trial, second).job(**values)
        changed: list[str] = []

        def upgrade(running: Sequence[Pod]) -> None:
            if not changed and len(documents_of(first)) > 3:
                changed.extend(pod.name for pod in running)
                for pod in running:
                    update_mounts(upgraded, job["spec"]["template"], pod)

        status = waited((cluster, job), trouble=upgrade)
        assert faults_of(trial, ids, status) == []
        assert same["metadata"]["name"] == job["metadata"]["name"]
        assert len(status.ends) == len(changed) == 1
        assert sorted(documents_of(first) + documents_of(second)) == ids
        assert len(documents_of(second)) > 20


@pytest.mark.parametrize(
    ("code", "evicted", "action"),
    [(143, True, "Ignore"), (1, True, "Ignore"), (1, False, "FailIndex"), (2, False, "FailJob"), (3, False, "Count")],
)
def test_first_matching_policy_rule_decides(code: int, evicted: bool, action: str) -> None:
    """An eviction precedes an exit code; an unmatched failure counts."""
    assert action_of(POLICY, code, evicted=evicted) == action


def test_mount_paths_are_replaced_only_at_their_start() -> None:
    """The same text within another path, or in an address, is not replaced."""
    places = {"/data": Path("/x/data"), "/data/in": Path("/y"), "/tmp": Path("/x/tmp")}
    text = "/data/out, uri: /data/in/a.txt '/tmp' /database s3://bucket/data /var/tmp --output=/data http://h/tmp"
    expected = "/x/data/out, uri: /y/a.txt '/x/tmp' /database s3://bucket/data /var/tmp --output=/x/data http://h/tmp"
    assert moved(text, places) == expected


def test_variables_are_expanded_like_by_the_kubelet() -> None:
    """An unknown one stays as it is."""
    assert expanded("--run-id=$(JOB_NAME)-$(OTHER)", {"JOB_NAME": "j"}) == "--run-id=j-$(OTHER)"


def test_trial_objects_are_those_of_the_chart(trial: Trial) -> None:
    """Only values differ: the Job has the chart's policy and security context."""
    _, job = trial.job()
    assert len(job["spec"]["podFailurePolicy"]["rules"]) == 3
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert "command" not in container
    assert json.dumps(container["securityContext"]).count("true") == 1
