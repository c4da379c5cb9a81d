"""The command line as people and scripts use it: usage, exit codes 2 and 3, streams and terminals."""

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
def test_help_of_each_command_has_an_example(place: Place, command: str) -> None:
    """The help also lists the exit codes."""
    ran = place.call(command, "--help")
    assert ran.code == 0
    assert f"pipeline {command}" in ran.out.partition("example")[2]
    assert "exit codes" in ran.out


def test_python_m_pipeline_equals_the_command(place: Place) -> None:
    """Version output and usage errors are identical."""
    for arguments in (["--version"], ["run", "--nonsense"], ["check", "--agent", "nobody"]):
        both = [
            subprocess.run([*command, *arguments], cwd=place.folder, capture_output=True, text=True, check=False)
            for command in (COMMAND, (sys.executable, "-m", "pipeline"))
        ]
        first, second = ((ended.returncode, ended.stdout, re.sub(r"^\S+Z ", "", ended.stderr)) for ended in both)
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
def test_usage_error_is_exit_2_without_a_request(place: Place, arguments: tuple[str, ...]) -> None:
    """The message contains no traceback, and no output is created."""
    place.documents(1)
    ran = place.call(*arguments)
    assert ran.code == 2
    assert ran.err
    assert "Traceback" not in ran.err
    assert place.sent_documents() == []
    assert not (place.folder / "out" / "results.jsonl").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
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
        ({"vllm.headers": {"a b": "c"}}, ["vllm.headers.a b: ", "a name without white space"]),
        ({"vllm.headers": {"a": " c"}}, ["vllm.headers.a: ", "leading white space"]),
    ],
)
def test_invalid_setting_is_exit_2_with_its_name(
    place: Place, settings: Mapping[str, object], message: list[str]
) -> None:
    """The message contains the file, the key, the value and the accepted values."""
    place.documents(1)
    place.configure(settings)
    err = place.run(code=2).err
    assert [text for text in message if text not in err] == []
    assert len(place.server.requests) == 0


