"""The end of a run in a Kubernetes pod: JSON logs only, and a last line with the commands to type."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import Place, json_log
from fake_llm import FakeLLM

from pipeline.run.pod import advice

POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "POD_NAMESPACE": "news", "JOB_NAME": "news-backfill-1a2b3c4d"}
UPGRADE = {"PIPELINE_RESUME_COMMAND": "helm upgrade news CHART --namespace news --reuse-values"}
LOGS = "kubectl --namespace news logs --selector batch.kubernetes.io/job-name=news-backfill-1a2b3c4d --prefix --tail=20"
JSON = ("--log-format", "json")


def last_line(err: str) -> dict[str, Any]:
    """Return the last line of a JSON log."""
    return json_log(err)[-1]


@pytest.mark.parametrize(("code", "message"), [(1, "report"), (2, "fix it"), (3, "tries left"), (143, "tries left")])
def test_each_exit_code_has_advice_for_the_job(code: int, message: str) -> None:
    """The advice has the command that restarts the Job and the one that shows its logs."""
    hint = advice(code, {**POD, **UPGRADE})
    assert hint is not None
    assert message in hint[0]
    assert hint[1] == {"resume": UPGRADE["PIPELINE_RESUME_COMMAND"], "logs": LOGS}


def test_no_advice_outside_a_pod_or_after_success() -> None:
    """On a laptop the user runs the same command again."""
    assert advice(3, {"JOB_NAME": "x"}) is None
    assert advice(0, POD) is None


def test_advice_without_the_chart_names_the_logs_command() -> None:
    """A pod created by hand has at least its own name."""
    assert advice(3, POD) == ("Kubernetes starts another pod while the Job has tries left; once the Job has failed, "
                              "start it again", {"logs": LOGS})  # fmt: skip
    bare = advice(3, {"KUBERNETES_SERVICE_HOST": "x", "HOSTNAME": "pod-1"})
    assert bare is not None
    assert bare[1] == {"logs": "kubectl logs pod-1 --tail=20"}


def test_pod_that_stops_early_logs_the_resume_command_last(place: Place, server: FakeLLM) -> None:
    """It does not suggest `pipeline run`, which cannot be typed in a finished pod; every line is JSON."""
    place.documents(2)
    place.configure({"runner.startup_wait_s": 0, "runner.max_outage_s": 0.1})
    server.down()
    ran = place.run(*JSON, env={**POD, **UPGRADE}, code=3)
    assert ran.out == ""
    assert last_line(ran.err)["resume"] == UPGRADE["PIPELINE_RESUME_COMMAND"]
    assert "pipeline run" not in ran.err
    text = place.run(env={**POD, **UPGRADE}, code=3)
    assert text.err.splitlines()[-1].count("helm upgrade news") == 1
    assert "In Kubernetes, resume with:\n  helm upgrade news CHART" in text.out
    assert "pipeline run" not in text.out


def test_configuration_error_in_a_pod_logs_the_resume_command(place: Place) -> None:
    """This includes errors found before the run begins."""
    ran = place.run(*JSON, "--set", "vllm.modle=x", env={**POD, **UPGRADE}, code=2)
    assert [line["severity"] for line in json_log(ran.err)] == ["ERROR", "WARNING"]
    assert last_line(ran.err)["resume"] == UPGRADE["PIPELINE_RESUME_COMMAND"]


def test_json_log_has_the_summary_as_one_event(place: Place) -> None:
    """The event has all numbers of the summary, and stdout stays empty."""
    place.documents({"a.txt": "A text.", "b.txt": "[[fault:http_400]]", "c.png": "x"})
    ran = place.run(*JSON, "--set", "runner.max_error_rate=1")
    assert ran.out == ""
    event = last_line(ran.err)
    assert event["message"] == "run ends"
    counts = {"found": 3, "done": 1, "failed": 1, "skipped": 0, "ignored": 1, "left": 0}
    assert {name: event[name] for name in counts} == counts
    assert (event["exit_code"], event["verdict"]) == (0, "FINISHED WITH FAILURES")
    assert (event["reasons"], event["remaining_failures"]) == ({"rejected": 1}, 1)
    assert event["requests"] >= 2
    assert event["prompt_tokens"] > 0
    assert event["report"] == "out/report.html"


def test_terminal_shows_the_text_summary_beside_a_json_log(place: Place) -> None:
    """A person at the terminal reads the text while the log stays JSON."""
    place.documents(1)
    ran = place.on_terminal("run", *JSON)
    assert "FINISHED: 1 found" in ran.out
    assert last_line(ran.err)["message"] == "run ends"


def test_usage_error_is_logged_as_json(place: Place) -> None:
    """The error is found before logging is set up, and still respects `--log-format json`."""
    ran = place.run(*JSON, "--bogus", code=2)
    assert all(line["severity"] == "ERROR" for line in json_log(ran.err))
    assert "--bogus" in json_log(ran.err)[0]["message"]


def test_first_shards_of_a_backfill_report_how_many_have_finished(place: Place) -> None:
    """Other shards may still be waiting, so they are not reported as missing; `pipeline report` does report them."""
    place.documents(12)
    for index in range(3):
        event = last_line(place.run(*JSON, "--shard", f"{index}/3").err)
        expected = ("1 of 3 shards has finished", "2 of 3 shards have finished", "FINISHED")[index]
        assert event["all_shards"] == expected
        assert (event["verdict"], event["missing_shards"]) == ("FINISHED", [])
    text = place.run("--shard", "0/4").out
    assert text.startswith("1 of 4 shards has finished: ")
    assert "MISSING" not in text and "Warnings" not in text
    assert "SHARDS ARE MISSING" in place.call("report", "out").out


def test_first_chunks_of_a_plan_report_how_many_have_finished(place: Place) -> None:
    """The summary counts chunks, not shards."""
    place.documents(6)
    assert place.call("plan", "--chunks", "3").code == 0
    assert place.run("--chunk", "0").out.startswith("1 of 3 chunks has finished: ")
    assert place.run("--chunk", "1").out.startswith("2 of 3 chunks have finished: ")


@pytest.mark.parametrize("exists", [False, True])
def test_empty_volume_in_a_pod_explains_how_to_copy_documents(place: Place, exists: bool) -> None:
    """A first run over a new volume exits with 0 and this advice, whether or not the folder exists."""
    if not exists:
        (place.folder / "inbox").rmdir()
    place.configure({"input.min_documents": 0})
    assert "kubectl cp" in place.run(env=POD).err
    assert "kubectl cp" not in place.run().err
