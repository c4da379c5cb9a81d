"""The values of the Helm chart: their effect on the mounted files, and which are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from charts import CHART, VALUE_FILES, Manifest, both_helms, job_specs, only, refused, rendered, template
from job_trial.pod import Cluster, mounted, moved, variables
from values_schema import SCHEMA, as_text, completed

from pipeline.agents import load_agent
from pipeline.config import AppConfig
from pipeline.config.loading import load_config, read_api_key

EVERYTHING, CRON, PVC = (CHART / "ci" / f"{name}-values.yaml" for name in ("everything", "cron", "pvc"))


OTHERS = [
    {"kind": "Secret", "metadata": {"name": "llm-keys"}, "data": {"VLLM_API_KEY": "YQ==", "OLLAMA_API_KEY": "Yg=="}},
    {"kind": "Secret", "metadata": {"name": "s3-credentials"}, "data": {"id": "aQ=="}},
    {"kind": "ConfigMap", "metadata": {"name": "internal-ca"}, "data": {"ca.pem": ""}},
]
"""What the value files say is in the cluster already."""


def configured(folder: Path, *values: Any) -> tuple[AppConfig, dict[str, str]]:
    """Return the configuration that the program loads from the pod's files and environment, below `folder`."""
    manifests = rendered(*values)
    template = next(iter(job_specs(manifests).values()))["template"]
    claims = {"archive": folder / "archive", **{name: folder / name for name in claims_of(manifests)}}
    cluster, container = Cluster([*manifests, *OTHERS], folder, claims), template["spec"]["containers"][0]
    places = mounted(cluster, template["spec"], folder)
    labels = {"batch.kubernetes.io/job-name": "job"}
    result = variables(cluster, container, {"labels": labels, "namespace": "news"})
    env = {name: moved(value, places) for name, value in result.items()}
    return load_config(env["PIPELINE_CONFIG"], environ=env), env


def claims_of(manifests: list[Manifest]) -> list[str]:
    """Return the names of the chart's own claims."""
    return [manifest["metadata"]["name"] for manifest in manifests if manifest["kind"] == "PersistentVolumeClaim"]


@pytest.mark.parametrize("values", VALUE_FILES, ids=lambda path: path.stem)
def test_program_loads_the_mounted_config(values: Path, tmp_path: Path) -> None:
    """It is the file in the ConfigMap, with the settings of the value file."""
    given = yaml.safe_load(values.read_text(encoding="utf-8"))
    app, _ = configured(tmp_path, values)
    assert app.provider == given["pipelineConfig"].get("provider", "vllm")


def test_each_config_name_sets_its_setting(tmp_path: Path) -> None:
    """VLLM_… and OLLAMA_… names end up in the file, numbers as numbers and replicas as a list."""
    app, _ = configured(tmp_path, EVERYTHING, {"existingSecret": "", "config.VLLM_BASE_URL": "http://a:1, http://b:2"})
    vllm, ollama = app.vllm, app.ollama
    assert vllm.base_urls == ("http://a:1", "http://b:2")
    assert (vllm.model, vllm.timeout, vllm.max_retries, vllm.max_tokens) == ("qwen3", 120, 2, 900)
    assert (vllm.retry_base_delay, vllm.retry_max_delay, vllm.retry_backoff_multiplier) == (0.5, 20, 3)
    assert vllm.temperature == 0
    assert (ollama.base_url, ollama.model, ollama.timeout) == ("http://ollama:11434", "llama3.1", 240)
    assert (ollama.max_retries, ollama.max_tokens, ollama.temperature) == (1, 700, 0.1)
    assert (ollama.retry_base_delay, ollama.retry_max_delay, ollama.retry_backoff_multiplier) == (0.5, 10, 1.5)
    assert (ollama.num_ctx, ollama.keep_alive) == (16384, "30m")


def test_large_number_stays_an_integer(tmp_path: Path) -> None:
    """Helm holds numbers as floats, and must not write 2.097152e+07."""
    app, _ = configured(tmp_path, EVERYTHING, {"existingSecret": ""})
    assert (app.input.max_document_bytes, app.runner.max_in_flight_bytes) == (20971520, 536870912)


def test_config_overrides_pipeline_config(tmp_path: Path) -> None:
    """The rest of the section stays."""
    app, _ = configured(tmp_path, CRON, {"pipelineConfig.vllm": {"timeout": 5, "stream": True}})
    assert (app.vllm.timeout, app.vllm.stream) == (120, True)


