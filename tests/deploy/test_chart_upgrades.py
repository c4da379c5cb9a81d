"""Upgrades of the chart by helm 4 and helm 3, with a stand-in for the API server."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from charts import CHART, flags, helm, only, rendered
from helm import PACKAGE, PACKAGE_OF_HELM_3
from kube_api import KubeApi, kube_api

BACKFILL = {"backfill.enabled": True}
JOBS = "/apis/batch/v1/namespaces/news/jobs"
CLAIM = "test-extraction-pipeline-data"
each_helm = pytest.mark.parametrize("package", [PACKAGE, PACKAGE_OF_HELM_3], ids=["helm4", "helm3"])


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[KubeApi]:
    """Yield an empty cluster."""
    with kube_api(tmp_path) as api:
        yield api


def run_helm(cluster: KubeApi, verb: str, *values: Any, package: str) -> subprocess.CompletedProcess[str]:
    """Install or upgrade the release `test` with these values; return the result."""
    home = str(cluster.kubeconfig.parent)
    given = (verb, "test", str(CHART), "--namespace", "news", "--disable-openapi-validation", *flags(*values))
    return helm(*given, package=package, KUBECONFIG=str(cluster.kubeconfig), HOME=home)


def brought(cluster: KubeApi, verb: str, *values: Any, package: str = PACKAGE) -> str:
    """Return the notes of a successful installation or upgrade."""
    ran = run_helm(cluster, verb, *values, package=package)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.partition("NOTES:")[2]


@each_helm
def test_upgrade_restarts_a_failed_backfill(cluster: KubeApi, package: str) -> None:
    """The new Job's name has a suffix from the failed one's uid; the same happens after a further failure."""
    brought(cluster, "install", BACKFILL, package=package)
    (first,) = cluster.named("jobs")
    assert first == only(rendered(BACKFILL), "Job")["metadata"]["name"]
    cluster.end_job(first, "Failed", "PodFailurePolicy", "Container pipeline failed with exit code 2")
    uid = cluster.object_named("jobs", first)["metadata"]["uid"]
    notes = brought(cluster, "upgrade", BACKFILL, package=package)
    (second,) = cluster.named("jobs")
    assert second == f"{first}-{uid[:5]}"
    assert f"The Job {first} had FAILED (PodFailurePolicy: Container pipeline failed with exit code 2)" in notes
    assert "test-" + second.partition("-")[2] in notes
    notes = brought(cluster, "upgrade", BACKFILL, {"config.OLLAMA_TIMEOUT": 9}, package=package)
    assert cluster.named("jobs") == [second], "an upgrade ended a backfill at work"
    assert "FAILED" not in notes
    cluster.end_job(second, "FailureTarget", "PodFailurePolicy")
    brought(cluster, "upgrade", BACKFILL, package=package)
    (third,) = cluster.named("jobs")
    assert third not in (first, second)
    assert third.startswith(f"{first}-")


@each_helm
def test_upgrade_keeps_a_finished_backfill(cluster: KubeApi, package: str) -> None:
    """The Job is kept without a ttl, as the notes say; a changed prompt gives another Job."""
    brought(cluster, "install", BACKFILL, package=package)
    (first,) = cluster.named("jobs")
    assert "ttlSecondsAfterFinished" not in cluster.object_named("jobs", first)["spec"]
    uid = cluster.object_named("jobs", first)["metadata"]["uid"]
    cluster.end_job(first, "Complete")
    notes = brought(cluster, "upgrade", BACKFILL, {"logLevel": "info"}, package=package)
    assert cluster.named("jobs") == [first]
    assert cluster.object_named("jobs", first)["metadata"]["uid"] == uid
    assert "It is COMPLETE: nothing runs until the question" in notes
    notes = brought(cluster, "upgrade", BACKFILL, {"pipelineConfig.agent": "event_classifier"}, package=package)
    assert cluster.named("jobs") != [first]
    assert "COMPLETE" not in notes


def test_upgrade_changes_parallelism_in_place(cluster: KubeApi) -> None:
    """The same Job continues."""
    brought(cluster, "install", BACKFILL)
    (name,) = cluster.named("jobs")
    notes = brought(cluster, "upgrade", BACKFILL, {"backfill.parallelism": 2, "backfill.suspend": True})
    assert cluster.named("jobs") == [name]
    spec = cluster.object_named("jobs", name)["spec"]
    assert (spec["parallelism"], spec["suspend"]) == (2, True)
    assert "0 of 16 shards are done" in notes


def test_other_jobs_of_the_namespace_are_ignored(cluster: KubeApi) -> None:
    """A Job that is being deleted is ignored too."""
    base = only(rendered(BACKFILL), "Job")["metadata"]["name"]
    failed = {"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]}
    for name in (f"{base}-nightly", f"x{base}", f"{base}-12345"):
        deleted = {"deletionTimestamp": "2026-11-28T00:00:00Z"} if name.endswith("12345") else {}
        cluster.put(f"{JOBS}/{name}", {"kind": "Job", "metadata": {"name": name, **deleted}, "status": failed})
    assert "FAILED" not in brought(cluster, "install", BACKFILL)
    assert base in cluster.named("jobs")


def test_lookup_of_jobs_can_be_disabled(cluster: KubeApi) -> None:
    """A user without that right restarts a failed backfill by the revision, as the notes say."""
    cluster.forbidden.add(JOBS)
    assert "forbidden" in run_helm(cluster, "install", BACKFILL, package=PACKAGE).stderr
    notes = brought(cluster, "install", BACKFILL, {"backfill.restartFailed": False})
    assert "another revision starts it again (backfill.restartFailed is off)" in notes
    assert "--set-string backfill.revision=NEW" in notes
    brought(cluster, "upgrade", {"cronjob.suspend": True})
    assert cluster.named("jobs") == []


def test_nightly_run_needs_no_right_to_list_jobs(cluster: KubeApi) -> None:
    """Jobs are looked up only with a backfill."""
    cluster.forbidden.add(JOBS)
    assert brought(cluster, "install")


@each_helm
def test_upgrade_keeps_access_modes_of_a_claim(cluster: KubeApi, package: str) -> None:
    """They are immutable: an added backfill uses the existing claim, and the notes warn."""
    brought(cluster, "install", package=package)
    assert cluster.object_named("persistentvolumeclaims", CLAIM)["spec"]["accessModes"] == ["ReadWriteOnce"]
    notes = brought(cluster, "upgrade", BACKFILL, package=package)
    assert cluster.object_named("persistentvolumeclaims", CLAIM)["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert "The volume is not ReadWriteMany: pods on other nodes than its own stay Pending" in notes


def test_helm_4_has_the_flag_in_the_notes() -> None:
    """Helm 3 overwrites without such a flag."""
    assert "--force-conflicts" in helm("upgrade", "--help").stdout
    assert "--force-conflicts" not in helm("upgrade", "--help", package=PACKAGE_OF_HELM_3).stdout
