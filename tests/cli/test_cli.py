"""The command line as people and scripts meet it: usage, exit codes 2 and 3, streams and terminals."""

from __future__ import annotations

import os
import re
import resource
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping

import pytest
from conftest import COMMAND, Place, line_with
from fake_llm import FakeLLM
from timing import Gate

from pipeline.cli import parser
from pipeline.cli.arguments import same_command
from pipeline.cli.flags import started_at

LENIENT = ("--set", "runner.max_error_rate=1")


@pytest.mark.parametrize("command", ["run", "check", "try", "report", "errors", "diff", "init", "schema"])
def test_every_command_has_help_with_an_example(place: Place, command: str) -> None:
    """And the exit codes."""
    ran = place.call(command, "--help")
    assert ran.code == 0
    assert f"pipeline {command}" in ran.out.partition("example")[2]
    assert "exit codes" in ran.out


def test_python_m_is_the_same_program(place: Place) -> None:
    """The version and the code of a wrong usage."""
    for arguments in (["--version"], ["run", "--nonsense"], ["check", "--agent", "nobody"]):
        both = [
            subprocess.run([*command, *arguments], cwd=place.folder, capture_output=True, text=True, check=False)
            for command in (COMMAND, (sys.executable, "-m", "pipeline"))
        ]
        first, second = ((each.returncode, each.stdout, re.sub(r"^\S+Z ", "", each.stderr)) for each in both)
        assert first == second


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("run", "--nonsense"),
        ("run", "--limit", "0"),
        ("run", "--limit", "many"),
        ("run", "--max-duration", "soon"),
        ("run", "--shard", "2/2"),
        ("run", "--shard", "x"),
        ("run", "--concurrency", "0"),
        ("run", "--concurrency", "lots"),
        ("run", "--set", "nothing"),
        ("run", "--run-id", "a/b"),
        ("run", "--redo", "some"),
        ("run", "--only-failed", "no_such_reason"),
        ("run", "--variant", "no-such-variant"),
        ("run", "--config", "no-such-file.yaml"),
        ("run", "--input", "no-such-folder"),
        ("run", "--input", "out", "--output", "out"),
        ("run", "--output", "inbox/d000.txt"),
        ("run", "--output", "s3://bucket/out"),
    ],
)
def test_a_wrong_usage_is_exit_2_and_asks_nothing(place: Place, arguments: tuple[str, ...]) -> None:
    """With a message of a line or two that is no traceback, and no output folder."""
    place.documents(1)
    ran = place.call(*arguments)
    assert ran.code == 2
    assert ran.err
    assert "Traceback" not in ran.err
    assert place.asked() == []
    assert not (place.folder / "out" / "results.jsonl").exists()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"runner.concurency": 3}, ["pipeline.yaml", "runner.concurency", "runner.concurrency"]),
        ({"runner.grace_s": -3}, ["pipeline.yaml", "runner.grace_s", "-3", ">= 0"]),
        ({"vllm.timeout": "soon"}, ["pipeline.yaml", "vllm.timeout", "soon"]),
        ({"agent": "smal"}, ["pipeline.yaml", "agent: ", "smal", "small"]),
        ({"agents_dir": "nowhere"}, ["pipeline.yaml", "agents_dir: ", "nowhere"]),
        ({"vllm.api_key_file": "nokey"}, ["pipeline.yaml", "vllm.api_key_file: ", "nokey"]),
        ({"vllm.ca_file": "no.pem"}, ["pipeline.yaml", "vllm.ca_file: ", "no.pem"]),
        ({"vllm.ca_file": "pipeline.yaml"}, ["vllm.ca_file: ", "'pipeline.yaml'", "certificate"]),
        ({"vllm.client_cert": "no.pem"}, ["pipeline.yaml", "vllm.client_cert: ", "no.pem"]),
        ({"ollama.keep_alive": "ten minutes"}, ["pipeline.yaml", "ollama.keep_alive", "ten minutes", "10m"]),
        ({"provider": "vlm"}, ["vlm", "vllm"]),
        ({"vllm.client_cert": "no.pem"}, ["vllm.client_cert", "no.pem", "No such file"]),
        ({"vllm.api_key_file": "no.key"}, ["vllm.api_key_file", "no.key", "No such file"]),
        ({"vllm.headers": {"a b": "c"}}, ["vllm.headers", "header names"]),
        ({"vllm.headers": {"a": " c"}}, ["vllm.headers", "header names"]),
    ],
)
def test_a_wrong_setting_is_exit_2_and_named(place: Place, settings: Mapping[str, object], told: list[str]) -> None:
    """The file, the key, the value, and what would do."""
    place.documents(1)
    place.configure(settings)
    err = place.run(code=2).err
    assert [text for text in told if text not in err] == []
    assert len(place.server.requests) == 0


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("rn", "need one of run, plan, check"),
        ("rum", "the nearest is run"),
        ("run --confg x", "unknown option: --confg x; the nearest is --config"),
        ("run --provider vlm", "unknown option: --provider vlm; it is a setting: --set provider=vlm"),
        ("run --max-error-rate=0.1", "it is a setting: --set runner.max_error_rate=0.1"),
        ("check --model llama3", "it is a setting: --set ollama.model=llama3 or --set vllm.model=llama3"),
        ("run --redo al", "got 'al', need one of changed, none, all; the nearest is all"),
        ("run --limit x", "got 'x', need a whole number"),
        ("run extra", "unknown argument: extra"),
    ],
)
def test_what_is_mistyped_is_answered_in_two_lines(place: Place, typed: str, told: str) -> None:
    """What is wrong with what comes nearest, and the help of the very command."""
    ran = place.call(*typed.split())
    command = "pipeline" if typed.startswith(("rn", "rum")) else f"pipeline {typed.split()[0]}"
    assert ran.code == 2
    wrong, see = ran.err.splitlines()
    assert wrong.startswith(f"{command}: ") and told in wrong
    assert see == f"see: {command} --help"


