"""The chart's Jobs and pods: metadata, sidecars, scheduling, and `helm test`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import pytest
import yaml
from charts import CHART, NEWEST, OLDEST, VALUE_FILES, Manifest, check_pod, helm, job_specs, only, rendered

BACKFILL, CRON, EVERYTHING = (CHART / "ci" / f"{name}-values.yaml" for name in ("backfill", "cron", "everything"))
LABELS = {"kueue.x-k8s.io/queue-name": "batch", "team": "news"}


def pods(manifests: list[Manifest]) -> Iterator[Manifest]:
    """Return the pod spec of each Job."""
    for spec in job_specs(manifests).values():
        yield spec["template"]["spec"]


def test_jobs_have_their_own_labels_and_annotations() -> None:
    """They are on the Job and the CronJob, because a queue's label has no effect on a pod."""
    given = {"labels": LABELS, "annotations": {"argocd.argoproj.io/sync-wave": "1"}}
    values = {f"{name}.{key}": item for name in ("backfill", "cronjob") for key, item in given.items()}
    manifests = rendered({"backfill.enabled": True}, values)
    cron = only(manifests, "CronJob")
    for manifest in (only(manifests, "Job"), cron, cron["spec"]["jobTemplate"]):
        assert LABELS.items() <= manifest["metadata"]["labels"].items()
        assert manifest["metadata"]["annotations"] == given["annotations"]
        assert manifest["metadata"]["labels"]["app.kubernetes.io/name"] == "extraction-pipeline"
    for spec in job_specs(manifests).values():
        assert "team" not in spec["template"]["metadata"]["labels"]


@pytest.mark.parametrize(("chunks", "count"), [(40, 40), ("40", 40), ("1000-1011", 12)])
def test_backfill_by_chunks_has_chunk_variables(chunks: int | str, count: int) -> None:
    """There are as many indexes as chunks, and no variables of shards."""
    manifests = rendered(BACKFILL, {"backfill.chunks": chunks})
    job = only(manifests, "Job")
    assert job["spec"]["completions"] == count
    names = {
        variable["name"]: variable.get("value") for variable in job["spec"]["template"]["spec"]["containers"][0]["env"]
    }
    assert names["PIPELINE_CHUNKS"] == str(chunks)
    assert "PIPELINE_SHARDS" not in names
    kubernetes_validate.validate(job, NEWEST, strict=True)


@pytest.mark.parametrize("chunks", ["many", "-3", "12-10", 0])
def test_invalid_chunks_are_refused(chunks: int | str) -> None:
    """The values schema refuses them, or a message contains the value."""
    ran = helm("template", "test", str(CHART), "--set-json", f"backfill.chunks={json.dumps(chunks)}")
    assert ran.returncode
    assert "chunks" in ran.stderr


def test_managed_by_needs_kubernetes_1_32() -> None:
    """Kueue's MultiKueue uses it; fields that Kueue changes in the Job are then omitted."""
    values = {f"{name}.managedBy": "kueue.x-k8s.io/multikueue" for name in ("backfill", "cronjob")}
    manifests = rendered(
        BACKFILL, {"cronjob.enabled": True}, values, {"backfill.suspend": None, "backfill.parallelism": None}
    )
    for spec in job_specs(manifests).values():
        assert spec["managedBy"] == "kueue.x-k8s.io/multikueue"
    assert {"suspend", "parallelism"} & set(only(manifests, "Job")["spec"]) == set()
    for manifest in manifests:
        kubernetes_validate.validate(manifest, NEWEST, strict=True)
    ran = helm("template", "test", str(CHART), "--kube-version", "1.31", "--set", "backfill.managedBy=kueue.x-k8s.io/a")
    assert 'backfill.managedBy: got "kueue.x-k8s.io/a", need Kubernetes 1.32' in ran.stderr


def test_common_labels_are_on_every_object_and_pod() -> None:
    """They are not part of selectors."""
    manifests = rendered(EVERYTHING)
    for manifest in [*manifests, check_pod(EVERYTHING)]:
        if manifest["metadata"]["name"] not in ("test-more", "text-test"):
            assert manifest["metadata"]["labels"]["cost-centre"] == "research", manifest["kind"]
    for spec in job_specs(manifests).values():
        assert spec["template"]["metadata"]["labels"]["cost-centre"] == "research"
    assert "cost-centre" not in str(only(manifests, "NetworkPolicy")["spec"])


