"""The chart's backfill, played: its pods are processes here, ended and restarted as its own policy says.

No cluster ran it: scripts/job_trial/pod.py and scripts/job_trial/controller.py say what is played and what is not.
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
    """A place for the archive, the output and the pods; its URL is a port where nobody listens."""
    helm("version")
    return Trial(tmp_path, Volumes(tmp_path), "http://127.0.0.1:9")


def at(trial: Trial, server: FakeLLM) -> Trial:
    """The same place with this server."""
    return replace(trial, url=server.url)


def waited(job: tuple[Cluster, Manifest], **more: Any) -> Any:
    """The status of the Job at its end."""
    return run_job(*job, limit_s=120, backoff_s=0.05, **more)


def logged(trial: Trial, text: str) -> int:
    """How many pods have said so."""
    return sum(text in path.read_text(encoding="utf-8") for path in (trial.root / "logs").glob("*.log"))


@pytest.mark.slow
@pytest.mark.parametrize("in_bucket", [False, True], ids=["volumes", "s3"])
def test_each_document_is_done_once_whatever_happens_to_the_pods(
    trial: Trial, s3: S3Server, bucket: str, in_bucket: bool
) -> None:
    """Four shards, two at a time, some evicted, some killed: one result each, a report that adds up, and no second."""
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
def test_the_chunks_of_a_plan_are_done_once_whatever_happens_to_the_pods(trial: Trial) -> None:
    """Six chunks, two at a time, with evictions and kills; a second plan has nothing new, nor has a run by shards."""
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


def test_a_backfill_of_the_wrong_model_ends_at_once(trial: Trial) -> None:
    """Exit code 2 of one pod fails the Job: trying again changes nothing."""
    with FakeLLM(("another-model",), api_key="trial-key") as server:
        trial = at(trial, server)
        trial.archive(10)
        status = waited(trial.job())
    assert status.reason == "PodFailurePolicy"
    assert status.ends[0][1:] == (2, "FailJob")
    assert len(list((trial.root / "logs").iterdir())) <= trial.parallelism


def test_a_shard_with_too_many_failures_is_not_tried_again(trial: Trial) -> None:
    """Exit code 1 fails its index alone; more of them than maxFailedIndexes end the Job."""
    with FakeLLM(("llama3.1",), api_key="trial-key", answer=lambda *_: "no JSON") as server:
        trial = at(trial, server)
        trial.archive(40)
        status = waited(trial.job(backfill__maxFailedIndexes=2, backfill__parallelism=1))
    assert status.reason == "MaxFailedIndexesExceeded"
    assert [end[1:] for end in status.ends] == [(1, "FailIndex")] * 3
    assert sorted(status.failed) == [0, 1, 2]


def test_a_server_that_is_away_is_tried_again_by_index(trial: Trial) -> None:
    """Exit code 3 counts: backoffLimitPerIndex + 1 pods, then the index has failed."""
    trial.archive(4)
    soon = {"pipelineConfig.runner": {"startup_wait_s": 0, "max_outage_s": 1, "grace_s": 1}}
    job = trial.job(backfill__shards=1, backfill__backoffLimitPerIndex=1, **soon)
    status = waited(job)
    assert [end[1:] for end in status.ends] == [(3, "Count")] * 2
    assert status.reason in ("FailedIndexes", "MaxFailedIndexesExceeded")


def test_the_pods_find_their_shard_their_key_and_their_agent(trial: Trial) -> None:
    """From the variables and the mounted files alone: the server refuses what comes without the key."""
    with FakeLLM(("llama3.1",), api_key="trial-key") as server:
        trial = at(trial, server)
        trial.archive(8)
        cluster, job = trial.job()
        assert waited((cluster, job)).reason == "Complete"
    assert logged(trial, "JOB_COMPLETION_INDEX and PIPELINE_SHARDS") == 4
    names = sorted(path.name for path in (trial.root / "data" / "out" / "runs").iterdir())
    assert names == [f"{job['metadata']['name']}-{index:05d}-of-00004.json" for index in range(4)]


def test_an_upgrade_reaches_the_running_pods(trial: Trial) -> None:
    """The mounted ConfigMap changes under them, by the kubelet's own swap of links; the Job stays the same one."""
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
def test_the_first_rule_that_fits_decides(code: int, evicted: bool, action: str) -> None:
    """An eviction before an exit code; what no rule names is counted."""
    assert action_of(POLICY, code, evicted=evicted) == action


def test_paths_are_moved_where_they_start_and_nowhere_else() -> None:
    """A mount's path in the middle of another one, or of an address, is another thing."""
    places = {"/data": Path("/x/data"), "/data/in": Path("/y"), "/tmp": Path("/x/tmp")}
    text = "/data/out, uri: /data/in/a.txt '/tmp' /database s3://bucket/data /var/tmp --output=/data http://h/tmp"
    wanted = "/x/data/out, uri: /y/a.txt '/x/tmp' /database s3://bucket/data /var/tmp --output=/x/data http://h/tmp"
    assert moved(text, places) == wanted


def test_variables_are_expanded_as_the_kubelet_does() -> None:
    """An unknown one stays as it is."""
    assert expanded("--run-id=$(JOB_NAME)-$(OTHER)", {"JOB_NAME": "j"}) == "--run-id=j-$(OTHER)"


def test_the_objects_of_a_trial_are_those_of_the_chart(trial: Trial) -> None:
    """Nothing but values was changed: the Job has the chart's policy and its security context."""
    _, job = trial.job()
    assert len(job["spec"]["podFailurePolicy"]["rules"]) == 3
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert "command" not in container
    assert json.dumps(container["securityContext"]).count("true") == 1
