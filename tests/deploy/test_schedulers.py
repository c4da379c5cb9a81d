"""The documentation pages for schedulers: pasted commands and files are valid and do what the page says."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import botocore.session
import botocore.validate
import kubernetes_validate
import pytest
import yaml
from charts import CHART, NEWEST, PROJECT, helm, only, rendered
from conftest import Place

from pipeline.cli import parser
from pipeline.config.keys import env_names
from pipeline.errors import EXIT_CONFIG, EXIT_FAILURES
from pipeline.shards import SHARDS

CHART_PAGE = CHART / "README.md"
PAGES = {
    "README": PROJECT / "README.md",
    "scaling": PROJECT / "docs" / "scaling.md",
    "helm": CHART_PAGE,
    **{name: PROJECT / "config" / name / "README.md" for name in ("slurm", "aws-batch", "cloud-run")},
}
SBATCH = PROJECT / "config" / "slurm" / "extract.sbatch"
BATCH_JOB = json.loads((PROJECT / "config" / "aws-batch" / "job-definition.json").read_text(encoding="utf-8"))
CLOUD_RUN = yaml.safe_load((PROJECT / "config" / "cloud-run" / "job.yaml").read_text(encoding="utf-8"))
SCRIPTS = [SBATCH, *sorted((PROJECT / "scripts").glob("*.sh")), PROJECT / ".ci" / "run"]


def blocks(page: Path, kind: str = "") -> list[str]:
    """Return the fenced blocks of this kind on a page, without indentation."""
    matches = re.findall(r"^( *)```(\w*)\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [
        re.sub(rf"^{indent}", "", text, flags=re.MULTILINE) for indent, language, text in matches if language == kind
    ]


def typed(page: Path, start: str) -> list[list[str]]:
    """Return the words of each line in a page's blocks that starts like this, without comments."""
    lines = [line for text in blocks(page) for line in text.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith(start)]


def placed(words: list[str], folder: Path) -> list[str]:
    """Return the words with the page's value files replaced by the test's copies."""
    return [str(folder / word) if word.endswith(".yaml") else word for word in words]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_reports_no_problem(path: Path) -> None:
    """It checks every shell script of the project."""
    program = Path(sys.executable).with_name("shellcheck")
    ran = subprocess.run([program, path], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "")


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES.keys())
def test_links_point_to_existing_files_and_headings(page: Path) -> None:
    """They are the relative links of the pages."""
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", page.read_text(encoding="utf-8")):
        path = page.parent / target if target else page
        assert path.exists(), f"{page}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES.keys())
def test_named_scripts_and_files_exist(page: Path) -> None:
    """They are project paths in text and commands of a page."""
    named = re.findall(r"(?<![\w/-])((?:config|scripts)/[\w./-]+\w)", page.read_text(encoding="utf-8"))
    assert [path for path in named if not (PROJECT / path).exists()] == []


def test_values_on_the_helm_page_install(tmp_path: Path) -> None:
    """Each helm command of the page is run with the value files that it shows."""
    for text in blocks(CHART_PAGE, "yaml"):
        name = text.splitlines()[0].removeprefix("# ").partition(",")[0]
        (tmp_path / name).write_text(text, encoding="utf-8")
    commands = typed(CHART_PAGE, "helm upgrade --install ")
    assert len(commands) == 2
    for words in commands:
        ran = helm("template", *placed(words[3:], tmp_path), "--kube-version", NEWEST)
        assert ran.returncode == 0, ran.stderr
        kinds = {manifest["kind"] for manifest in yaml.safe_load_all(ran.stdout) if manifest}
        assert "CronJob" in kinds
        assert ("Job" in kinds) == ("backfill.yaml" in words)
        assert "news-extraction-pipeline-nightly" in ran.stdout