def test_duplicate_label_is_written_once() -> None:
    """The more specific one wins."""
    manifests = rendered({"commonLabels": {"team": "a"}, "podLabels": {"team": "b"}, "cronjob.labels": {"team": "c"}})
    cron = only(manifests, "CronJob")
    assert cron["metadata"]["labels"]["team"] == "c"
    assert cron["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"]["team"] == "b"


def test_sidecars_are_restartable_init_containers() -> None:
    """They come before the other containers, and the exit code is that of the program."""
    for pod in pods(rendered(EVERYTHING)):
        proxy, wait = pod["initContainers"]
        assert (proxy["name"], proxy["restartPolicy"]) == ("proxy", "Always")
        assert wait["name"] == "wait"
        assert "restartPolicy" not in wait
        assert [container["name"] for container in pod["containers"]] == ["pipeline"]


def test_pods_have_the_configured_placement() -> None:
    """This covers scheduling, DNS and the runtime class, also for the pod of `helm test`."""
    given = yaml.safe_load(EVERYTHING.read_text(encoding="utf-8"))
    names = ("runtimeClassName", "schedulerName", "priorityClassName", "hostAliases", "dnsConfig", "nodeSelector")
    for pod in [*pods(rendered(EVERYTHING)), check_pod(EVERYTHING)["spec"]]:
        for name in (*names, "tolerations", "affinity", "imagePullSecrets"):
            assert pod[name] == given[name]


def test_extra_objects_are_rendered() -> None:
    """They are mappings or texts, and may have templates."""
    names = {manifest["metadata"]["name"] for manifest in rendered(EVERYTHING) if manifest["kind"] == "ConfigMap"}
    assert {"test-more", "text-test"} <= names


@pytest.mark.parametrize("values", [*VALUE_FILES, {}], ids=lambda value: getattr(value, "stem", "default"))
def test_helm_test_pod_equals_the_others(values: Any) -> None:
    """It has the same image, security, files and keys, but nothing specific to a Job's pod."""
    pod = check_pod(values)
    job_pod = next(pods(rendered(values)))
    kubernetes_validate.validate(pod, OLDEST, strict=True)
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    own, other = pod["spec"]["containers"][0], job_pod["containers"][0]
    assert own["args"][0] == "check"
    for key in ("image", "volumeMounts", "securityContext", "resources", "workingDir"):
        assert own[key] == other[key]
    for key in ("volumes", "serviceAccountName", "securityContext", "restartPolicy"):
        assert pod["spec"][key] == job_pod[key]
    env = {variable["name"] for variable in own["env"]}
    assert env <= {variable["name"] for variable in other["env"]}
    assert env & {"JOB_NAME", "PIPELINE_SHARDS"} == set()
    assert "ports" not in own


def test_pod_has_its_resume_command() -> None:
    """The pod's last log line prints the command."""
    manifests = rendered({"backfill.enabled": True})
    expected = {
        "Job": "helm upgrade test CHART --namespace news --reuse-values",
        "CronJob": "kubectl --namespace news create job test-extraction-pipeline-again "
        "--from=cronjob/test-extraction-pipeline-nightly",
    }
    for kind, spec in job_specs(manifests).items():
        env = {variable["name"]: variable for variable in spec["template"]["spec"]["containers"][0]["env"]}
        assert env["PIPELINE_RESUME_COMMAND"]["value"] == expected[kind]
        assert env["POD_NAMESPACE"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.namespace"


def modes(*values: Any) -> list[str]:
    """Return the access modes of the chart's claim."""
    return list(only(rendered(*values), "PersistentVolumeClaim")["spec"]["accessModes"])


def test_volume_is_read_write_many_only_for_several_pods() -> None:
    """ReadWriteMany stays Pending on many clusters."""
    assert modes() == ["ReadWriteOnce"]
    assert modes({"backfill.enabled": True}) == ["ReadWriteMany"]
    assert modes({"backfill.enabled": True, "backfill.parallelism": None}) == ["ReadWriteMany"]
    assert modes({"backfill.enabled": True, "backfill.parallelism": 1}) == ["ReadWriteOnce"]
    assert modes({"backfill.enabled": True, "backfill.shards": 1}) == ["ReadWriteOnce"]
    assert modes({"backfill.enabled": True, "persistence.accessModes": ["ReadWriteOnce"]}) == ["ReadWriteOnce"]


def test_chart_has_an_icon() -> None:
    """`helm lint` recommends an icon."""
    ran = helm("lint", "--strict", str(CHART))
    assert "[INFO]" not in ran.stdout
    assert ran.returncode == 0
