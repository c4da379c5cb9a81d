"""The chart's pods when they run: rendered containers as local processes, with a fake server."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from charts import Manifest, check_pod, job_specs, only, rendered
from fake_llm import FakeLLM
from job_trial.pod import Cluster, Pod, start_pod

CLAIM = "test-extraction-pipeline-data"
WAIT_S = 60.0
AGENT = {
    "user_prompt": "$document",
    "schema": {"type": "object", "properties": {"summary": {"type": "string"}}, "required": ["summary"]},
}


def values_for(server: FakeLLM) -> dict[str, Any]:
    """Return the default values with the server's address and an agent that the fake server can answer."""
    return {
        "config": {"VLLM_BASE_URL": server.url, "VLLM_MODEL": "llama3.1", "VLLM_API_KEY": "chart-key"},
        "agents": {"small": json.dumps(AGENT)},
        "pipelineConfig.agent": "small",
    }


def ended(manifests: list[Manifest], template: Manifest, folder: Path, *, job: str) -> tuple[int, str]:
    """Run a pod of this template; return its exit code and log."""
    (folder / "data").mkdir(exist_ok=True)
    cluster = Cluster(manifests, folder, {CLAIM: folder / "data"})
    pod = start_pod(cluster, template, job=job, index=0, indexed=False, read_only=False)
    return _code(pod), pod.log.read_text(encoding="utf-8")


def log_lines(log: str) -> list[str]:
    """Return the log lines of the program, without those of the init."""
    return [line for line in log.splitlines() if line.startswith("{")]


def _code(pod: Pod) -> int:
    pod.process.wait(timeout=WAIT_S)
    code = pod.poll()
    assert code is not None
    return code


@pytest.fixture
def server() -> Any:
    """Yield a fake vLLM that requires a key."""
    with FakeLLM(("llama3.1",), api_key="chart-key") as fake:
        yield fake


def nightly(manifests: list[Manifest], *, minutes_ago: int = 0) -> tuple[Manifest, str]:
    """Return the nightly pod template, and the name of a Job scheduled this long ago."""
    name = only(manifests, "CronJob")["metadata"]["name"]
    return job_specs(manifests)["CronJob"]["template"], f"{name}-{int(time.time()) // 60 - minutes_ago}"


def test_first_night_on_an_empty_volume_exits_with_0(server: FakeLLM, tmp_path: Path) -> None:
    """A warning names the folder; once documents are there, the second night processes them."""
    manifests = rendered(values_for(server))
    template, job = nightly(manifests)
    code, log = ended(manifests, template, tmp_path, job=job)
    assert (code, "does not exist and counts as empty" in log) == (0, True), log
    inbox = tmp_path / "data" / "inbox"
    inbox.mkdir()
    (inbox / "a.txt").write_text("A text of the first night.", encoding="utf-8")
    code, log = ended(manifests, template, tmp_path, job=job)
    assert code == 0, log
    assert len((tmp_path / "data" / "out" / "results.jsonl").read_text(encoding="utf-8").splitlines()) == 1


def test_retry_after_max_duration_sends_no_request(server: FakeLLM, tmp_path: Path) -> None:
    """Its Job was scheduled longer ago than maxDuration: it exits with 0 and leaves the documents."""
    manifests = rendered(values_for(server))
    inbox = tmp_path / "data" / "inbox"
    inbox.mkdir(parents=True)
    (inbox / "a.txt").write_text("A text that must wait.", encoding="utf-8")
    template, job = nightly(manifests, minutes_ago=301)
    code, log = ended(manifests, template, tmp_path, job=job)
    (end,) = [record for record in map(json.loads, log_lines(log)) if record["message"] == "run ends"]
    assert (code, end["done"], end["left"]) == (0, 0, 1)


@pytest.mark.parametrize(("key", "code"), [("chart-key", 0), ("another-key", 2)])
def test_helm_test_exits_like_check(server: FakeLLM, tmp_path: Path, key: str, code: int) -> None:
    """It is 0 when the server answers, and 2 for a refused key."""
    values = {**values_for(server), "config.VLLM_API_KEY": key}
    exit_code, log = ended(rendered(values), check_pod(values), tmp_path, job="check")
    assert exit_code == code, log