@pytest.mark.parametrize(
    ("typed", "message"),
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
def test_typing_error_is_answered_in_two_lines(place: Place, typed: str, message: str) -> None:
    """The first line has the error and the nearest word, the second the help command."""
    ran = place.call(*typed.split())
    command = "pipeline" if typed.startswith(("rn", "rum")) else f"pipeline {typed.split()[0]}"
    assert ran.code == 2
    wrong, see = ran.err.splitlines()
    assert wrong.startswith(f"{command}: ") and message in wrong
    assert see == f"see: {command} --help"


def test_missing_command_prints_the_help_to_stderr(place: Place) -> None:
    """The exit code is that of a usage error."""
    ran = place.call()
    assert (ran.code, ran.out) == (2, "")
    assert "extract: documents in" in ran.err


@pytest.mark.parametrize(
    ("path", "message"),
    [("nowhere", "seen from the current directory"), ("s3:/b/x", "begins with s3://"), ("/nowhere", "no such file")],
)
def test_missing_input_message_suggests_the_cause(place: Place, path: str, message: str) -> None:
    """The cause may be a path relative to another directory, or an address without its slashes."""
    err = place.run("--input", path, code=2).err
    assert path in err and message in err


def test_misspelt_environment_variable_is_reported(place: Place) -> None:
    """Variables of servers and of Kubernetes with a similar prefix are not reported."""
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


def test_unknown_model_is_exit_2_with_the_available_models(place: Place) -> None:
    """The run does not wait for `startup_wait_s`."""
    place.documents(1)
    assert "'llama3.1'" in place.run("--set", "vllm.model=llama9", code=2).err


def test_wrong_api_key_is_exit_2(place: Place, server: FakeLLM) -> None:
    """Waiting would not help."""
    place.documents(1)
    server.api_key = "right"
    assert "401" in place.run("--set", "vllm.api_key=wrong", code=2).err


def test_unreachable_server_is_exit_3(place: Place, server: FakeLLM) -> None:
    """All documents are left for the next run."""
    place.documents(2)
    server.down()
    ran = place.run("--set", "runner.startup_wait_s=0", "--set", "runner.max_outage_s=0.5", code=3)
    assert server.url in ran.err
    assert place.last_run()["counts"]["left"] == 2


def test_locked_output_is_exit_3_and_names_the_holder(place: Place, server: FakeLLM) -> None:
    """This applies to a shard of it as well, and the holder is not disturbed."""
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


def test_full_output_is_exit_3(place: Place) -> None:
    """A file size limit simulates a full disk: whole records are kept, and the next run adds the others."""
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


def test_terminal_escapes_in_a_file_name_are_spelled_out(place: Place) -> None:
    """Summary and log show them as text; the record has the original name as its id."""
    name = "a\x1b[2J\x07b.txt"
    place.documents({name: "[[fault:wrong_type]]"})
    ran = place.run(*LENIENT, "--log-level", "debug", "--progress", "plain")
    assert "\\x1b[2J" in ran.out
    assert re.findall(r"[\x00-\x08\x0b-\x1f\x7f\x9b]", ran.out + ran.err) == []
    assert place.failed() == {name: "schema_invalid"}


@pytest.mark.parametrize("code", [0, 1])
def test_closed_stdout_does_not_change_the_exit_code(place: Place, code: int) -> None:
    """`pipeline run | head` prints no traceback, and a failed run still exits with 1."""
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
def test_closed_stderr_does_not_stop_a_run(place: Place, unbuffered: str) -> None:
    """With `pipeline run 2>&1 | head -1` all documents are processed and the exit code is 0."""
    names = place.documents(3)
    child = place.start("run", "--log-level", "debug", env={"PYTHONUNBUFFERED": unbuffered})
    assert child.process.stderr is not None
    child.process.stderr.close()
    assert child.process.stdout is not None
    assert "3 found, 3 done" in child.process.stdout.read()
    assert child.process.wait(60) == 0
    assert place.done() == dict.fromkeys(names, 1)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")  # noqa: PTH110
def test_unprintable_summary_does_not_lose_the_run(place: Place) -> None:
    """With a full disk under stdout all records are written, and the run exits with 0."""
    names = place.documents(3)
    ran = place.start("run", stdout="/dev/full").end()
    assert "standard output cannot be written" in ran.err
    assert "Traceback" not in ran.err
    assert ran.code == 0
    assert place.done() == dict.fromkeys(names, 1)


def test_closed_streams_are_not_reused_for_files(place: Place) -> None:
    """Some schedulers start jobs with `>&- 2>&-`: no log line may end up in a record file."""
    names = place.documents(3)
    script = f"exec {shlex.join([*COMMAND, 'run', '--log-level', 'debug'])} <&- >&- 2>&-"
    ended = subprocess.run(
        ["/bin/sh", "-c", script], cwd=place.folder, env={**os.environ, "PIPELINE_CONFIG": "pipeline.yaml"}, check=False
    )
    assert ended.returncode == 0
    assert place.done() == dict.fromkeys(names, 1)


def test_unencodable_file_name_is_spelled_out(place: Place) -> None:
    """A terminal with an old locale causes no internal error."""
    place.documents({"Büro-東京.txt": "[[fault:wrong_type]]"})
    ran = place.run(*LENIENT, env={"PYTHONIOENCODING": "ascii"})
    assert "B\\xfcro-\\u6771\\u4eac.txt" in ran.out
    assert list(place.failed()) == ["Büro-東京.txt"]


@pytest.mark.parametrize(
    ("setting", "is_kept"),
    [
        ("vllm.base_url=http://gpu1:8000", True),
        ('vllm.base_url=["http://gpu1:8000", "http://gpu2:8000/v1"]', True),
        ("runner.max_outage_s=12", True),
        ("vllm.base_url=http://user:word@gpu1:8000", False),
        ("vllm.api_key=sk-0123456789", False),
        ('vllm.headers={"Cookie": "a=b"}', False),
        ("vllm.headers.Cookie=a", False),
        ("vllm.api_key_file=/run/secrets/key", True),
        ("providers.big.api_key_file=key", True),
        ("output.storage.endpoint=http://127.0.0.1:9000", True),
        ("output.storage.region=eu-west-1", True),
        ("output.storage.endpoint=http://user:word@127.0.0.1:9000", False),
        ("output.storage.secret_access_key=0123456789", False),
        ("output.storage.connection_string=x", False),
    ],
)
def test_suggested_command_keeps_settings_without_secrets(setting: str, is_kept: bool) -> None:
    """It uses the same server; only settings that are or may contain a secret are omitted."""
    arguments = parser("run").parse_args(["run", "--set", setting])
    assert (setting in shlex.split(same_command(arguments))) is is_kept


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
def test_started_at_accepts_a_time_or_a_cron_jobs_name(text: str, moment: float | None) -> None:
    """Such a name ends with the scheduled minute; an implausible number is part of the name."""
    assert started_at(text, now=NOW) == moment
