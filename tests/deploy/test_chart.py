"""The objects of the Helm chart: rendered by the real helm, valid for Kubernetes, with matching references."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from charts import CHART, NEWEST, OLDEST, VALUE_FILES, check_pod, helm, job_specs, only, rendered
from job_trial.pod import expanded

from pipeline import __version__
from pipeline.cli import parser
from pipeline.cli.flags import started_at
from pipeline.errors import EXIT_CONFIG, EXIT_FAILURES

EVERYTHING, BACKFILL, CRON, PVC, S3 = (
    CHART / "ci" / f"{name}-values.yaml" for name in ("everything", "backfill", "cron", "pvc", "s3")
)
each_file = pytest.mark.parametrize("values", VALUE_FILES, ids=lambda path: path.stem)
MONTHS = {
    name: n
    for n, name in enumerate(["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"], 1)
}
DAYS = {name: n for n, name in enumerate(["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"])}
FIELDS = ((0, 59, {}), (0, 23, {}), (1, 31, {}), (1, 12, MONTHS), (0, 6, DAYS))
ENUMS = {
    "concurrencyPolicy": {"Allow", "Forbid", "Replace"},
    "completionMode": {"Indexed", "NonIndexed"},
    "restartPolicy": {"Never", "Always"},
    "imagePullPolicy": {"Always", "IfNotPresent", "Never"},
    "action": {"Ignore", "FailIndex", "FailJob"},
    "operator": {"In", "NotIn", "Exists", "DoesNotExist"},
    "whenUnsatisfiable": {"DoNotSchedule", "ScheduleAnyway"},
    "fsGroupChangePolicy": {"OnRootMismatch", "Always"},
}


def walk(node: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key with its value, at any depth."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield key, value
            yield from walk(value)
    elif isinstance(node, list):
        for item in node:
            yield from walk(item)


def is_cron(text: str) -> bool:
    """Return whether five fields have lists, ranges, steps and names within their bounds."""
    parts = text.split()
    return len(parts) == 5 and all(_is_field(part, *field) for part, field in zip(parts, FIELDS, strict=True))


def _is_field(text: str, low: int, high: int, names: dict[str, int]) -> bool:
    for item in text.split(","):
        span, _, step = item.partition("/")
        ends = [names.get(end, end) for end in span.split("-")] if span != "*" else [low, high]
        if len(ends) > 2 or not all(str(end).isdigit() for end in ends):
            return False
        numbers = [int(end) for end in ends]
        if not low <= numbers[0] <= numbers[-1] <= high or ("/" in item and not (step.isdigit() and int(step) > 0)):
            return False
    return True


def test_all_five_value_files_exist() -> None:
    """The tests below use each of them."""
    assert {EVERYTHING, BACKFILL, CRON, PVC, S3} == set(VALUE_FILES)


@each_file
def test_helm_lint_passes(values: Path) -> None:
    """`helm lint --strict` reports no problem."""
    ran = helm("lint", "--strict", str(CHART), "--values", str(values))
    assert ran.returncode == 0, ran.stdout
    assert "[WARNING]" not in ran.stdout + ran.stderr


@pytest.mark.parametrize("kube", [OLDEST, NEWEST])
@each_file
def test_each_object_is_valid(values: Path, kube: str) -> None:
    """The strict schemas are those of the oldest and the newest supported Kubernetes."""
    manifests = rendered(values, kube=kube)
    assert len(manifests) >= 3
    for manifest in [*manifests, check_pod(values, kube=kube)]:
        if manifest["kind"] == "PodMonitor":
            continue  # an object of the Prometheus Operator, which has a test of its own
        kubernetes_validate.validate(manifest, kube, strict=True)


def test_kubernetes_before_1_29_is_refused() -> None:
    """It lacks backoffLimitPerIndex."""
    ran = helm("template", "test", str(CHART), "--values", str(CRON), "--kube-version", "1.28")
    assert ran.returncode != 0
    assert "kubeVersion" in ran.stderr


@each_file
def test_enumerated_values_are_valid(values: Path) -> None:
    """The schemas do not restrict them."""
    result = [(key, value) for manifest in rendered(values) for key, value in walk(manifest) if key in ENUMS]
    assert {key for key, _ in result} >= {"restartPolicy", "action", "imagePullPolicy"}
    assert [(key, value) for key, value in result if value not in ENUMS[key]] == []


@pytest.mark.parametrize("text", ["15 2 * * *", "*/30 1-5,22 1,15 JAN-DEC MON-FRI", "0 0 1 1 6"])
def test_schedule_check_accepts_valid_schedules(text: str) -> None:
    """The check of the test below is itself tested."""
    assert is_cron(text)


@pytest.mark.parametrize(
    "text", ["60 2 * * *", "* * * *", "* * * * * *", "5-1 * * * *", "*/0 * * * *", "* * 0 * *", "0 0 1 1 7"]
)
def test_schedule_check_refuses_invalid_schedules(text: str) -> None:
    """Otherwise the test below could never fail."""
    assert not is_cron(text)


@pytest.mark.parametrize("values", [CRON, S3, EVERYTHING], ids=lambda path: path.stem)
def test_schedules_are_cron_expressions(values: Path) -> None:
    """They have five fields, each within its bounds."""
    assert is_cron(only(rendered(values), "CronJob")["spec"]["schedule"])


@each_file
def test_references_point_to_existing_objects(values: Path) -> None:
    """Each ConfigMap, Secret, claim and account of a pod is rendered, or named by the values."""
    manifests, given = rendered(values), values.read_text(encoding="utf-8")
    existing = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests}
    for spec in job_specs(manifests).values():
        pod = spec["template"]["spec"]
        named = [("ServiceAccount", pod["serviceAccountName"])]
        for volume in pod["volumes"]:
            named += [("ConfigMap", value["name"]) for key, value in volume.items() if key == "configMap"]
            named += [("Secret", value["secretName"]) for key, value in volume.items() if key == "secret"]
            claims = [value["claimName"] for key, value in volume.items() if key == "persistentVolumeClaim"]
            named += [("PersistentVolumeClaim", name) for name in claims]
        assert [reference for reference in named if reference not in existing and reference[1] not in given] == []


@each_file
def test_mounts_match_volumes(values: Path) -> None:
    """Each mount has its volume and each volume a mount, without subPath and without two at one path."""
    for spec in job_specs(rendered(values)).values():
        pod = spec["template"]["spec"]
        mounts = pod["containers"][0]["volumeMounts"]
        assert sorted(mount["name"] for mount in mounts) == sorted(mount["name"] for mount in pod["volumes"])
        assert len({mount["mountPath"] for mount in mounts}) == len(mounts)
        assert "subPath" not in dict(walk(pod))


@each_file
def test_pod_failure_policy_matches_the_exit_codes(values: Path) -> None:
    """Evictions come first, then 1 and 2 of the program's own table, for the existing container."""
    for kind, spec in job_specs(rendered(values)).items():
        eviction, failures, config = spec["podFailurePolicy"]["rules"]
        assert eviction == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
        assert failures["onExitCodes"]["values"] == [EXIT_FAILURES]
        assert failures["action"] == {"Job": "FailIndex", "CronJob": "FailJob"}[kind]
        assert (config["onExitCodes"]["values"], config["action"]) == ([EXIT_CONFIG], "FailJob")
        names = [container["name"] for container in spec["template"]["spec"]["containers"]]
        assert [rule["onExitCodes"]["containerName"] for rule in (failures, config)] == [*names, *names]
        assert spec["template"]["spec"]["restartPolicy"] == "Never"


