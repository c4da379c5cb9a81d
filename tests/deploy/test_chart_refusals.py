"""Values that the chart refuses before an installation, because the API server or a pod would fail on them.

Each row was accepted by lint and template once; both helms must refuse it, and name the key.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from charts import CHART, VALUE_FILES, both_helms, flags, helm, refused, rendered, template
from helm import PACKAGE, PACKAGE_OF_HELM_3

from pipeline.agents import load_agent

CRON = CHART / "ci" / "cron-values.yaml"
ZONES = (CHART / "files" / "time-zones.txt").read_text(encoding="utf-8").split()
NEXT_VOLUME = {"name": "ca", "configMap": {"name": "ca"}}
AGENT = yaml.safe_dump({"user_prompt": "$document", "schema": {"type": "object"}, "variants": {"terse": {}}})

Row = tuple[dict[str, Any], str]

SCHEDULES = [
    ("60 2 * * *", 'minute "60" is not within 0 to 59'),
    ("0 24 * * *", 'hour "24"'),
    ("0 0 0 * *", 'day "0" is not within 1 to 31'),
    ("0 0 32 * *", 'day "32"'),
    ("0 0 1 13 *", 'month "13"'),
    ("0 0 1 0 *", 'month "0"'),
    ("0 0 * * 7", 'weekday "7" is not within 0 to 6'),
    ("0 0 * * MO", 'weekday "MO"'),
    ("0 0 * JANUARY *", 'month "JANUARY"'),
    ("5-1 * * * *", 'minute "5-1"'),
    ("*/0 * * * *", 'minute "*/0"'),
    ("1,,2 * * * *", 'minute "1,,2"'),
    ("1-2-3 * * * *", 'minute "1-2-3"'),
    ("0 0 31 2 *", "a day that no such month has"),
    ("0 0 30,31 FEB *", "a day that no such month has"),
    ("0 0 31 4,6,9-11/2 *", "a day that no such month has"),
]

TIME_ZONES = [
    ("Europe/Berln", "such as Europe/Belfast, Europe/Belgrade, Europe/Berlin"),
    ("europe/berlin", "Europe/Berlin"),
    ("Local", "need a name of the IANA list"),
    ("UTC+1", "need a name of the IANA list"),
    ("Mars/Olympus", "such as Europe/Berlin or Etc/UTC"),
]

RESOURCES: list[Row] = [
    (
        {"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "500m"}}},
        "resources.requests.cpu: got 2, need at most",
    ),
    ({"resources.requests.memory": "2Gi"}, "resources.requests.memory: got 2Gi, need at most resources.limits.memory"),
    ({"resources": {"requests": {"memory": "1Gi"}, "limits": {"memory": "1G"}}}, "resources.requests.memory: got 1Gi"),
    ({"resources": {"requests": {"cpu": 1.5}, "limits": {"cpu": 1}}}, "resources.requests.cpu: got 1.5"),
    (
        {"resources": {"requests": {"nvidia.com/gpu": 1}, "limits": {"nvidia.com/gpu": 2}}},
        "resources.requests.nvidia.com/gpu: got 1, need resources.limits.nvidia.com/gpu (2)",
    ),
    ({"resources.requests.memory": "2 GB"}, "resources"),
]

VOLUMES: list[Row] = [
    (
        {"extraVolumes": [NEXT_VOLUME], "extraVolumeMounts": [{"name": "ca", "mountPath": "/tmp/"}]},
        'the mountPath "/tmp/" twice',
    ),
    (
        {"extraVolumes": [NEXT_VOLUME], "extraVolumeMounts": [{"name": "ca", "mountPath": "/a"}] * 2},
        'the mountPath "/a" twice',
    ),
    (
        {
            "persistence.enabled": True,
            "extraVolumes": [NEXT_VOLUME],
            "extraVolumeMounts": [{"name": "ca", "mountPath": "/data"}],
        },
        'the mountPath "/data" twice or as one of the chart\'s own',
    ),
    ({"persistence": {"enabled": True, "mountPath": "/tmp"}}, 'the mountPath "/tmp" twice'),
    ({"extraVolumeMounts": [{"name": "nowhere", "mountPath": "/a"}]}, 'a mount of "nowhere", need one of the volumes'),
    ({"extraVolumeMounts": [{"name": "tmp", "mountPath": "a"}]}, "mountPath"),
    ({"extraVolumes": [NEXT_VOLUME, NEXT_VOLUME]}, 'extraVolumes: got "ca" twice'),
    ({"extraVolumes": [{"name": "config", "emptyDir": {}}]}, 'extraVolumes: got "config" twice or as one of the chart'),
    (
        {"initContainers": [{"name": "a", "image": "a", "volumeMounts": [{"name": "x", "mountPath": "/x"}]}]},
        'initContainers: got a mount of "x"',
    ),
    ({"sidecars": [{"name": "pipeline", "image": "a"}]}, 'sidecars: got the name "pipeline" twice'),
    ({"sidecars": [{"name": "a"}]}, "sidecars/0"),
    ({"sidecars": [{"name": "A", "image": "a"}]}, "sidecars/0/name"),
    ({"extraVolumes": [{"name": "ca"}]}, "extraVolumes/0"),
    ({"extraVolumes": [{**NEXT_VOLUME, "emptyDir": {}}]}, "extraVolumes/0"),
    ({"extraVolumes": [{"name": "CA", "emptyDir": {}}]}, "extraVolumes/0/name"),
    (
        {"persistence": {"enabled": True, "accessModes": ["ReadWriteOncePod", "ReadWriteOnce"]}},
        "ReadWriteOncePod alone",
    ),
    ({"pipelineConfig.output.uri": "/results"}, 'pipelineConfig.output.uri: got "/results", which would be lost'),
    ({"pipelineConfig.output.uri": "/tmp/out"}, "which would be lost with the pod"),
]

LABELS: list[Row] = [
    ({"podLabels": {"team": "a b"}}, "podLabels/team"),
    ({"podLabels": {"team": "a" * 64}}, "podLabels/team"),
    ({"podLabels": {"a b": "c"}}, 'podLabels: got the name "a b"'),
    ({"podLabels": {"app.kubernetes.io/name": "mine"}}, 'podLabels: got "app.kubernetes.io/name", which'),
    ({"commonLabels": {"helm.sh/chart": "mine"}}, 'commonLabels: got "helm.sh/chart", which'),
    ({"commonLabels": {"team": "-a"}}, "commonLabels/team"),
    ({"cronjob.labels": {"kueue.x-k8s.io/queue-name": "a/b"}}, "cronjob/labels"),
    ({"backfill.labels": {"team": True}}, "backfill/labels"),
    ({"backfill.annotations": {"a": 1}}, "backfill/annotations"),
    ({"podAnnotations": {"a b": "c"}}, 'podAnnotations: got the name "a b"'),
    ({"nodeSelector": {"disk": "fast!"}}, "nodeSelector/disk"),
    ({"metrics.podMonitor.labels": {"release": "a b"}}, "podMonitor/labels"),
]

PLACEMENT: list[Row] = [
    ({"tolerations": [{"key": "batch", "operator": "Exist"}]}, "tolerations/0"),
    ({"tolerations": [{"key": "batch", "operator": "Exists", "value": "yes"}]}, "tolerations/0"),
    ({"tolerations": [{"operator": "Equal", "value": "yes"}]}, "tolerations/0"),
    ({"tolerations": [{"key": "batch", "effect": "NoScheduling"}]}, "tolerations/0"),
    ({"tolerations": [{"key": "batch", "effect": "NoSchedule", "tolerationSeconds": 5}]}, "tolerations/0"),
    ({"tolerations": [{"key": "ba tch", "operator": "Exists"}]}, "tolerations/0"),
    ({"topologySpreadConstraints": [{"maxSkew": 0, "topologyKey": "a"}]}, "topologySpreadConstraints/0"),
    (
        {"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "a", "whenUnsatisfiable": "Never"}]},
        "topologySpreadConstraints/0",
    ),
    ({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "a", "operator": "in", "values": ["b"]}]}
    ]}}}}, "operator"),
    ({"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a"]}] * 2}, 'hostAliases: got "10.0.0.1" twice'),
    ({"hostAliases": [{"ip": "llm.internal", "hostnames": ["a"]}]}, "hostAliases/0/ip"),
    ({"dnsConfig": {"nameserver": ["10.0.0.1"]}}, "dnsConfig"),
    ({"dnsConfig": {"nameservers": ["10.0.0.1"] * 4}}, "dnsConfig/nameservers"),
    ({"priorityClassName": "Batch Low"}, "priorityClassName"),
    ({"runtimeClassName": "gVisor"}, "runtimeClassName"),
]  # fmt: skip

IMAGES: list[Row] = [
    ({"image.repository": "Team/extraction-pipeline"}, "image/repository"),
    ({"image.repository": "team/extraction pipeline"}, "image/repository"),
    ({"image.repository": "team/extraction-pipeline:1.0"}, "image/repository"),
    ({"image.tag": "1.0/b"}, "image/tag"),
    ({"image.tag": "-1"}, "image/tag"),
    ({"podSecurityContext.runAsUser": -1}, "podSecurityContext/runAsUser"),
    ({"extraEnvFrom": [{"prefix": "A_"}]}, "extraEnvFrom/0"),
    (
        {"extraEnv": [{"name": "A", "value": "b", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]},
        "extraEnv/0",
    ),
    ({"extraEnv": [{"name": "A=b", "value": "c"}]}, "extraEnv/0/name"),
    ({"podSecurityContext.runAsUser": 0}, "podSecurityContext.runAsUser: got 0 with runAsNonRoot: true"),
    ({"securityContext.runAsUser": 0}, "got 0 with runAsNonRoot: true"),
    ({"securityContext.privileged": True}, "securityContext.privileged: got true with allowPrivilegeEscalation: false"),
    ({"podSecurityContext.seccompProfile.type": "Default"}, "seccompProfile"),
    ({"extraEnv": [{"name": "HOME", "value": "/x"}]}, 'extraEnv: got "HOME" twice or as one that the chart sets'),
    ({"extraEnv": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}, 'extraEnv: got "A" twice'),
    ({"existingSecret": "My_Secret", "config.VLLM_API_KEY": ""}, "existingSecret"),
    ({"serviceAccount.name": "me@here"}, "serviceAccount/name"),
]

CONFIG: list[Row] = [
    (
        {"pipelineConfig.provider": "openai"},
        'pipelineConfig.provider: got "openai", need one of ollama, vllm, or an entry',
    ),
    ({"pipelineConfig.fallback": ["big"]}, 'pipelineConfig.fallback: got "big"'),
    ({"pipelineConfig.fallback": "ollama, big"}, 'pipelineConfig.fallback: got "big"'),
    ({"config.VLLM_BASE_URL": "vllm:8000"}, 'pipelineConfig.vllm.base_url: got "vllm:8000", need http://host:port'),
    ({"config.VLLM_BASE_URL": "http://a:1, b:2"}, 'pipelineConfig.vllm.base_url: got "b:2"'),
    ({"config.VLLM_BASE_URL": ["http://a:1", "ftp://b"]}, 'got "ftp://b"'),
    ({"config.OLLAMA_BASE_URL": "ollama"}, 'pipelineConfig.ollama.base_url: got "ollama"'),
    (
        {"pipelineConfig.ollama": {"base_url": "u:secret-word@ollama:1"}},
        'pipelineConfig.ollama.base_url: got "ollama:1"',
    ),
    (
        {"pipelineConfig.providers": {"big": {"type": "openai", "base_url": "llm.internal"}}},
        'pipelineConfig.providers.big.base_url: got "llm.internal"',
    ),
    (
        {"pipelineConfig.agent": "extracter"},
        'pipelineConfig.agent: got "extracter", need one of event_classifier, extractor',
    ),
    ({"agents": {"mine": AGENT}, "pipelineConfig.agent": "other"}, "need one of event_classifier, extractor, mine"),
    (
        {"agents": {"mine": AGENT}, "pipelineConfig.agent": "mine", "pipelineConfig.variant": "tense"},
        'pipelineConfig.variant: got "tense", need one of the variants of agents.mine: terse',
    ),
    ({"agents": {"mine": "a: [b"}}, "agents.mine: got a text that is not YAML"),
    ({"pipelineConfig.input.uri": "s4://news/inbox"}, 'pipelineConfig.input.uri: got "s4://news/inbox"'),
    ({"pipelineConfig.input.uri": ["s3://a/b", {"uri": "http://c/d"}]}, 'pipelineConfig.input.uri: got "http://c/d"'),
    ({"pipelineConfig.output.uri": "s3:///news"}, 'pipelineConfig.output.uri: got "s3:///news"'),
]

JOBS: list[Row] = [
    ({"cronjob.startingDeadlineSeconds": 18000}, "got 5h, need more than cronjob.startingDeadlineSeconds (18000)"),
    ({"backfill.extraArgs": ["--max-duration=5h"]}, "backfill.extraArgs: got --max-duration, with which a shard that"),
    ({"backfill.extraArgs": ["--max-duration", "5h", "--incomplete-exit", "0"]}, "need --incomplete-exit=3 beside it"),
    ({"backfill.maxDuration": "5h"}, "removed: a shard that stops early would end with exit code 0"),
    (
        {"backfill": {"enabled": True}, "persistence": {"enabled": True, "accessModes": ["ReadWriteOncePod"]}},
        "backfill.parallelism: got 8 with persistence.accessModes ReadWriteOncePod",
    ),
    ({"networkPolicy.egress": [{"cidr": "10.0.256.0/16", "ports": [1]}]}, "cidr"),
    ({"backfill.parallelism": 100001}, "backfill/parallelism"),
    ({"networkPolicy.egress": [{"cidr": "10.0.0.0/99", "ports": [1]}]}, "cidr"),
    ({"networkPolicy.egress": [{"cidr": "10.0.0.0/8", "namespace": "models", "ports": [1]}]}, "egress"),
    ({"networkPolicy.egress": [{"cidr": "10.0.0.0/8", "podLabels": {"app": "vllm"}, "ports": [1]}]}, "egress"),
    ({"networkPolicy.egress": [{"ports": [1]}]}, "egress"),
    ({"networkPolicy.enabled": True}, "networkPolicy.egress: got none with networkPolicy.enabled"),
    ({"extraObjects": [{"kind": "ConfigMap"}]}, "extraObjects"),
]  # fmt: skip


@both_helms
@pytest.mark.parametrize(("schedule", "message"), SCHEDULES, ids=lambda value: value.replace(" ", "_"))
def test_invalid_schedule_is_refused(schedule: str, message: str, package: str) -> None:
    """The message names the field and its accepted values."""
    error = refused(CRON, {"cronjob.schedule": schedule}, package=package)
    assert "schedule" in error
    assert message in error or "does not match pattern" in error


@pytest.mark.parametrize(
    "schedule",
    [
        "0 0 29 2 *", "0 0 31 2 MON", "0 0 31 * *", "0 0 31 1,2 *", "*/30 1-5,22 1,15 jan-DEC mon-FRI", "@daily",
        "59 23 31 12 6", "0 0 * * SUN", "0 0 * * SUN-SAT", "5/15 * * * *", "? ? ? ? ?", " 15  2 * * * ", "08 09 * * *",
    ],
)  # fmt: skip
def test_valid_schedule_is_accepted(schedule: str) -> None:
    """The rules are those of the cron library of Kubernetes."""
    assert rendered(CRON, {"cronjob.schedule": schedule})


@both_helms
@pytest.mark.parametrize(("zone", "message"), TIME_ZONES, ids=lambda value: value.replace(" ", "_"))
def test_unknown_time_zone_is_refused(zone: str, message: str, package: str) -> None:
    """The message suggests names that begin like it."""
    error = refused(CRON, {"cronjob.timeZone": zone}, package=package)
    assert f'cronjob.timeZone: got "{zone}"' in error
    assert message in error


@pytest.mark.parametrize("zone", ["UTC", "Etc/UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+5"])
def test_each_listed_time_zone_is_accepted(zone: str) -> None:
    """The list has the IANA names, sorted, each once."""
    assert rendered(CRON, {"cronjob.timeZone": zone})
    assert sorted(set(ZONES)) == ZONES


@both_helms
@pytest.mark.parametrize(
    ("values", "message"),
    [*RESOURCES, *VOLUMES, *LABELS, *PLACEMENT, *IMAGES, *CONFIG, *JOBS],
    ids=lambda value: None if isinstance(value, dict) else value.replace(" ", "_")[:60],
)
def test_unworkable_values_are_refused_by_both_helms(values: dict[str, Any], message: str, package: str) -> None:
    """The message contains the key and no secret."""
    error = refused(CRON, values, package=package)
    # helm 3 writes the path of a schema error with dots
    assert message in error or (package == PACKAGE_OF_HELM_3 and message.replace("/", ".") in error)
    assert "secret-word" not in error


@pytest.mark.parametrize(
    "values",
    [
        {"resources": {"requests": {"cpu": "500m", "memory": "1G"}, "limits": {"cpu": 0.5, "memory": "1Gi"}}},
        {"resources": {"requests": {"nvidia.com/gpu": 1}, "limits": {"nvidia.com/gpu": "1"}}},
        {"tolerations": [{"operator": "Exists"}, {"key": "a", "effect": "NoExecute", "tolerationSeconds": 9}]},
        {"tolerations": [{"key": "a", "value": "b"}]},
        {"podLabels": {"azure.workload.identity/use": "true", "empty": ""}},
        {"image.repository": "registry.internal:5000/team/extraction-pipeline"},
        {"podSecurityContext.runAsUser": 0, "podSecurityContext.runAsNonRoot": False},
        {"securityContext.runAsNonRoot": False, "securityContext.runAsUser": 0},
        {"pipelineConfig.fallback": ["vllm", "big"], "pipelineConfig.providers": {"big": {"type": "openai"}}},
        {"agents": {"mine": AGENT}, "pipelineConfig.agent": "mine", "pipelineConfig.variant": "terse"},
        {"pipelineConfig.agent": "mine", "pipelineConfig.agents_dir": "/opt/agents"},
        {"pipelineConfig.input.uri": [{"uri": "gs://a/b", "name": "a"}, "file:///opt/documents", "/opt/*.txt"]},
        {"persistence.enabled": True, "pipelineConfig.output.uri": "file:///data/out"},
        {"networkPolicy": {"enabled": True, "egress": [{"cidr": "fd00::/8", "ports": [1]}]}},
        {"networkPolicy": {"enabled": True, "egress": [{"namespace": "models", "ports": [8000]}]}},
        {"backfill": {"enabled": True, "extraArgs": ["--max-duration=5h", "--incomplete-exit=3"]}},
    ],
    ids=lambda values: next(iter(values)),
)  # fmt: skip
def test_workable_values_are_accepted_by_both_helms(values: dict[str, Any]) -> None:
    """Each is a valid neighbour of a refused value."""
    for package in (PACKAGE, PACKAGE_OF_HELM_3):
        assert rendered(CRON, values, package=package)


def keys_of_the_values() -> list[tuple[str, Any]]:
    """Return every key of values.yaml, including sections, with its default."""
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    sections = [(f"{key}.{name}", item) for key, value in values.items() for name, item in dict_of(value).items()]
    return [*values.items(), *sections]


def dict_of(value: Any) -> dict[str, Any]:
    """Return the value if it is a mapping."""
    return value if isinstance(value, dict) else {}


@pytest.mark.parametrize(
    ("key", "default"), keys_of_the_values(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_null_or_missing_value_is_handled(key: str, default: Any) -> None:
    """An empty default renders as usual, also after `--reuse-values` on an older chart; others are named."""
    ran = helm("template", "test", str(CHART), "--namespace", "news", *flags({"backfill.enabled": True}, {key: None}))
    if default in ("", None, {}, []):
        assert ran.stdout == template({"backfill.enabled": True}, kube="")
    elif ran.returncode:
        assert f"missing property '{key.rpartition('.')[2]}'" in ran.stderr


@both_helms
def test_agents_too_large_for_a_config_map_are_refused(tmp_path: Path, package: str) -> None:
    """The API server accepts one megabyte."""
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump({"agents": {"mine": "a: " + "b" * 1_000_000}}), encoding="utf-8")
    assert "agents: got texts of 1000014 bytes" in refused(CRON, path, package=package)


@both_helms
def test_chart_knows_the_built_in_agents(package: str) -> None:
    """Its list equals that of the package."""
    message = refused(CRON, {"pipelineConfig.agent": "another"}, package=package)
    names = message.partition("need one of ")[2].partition(", or an entry")[0].split(", ")
    assert [load_agent(name).name for name in names] == names
    assert sorted(path.stem for path in Path("pipeline/agents").glob("*.yaml")) == names


@pytest.mark.parametrize(
    "values", [*VALUE_FILES, {}, {"backfill.enabled": True}], ids=lambda value: getattr(value, "stem", "given")
)
def test_both_helms_render_the_same(values: Any) -> None:
    """The objects of helm 3 equal those of helm 4."""
    assert rendered(values) == rendered(values, package=PACKAGE_OF_HELM_3)


@pytest.mark.parametrize("values", VALUE_FILES, ids=lambda path: path.stem)
def test_helm_3_lint_passes(values: Path) -> None:
    """`helm lint --strict` reports no problem."""
    ran = helm("lint", "--strict", str(CHART), "--values", str(values), package=PACKAGE_OF_HELM_3)
    assert ran.returncode == 0, ran.stdout
