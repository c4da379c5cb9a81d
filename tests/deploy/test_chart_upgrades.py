"""Upgrades of the chart by helm 4 and helm 3 on a cluster that can be asked: a stand-in for the API server."""

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
    """An empty cluster."""
    with kube_api(tmp_path) as api:
        yield api


def run_helm(cluster: KubeApi, verb: str, *values: Any, package: str) -> subprocess.CompletedProcess[str]:
    """The result of installing or upgrading the release `test` with these values."""
    home = str(cluster.kubeconfig.parent)
    given = (verb, "test", str(CHART), "--namespace", "news", "--disable-openapi-validation", *flags(*values))
    return helm(*given, package=package, KUBECONFIG=str(cluster.kubeconfig), HOME=home)


def brought(cluster: KubeApi, verb: str, *values: Any, package: str = PACKAGE) -> str:
    """The notes of an installation or upgrade that went well."""
    ran = run_helm(cluster, verb, *values, package=package)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.partition("NOTES:")[2]


@each_helm
def test_a_failed_backfill_is_started_again_by_an_upgrade(cluster: KubeApi, package: str) -> None:
    """By another Job, whose name has a suffix from the failed one's uid; once, and again when that one has failed."""
    brought(cluster, "install", BACKFILL, package=package)
    (first,) = cluster.named("jobs")
    assert first == only(rendered(BACKFILL), "Job")["metadata"]["name"]
    cluster.end_job(first, "Failed", "PodFailurePolicy", "Container pipeline failed with exit code 2")
    uid = cluster.one("jobs", first)["metadata"]["uid"]
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
def test_a_finished_backfill_stays_finished(cluster: KubeApi, package: str) -> None:
    """The Job is kept (no ttl), so that an upgrade makes none; the notes say so. Another question is another Job."""
    brought(cluster, "install", BACKFILL, package=package)
    (first,) = cluster.named("jobs")
    assert "ttlSecondsAfterFinished" not in cluster.one("jobs", first)["spec"]
    uid = cluster.one("jobs", first)["metadata"]["uid"]
    cluster.end_job(first, "Complete")
    notes = brought(cluster, "upgrade", BACKFILL, {"logLevel": "info"}, package=package)
    assert cluster.named("jobs") == [first]
    assert cluster.one("jobs", first)["metadata"]["uid"] == uid
    assert "It is COMPLETE: nothing runs until the question" in notes
    notes = brought(cluster, "upgrade", BACKFILL, {"pipelineConfig.agent": "event_classifier"}, package=package)
    assert cluster.named("jobs") != [first]
    assert "COMPLETE" not in notes


def test_parallelism_is_changed_in_place(cluster: KubeApi) -> None:
    """By values: the same Job goes on."""
    brought(cluster, "install", BACKFILL)
    (name,) = cluster.named("jobs")
    notes = brought(cluster, "upgrade", BACKFILL, {"backfill.parallelism": 2, "backfill.suspend": True})
    assert cluster.named("jobs") == [name]
    spec = cluster.one("jobs", name)["spec"]
    assert (spec["parallelism"], spec["suspend"]) == (2, True)
    assert "0 of 16 shards are done" in notes


def test_other_jobs_of_the_namespace_are_not_looked_at(cluster: KubeApi) -> None:
    """Nor one that is about to be deleted."""
    base = only(rendered(BACKFILL), "Job")["metadata"]["name"]
    failed = {"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]}
    for name in (f"{base}-nightly", f"x{base}", f"{base}-12345"):
        deleted = {"deletionTimestamp": "2026-11-28T00:00:00Z"} if name.endswith("12345") else {}
        cluster.put(f"{JOBS}/{name}", {"kind": "Job", "metadata": {"name": name, **deleted}, "status": failed})
    assert "FAILED" not in brought(cluster, "install", BACKFILL)
    assert base in cluster.named("jobs")


def test_a_user_who_may_not_list_jobs_can_turn_it_off(cluster: KubeApi) -> None:
    """Then the revision starts a failed backfill again, and the notes say so."""
    cluster.forbidden.add(JOBS)
    assert "forbidden" in run_helm(cluster, "install", BACKFILL, package=PACKAGE).stderr
    notes = brought(cluster, "install", BACKFILL, {"backfill.restartFailed": False})
    assert "another revision starts it again (backfill.restartFailed is off)" in notes
    assert "--set-string backfill.revision=NEW" in notes
    brought(cluster, "upgrade", {"cronjob.suspend": True})
    assert cluster.named("jobs") == []


def test_without_a_backfill_no_jobs_are_listed(cluster: KubeApi) -> None:
    """A nightly run needs no such right."""
    cluster.forbidden.add(JOBS)
    assert brought(cluster, "install")


@each_helm
def test_a_claim_keeps_its_access_modes(cluster: KubeApi, package: str) -> None:
    """They cannot be changed: a backfill beside a nightly run uses the claim that there is, and the notes warn."""
    brought(cluster, "install", package=package)
    assert cluster.one("persistentvolumeclaims", CLAIM)["spec"]["accessModes"] == ["ReadWriteOnce"]
    notes = brought(cluster, "upgrade", BACKFILL, package=package)
    assert cluster.one("persistentvolumeclaims", CLAIM)["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert "The volume is not ReadWriteMany: pods on other nodes than its own stay Pending" in notes


def test_helm_4_knows_the_flag_that_the_notes_name() -> None:
    """Helm 3 overwrites, and has no such flag."""
    assert "--force-conflicts" in helm("upgrade", "--help").stdout
    assert "--force-conflicts" not in helm("upgrade", "--help", package=PACKAGE_OF_HELM_3).stdout