def test_zero_is_kept(tmp_path: Path) -> None:
    """Only empty values are left out."""
    app, _ = configured(tmp_path, CRON, {"config.VLLM_MAX_RETRIES": 0, "config.VLLM_TEMPERATURE": 0})
    assert (app.vllm.max_retries, app.vllm.temperature) == (0, 0)


def test_texts_stay_texts(tmp_path: Path) -> None:
    """They pass two YAML files without becoming numbers or booleans."""
    texts = ["1e6", "true", "on", "~", "1:30", "0x1f", "2026-01-01", "=", "- a", "a: b #c", "{{ .Release.Name }}"]
    headers = {f"X-{n}": text for n, text in enumerate(texts)}
    app, _ = configured(tmp_path, CRON, {"config.VLLM_MODEL": "1e6", "pipelineConfig.vllm.headers": headers})
    assert (app.vllm.model, dict(app.vllm.headers)) == ("1e6", headers)


@pytest.mark.parametrize("key", ["p@$$'\"\\ w:#{{ .Values }}", "true", "0123", "a=,b"])
def test_key_may_have_any_character(key: str, tmp_path: Path) -> None:
    """The program reads it unchanged, without a final line end added by an editor."""
    app, _ = configured(tmp_path, CRON, {"config.VLLM_API_KEY": key + "\n"})
    assert read_api_key(app.vllm) == key


def test_default_values_work(tmp_path: Path) -> None:
    """Documents and output are in the chart's own volume, and the server is the Service `ollama`."""
    app, _ = configured(tmp_path)
    claim = tmp_path / "test-extraction-pipeline-data"
    assert [source.uri for source in app.input.uri] == [str(claim / "inbox")]
    assert (app.output.uri, app.ollama.base_url) == (str(claim / "out"), "http://ollama:11434")
    assert configured(tmp_path, {"pipelineConfig.provider": "vllm"})[0].vllm.base_url == "http://vllm:8000"


def test_volume_exists_only_if_needed_or_requested() -> None:
    """An object store or a custom config needs none."""
    assert claims_of(rendered(CRON)) == []
    assert claims_of(rendered({"existingConfigMap": "mine"})) == []
    assert claims_of(rendered(CRON, {"persistence.enabled": True})) == ["test-extraction-pipeline-data"]


def test_chart_sets_cluster_defaults(tmp_path: Path) -> None:
    """A changed key reaches pods only after a kubelet sync, and the lock wait covers the life of a Job."""
    runner = configured(tmp_path, CRON)[0].runner
    assert (runner.config_grace_s, runner.lock_wait_s) == (300, 21600)
    own = configured(tmp_path, CRON, {"pipelineConfig.runner": {"config_grace_s": 5, "lock_wait_s": 6}})[0].runner
    assert (own.config_grace_s, own.lock_wait_s) == (5, 6)


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        ({"backfill.enabled": True}, 2592000),
        ({"backfill.enabled": True, "backfill.activeDeadlineSeconds": 86400}, 86400),
        ({"backfill.enabled": True, "backfill.activeDeadlineSeconds": 600}, 21600),
        ({"cronjob.activeDeadlineSeconds": None}, 2592000),
        ({"cronjob.enabled": False, "backfill.enabled": True, "backfill.activeDeadlineSeconds": 600}, 600),
    ],
)
def test_lock_wait_covers_the_longest_job(values: Any, seconds: int, tmp_path: Path) -> None:
    """Without a deadline the lock wait is 30 days."""
    assert configured(tmp_path, CRON, values)[0].runner.lock_wait_s == seconds


@pytest.mark.parametrize(
    ("values", "least"),
    [
        ({}, 0),
        ({"pipelineConfig.input.uri": "/data/archive"}, 0),
        ({"pipelineConfig.input.min_documents": 5}, 5),
        ({"pipelineConfig.input.uri": "s3://news/inbox"}, 1),
        ({"persistence.existingClaim": "archive"}, 1),
    ],
    ids=str,
)
def test_min_documents_is_0_for_the_charts_volume(values: Any, least: int, tmp_path: Path) -> None:
    """It is empty until documents are copied; another input needs at least one."""
    config = yaml.safe_load(only(rendered(values), "ConfigMap", "-config")["data"]["pipeline.yaml"])
    assert config["input"].get("min_documents", 1) == least


@pytest.mark.parametrize(("given", "sent"), [("-1", -1), ("600", 600), (-1, -1), ("10m", "10m")])
def test_numeric_keep_alive_is_a_number(given: Any, sent: Any, tmp_path: Path) -> None:
    """Variables are text, but Ollama accepts digits as seconds only as a number."""
    assert configured(tmp_path, PVC, {"config.OLLAMA_KEEP_ALIVE": given})[0].ollama.keep_alive == sent