@each_file
def test_termination_grace_exceeds_grace_s(values: Path) -> None:
    """terminationGracePeriodSeconds is larger than runner.grace_s."""
    manifests = rendered(values)
    config = yaml.safe_load(only(manifests, "ConfigMap", "-config")["data"]["pipeline.yaml"])
    grace_s = config.get("runner", {}).get("grace_s", 25)
    for spec in job_specs(manifests).values():
        assert spec["template"]["spec"]["terminationGracePeriodSeconds"] > grace_s


@each_file
def test_program_accepts_the_container_arguments(values: Path) -> None:
    """The image's ENTRYPOINT is an init before `pipeline`, and the arguments are of this version."""
    for spec in job_specs(rendered(values)).values():
        container = spec["template"]["spec"]["containers"][0]
        assert "command" not in container
        assert parser().parse_args(container["args"]).command == "run"
    check = check_pod(values)["spec"]["containers"][0]
    assert "command" not in check
    assert parser().parse_args(check["args"]).command == "check"


@each_file
def test_container_is_unprivileged(values: Path) -> None:
    """It is not root, writes only to its volumes, and has no privileges and no service variables."""
    for spec in job_specs(rendered(values)).values():
        pod = spec["template"]["spec"]
        own, shared = pod["containers"][0]["securityContext"], pod["securityContext"]
        assert own["readOnlyRootFilesystem"] is True
        assert own["allowPrivilegeEscalation"] is False
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert (shared["runAsNonRoot"], shared["seccompProfile"]) == (True, {"type": "RuntimeDefault"})
        assert shared["runAsUser"] > 0
        assert pod["enableServiceLinks"] is False
        assert {"/tmp"} <= {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        env = {variable["name"]: variable.get("value") for variable in pod["containers"][0]["env"]}
        assert (env["TMPDIR"], env["HOME"], pod["containers"][0]["workingDir"]) == ("/tmp", "/tmp", "/tmp")


def test_backfill_is_an_indexed_job() -> None:
    """Its completions equal the shards given to the pods; retries count per index."""
    spec = only(rendered(BACKFILL), "Job")["spec"]
    env = {variable["name"]: variable.get("value") for variable in spec["template"]["spec"]["containers"][0]["env"]}
    expected = {
        "completionMode": "Indexed",
        "completions": 32,
        "parallelism": 8,
        "backoffLimitPerIndex": 4,
        "maxFailedIndexes": 4,
    }
    assert {key: spec[key] for key in expected} == expected
    assert env["PIPELINE_SHARDS"] == "32"


def test_nightly_job_never_overlaps() -> None:
    """It starts at most an hour late, ends before the cluster's deadline, and limits redoing."""
    spec = only(rendered(CRON), "CronJob")["spec"]
    job = spec["jobTemplate"]["spec"]
    arguments = parser().parse_args(job["template"]["spec"]["containers"][0]["args"])
    assert (spec["concurrencyPolicy"], spec["startingDeadlineSeconds"]) == ("Forbid", 3600)
    assert (spec["timeZone"], spec["successfulJobsHistoryLimit"]) == ("Europe/Berlin", 3)
    assert arguments.max_duration < job["activeDeadlineSeconds"]
    assert arguments.set == ["runner.max_redo=0.1"]
    assert "completionMode" not in job


def test_every_retry_of_a_night_ends_before_the_deadline() -> None:
    """The deadline covers all retries of the Job; a retry takes the scheduled minute from the Job's name."""
    cron = only(rendered(CRON), "CronJob")
    job = cron["spec"]["jobTemplate"]["spec"]
    container = job["template"]["spec"]["containers"][0]
    assert "JOB_NAME" in {variable["name"] for variable in container["env"]}
    scheduled = 1_795_832_100  # a minute of the year 2026
    env = {"JOB_NAME": f"{cron['metadata']['name']}-{scheduled // 60}"}
    arguments = parser().parse_args([expanded(word, env) for word in container["args"]])
    began = [started_at(arguments.started_at, now=float(scheduled + late)) for late in (0, 3600, 18000)]
    assert began == [scheduled] * 3
    assert scheduled + arguments.max_duration + 60 <= scheduled + job["activeDeadlineSeconds"]
    assert started_at("news-extraction-pipeline-again", now=float(scheduled)) is None
    without = only(rendered(CRON, {"cronjob.maxDuration": None}), "CronJob")["spec"]["jobTemplate"]["spec"]
    assert "--started-at" not in str(without["template"]["spec"]["containers"][0]["args"])


def job_name(*more: dict[str, Any], release: str = "test") -> str:
    """Return the name of the backfill's Job."""
    return str(only(rendered(BACKFILL, *more, release=release), "Job")["metadata"]["name"])


@pytest.mark.parametrize(
    "change",
    [
        {"backfill.shards": 33},
        {"backfill.revision": 2},
        {"backfill.backoffLimitPerIndex": 5},
        {"backfill.managedBy": "kueue.x-k8s.io/multikueue"},
        {"backfill.extraArgs": ["--redo=all"]},
        {"backfill.extraArgs": ["--agent=extractor"]},
        {"image.tag": "0.9.9"},
        {"resources.limits.memory": "3Gi"},
        {"extraEnv": [{"name": "A", "value": "1"}]},
        {"commonLabels": {"team": "news"}},
        {"initContainers": [{"name": "a", "image": "a"}]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_changed_job_spec_gives_another_job(change: dict[str, Any]) -> None:
    """A Job's template is immutable, so an upgrade must create a new one."""
    assert job_name(change) != job_name()


@pytest.mark.parametrize(
    "change",
    [
        {"backfill.parallelism": 2},
        {"backfill.suspend": True},
        {"backfill.suspend": None},
        {"backfill.maxFailedIndexes": 9},
        {"backfill.activeDeadlineSeconds": 86400},
        {"backfill.ttlSecondsAfterFinished": 3600},
        {"backfill.labels": {"kueue.x-k8s.io/queue-name": "archive"}},
        {"backfill.annotations": {"a": "b"}},
        {"config.VLLM_BASE_URL": "http://vllm-2:8000"},
        {"config.VLLM_TIMEOUT": 60},
        {"config.VLLM_MAX_RETRIES": 9},
        {"pipelineConfig.vllm": {"stream": True}, "pipelineConfig.fallback": ["ollama"]},
        {"pipelineConfig.providers": {"big": {"type": "vllm", "base_url": "http://b", "model": "b", "max_tokens": 9}}},
        {"pipelineConfig.runner.concurrency": 4},
        {"pipelineConfig.input.storage": {"region": "eu-1"}},
        {"agents.another": "a: 1"},
        {"pipelineConfig.runner.max_error_rate": 0.5},
        {"cronjob.enabled": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_mutable_job_fields_keep_the_job(change: dict[str, Any]) -> None:
    """These include the mounted configuration, which reaches the running pods."""
    assert job_name(change) == job_name()


AGENT = """
provider: big
user_prompt: $document
schema: form.yaml
variants: {terse: {provider: small}}
"""
ASKED = {
    "agents.appointments": AGENT,
    "agents.form": "type: object",
    "pipelineConfig.providers": {
        name: {"type": "vllm", "base_url": "http://b", "model": name} for name in ("big", "small")
    },
    "config.VLLM_MODEL": "qwen3",
}


@pytest.mark.parametrize(
    "change",
    [
        {"pipelineConfig.agent": "extractor"},
        {"pipelineConfig.variant": "terse"},
        {"pipelineConfig.variant": "terse", "agents.appointments": AGENT.replace("document", "document!")},
        {"agents.form": "type: string"},
        {"pipelineConfig.providers.big.model": "larger"},
        {"pipelineConfig.providers.big.model_id": "larger"},
        {"pipelineConfig.providers.small.temperature": 0.5},
        {"pipelineConfig.providers.big.extra_body": {"seed": 7}},
        {"config.VLLM_MODEL": "qwen4"},
        {"config.VLLM_MAX_TOKENS": 99},
        {"config.VLLM_TEMPERATURE": 1},
        {"pipelineConfig.input.uri": "gs://archive/2016"},
        {"pipelineConfig.input.text_field": "body"},
        {"pipelineConfig.output.uri": "gs://archive-extracted/2016"},
        {"backfill.revision": 2},
    ],
    ids=lambda change: next(iter(change)),
)
def test_changed_prompt_gives_another_job(change: dict[str, Any]) -> None:
    """Pods with different prompts must not share a Job."""
    assert job_name(ASKED, change) != job_name(ASKED)


def test_another_server_keeps_the_job() -> None:
    """`model_id` is the model's name if servers name it differently; the provider's name does not count."""
    (big, other) = ({"type": "vllm", "base_url": f"http://{name}", "model": name, "model_id": "m"} for name in "ab")
    values = {"pipelineConfig.providers": {"a": big, "b": other}, "pipelineConfig.agent": "extractor"}
    assert job_name(values, {"pipelineConfig.provider": "a"}) == job_name(values, {"pipelineConfig.provider": "b"})


def test_rotated_key_keeps_the_job() -> None:
    """The key is in the Secret, which the pods mount."""
    assert job_name({"config.VLLM_API_KEY": "old"}) == job_name({"config.VLLM_API_KEY": "new"})


def test_object_names_fit_for_long_release_names() -> None:
    """A CronJob's name has at most 52 characters, a host name of an Indexed Job's pod 63."""
    manifests = rendered(
        EVERYTHING, {"fullnameOverride": ""}, release="a-release-name-of-fifty-three-characters-in-the-whole"
    )
    assert len(only(manifests, "CronJob")["metadata"]["name"]) <= 52
    assert len(only(manifests, "Job")["metadata"]["name"] + "-12345" + "-99999") <= 63
    names = [manifest["metadata"]["name"] for manifest in manifests]
    assert len({(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests}) == len(manifests)
    assert all(re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name) for name in names)


@pytest.mark.parametrize("release", ["2026", "1e6", "v1.2", "a-release-with-its-dot-at-character-3.8"])
def test_numeric_and_dotted_release_names_work(release: str) -> None:
    """A host name of an Indexed Job's pod may not have dots."""
    manifests = rendered(EVERYTHING, {"fullnameOverride": "", "podSecurityContext.fsGroup": None}, release=release)
    for manifest in manifests:
        if "labels" in manifest["metadata"]:
            assert manifest["metadata"]["labels"]["app.kubernetes.io/instance"] == release
        if manifest["kind"] != "PodMonitor":
            kubernetes_validate.validate(manifest, NEWEST, strict=True)
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", only(manifests, "Job")["metadata"]["name"])
    given = {"fullnameOverride": "2026", "serviceAccount.name": "1", "priorityClassName": "1", "existingConfigMap": "1"}
    for manifest in rendered(given, {"serviceAccount.create": False, "persistence.enabled": True}, release=release):
        kubernetes_validate.validate(manifest, NEWEST, strict=True)


def test_two_long_release_names_stay_distinct() -> None:
    """In one namespace the truncated part may be their only difference."""
    first, second = (
        {
            (manifest["kind"], manifest["metadata"]["name"])
            for manifest in rendered(BACKFILL, release=f"{'news-' * 8}eu-west-{n}")
        }
        for n in (1, 2)
    )
    assert first & second == set()


@pytest.mark.parametrize("kube", [OLDEST, NEWEST])
def test_chart_is_valid_without_values(kube: str) -> None:
    """It is also valid with the least that a backfill needs."""
    for values in ({}, {"backfill.enabled": True}):
        for manifest in rendered(values, kube=kube):
            kubernetes_validate.validate(manifest, kube, strict=True)


def test_keys_are_readable_without_fs_group() -> None:
    """Where the cluster sets fsGroup, the files of a Secret belong to root."""
    for change, mode in (({}, 0o440), ({"podSecurityContext.fsGroup": None}, 0o444)):
        pod = job_specs(rendered(CRON, change))["CronJob"]["template"]["spec"]
        assert [volume["secret"]["defaultMode"] for volume in pod["volumes"] if "secret" in volume] == [mode]


def test_spread_constraints_select_existing_labels() -> None:
    """A constraint without a selector gets the pods' labels; an explicit selector is kept."""
    for spec in job_specs(rendered(EVERYTHING)).values():
        own, given = spec["template"]["spec"]["topologySpreadConstraints"]
        assert own["labelSelector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()
        assert own["labelSelector"]["matchLabels"]
        assert given["labelSelector"]["matchLabels"]["team"] == "news"


def test_pod_monitor_selects_existing_labels_and_port() -> None:
    """It selects the pods of both Jobs by the name of the port that the program serves."""
    manifests = rendered(EVERYTHING)
    monitor = only(manifests, "PodMonitor")
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    specs = job_specs(manifests)
    assert set(specs) == {"Job", "CronJob"}
    for spec in specs.values():
        container = spec["template"]["spec"]["containers"][0]
        labels = spec["template"]["metadata"]["labels"]
        assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
        assert container["ports"] == [{"name": endpoint["port"], "containerPort": 9464}]
        arguments = parser().parse_args(container["args"])
        assert (arguments.metrics_port, arguments.pushgateway) == (9464, "http://pushgateway.monitoring:9091")


def test_no_port_and_monitor_without_metrics() -> None:
    """They are rendered only if metrics are enabled."""
    manifests = rendered(CRON)
    assert "ports" not in job_specs(manifests)["CronJob"]["template"]["spec"]["containers"][0]
    assert "PodMonitor" not in {manifest["kind"] for manifest in manifests}


def test_chart_version_equals_the_package_version() -> None:
    """Its default image has the version of the package."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert (chart["appVersion"], chart["version"]) == (__version__, __version__)


def test_everything_values_set_every_value() -> None:
    """That file sets each value at the top and in the sections, so that the tests render all of them."""
    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    given = yaml.safe_load(EVERYTHING.read_text(encoding="utf-8"))
    open_sections = ("pipelineConfig", "agents", "resources", "podSecurityContext", "securityContext")
    elsewhere = {
        "nameOverride", "image.tag", "existingConfigMap", "config.VLLM_API_KEY", "config.OLLAMA_API_KEY",
        "metrics.pushgatewaySecret", "cronjob.managedBy", "backfill.managedBy", "backfill.chunks",
        "cronjob.enabled", "persistence.existingClaim", "serviceAccount.create", "securityContext",
    }  # fmt: skip
    missing = {
        f"{key}.{name}" if name else key
        for key, value in defaults.items()
        for name in (value if isinstance(value, dict) and value and key not in open_sections else [""])
        if (key not in given or (name and name not in given[key]))
    }
    assert missing == elsewhere


def test_network_policy_allows_dns_and_configured_targets() -> None:
    """It selects the pods of both Jobs, and is off by default."""
    manifests = rendered(EVERYTHING)
    policy = only(manifests, "NetworkPolicy")["spec"]
    for spec in job_specs(manifests).values():
        assert policy["podSelector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()
    dns, servers, models = policy["egress"]
    assert "to" not in dns
    assert {port["port"] for port in dns["ports"]} == {53}
    assert servers["to"] == [{"ipBlock": {"cidr": "10.0.0.0/16"}}]
    assert [port["port"] for port in servers["ports"]] == [8000, 443]
    (peer,) = models["to"]  # a peer with both selectors selects the pods that match both
    assert peer["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "models"}}
    assert peer["podSelector"] == {"matchLabels": {"app": "vllm"}}
    assert [port["port"] for port in models["ports"]] == [8000]
    assert [port["port"] for port in policy["ingress"][0]["ports"]] == [9464]
    assert "NetworkPolicy" not in {manifest["kind"] for manifest in rendered(CRON)}


def test_push_gateway_url_comes_from_a_secret() -> None:
    """Manifests only have the Secret's name."""
    manifests = rendered(CRON, {"metrics.pushgatewaySecret": {"name": "gateway", "key": "url"}})
    container = job_specs(manifests)["CronJob"]["template"]["spec"]["containers"][0]
    (match,) = [variable for variable in container["env"] if variable["name"] == "PIPELINE_PUSHGATEWAY"]
    assert match["valueFrom"] == {"secretKeyRef": {"name": "gateway", "key": "url"}}
    assert not [argument for argument in container["args"] if argument.startswith("--pushgateway")]
