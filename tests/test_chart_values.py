"""The values of the Helm chart: what becomes of them in the mounted files, and which are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from charts import CHART, VALUE_FILES, Manifest, helm, job_specs, only, refused, rendered, template
from job_pod import Cluster, mounted, moved, variables

from pipeline.agents import load_agent
from pipeline.config import AppConfig
from pipeline.settings import load_config

EVERYTHING, CRON, PVC = (CHART / "ci" / f"{name}-values.yaml" for name in ("everything", "cron", "pvc"))


OTHERS = [
    {"kind": "Secret", "metadata": {"name": "llm-keys"}, "data": {"VLLM_API_KEY": "YQ==", "OLLAMA_API_KEY": "Yg=="}},
    {"kind": "Secret", "metadata": {"name": "s3-credentials"}, "data": {"id": "aQ=="}},
    {"kind": "ConfigMap", "metadata": {"name": "internal-ca"}, "data": {"ca.pem": ""}},
]
"""What the value files say is in the cluster already."""


def configured(folder: Path, *values: Any) -> tuple[AppConfig, dict[str, str]]:
    """What the program makes of the files that the pod has, and the pod's environment; the paths lead to `folder`."""
    manifests = rendered(*values)
    template = next(iter(job_specs(manifests).values()))["template"]
    claims = {"archive": folder / "archive", **{name: folder / name for name in claims_of(manifests)}}
    cluster, container = Cluster([*manifests, *OTHERS], folder, claims), template["spec"]["containers"][0]
    places = mounted(cluster, template["spec"], folder)
    labels = {"batch.kubernetes.io/job-name": "job"}
    found = variables(cluster, container, {"labels": labels})
    env = {name: moved(value, places) for name, value in found.items()}
    return load_config(env["PIPELINE_CONFIG"], environ=env), env


def claims_of(manifests: list[Manifest]) -> list[str]:
    """The names of the chart's own claims."""
    return [each["metadata"]["name"] for each in manifests if each["kind"] == "PersistentVolumeClaim"]


@pytest.mark.parametrize("values", VALUE_FILES, ids=lambda path: path.stem)
def test_the_program_takes_the_mounted_config(values: Path, tmp_path: Path) -> None:
    """The very file that stands in the ConfigMap, with what the value file says."""
    given = yaml.safe_load(values.read_text(encoding="utf-8"))
    app, _ = configured(tmp_path, values)
    assert app.provider == given["pipelineConfig"].get("provider", "vllm")


def test_each_name_of_config_sets_its_setting(tmp_path: Path) -> None:
    """VLLM_… and OLLAMA_… end in the file, numbers as numbers, replicas as a list."""
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


def test_a_large_number_stays_a_whole_one(tmp_path: Path) -> None:
    """Helm holds numbers as floats, and must not write 2.097152e+07."""
    app, _ = configured(tmp_path, EVERYTHING, {"existingSecret": ""})
    assert (app.input.max_document_bytes, app.runner.max_in_flight_bytes) == (20971520, 536870912)


def test_a_setting_of_config_beats_the_same_one_of_pipeline_config(tmp_path: Path) -> None:
    """The rest of the section stays."""
    app, _ = configured(tmp_path, CRON, {"pipelineConfig.vllm": {"timeout": 5, "stream": True}})
    assert (app.vllm.timeout, app.vllm.stream) == (120, True)


def test_a_zero_is_a_value(tmp_path: Path) -> None:
    """Only what is empty is left out."""
    app, _ = configured(tmp_path, CRON, {"config.VLLM_MAX_RETRIES": 0, "config.VLLM_TEMPERATURE": 0})
    assert (app.vllm.max_retries, app.vllm.temperature) == (0, 0)


def test_what_is_empty_is_left_out() -> None:
    """An Ollama that nobody named must not become the fallback."""
    config = yaml.safe_load(only(rendered(CRON), "ConfigMap", "-config")["data"]["pipeline.yaml"])
    assert "ollama" not in config
    assert set(config["vllm"]) == {"base_url", "model", "timeout", "max_retries", "temperature"}


def test_the_key_is_in_the_secret_and_nowhere_else(tmp_path: Path) -> None:
    """It reaches the program as a file, by VLLM_API_KEY_FILE."""
    app, env = configured(tmp_path, CRON)
    assert app.vllm.api_key_file == env["VLLM_API_KEY_FILE"]
    assert Path(env["VLLM_API_KEY_FILE"]).read_text(encoding="utf-8") == "not-a-real-key"
    assert "not-a-real-key" not in template(CRON)
    assert only(rendered(CRON), "Secret", "-keys")["data"] == {"VLLM_API_KEY": "bm90LWEtcmVhbC1rZXk="}


def test_a_secret_of_ones_own_is_mounted_with_the_keys_it_holds() -> None:
    """And the chart makes none."""
    manifests = rendered(EVERYTHING)
    assert [each for each in manifests if each["kind"] == "Secret"] == []
    pod = job_specs(manifests)["Job"]["template"]["spec"]
    env = {each["name"]: each.get("value") for each in pod["containers"][0]["env"]}
    assert {name for name in env if name.endswith("_FILE")} == {"VLLM_API_KEY_FILE", "OLLAMA_API_KEY_FILE"}
    assert [each["secret"]["secretName"] for each in pod["volumes"] if "secret" in each] == ["llm-keys"]


