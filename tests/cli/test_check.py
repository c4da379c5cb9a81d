"""`pipeline check`, `report` and `schema`; and no command ever prints or writes a secret."""

from __future__ import annotations

import json
import re
import shlex
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import jsonschema
import pytest
import yaml
from conftest import AGENT, PACKAGE_PARENT, Place, everything_below
from fake_llm import FakeLLM, ReceivedRequest

from pipeline.cli.check_text import CheckedServer, remedies, remedy_lines
from pipeline.cli.local_servers import USUAL, LocalServer
from pipeline.llm.capabilities import Preflight

LENIENT = ("--set", "runner.max_error_rate=1")
KEY = "sk-a-very-secret-key-0123456789"


def test_check_prints_the_verdict_first(place: Place) -> None:
    """The first line reports whether a run can start; servers, input and changed settings follow."""
    place.documents(3)
    (place.folder / "inbox" / "sheet.foo").write_text("x", encoding="utf-8")
    ran = place.call("check", "--set", "vllm.max_tokens=77")
    assert ran.code == 0, ran.err
    lines = [line.strip() for line in ran.out.splitlines()]
    assert lines[0] == f"READY: vllm at {place.server.url}, model llama3.1; 3 documents in the input"
    assert "OK      provider vllm at http://127.0.0.1" in ran.out
    assert "context length: 8192 tokens" in lines
    assert "inbox: 3 documents (text 3)" in lines
    assert "passed over: 1 file (.foo 1)" in lines
    assert "read: all of them, all readable" in lines
    assert "vllm.max_tokens: 77   (command line)" in lines
    assert "runner.concurrency: 4   (pipeline.yaml)" in lines
    assert not any(line.startswith("runner.grace_s") for line in lines)


def test_check_all_prints_all_settings_as_yaml(place: Place) -> None:
    """The last section of `check --all` has the resolved values."""
    settings = place.call("check", "--all", "--set", "vllm.max_tokens=77").out.partition("\nSettings\n")[2]
    assert yaml.safe_load(settings)["vllm"]["max_tokens"] == 77


def test_check_names_unreadable_documents(place: Place) -> None:
    """It prints the reason that a run would give; the run itself can start."""
    place.documents({"a.txt": "text"})
    (place.folder / "inbox" / "empty.txt").touch()
    ran = place.call("check")
    assert ran.code == 0
    assert ran.out.startswith("READY, WITH WARNINGS: ")
    assert "2 documents in the input, 1 of the 2 read cannot be used" in ran.out
    assert "warning: empty.txt: document_empty: the document holds no text" in ran.out


@pytest.mark.parametrize("base_url", [None, "http://127.0.0.1:9"])
@pytest.mark.parametrize("uri", ["nowhere", "no/new"])
def test_missing_input_has_the_exit_code_of_a_run(place: Place, uri: str, base_url: str | None) -> None:
    """The run ends with 2 before it needs a server."""
    place.configure({"input.min_documents": int(uri == "nowhere")} | ({"vllm.base_url": base_url} if base_url else {}))
    ran = place.call("check", "--input", uri)
    assert ran.code == place.call("run", "--input", uri).code == 2
    changed = "a server" if base_url else "the input"
    assert ran.out.startswith(f"NOT READY: a setting or {changed} must be changed (exit code 2)\n")
    assert f"FAILED  input.uri: got '{uri}': there is no such file or folder" in ran.out


def test_missing_input_is_empty_for_check_with_min_documents_0(place: Place) -> None:
    """A run ends with 0 there, so this is a warning; an empty folder is one in any case."""
    place.configure({"input.min_documents": 0})
    ran = place.call("check", "--input", "new")
    assert (ran.code, ran.out.startswith("READY, WITH WARNINGS: ")) == (0, True)
    place.configure()
    (place.folder / "new").mkdir()
    ran = place.call("check", "--input", "new")
    assert (ran.code, ran.out.startswith("READY, WITH WARNINGS: ")) == (0, True)


