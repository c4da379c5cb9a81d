"""`pipeline init`, and the JSON Schemas beside YAML files for editors."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from conftest import PACKAGE_PARENT, Place, everything_below
from fake_llm import FakeLLM
from jsonschema import Draft202012Validator

from pipeline.agents import load_agent
from pipeline.cli.init import STARTERS
from pipeline.cli.local_servers import USUAL, LocalServer, found_servers
from pipeline.cli.local_servers import Place as Place_
from pipeline.cli.server_choice import choose_server, of_servers
from pipeline.config.json_schema import agent_schema, config_schema
from pipeline.config.loading import load_config
from pipeline.errors import ConfigError

NAMES = re.compile(r"# yaml-language-server: \$schema=(\S+)\n")
FILES = sorted([*(PACKAGE_PARENT / "config").rglob("*.yaml"), *(PACKAGE_PARENT / "pipeline" / "agents").glob("*.yaml")])
OURS = [path for path in FILES if "agents" in path.parts or path.name in ("default.yaml", "pipeline.yaml")]


@pytest.fixture
def project(place: Place) -> Place:
    """Return a place with a new project in `news`, configured only by the server's address."""
    place.env |= {"PIPELINE_CONFIG": "", "VLLM_BASE_URL": place.server.url}
    ran = place.call("init", "news")
    assert ran.code == 0, ran.err
    place.folder = place.folder / "news"
    return place


def test_new_project_passes_check(project: Place) -> None:
    """`check` needs no flag in the project's folder."""
    ran = project.call("check")
    assert ran.code == 0, ran.err
    assert "agent my_agent (default)" in ran.out and "OK      provider vllm" in ran.out


def test_example_document_of_a_new_project_becomes_a_valid_record(project: Place) -> None:
    """The commands are those that `init` prints, in their order."""
    assert "VALID" in project.call("try", "inbox/example.txt").out
    assert project.call("run").code == 0
    (line,) = project.lines("results.jsonl")
    assert line["id"] == "example.txt" and line["output"]["summary"]


def test_one_failure_of_a_few_documents_is_no_failed_run(project: Place) -> None:
    """A newcomer's folder holds a few documents: the run names the failure and ends with 0."""
    (project.folder / "inbox" / "empty.txt").write_text("", encoding="utf-8")
    ran = project.call("run")
    assert ran.code == 0, ran.err
    assert "FINISHED WITH FAILURES: 2 found, 1 done, 1 failed" in ran.out


def test_files_of_a_new_project_match_their_schemas(project: Place) -> None:
    """They load, and each names a schema in the project that it fits."""
    app = load_config(project.folder / "config" / "default.yaml", environ={})
    assert (app.provider, app.agent) == ("vllm", "my_agent")
    # a model that follows the schema passes with any text: no field of the sample requires a quote
    assert not load_agent("my_agent", agents_dir=project.folder / "agents").compiled.has_quotes
    for name in ("config/default.yaml", "agents/my_agent.yaml"):
        path = project.folder / name
        match = NAMES.match(path.read_text(encoding="utf-8"))
        assert match is not None
        schema = json.loads((path.parent / match[1]).read_text(encoding="utf-8"))
        Draft202012Validator(schema).validate(yaml.safe_load(path.read_text(encoding="utf-8")))


def test_init_saves_the_servers_address_and_model(project: Place) -> None:
    """A cron job without the environment variable then uses the same server."""
    del project.env["VLLM_BASE_URL"]
    app = load_config(project.folder / "config" / "default.yaml", environ={})
    assert (app.vllm.base_urls, app.vllm.model) == ((project.server.url,), "llama3.1")
    assert project.call("run").code == 0


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://user:secret@127.0.0.1:1", "http://a:1,http://b:2"])
def test_init_saves_no_address_with_a_password(place: Place, url: str) -> None:
    """A plain address is saved even if no server answers there."""
    place.env |= {"PIPELINE_CONFIG": "", "VLLM_BASE_URL": url}
    ran = place.call("init", "news")
    text = (place.folder / "news" / "config" / "default.yaml").read_text("utf-8")
    assert (ran.code, "secret" in text + ran.out, f'base_url: "{url}"' in text) == (
        0,
        False,
        url.endswith(".1:1") and "@" not in url,
    )
    assert ("No server lists its models at http://127.0.0.1:1." in ran.out) == (url == "http://127.0.0.1:1")