def test_without_a_key_there_is_no_secret() -> None:
    """Nor a mount, nor a variable."""
    text = template(PVC)
    assert "kind: Secret" not in text
    assert "API_KEY" not in text


def test_the_agents_are_files_that_load(tmp_path: Path) -> None:
    """With their text as it was given: models write the schema's properties in its order."""
    values = CHART / "ci" / "backfill-values.yaml"
    app, _ = configured(tmp_path, values)
    given = yaml.safe_load(values.read_text(encoding="utf-8"))["agents"]["appointments"]
    folder = tmp_path / "etc/extraction-pipeline/agents"
    assert app.agents_dir == str(folder)
    assert (folder / "appointments.yaml").read_text(encoding="utf-8") == given
    assert load_agent(app.agent, agents_dir=folder).schema == yaml.safe_load(given)["schema"]


def test_a_config_map_of_ones_own_takes_the_place_of_the_charts() -> None:
    """It is mounted where the chart's would be."""
    manifests = rendered({"existingConfigMap": "mine"})
    assert [each["metadata"]["name"] for each in manifests if each["kind"] == "ConfigMap"] == []
    pod = job_specs(manifests)["CronJob"]["template"]["spec"]
    assert {"name": "config", "configMap": {"name": "mine"}} in pod["volumes"]


def test_the_output_goes_to_the_volume_unless_it_is_said_to_go_elsewhere(tmp_path: Path) -> None:
    """persistence.enabled is enough."""
    claim = tmp_path / "test-extraction-pipeline-data"
    assert configured(tmp_path, PVC)[0].output.uri == str(claim / "out")
    assert configured(tmp_path, PVC, {"pipelineConfig.output.uri": "/data/other"})[0].output.uri == str(claim / "other")


def env_of(manifests: list[Manifest], kind: str) -> dict[str, Any]:
    """The container's variables, by name."""
    container = job_specs(manifests)[kind]["template"]["spec"]["containers"][0]
    return {each["name"]: each for each in container["env"]}


def test_no_setting_is_a_variable() -> None:
    """A variable never changes in a pod and beats the file: `helm upgrade` could not reach a running pod."""
    for kind in ("Job", "CronJob"):
        ours = {name for name in env_of(rendered(EVERYTHING), kind) if name.startswith(("PIPELINE_", "VLLM", "OLLAMA"))}
        assert ours - {"PIPELINE_CONFIG", "PIPELINE_SHARDS"} == {"VLLM_API_KEY_FILE", "OLLAMA_API_KEY_FILE"}


@pytest.mark.parametrize(
    "values",
    [
        {"cronJob": {"enabled": True}},
        {"config.VLM_BASE_URL": "http://a"},
        {"config.VLLM_TIMEOUT": "soon"},
        {"pipelineConfig.runer": {"concurrency": 3}},
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
        {"extraEnv": {"A": "b"}},
        {"logLevel": "trace"},
        {"metrics.pushgatway": "http://a:1"},
        {"metrics.port": 80},
        {"podLabel": {}},
    ],
    ids=str,
)
def test_what_is_misspelt_is_refused(values: dict[str, Any]) -> None:
    """With the key in the message."""
    key, value = next(iter(values.items()))
    told = refused(CRON, values)
    assert "values don't meet the specifications of the schema" in told
    last = key.rpartition(".")[2]
    assert last in told or (isinstance(value, dict) and any(each in told for each in value))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"pipelineConfig.input.uri": ""}, "pipelineConfig.input.uri: got nothing"),
        ({"pipelineConfig.output.uri": ""}, "pipelineConfig.output.uri: got nothing"),
        ({"config.VLLM_BASE_URL": "", "pipelineConfig.provider": "vllm"}, "config.VLLM_BASE_URL: got nothing"),
        ({"config.VLLM_BASE_URL": ""}, "config.OLLAMA_BASE_URL: got nothing"),
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
def test_what_could_not_work_is_refused(values: dict[str, Any], told: str) -> None:
    """Before anything is installed, in the words of the program: what, the value, what is needed."""
    assert told in refused(CRON, values)


def test_values_that_a_subchart_is_given_are_taken() -> None:
    """Helm adds `global` to the values of a chart that another one depends on."""
    assert rendered(CRON, {"global": {"registry": "internal"}})


@pytest.mark.parametrize("values", VALUE_FILES, ids=lambda path: path.stem)
def test_the_notes_say_what_was_installed(values: Path) -> None:
    """The objects by name, how to watch them, and where the report is; no secret."""
    given = ("install", "test", str(CHART), "--namespace", "news", "--dry-run=client", "--values", str(values))
    ran = helm(*given)
    assert ran.returncode == 0, ran.stderr
    notes = ran.stdout.partition("NOTES:")[2]
    for each in rendered(values):
        if each["kind"] in ("Job", "CronJob"):
            assert each["metadata"]["name"] in notes
    assert "kubectl --namespace news" in notes
    assert "report.html" in notes
    assert "not-a-real-key" not in notes