def test_check_suggests_a_command_with_an_installed_model(place: Place) -> None:
    """It is the same command with one more setting, and it passes when pasted."""
    place.documents(1)
    place.configure({"provider": "ollama", "ollama.base_url": place.server.url, "ollama.model": "nosuch"})
    ran = place.call("check", "--concurrency", "3")
    (pasted,) = [line.strip() for line in ran.out.splitlines() if line.strip().startswith("pipeline check ")]
    assert (ran.code, pasted) == (2, "pipeline check --concurrency 3 --set ollama.model=llama3.1:latest")
    again = place.call(*shlex.split(pasted)[1:])
    assert (again.code, again.out.startswith("READY: ollama")) == (0, True)
    wrong = place.call("check", "--set", "ollama.model=other", "--set", "ollama.timeout=9").out
    assert "pipeline check --set ollama.timeout=9 --set ollama.model=llama3.1:latest" in wrong


def test_check_suggests_another_local_server() -> None:
    """If the configured server is unreachable, it prints all settings that use another one, quoted for a shell."""
    unreachable = CheckedServer(
        "vllm at x", "vllm", True, Preflight("unreachable", "connection_error"), {}, {}, "", "", None
    )
    studio = LocalServer(USUAL[2], ("a model",))
    (remedy,) = remedies([unreachable], [studio])
    text, _, command = "\n".join(remedy_lines(remedy, "pipeline check", width=60)).partition(" To use it:\n")
    assert " ".join(text.split()) == "LM Studio answers at http://127.0.0.1:1234 with the model a model."
    assert shlex.split(command.replace("\\\n", " "))[3::2] == [
        "provider=vllm", "vllm.base_url=http://127.0.0.1:1234", "vllm.type=openai", "vllm.model=a model",
    ]  # fmt: skip


def test_replicas_are_checked_in_parallel(place: Place, server: FakeLLM) -> None:
    """Each of three servers gets its request before any of them has answered."""
    together = threading.Barrier(3)
    ports: set[int] = set()

    def meeting(port: int) -> Callable[[ReceivedRequest, int], None]:
        """Hold the first chat of a server until each other server has its first chat as well."""

        def hold(_seen: ReceivedRequest, _n: int) -> None:
            if port not in ports:
                ports.add(port)
                together.wait(60)

        return hold

    with FakeLLM(("llama3.1",)) as second, FakeLLM(("llama3.1",)) as third:
        servers = (server, second, third)
        for replica in servers:
            replica.faults = meeting(replica.port)
        place.configure({"vllm.base_url": [replica.url for replica in servers]})
        ran = place.call("check")
    assert ran.code == 0
    assert "3 of 3 servers" in ran.out
    assert not together.broken


def test_config_file_in_a_parent_folder_is_found_and_named(place: Place) -> None:
    """Paths are relative to the project; a missing config file is reported."""
    place.documents(1)
    below = Place(place.folder / "inbox" / "2026", place.server, env={"PIPELINE_CONFIG": ""})
    below.folder.mkdir()
    ran = below.call("check")
    assert ran.code == 0, ran.err
    assert "config file: ../../pipeline.yaml" in ran.out
    assert "../../inbox: 1 document (text 1)" in ran.out
    assert "config=../../pipeline.yaml" in below.call("run").err
    assert place.done() == {"d000.txt": 1}
    (place.folder / "pipeline.yaml").unlink()
    assert "no config file found; using built-in defaults" in below.call("run").err


def test_check_reports_missing_server_features(place: Place, server: FakeLLM) -> None:
    """These are disabled constrained decoding and unenforced schema keywords; a run warns of them."""
    server.enforce_schema = False
    properties = {"summary": {"type": "string"}, "score": {"type": "integer", "multipleOf": 5}}
    place.configure(agent={"schema": {**AGENT["schema"], "properties": properties}})
    lines = [line.strip() for line in place.call("check").out.splitlines()]
    off = "the server does not hold the model to the schema (constrained decoding is off): validation alone decides"
    for message in ("server version: 0.32.0", "schema: not enforced", "not enforced: $.score: multipleOf"):
        assert message in lines
    assert f"warning: {off}" in lines
    server.answer = lambda *_: '{"summary": "s"}'
    place.documents(3)
    warnings = [line for line in place.run().err.splitlines() if " WARNING preflight: " in line]
    assert [off in line for line in warnings] == [True]