def test_init_provider_selects_a_running_ollama(place: Place) -> None:
    """Its address and one of its models are saved, and the printed commands work."""
    place.env |= {"PIPELINE_CONFIG": "", "OLLAMA_HOST": place.server.url.removeprefix("http://")}
    ran = place.call("init", "news", "--provider", "ollama")
    assert ran.code == 0 and "has the model llama3.1:latest" in ran.out
    app = load_config(place.folder / "news" / "config" / "default.yaml", environ={})
    assert (app.provider, app.ollama.model, app.ollama.base_url) == ("ollama", "llama3.1:latest", place.server.url)
    place.folder = place.folder / "news"
    assert place.call("run").code == 0


def test_init_provider_ollama_without_a_server(place: Place) -> None:
    """The address is left to OLLAMA_HOST; `check` names its source and how to start a server."""
    place.env |= {"PIPELINE_CONFIG": "", "OLLAMA_HOST": "127.0.0.1:1"}
    assert "No Ollama answers at http://127.0.0.1:1." in place.call("init", "news", "--provider", "ollama").out
    place.folder = place.folder / "news"
    ran = place.call("check")
    assert ran.code == 3 and "ollama serve" in ran.out
    assert "address from: config/default.yaml" in ran.out


@pytest.mark.parametrize("name", STARTERS)
def test_each_example_runs_and_has_matching_gold(place: Place, name: str) -> None:
    """Three documents become three records, and each gold line has the id and sha256 of one."""
    place.env |= {"PIPELINE_CONFIG": "", "VLLM_BASE_URL": place.server.url}
    assert place.call("init", "p", "--example", name).code == 0
    place.folder = place.folder / "p"
    ran = place.call("run")
    assert ran.code == 0, ran.err
    assert "placeholder" not in ran.err
    records = {line["id"]: line["sha256"] for line in place.lines("results.jsonl")}
    gold = [json.loads(line) for line in (place.folder / "gold.jsonl").read_text("utf-8").splitlines()]
    assert {line["id"]: line["sha256"] for line in gold} == records
    schema = load_agent(name, agents_dir=place.folder / "agents").schema
    for line in gold:
        Draft202012Validator({**schema, "required": []}).validate(line["gold"])


