"""The notes of the chart: names, commands that work, and next steps.

States that only a cluster shows (a failed, a finished, a running backfill) are in test_chart_upgrades.py.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from charts import CHART, NEWEST, VALUE_FILES, Manifest, job_specs, notes, rendered

from pipeline.cli import parser
from pipeline.errors import EXIT_CONFIG, EXIT_FAILURES

EVERYTHING, BACKFILL, CRON, PVC, S3 = (
    CHART / "ci" / f"{name}-values.yaml" for name in ("everything", "backfill", "cron", "pvc", "s3")
)


def commands(text: str, program: str) -> list[list[str]]:
    """Return the words of each command in the notes that begins with this program."""
    whole = text.replace("\\\n", " ")
    return [shlex.split(line, comments=True) for line in whole.splitlines() if line.startswith(f"  {program} ")]


def pods_run(text: str) -> dict[str, Manifest]:
    """Return the pods that `kubectl run` commands of the notes create, by name."""
    collected = {}
    for words in commands(text, "kubectl"):
        if words[3] == "run":
            (overrides,) = [word.partition("=")[2] for word in words if word.startswith("--overrides=")]
            collected[words[4]] = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": words[4]},
                **json.loads(overrides),
            }
    return collected


@pytest.mark.parametrize("values", [*VALUE_FILES, {}], ids=lambda value: getattr(value, "stem", "default"))
def test_notes_name_the_installed_objects(values: Any) -> None:
    """They also explain how to watch them and where the report is, without secrets or unexpanded templates."""
    text = notes(values)
    for manifest in rendered(values):
        if manifest["kind"] in ("Job", "CronJob"):
            assert manifest["metadata"]["name"] in text
    assert all(words[:3] == ["kubectl", "--namespace", "news"] for words in commands(text, "kubectl"))
    assert "report.html" in text
    assert "helm test test --namespace news" in text
    assert "not-a-real-key" not in text
    assert not re.search(r"<no value>|%!|map\[|\\u0026|<nil>", text)


@pytest.mark.parametrize("values", [{}, PVC, EVERYTHING], ids=lambda value: getattr(value, "stem", "default"))
def test_pods_of_the_notes_are_restricted(values: Any) -> None:
    """They are valid, with the security context, volume and placement of the chart's pods."""
    result = pods_run(notes(values))
    assert any(name.endswith("-report") for name in result)
    job_pod = next(iter(job_specs(rendered(values)).values()))["template"]["spec"]
    for pod in result.values():
        kubernetes_validate.validate(pod, NEWEST, strict=True)
        assert pod["spec"]["securityContext"] == job_pod["securityContext"]
        for key in ("securityContext", "resources"):
            assert pod["spec"]["containers"][0][key] == job_pod["containers"][0][key]
        assert [volume for volume in pod["spec"]["volumes"] if volume not in job_pod["volumes"]] == []
        assert pod["spec"].get("tolerations") == job_pod.get("tolerations")


@pytest.mark.parametrize("folder", ["/data/inbox", "/data/it's here/*.txt"])
def test_notes_show_how_to_copy_documents(folder: str) -> None:
    """For the chart's own volume: a pod that creates the folder, `kubectl cp`, and the deletion of the pod."""
    text = notes({"pipelineConfig.input.uri": folder} if "*" in folder else {})
    place = folder.removesuffix("/*.txt")
    container = pods_run(text)["test-extraction-pipeline-inbox"]["spec"]["containers"][0]
    assert container["command"] == ["sh", "-c", 'mkdir -p "$0" && exec sleep 86400', place]
    assert container["volumeMounts"][0]["readOnly"] is False
    (copied,) = [words for words in commands(text, "kubectl") if words[3] == "cp"]
    assert copied[4:] == ["./documents", f"test-extraction-pipeline-inbox:{place}/"]
    assert "a run without documents ends with exit code 0" in text


@pytest.mark.parametrize("values", [CRON, S3, BACKFILL, PVC], ids=lambda path: path.stem)
def test_notes_for_other_inputs_have_no_copy_command(values: Path) -> None:
    """The documents are in a store, or in an existing volume."""
    assert "kubectl cp" not in notes(values)
    assert "-inbox" not in notes(values)


def test_notes_explain_a_pending_volume() -> None:
    """Without a volume this part is left out."""
    assert "Pods that stay Pending" in notes()
    assert "ReadWriteOnce" in notes().partition("volume ")[2].partition("\n")[0]
    assert "Pending" not in notes(S3)


def test_notes_explain_how_to_change_and_repair_a_backfill() -> None:
    """By values, by --force-conflicts after a patch, by an upgrade after a failure, or by the revision."""
    text = notes(BACKFILL)
    assert "helm upgrade test CHART --namespace news --reuse-values --set backfill.parallelism=2" in text
    assert "--force-conflicts" in text
    assert "an upgrade starts it again" in text
    assert "set another backfill.revision instead" in text
    assert "--prefix --tail=20" in text


def test_notes_with_both_jobs_explain_the_lock() -> None:
    """Only one of them uses the output at a time."""
    assert "a nightly Job that meets the backfill waits for it\nuntil 5h after its scheduled time" in notes(
        {"backfill.enabled": True}
    )
    suspended = notes({"backfill.enabled": True, "cronjob.suspend": True})
    assert "a nightly Job that meets" not in suspended
    assert "suspended" in suspended


def test_notes_name_a_custom_config_map() -> None:
    """They list what the chart cannot see in it."""
    text = notes({"existingConfigMap": "mine", "backfill.enabled": True})
    assert "ConfigMap mine, key pipeline.yaml" in text
    assert "runner.config_grace_s: 300" in text
    assert "The question is in a ConfigMap that the chart cannot read" in text


@pytest.mark.parametrize(
    ("output", "command"),
    [
        ("s3://news/out/", "aws s3 cp s3://news/out/report.html ."),
        ("gs://news/out", "gcloud storage cp gs://news/out/report.html ."),
        ("az://news/out/2026", "--container-name news --name out/2026/report.html"),
    ],
)
def test_notes_fetch_the_report_with_the_stores_tool(output: str, command: str) -> None:
    """Each store has its command."""
    assert command in notes(CRON, {"pipelineConfig.output.uri": output})


def test_notes_explain_each_exit_code() -> None:
    """The codes are the program's, and the failure policy matches the explanation."""
    text = notes().partition("Exit codes")[2]
    for code in ("0 ", f"{EXIT_FAILURES} ", f"{EXIT_CONFIG} ", "3, 70, 143", "137"):
        assert f"\n  {code}" in text
    assert "--delete-emptydir-data" in text


def test_notes_mention_cpu_quotas_without_a_cpu_limit() -> None:
    """A namespace with such a quota refuses pods without limits.cpu."""
    assert "limits.cpu" in notes()
    assert "limits.cpu" not in notes({"resources.limits.cpu": 2})


def test_notes_explain_max_redo() -> None:
    """cronjob.maxRedo stops a run that would redo many documents."""
    assert "--set cronjob.maxRedo=1" in notes()
    assert "more than 10 %" in notes()
    assert "maxRedo" not in notes({"cronjob.maxRedo": None})
    assert parser().parse_args(["run", "--set=runner.max_redo=1"]).set == ["runner.max_redo=1"]