def test_check_shows_think_of_each_variant(place: Place) -> None:
    """An agent's `request` overrides `ollama.think`, and only in the variant that has it."""
    variants = {"plain": {"weight": 1}, "thinks": {"weight": 1, "request": {"think": "high"}}}
    with FakeLLM(("llama3.1",), thinking=True) as server:
        place.configure({"provider": "ollama", "ollama.base_url": server.url}, agent={"variants": variants})
        out = place.call("check").out
    blocks = re.findall(r"variant (\w+)(.*?)(?=variant|$)", out, re.DOTALL)
    assert [(name, *re.findall(r"think: (\w+)", block)) for name, block in blocks] == [
        ("plain", "false"),
        ("thinks", "high"),
    ]


def test_two_warnings_of_one_preflight_are_both_logged(place: Place, server: FakeLLM) -> None:
    """Neither is suppressed as a repetition of the other."""
    server.enforce_schema = False
    server.answer = lambda *_: '{"summary": "s"}'
    ollama = {"ollama.base_url": server.url, "ollama.model": "llama3.1", "ollama.num_ctx": 16384}
    place.configure({"provider": "ollama", **ollama})
    place.documents(3)
    log = place.run().err
    for message in ("`ollama.num_ctx` is 16384, but the loaded model has", "does not hold the model to the schema"):
        assert 0 < log.index(message) < log.index("run ends")


@pytest.mark.parametrize(
    ("settings", "code", "message"),
    [
        ({"vllm.model": "no-such-model"}, 2, "'llama3.1'"),
        ({"vllm.base_url": "http://127.0.0.1:9"}, 3, "connection_error"),
        ({"vllm.api_key": "wrong"}, 2, "401"),
        ({"vllm.modle": "x"}, 2, "vllm.model"),
    ],
)
def test_check_exit_code_tells_errors_from_outages(
    place: Place, settings: Mapping[str, str], code: int, message: str
) -> None:
    """It is 2 if a person must change a setting, and 3 if waiting may help."""
    place.server.api_key = "right" if "vllm.api_key" in settings else None
    place.configure(settings)
    ran = place.call("check")
    assert ran.code == code
    assert message in ran.out + ran.err


def test_failing_fallback_is_a_warning(place: Place) -> None:
    """The first provider decides the exit code."""
    place.configure({"fallback": ["ollama"], "ollama.base_url": "http://127.0.0.1:9"})
    ran = place.call("check")
    assert ran.code == 0
    assert "FAILED  fallback ollama" in ran.out


def test_check_passes_if_one_replica_passes(place: Place, server: FakeLLM) -> None:
    """Each replica has its line."""
    place.configure({"vllm.base_url": [server.url, "http://127.0.0.1:9"]})
    ran = place.call("check")
    assert ran.code == 0
    assert ran.out.count("provider vllm at") == 2


def test_report_can_be_rebuilt(place: Place) -> None:
    """It is rebuilt from records and run files alone, without a server, and equals the run's report."""
    place.documents({"a.txt": "text", "b.txt": "[[fault:http_400]]"})
    place.run(*LENIENT)
    before = place.report()
    for name in ("report.json", "report.html"):
        (place.folder / "out" / name).unlink()
    place.server.down()
    ran = place.call("report", "out")
    assert ran.code == 0
    assert "2 found, 1 done, 1 failed" in ran.out
    assert place.report() == before
    assert (place.folder / "out" / "report.html").exists()


def test_report_text_prints_without_writing(place: Place) -> None:
    """`report --text` does not change the output."""
    place.documents(2)
    place.run()
    before = everything_below(place.folder / "out")
    ran = place.call("report", "out", "--text")
    assert ran.code == 0 and "2 found, 2 done" in ran.out
    assert everything_below(place.folder / "out") == before


def test_report_open_opens_the_browser(place: Place) -> None:
    """The program in BROWSER gets the page's address; without a browser a message is printed."""
    place.documents(1)
    place.run()
    (place.folder / "browser").write_text('#!/bin/sh\nprintf %s "$1" > "$SEEN"\n', encoding="utf-8")
    (place.folder / "browser").chmod(0o755)
    opened = place.folder / "seen"
    ran = place.call("report", "out", "--open", env={"BROWSER": str(place.folder / "browser"), "SEEN": str(opened)})
    assert ran.code == 0, ran.err
    assert opened.read_text(encoding="utf-8") == (place.folder / "out" / "report.html").as_uri()