def test_documentation_lists_each_example() -> None:
    """docs/examples.md names each example with its fields."""
    page = (PACKAGE_PARENT / "docs" / "examples.md").read_text("utf-8")
    for name, starter in STARTERS.items():
        text = (PACKAGE_PARENT / "pipeline" / "cli" / "starter" / starter.folder / "agent.schema.json").read_text(
            "utf-8"
        )
        row = next(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
        assert re.findall(r"`(\w+)`", row)[1:] == list(json.loads(text)["properties"])


@pytest.mark.parametrize("name", ["config/default.yaml", "agents/my_agent.schema.json", "config/schemas"])
def test_init_never_overwrites_a_file(place: Place, name: str) -> None:
    """It also refuses if the name is taken by a folder."""
    path = place.folder / "news" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine", encoding="utf-8")
    before = everything_below(place.folder)
    ran = place.call("init", "news")
    assert ran.code in (2, 3)
    assert name in ran.err
    assert everything_below(place.folder) == before or name == "config/schemas"
    assert path.read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(("name", "schema"), [("pipeline", config_schema()), ("agent", agent_schema())])
def test_schemas_in_config_are_current(place: Place, name: str, schema: object) -> None:
    """`pipeline schema > config/schemas/pipeline.schema.json` regenerates them."""
    text = (PACKAGE_PARENT / "config" / "schemas" / f"{name}.schema.json").read_text(encoding="utf-8")
    flags = ["--agent"] if name == "agent" else []
    assert json.loads(text) == schema
    assert place.call("schema", *flags).out == text


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_each_yaml_file_names_its_schema(path: Path) -> None:
    """It names an existing file by a relative path, and is valid against it."""
    text = path.read_text(encoding="utf-8")
    match = NAMES.match(text)
    assert match is not None
    schema = json.loads((path.parent / match[1]).read_text(encoding="utf-8"))
    assert schema == (agent_schema() if "agents" in path.parts else config_schema())
    Draft202012Validator(schema).validate(yaml.safe_load(text))


def test_local_servers_are_found_with_their_models() -> None:
    """Ollama gets a request for its tags, other servers for their OpenAI model list; embedding models are left out."""
    with FakeLLM(("qwen3", "nomic-embed-text")) as server:
        places = [
            Place_("Ollama", "ollama", server.url),
            Place_("LM Studio", "openai", server.url),
            Place_("vLLM", "vllm", "http://127.0.0.1:1"),
        ]
        result = list(found_servers(places))
    assert [(local_server.place.name, local_server.section) for local_server in result] == [
        ("Ollama", "ollama"),
        ("LM Studio", "vllm"),
    ]
    assert result[1].models == ("qwen3",)
    assert result[1].text() == f"LM Studio answers at {server.url} with the model qwen3"


@pytest.mark.parametrize("kind", ["ollama", "vllm", "openai"])
def test_init_saves_the_first_server_with_a_model(tmp_path: Path, kind: str) -> None:
    """The config gets that server and its first model."""
    place = Place_("A server", kind, "http://127.0.0.1:1234" if kind == "openai" else "http://127.0.0.1:8000")
    choice = of_servers([LocalServer(USUAL[0], ()), LocalServer(place, ("qwen3", "llama3.1"))])
    assert choice.provider == ("ollama" if kind == "ollama" else "vllm")
    (tmp_path / "c.yaml").write_text(f"provider: {choice.provider}\n{choice.block}", encoding="utf-8")
    config = load_config(tmp_path / "c.yaml", environ={}).provider_config(choice.provider)
    assert (config.type, config.model) == (kind, "qwen3")
    assert kind == "ollama" or config.base_urls == (place.url,)
    assert choice.remarks == (
        "Ollama answers at http://127.0.0.1:11434 with no model.",
        f"A server answers at {place.url} with the models qwen3, llama3.1.",
        "config/default.yaml uses A server with the model qwen3. For another one, change it there.",
    )


@pytest.mark.parametrize(
    ("provider", "model", "chosen"),
    [
        (None, "", ("ollama", "llama3.1:latest")),
        (None, "llama3.1", ("ollama", "llama3.1:latest")),
        (None, "qwen3", ("vllm", "qwen3")),
        ("vllm", "", ("vllm", "qwen3")),
        ("ollama", "", ("ollama", "llama3.1:latest")),
    ],
)
def test_init_selects_a_server_by_provider_or_model(provider: str | None, model: str, chosen: tuple[str, str]) -> None:
    """It searches the usual ports if the environment names no server."""
    with FakeLLM(("llama3.1:latest", "mistral:7b")) as ollama, FakeLLM(("qwen3",)) as studio:
        places = [Place_("Ollama", "ollama", ollama.url), Place_("LM Studio", "openai", studio.url)]
        choice = choose_server({}, provider=provider, model=model, places=places)
        with pytest.raises(ConfigError, match=r"need one of .*mistral:7b.*; the nearest is qwen3"):
            choose_server({}, provider=None, model="qwen33", places=places)
    assert (choice.provider, f'model: "{chosen[1]}"' in choice.block) == (chosen[0], True)
    assert (studio.url in choice.block, "type: openai" in choice.block) == (chosen[0] == "vllm", chosen[0] == "vllm")


def test_init_without_a_server_saves_the_wanted_model() -> None:
    """The server may be started later."""
    nobody = [Place_("Ollama", "ollama", "http://127.0.0.1:1"), Place_("vLLM", "vllm", "http://127.0.0.1:1")]
    choice = choose_server({}, provider=None, model="qwen3", places=nobody)
    assert (choice.provider, 'model: "qwen3"' in choice.block) == ("vllm", True)
    assert choice.remarks[0].startswith("No model server was found on this machine")
    assert "ollama serve" in choose_server({}, provider="ollama", model="", places=nobody).remarks[0]
