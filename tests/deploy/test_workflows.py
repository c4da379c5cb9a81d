"""The examples for workflow engines: valid pods, existing steps, and accepted commands."""

from __future__ import annotations

import re
import runpy
from importlib.util import find_spec
from typing import Any

import kubernetes_validate
import pytest
import yaml
from charts import NEWEST, OLDEST, PROJECT
from conftest import Place

from pipeline.cli import parser
from pipeline.config.keys import env_names

ARGO = yaml.safe_load((PROJECT / "config" / "argo" / "workflow.yaml").read_text(encoding="utf-8"))
RAY_JOB = yaml.safe_load((PROJECT / "config" / "kuberay" / "rayjob.yaml").read_text(encoding="utf-8"))
DAG = PROJECT / "config" / "airflow" / "extract_archive.py"
TEMPLATES = {template["name"]: template for template in ARGO["spec"]["templates"]}
GROUPS = [RAY_JOB["spec"]["rayClusterSpec"]["headGroupSpec"], *RAY_JOB["spec"]["rayClusterSpec"]["workerGroupSpecs"]]
CONTAINERS = [
    *(template["container"] for template in TEMPLATES.values() if "container" in template),
    *(container for group in GROUPS for container in group["template"]["spec"]["containers"]),
]


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_containers_are_valid_for_kubernetes(version: str) -> None:
    """No field is unknown in any version that the chart supports."""
    for container in CONTAINERS:
        spec = {"containers": [{"name": "main", **container}]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "example"}, "spec": spec}
        kubernetes_validate.validate(pod, version, strict=True)


def test_containers_have_known_variables() -> None:
    """They are variables of settings, of servers and of Ray."""
    allowed = {*env_names(), "RAY_USAGE_STATS_ENABLED"}
    assert {variable["name"] for container in CONTAINERS for variable in container["env"]} <= allowed


def filled(words: list[str]) -> list[str]:
    """Return the words with 7 for each parameter of Argo."""
    return [re.sub(r"\{\{.*?\}\}", "7", word) for word in words]


def test_argo_steps_match_their_templates() -> None:
    """Each parameter is given, and the program accepts each command."""
    steps = [step for group in TEMPLATES[ARGO["spec"]["entrypoint"]]["steps"] for step in group]
    assert [step["template"] for step in steps] == ["plan", "chunk", "report"]
    for step in steps:
        template = TEMPLATES[step["template"]]
        given = {parameter["name"] for parameter in step.get("arguments", {}).get("parameters", [])}
        needed = {parameter["name"] for parameter in template.get("inputs", {}).get("parameters", [])}
        used = set(re.findall(r"inputs\.parameters\.(\w+)", str(template["container"])))
        assert given == needed == used
        words = template["container"]["command"][2:] + template["container"]["args"]
        assert parser().parse_args(filled(words[1:])).command == step["template"].replace("chunk", "run")
    assert steps[1]["withSequence"]["count"] == "{{steps.plan.outputs.result}}"


def test_ray_job_command_is_accepted() -> None:
    """It runs as many chunks at a time as its workers have processors."""
    arguments = parser().parse_args(RAY_JOB["spec"]["entrypoint"].split()[1:])
    workers = RAY_JOB["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert arguments.slots == sum(group["replicas"] * int(group["rayStartParams"]["num-cpus"]) for group in workers)


def test_plan_can_print_only_the_number_of_chunks(place: Place) -> None:
    """A workflow counts up to it, even if no chunk is new."""
    place.documents(8)
    for _ in range(2):
        ran = place.call("plan", "--count", "--chunks", "4")
        assert (ran.code, ran.out) == (0, "4\n")


def test_airflow_dag_commands_are_accepted() -> None:
    """Without Airflow the file is only compiled."""
    text = DAG.read_text(encoding="utf-8")
    compile(text, str(DAG), "exec")
    for words in re.findall(r"\[\"pipeline\", (.*?)\]", text):
        typed = [word.strip('"') if word.startswith('"') else "7" for word in words.split(", ")]
        assert parser().parse_args(typed).command in ("plan", "report")


@pytest.mark.skipif(find_spec("airflow") is None, reason="needs apache-airflow 3")
def test_airflow_loads_the_dag() -> None:
    """It has three tasks in order."""
    dag: Any = runpy.run_path(str(DAG))["extract_archive"]()
    assert [task.task_id for task in dag.tasks] == ["plan", "chunk", "report"]