@pytest.mark.parametrize("output", ["inbox", "nowhere", "s3://bucket/out"])
def test_report_of_an_output_without_runs_is_refused(place: Place, output: str) -> None:
    """The command exits with 2 and writes no file."""
    ran = place.call("report", output)
    assert ran.code == 2
    assert list((place.folder / "inbox").iterdir()) == []


def test_schema_prints_valid_json_schemas(place: Place) -> None:
    """The default config file is valid against its schema, a misspelt key is not."""
    schema = json.loads(place.call("schema").out)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    default = yaml.safe_load((PACKAGE_PARENT / "config" / "default.yaml").read_text(encoding="utf-8"))
    assert list(validator.iter_errors(default)) == []
    assert not validator.is_valid({"runner": {"concurency": 3}})
    agent = json.loads(place.call("schema", "--agent").out)
    jsonschema.Draft202012Validator.check_schema(agent)
    agent_file = json.loads((place.folder / "agents" / "small.yaml").read_text(encoding="utf-8"))
    assert jsonschema.Draft202012Validator(agent).is_valid(agent_file)


def test_default_config_file_has_the_built_in_defaults(place: Place) -> None:
    """`check --all` prints the same with config/default.yaml and without a config file."""
    (place.folder / "pipeline.yaml").unlink()
    (place.folder / "data" / "inbox").mkdir(parents=True)
    flags = ("--all", "--agent", "small", "--set", "agents_dir=agents", "--set", f"ollama.base_url={place.server.url}")
    with_file = place.call("check", "--config", str(PACKAGE_PARENT / "config" / "default.yaml"), *flags)
    without = place.call("check", *flags, env={"PIPELINE_CONFIG": ""})
    assert _without_seconds(with_file.out) == _without_seconds(without.out)
    assert with_file.code == without.code == 0


def _without_seconds(text: str) -> str:
    """Return the text without measured times."""
    return re.sub(r"[0-9.]+ s\b", "N s", text)


@pytest.mark.parametrize("how", ["key", "file", "header", "url"])
def test_no_secret_is_printed_or_written(place: Place, server: FakeLLM, how: str) -> None:
    """This covers check, successful and failing runs, every log level and every file."""
    place.documents({"a.txt": "text", "b.txt": "[[fault:http_400]]", "c.txt": "[[fault:http_500*1]]"})
    server.api_key = KEY if how in ("key", "file") else None
    secret: dict[str, str] = {}
    if how == "key":
        secret = {"VLLM_API_KEY": KEY}
    elif how == "file":
        (place.folder.parent / "key").write_text(KEY + "\n", encoding="utf-8")
        secret = {"VLLM_API_KEY_FILE": str(place.folder.parent / "key")}
    elif how == "header":
        place.configure({"vllm.headers": {"X-Key": KEY}})
    else:
        place.configure({"vllm.base_url": server.url.replace("//", f"//user:{KEY}@")})
    ran = [place.call("check", env=secret), place.call("run", *LENIENT, "--log-level", "debug", env=secret)]
    server.down()
    ran.append(
        place.call(
            "run", "--redo", "all", "--set", "runner.startup_wait_s=0", "--set", "runner.max_outage_s=0", env=secret
        )
    )
    assert [outcome.code for outcome in ran] == [0, 0, 3]
    (place.folder / "pipeline.yaml").unlink()
    output = "".join(outcome.out + outcome.err for outcome in ran).encode() + everything_below(place.folder)
    assert KEY.encode() not in output
    assert Path(place.folder / "out" / "report.html").exists()


def test_check_warns_of_examples_taken_from_the_input(place: Place) -> None:
    """The model would get the answer; an example that is only a document's name was meant to have its text."""
    examples = [
        {"document": "[[doc:a.txt]] The  text of a.\n", "output": {"summary": "s"}},
        {"document": "b.txt", "output": {"summary": "s"}},
        {"document": "Another text.", "output": {"summary": "s"}},
    ]
    place.documents({"a.txt": "The text of a.", "b.txt": "The text of b."})
    place.configure(agent={"examples": examples})
    out = " ".join(place.call("check").out.split())
    need = "the model is given its answer; take a text that is not in the input"
    assert f"warning: examples[0] has the text of the document a.txt: {need}" in out
    assert "warning: examples[1].document is the name of a document (b.txt), need its text" in out
    assert "examples[2]" not in out