def test_trial_command_on_the_helm_page_is_accepted() -> None:
    """The script has all its flags."""
    (words,) = typed(CHART_PAGE, "python scripts/job_trial")
    help_text = subprocess.run(
        [sys.executable, PROJECT / words[1], "--help"], capture_output=True, text=True, check=True
    )
    assert all(flag in help_text.stdout for flag in words if flag.startswith("--"))


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES.keys())
def test_each_pipeline_command_on_a_page_is_accepted(page: Path) -> None:
    """This includes commands in a crontab line."""
    for text in blocks(page):
        for command in re.findall(r"(?:^|&& )(pipeline (?:run|check|report)\b[^#>\n]*)", text, re.MULTILINE):
            words = shlex.split(re.sub(r"\s2$", "", command.strip()))
            assert parser().parse_args(words[1:]).command == words[1]


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES.keys())
def test_shell_does_not_change_the_words_of_a_command(page: Path, tmp_path: Path) -> None:
    """bash splits an unquoted `{name=A,value=1}` in two."""
    starts = ("aws ", "docker ", "gcloud ", "helm ", "kubectl ", "pipeline ", "python ", "PIPELINE_SHARDS=", "sbatch ")
    lines = [line for text in blocks(page) for line in text.splitlines() if line.startswith(starts)]
    assert lines
    for line in lines:
        script = f"set -- {line}\nprintf '%s\\n' \"$@\""
        commands = [
            subprocess.run(["bash", *flags, "-uc", script], cwd=tmp_path, capture_output=True, text=True, check=True)
            for flags in ([], ["+B", "-f"])
        ]
        assert commands[0].stdout == commands[1].stdout


def slurm(task: int, low: int, high: int, count: int) -> dict[str, str]:
    """Return the variables that Slurm sets for a task."""
    numbers = {"JOB_ID": 77, "TASK_ID": task, "TASK_MIN": low, "TASK_MAX": high, "TASK_COUNT": count}
    return {f"SLURM_ARRAY_{name}": str(value) for name, value in numbers.items()}