def test_no_command_at_all_is_answered_with_the_help(place: Place) -> None:
    """On stderr, since nobody asked for it, and with the code of a wrong usage."""
    ran = place.call()
    assert (ran.code, ran.out) == (2, "")
    assert "extract: documents in" in ran.err


@pytest.mark.parametrize(
    ("path", "told"),
    [("nowhere", "seen from the current directory"), ("s3:/b/x", "begins with s3://"), ("/nowhere", "no such file")],
)
def test_an_input_that_is_not_there_says_what_may_be_wrong(place: Place, path: str, told: str) -> None:
    """A relative path from another directory, or an address without its slashes."""
    err = place.run("--input", path, code=2).err
    assert path in err and told in err


def test_a_misspelt_variable_is_said_to_be_ignored(place: Place) -> None:
    """Those of servers and of Kubernetes are none of ours, and nothing is said about them."""
    place.documents(1)
    err = place.run(env={"PIPELINE_RUNNER_MAX_EROR_RATE": "1", "PIPELINE_CONFG": "x.yaml"}).err
    assert "variable=PIPELINE_RUNNER_MAX_EROR_RATE nearest=PIPELINE_RUNNER_MAX_ERROR_RATE" in err
    assert "variable=PIPELINE_CONFG nearest=PIPELINE_CONFIG" in err
    err = place.run(env={"PIPELINE_TEXT_FIELD": "body", "PIPELINE_OUTPUT": "x"}).err
    assert "variable=PIPELINE_TEXT_FIELD nearest=PIPELINE_INPUT_TEXT_FIELD" in err
    assert "variable=PIPELINE_OUTPUT nearest=PIPELINE_OUTPUT_URI" in err
    foreign = {
        "PIPELINE_PORT": "tcp://h",
        "PIPELINE_ID": "7",
        "PIPELINE_URL": "x",
        "PIPELINE_NAME": "x",
        "PIPELINE_INPUT_SERVICE_HOST": "h",
        "OLLAMA_MODELS": "/m",
        "VLLM_PORT": "1",
    }
    assert "ignored" not in place.run(env=foreign).err


def test_a_model_that_is_not_there_is_exit_2_with_those_that_are(place: Place) -> None:
    """Within seconds, not after `startup_wait_s`."""
    place.documents(1)
    assert "'llama3.1'" in place.run("--set", "vllm.model=llama9", code=2).err


def test_a_wrong_key_is_exit_2(place: Place, server: FakeLLM) -> None:
    """Trying again would change nothing."""
    place.documents(1)
    server.api_key = "right"
    assert "401" in place.run("--set", "vllm.api_key=wrong", code=2).err


def test_a_server_that_never_comes_is_exit_3(place: Place, server: FakeLLM) -> None:
    """Everything is left for the same command later."""
    place.documents(2)
    server.down()
    ran = place.run("--set", "runner.startup_wait_s=0", "--set", "runner.max_outage_s=0.5", code=3)
    assert server.url in ran.err
    assert place.last_run()["counts"]["left"] == 2


def test_a_locked_output_is_exit_3_and_names_the_holder(place: Place, server: FakeLLM) -> None:
    """Also for a shard of it; the holder is not disturbed."""
    place.documents(3)
    server.faults = gate = Gate(after=0)
    holder = place.start("run", "--run-id", "the-holder")
    place.wait_for(lambda: len(server.chats()) >= 2, "the holder's requests")
    for arguments in ((), ("--shard", "0/2")):
        err = place.run(*arguments, code=3).err
        assert "the-holder" in err
        assert str(holder.process.pid) in err
    holder.process.send_signal(signal.SIGTERM)
    line_with(holder, "stopping")
    gate.open()
    assert holder.end().code == 143


def test_an_output_that_takes_no_more_is_exit_3(place: Place) -> None:
    """A file size limit stands for a full disk: what was written whole is kept, and the next run goes on."""
    names = place.documents(150)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    ran = place.call("run", limits=limit)
    assert ran.code == 3, ran.err
    assert "results.jsonl" in ran.err
    assert "Traceback" not in ran.err
    assert 0 < len(place.done()) < 150
    place.run()
    assert place.done() == dict.fromkeys(names, 1)