def test_empty_values_are_left_out() -> None:
    """An unconfigured Ollama must not become the fallback."""
    config = yaml.safe_load(only(rendered(CRON), "ConfigMap", "-config")["data"]["pipeline.yaml"])
    assert "ollama" not in config
    assert set(config["vllm"]) == {"base_url", "model", "timeout", "max_retries", "temperature"}


def test_key_is_only_in_the_secret(tmp_path: Path) -> None:
    """The program gets it as a file, by VLLM_API_KEY_FILE."""
    app, env = configured(tmp_path, CRON)
    assert app.vllm.api_key_file == env["VLLM_API_KEY_FILE"]
    assert Path(env["VLLM_API_KEY_FILE"]).read_text(encoding="utf-8") == "not-a-real-key"
    assert "not-a-real-key" not in template(CRON)
    assert only(rendered(CRON), "Secret", "-keys")["data"] == {"VLLM_API_KEY": "bm90LWEtcmVhbC1rZXk="}


def test_custom_secret_is_mounted_with_its_keys() -> None:
    """The chart then creates none."""
    manifests = rendered(EVERYTHING)
    assert [manifest for manifest in manifests if manifest["kind"] == "Secret"] == []
    pod = job_specs(manifests)["Job"]["template"]["spec"]
    env = {variable["name"]: variable.get("value") for variable in pod["containers"][0]["env"]}
    assert {name for name in env if name.endswith("_FILE")} == {"VLLM_API_KEY_FILE", "OLLAMA_API_KEY_FILE"}
    assert [volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume] == ["llm-keys"]


def test_no_secret_without_a_key() -> None:
    """There is no mount and no variable either."""
    text = template(PVC)
    assert "kind: Secret" not in text
    assert "API_KEY" not in text


def test_mounted_agents_load(tmp_path: Path) -> None:
    """Their text is unchanged, because models write properties in the schema's order."""
    values = CHART / "ci" / "backfill-values.yaml"
    app, _ = configured(tmp_path, values)
    given = yaml.safe_load(values.read_text(encoding="utf-8"))["agents"]["appointments"]
    folder = tmp_path / "etc/extraction-pipeline/agents"
    assert app.agents_dir == str(folder)
    assert (folder / "appointments.yaml").read_text(encoding="utf-8") == given
    assert load_agent(app.agent, agents_dir=folder).schema == yaml.safe_load(given)["schema"]


def test_custom_config_map_replaces_the_charts() -> None:
    """It is mounted at the same path."""
    manifests = rendered({"existingConfigMap": "mine"})
    assert [manifest["metadata"]["name"] for manifest in manifests if manifest["kind"] == "ConfigMap"] == []
    pod = job_specs(manifests)["CronJob"]["template"]["spec"]
    assert {"name": "config", "configMap": {"name": "mine"}} in pod["volumes"]


def test_output_goes_to_the_volume_by_default(tmp_path: Path) -> None:
    """Setting persistence.enabled is enough."""
    claim = tmp_path / "test-extraction-pipeline-data"
    assert configured(tmp_path, PVC)[0].output.uri == str(claim / "out")
    assert configured(tmp_path, PVC, {"pipelineConfig.output.uri": "/data/other"})[0].output.uri == str(claim / "other")


def env_of(manifests: list[Manifest], kind: str) -> dict[str, Any]:
    """Return the container's variables by name."""
    container = job_specs(manifests)[kind]["template"]["spec"]["containers"][0]
    return {variable["name"]: variable for variable in container["env"]}


def test_no_setting_is_an_environment_variable() -> None:
    """A variable overrides the file and never changes in a pod, so `helm upgrade` could not reach it."""
    for kind in ("Job", "CronJob"):
        settings = {
            name for name in env_of(rendered(EVERYTHING), kind) if name.startswith(("PIPELINE_", "VLLM", "OLLAMA"))
        }
        others = {"PIPELINE_CONFIG", "PIPELINE_SHARDS", "PIPELINE_RESUME_COMMAND"}
        assert settings - others == {"VLLM_API_KEY_FILE", "OLLAMA_API_KEY_FILE"}