def submitted(place: Place, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the batch script of an array task as slurmd does, with the place's config."""
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    command = ["bash", str(SBATCH), "pipeline.yaml"]
    return subprocess.run(
        command, cwd=place.folder, env={"PATH": path, **env}, capture_output=True, text=True, check=False, timeout=60
    )


def test_slurm_array_processes_the_archive(place: Place) -> None:
    """Four tasks numbered from 1 do every document once, and the run files have the array's id."""
    names = place.documents(12)
    for task in range(1, 5):
        ran = submitted(place, slurm(task, 1, 4, 4))
        assert ran.returncode == 0, ran.stderr
    files = sorted(path.name for path in (place.folder / "out").glob("results-*.jsonl"))
    assert sorted(line["id"] for name in files for line in place.lines(name)) == names
    assert place.report()["missing_shards"] == []
    assert (place.folder / "out" / "runs" / "slurm-77-00000-of-00004.json").exists()


def test_single_shards_can_be_repeated_by_number(place: Place) -> None:
    """The page's `PIPELINE_SHARDS=16 sbatch --array=3,7`; without the variable it is refused."""
    place.documents(4)
    ran = submitted(place, {**slurm(7, 3, 7, 2), "PIPELINE_SHARDS": "16"})
    assert ran.returncode == 0, ran.stderr
    assert place.last_run()["shard"] == "7/16"
    assert submitted(place, slurm(7, 3, 7, 2)).returncode == EXIT_CONFIG


def test_batch_script_stops_before_its_time_limit() -> None:
    """--max-duration is below --time, and SIGTERM comes early enough for runner.grace_s."""
    text = SBATCH.read_text(encoding="utf-8")
    hours, minutes, seconds = re.findall(r"--time=(\d+):(\d+):(\d+)", text)[0]
    (command,) = re.findall(r"exec (pipeline .*)", text)
    arguments = parser().parse_args(shlex.split(command)[1:])
    assert arguments.max_duration < int(hours) * 3600 + int(minutes) * 60 + int(seconds)
    assert int(re.findall(r"--signal=B:TERM@(\d+)", text)[0]) > 25


def complaints(operation: str, given: dict[str, Any]) -> str:
    """Return the errors of a request under the service's own model."""
    model = botocore.session.get_session().get_service_model("batch")
    shape = model.operation_model(operation).input_shape
    return str(botocore.validate.ParamValidator().validate(given, shape).generate_report())


def test_aws_batch_job_definition_is_valid() -> None:
    """The service model of its own client would report a misspelt key."""
    assert complaints("RegisterJobDefinition", BATCH_JOB) == ""
    assert "Unknown parameter" in complaints("RegisterJobDefinition", {**BATCH_JOB, "retryStrategie": {}})


def test_aws_batch_submit_options_exist() -> None:
    """Each option is a field of the request, and the array size is that of the definition."""
    shape = botocore.session.get_session().get_service_model("batch").operation_model("SubmitJob").input_shape
    plain, other = (words[3:] for words in typed(PAGES["aws-batch"], "aws batch submit-job"))
    for words in (plain, other):
        options = dict(zip(words[::2], words[1::2], strict=True))
        fields = {re.sub("-(.)", lambda match: match[1].upper(), name.removeprefix("--")) for name in options}
        assert fields <= set(shape.members)
    assert f"size={env_of(BATCH_JOB['containerProperties'])[SHARDS]}" in plain
    assert ("size=32" in other, "environment=[{name=PIPELINE_SHARDS,value=32}]" in other) == (True, True)


def env_of(container: dict[str, Any]) -> dict[str, str]:
    """Return the variables of a container by name."""
    listed = container.get("environment") or container["env"]
    return {entry["name"]: entry.get("value", "") for entry in listed}


@pytest.mark.parametrize(
    ("command", "env"),
    [
        (BATCH_JOB["containerProperties"]["command"], env_of(BATCH_JOB["containerProperties"])),
        *[
            (container["args"], env_of(container))
            for container in CLOUD_RUN["spec"]["template"]["spec"]["template"]["spec"]["containers"]
        ],
    ],
    ids=["aws-batch", "cloud-run"],
)
def test_containers_have_valid_arguments_and_variables(command: list[str], env: dict[str, str]) -> None:
    """A run ends by itself before a day is over."""
    assert parser().parse_args(command).max_duration < 86400
    assert set(env) <= {*env_names(), SHARDS}
    assert {"PIPELINE_INPUT_URI", "PIPELINE_OUTPUT_URI", "PIPELINE_PROVIDER", "VLLM_BASE_URL"} <= set(env)


def test_cloud_run_task_ends_before_it_is_killed() -> None:
    """Cloud Run grants ten seconds, less than the default grace of a run, so finished work would be lost."""
    (container,) = CLOUD_RUN["spec"]["template"]["spec"]["template"]["spec"]["containers"]
    assert float(env_of(container)["PIPELINE_RUNNER_GRACE_S"]) < 10


def test_batch_retries_only_retryable_exit_codes() -> None:
    """The program's table decides which exit codes end a child."""
    *ends, rest = BATCH_JOB["retryStrategy"]["evaluateOnExit"]
    assert ends == [{"onExitCode": str(code), "action": "EXIT"} for code in (EXIT_FAILURES, EXIT_CONFIG)]
    assert rest == {"onReason": "*", "action": "RETRY"}


def smoke_documents() -> list[str]:
    """Return the YAML documents in scripts/kind_smoke.sh."""
    text = (PROJECT / "scripts" / "kind_smoke.sh").read_text(encoding="utf-8")
    return re.findall(r"<<'YAML'\n(.*?)^YAML$", text, re.DOTALL | re.MULTILINE)


def test_smoke_script_values_render(tmp_path: Path) -> None:
    """The names that the script uses are those of the rendered objects."""
    (tmp_path / "values.yaml").write_text(smoke_documents()[1], encoding="utf-8")
    manifests = rendered(tmp_path / "values.yaml", release="smoke")
    text = (PROJECT / "scripts" / "kind_smoke.sh").read_text(encoding="utf-8")
    job = only(manifests, "Job")
    assert re.findall(r"^shards=(\d+)$", text, re.MULTILINE) == [str(job["spec"]["completions"])]
    assert f"cronjob/{only(manifests, 'CronJob')['metadata']['name']}" in text
    assert f'"claimName": "{only(manifests, "PersistentVolumeClaim")["metadata"]["name"]}"' in text
    assert job["metadata"]["labels"]["app.kubernetes.io/component"] == "backfill"
    config = yaml.safe_load(only(manifests, "ConfigMap", "-config")["data"]["pipeline.yaml"])
    assert config["output"]["uri"] == "/data/out"


def test_smoke_script_server_is_valid() -> None:
    """Its objects match the Kubernetes schemas, and its command has the fake server's flags."""
    deployment, service = yaml.safe_load_all(smoke_documents()[0])
    for manifest in (deployment, service):
        kubernetes_validate.validate(manifest, NEWEST, strict=True)
    command = deployment["spec"]["template"]["spec"]["containers"][0]["command"]
    script = PROJECT / "scripts" / Path(command[1]).name
    help_text = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, check=True).stdout
    assert all(word.partition("=")[0] in help_text for word in command[2:])
    assert service["spec"]["selector"] == deployment["spec"]["template"]["metadata"]["labels"]


def test_smoke_script_overrides_are_json() -> None:
    """kubectl would refuse other text."""
    text = (PROJECT / "scripts" / "kind_smoke.sh").read_text(encoding="utf-8")
    (overrides,) = re.findall(r"--overrides '(.*?)'", text, re.DOTALL)
    assert json.loads(overrides)["spec"]["containers"][0]["command"] == ["cat", "/data/out/report.json"]