def test_terminal_escapes_of_a_name_are_made_visible(place: Place) -> None:
    """A file's name cannot clear the screen, in the summary or the log; its id in the record is its name."""
    name = "a\x1b[2J\x07b.txt"
    place.documents({name: "[[fault:wrong_type]]"})
    ran = place.run(*LENIENT, "--log-level", "debug", "--progress", "plain")
    assert "\\x1b[2J" in ran.out
    assert re.findall(r"[\x00-\x08\x0b-\x1f\x7f\x9b]", ran.out + ran.err) == []
    assert place.failed() == {name: "schema_invalid"}


@pytest.mark.parametrize("code", [0, 1])
def test_a_reader_that_leaves_does_not_change_the_exit_code(place: Place, code: int) -> None:
    """`pipeline run | head`: no traceback, and a failed run stays a failed run."""
    place.documents({"a.txt": "[[fault:http_400]]" if code else "text"})
    child = place.start("run")
    assert child.process.stdout is not None
    child.process.stdout.close()
    assert child.process.stderr is not None
    err = child.process.stderr.read()
    assert child.process.wait(60) == code, err
    assert "BrokenPipe" not in err
    assert "run ends" in err


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_log_that_nobody_reads_does_not_stop_a_run(place: Place, unbuffered: str) -> None:
    """`pipeline run 2>&1 | head -1`: the documents are processed all the same, and the exit code shows it."""
    names = place.documents(3)
    child = place.start("run", "--log-level", "debug", env={"PYTHONUNBUFFERED": unbuffered})
    assert child.process.stderr is not None
    child.process.stderr.close()
    assert child.process.stdout is not None
    assert "3 found, 3 done" in child.process.stdout.read()
    assert child.process.wait(60) == 0
    assert place.done() == dict.fromkeys(names, 1)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")  # noqa: PTH110
def test_a_summary_that_cannot_be_printed_does_not_lose_the_run(place: Place) -> None:
    """A full disk under stdout: the records are there, and it is no fault of ours."""
    names = place.documents(3)
    ran = place.start("run", stdout="/dev/full").end()
    assert "standard output cannot be written" in ran.err
    assert "Traceback" not in ran.err
    assert ran.code == 0
    assert place.done() == dict.fromkeys(names, 1)


def test_closed_streams_are_no_files(place: Place) -> None:
    """`>&- 2>&-`, as some schedulers start a job: the run goes well, and no log line ends up in a record file."""
    names = place.documents(3)
    script = f"exec {shlex.join([*COMMAND, 'run', '--log-level', 'debug'])} <&- >&- 2>&-"
    ended = subprocess.run(
        ["/bin/sh", "-c", script], cwd=place.folder, env={**os.environ, "PIPELINE_CONFIG": "pipeline.yaml"}, check=False
    )
    assert ended.returncode == 0
    assert place.done() == dict.fromkeys(names, 1)


def test_a_name_that_the_terminal_cannot_write_is_spelled_out(place: Place) -> None:
    """An old locale is no reason for a run to end with a fault of ours."""
    place.documents({"Büro-東京.txt": "[[fault:wrong_type]]"})
    ran = place.run(*LENIENT, env={"PYTHONIOENCODING": "ascii"})
    assert "B\\xfcro-\\u6771\\u4eac.txt" in ran.out
    assert list(place.failed()) == ["Büro-東京.txt"]


@pytest.mark.parametrize(
    ("setting", "kept"),
    [
        ("vllm.base_url=http://gpu1:8000", True),
        ('vllm.base_url=["http://gpu1:8000", "http://gpu2:8000/v1"]', True),
        ("runner.max_outage_s=12", True),
        ("vllm.base_url=http://user:word@gpu1:8000", False),
        ("vllm.api_key=sk-0123456789", False),
        ('vllm.headers={"Cookie": "a=b"}', False),
    ],
)
def test_the_command_to_run_again_keeps_every_setting_that_holds_no_secret(setting: str, kept: bool) -> None:
    """A pasted command asks the same server; only what is or may hold a secret is left out."""
    arguments = parser("run").parse_args(["run", "--set", setting])
    assert (setting in shlex.split(same_command(arguments))) is kept


NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2027-01-15T08:00:00Z", NOW),
        ("2027-01-15T09:00:00+01:00", NOW),
        (f"news-nightly-{int(NOW // 60)}", NOW),
        (f"news-nightly-{int(NOW // 60) - 300}", NOW - 18_000),
        ("news-nightly-29380815", None),
        ("news-20270115", None),
        ("news-now", None),
        ("2027-01-15T08:00:00", None),
        ("", None),
    ],
)
def test_a_start_is_a_time_or_the_job_of_a_cron_job(text: str, moment: float | None) -> None:
    """Its name ends with the scheduled minute; a number that is far from now is part of another name."""
    assert started_at(text, now=NOW) == moment