@both_helms
@pytest.mark.parametrize(
    "values",
    [
        {"cronJob": {"enabled": True}},
        {"config.VLM_BASE_URL": "http://a"},
        {"config.VLLM_TIMEOUT": "soon"},
        {"pipelineConfig.runer": {"concurrency": 3}},
        {"pipelineConfig.runner.concurency": 3},
        {"pipelineConfig.input.urii": "s3://a/b"},
        {"pipelineConfig.providers.big": {"type": "vllm", "base_ulr": "http://a"}},
        {"cronjob.shedule": "* * * * *"},
        {"cronjob.schedule": "at night"},
        {"cronjob.concurrencyPolicy": "forbid"},
        {"cronjob.maxDuration": "5 hours"},
        {"cronjob.maxRedo": 10},
        {"backfill.shards": 0},
        {"backfill.shards": "16"},
        {"backfill.paralelism": 3},
        {"image.tags": "1"},
        {"image.digest": "sha256:0"},
        {"persistence.size": "20 GB"},
        {"persistence.accessModes": []},
        {"agents": {"appointments": {"schema": {}}}},
        {"existingSecretKeys": ["OPENAI_API_KEY"]},
        {"resources.request": {"cpu": 1}},
        {"resources.limits.memroy": "1Gi"},
        {"extraEnv": {"A": "b"}},
        {"extraEnv": [{"name": "A", "valu": "b"}]},
        {"extraEnvFrom": [{"secret": {"name": "a"}}]},
        {"extraVolumes": [{"name": "a", "confgMap": {"name": "b"}}]},
        {"extraVolumeMounts": [{"name": "a", "mountpath": "/a"}]},
        {"affinity.nodeAfinity": {}},
        {"tolerations": [{"kee": "batch"}]},
        {"topologySpreadConstraints": [{"maxSkeww": 1}]},
        {"securityContext.readOnlyRootFilesytem": True},
        {"podSecurityContext.seccompProfile.typ": "RuntimeDefault"},
        {"fullnameOverride": "My_Name"},
        {"logLevel": "trace"},
        {"metrics.pushgatway": "http://a:1"},
        {"metrics.port": 80},
        {"podLabel": {}},
    ],
    ids=str,
)
def test_misspelt_value_is_refused(values: dict[str, Any], package: str) -> None:
    """The message contains the key."""
    key, value = next(iter(values.items()))
    message = refused(CRON, values, package=package)
    assert "values don't meet the specifications of the schema" in message
    given = value[0] if isinstance(value, list) and value else value
    assert any(name in message for name in (key.rpartition(".")[2], *(given if isinstance(given, dict) else ())))


def test_values_schema_is_current() -> None:
    """`python scripts/values_schema.py` copies the settings and the Kubernetes objects into it."""
    text = SCHEMA.read_text(encoding="utf-8")
    assert as_text(completed(json.loads(text))) == text


@both_helms
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pipelineConfig.input.uri": ""}, "pipelineConfig.input.uri: got nothing"),
        ({"pipelineConfig.output.uri": "", "persistence.enabled": False}, "pipelineConfig.output.uri: got nothing"),
        ({"pipelineConfig.vllm.api_key": "k3y"}, "pipelineConfig.vllm.api_key: got a key, which a ConfigMap would"),
        ({"pipelineConfig.providers.big": {"type": "vllm", "api_key": "k3y"}}, "providers.big.api_key: got a key"),
        ({"existingConfigMap": "mine"}, "existingConfigMap: got config or pipelineConfig as well"),
        ({"existingSecret": "mine"}, "existingSecret: got config.VLLM_API_KEY as well"),
        ({"terminationGracePeriodSeconds": 25}, "terminationGracePeriodSeconds: got 25, need more than"),
        ({"pipelineConfig.runner.grace_s": 60}, "need more than runner.grace_s (60)"),
        ({"cronjob.maxDuration": "6h"}, "cronjob.maxDuration: got 6h, need less than"),
        ({"cronjob.maxDuration": "1d"}, "cronjob.maxDuration: got 1d"),
        ({"cronjob.maxDuration": "5h59m60s"}, "cronjob.maxDuration: got 5h59m60s"),
        ({"metrics.podMonitor.enabled": True}, "metrics.podMonitor.enabled: got true without metrics.port"),
        ({"backfill": {"enabled": True, "shards": 2, "maxFailedIndexes": 3}}, "backfill.maxFailedIndexes: got 3"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_unworkable_values_are_refused(values: dict[str, Any], message: str, package: str) -> None:
    """The message contains the key, the value and the need, in the words of the program."""
    error = refused(CRON, values, package=package)
    assert message in error
    assert "k3y" not in error


def test_values_of_a_subchart_are_accepted() -> None:
    """Helm adds `global` to the values of a dependency."""
    assert rendered(CRON, {"global": {"registry": "internal"}})
