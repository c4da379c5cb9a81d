"""README.md and docs/ are correct: links, tables, commands, agents and programs."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import Place
from fake_llm import FakeLLM

from pipeline.agents import load_agent
from pipeline.cli import parser
from pipeline.config.loading import load_config
from pipeline.errors import REASONS

ROOT = Path(__file__).parent.parent
DOCS = {page.name: page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs").glob("*.md"))}
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {"README.md": README, **{f"docs/{name}": text for name, text in DOCS.items()}}
OTHERS = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("CONTRIBUTING.md", "SECURITY.md")}
BLOCKS = [block for text in PAGES.values() for block in re.findall(r"```(\w*)\n(.*?)```", text, re.DOTALL)]
WALKED = (
    ("README.md", "Your first record"),
    ("docs/quickstart.md", "Your first record"),
    ("docs/reruns.md", "Change a prompt safely"),
    ("docs/examples.md", "Try one"),
)
"""Sections whose first block is a sequence of commands with a test of its own."""


def everywhere(pattern: str) -> list[tuple[str, ...] | str]:
    """Return each different match of the pattern in README.md and docs/, sorted."""
    return sorted({match for text in PAGES.values() for match in re.findall(pattern, text, re.MULTILINE)})


def first_block(page: str, kind: str) -> str:
    """Return the first block of a page in this language."""
    return next(text for entry, text in re.findall(r"```(\w*)\n(.*?)```", PAGES[page], re.DOTALL) if entry == kind)


def commands() -> list[str]:
    """Return the `pipeline` commands in the pages' blocks, without comments, redirections and shell prefixes."""
    lines = [line for kind, text in BLOCKS if kind == "" for line in text.splitlines()]
    matches = [re.search(r"(?:^|&& )(pipeline .*?)(?:\s+#.*|\s+>.*|\s+&& cd .*)?$", line) for line in lines]
    return list(dict.fromkeys(match.group(1) for match in matches if match))


def named_files() -> list[tuple[str, str]]:
    """Return each page with each project file that it names."""
    pattern = r"(?<![\w/.*!])(?:(?:pipeline|tests|scripts|config|llm|documents)/)(?:\w+/)*[\w.-]+\.(?:py|yaml|json)"
    pages = {**PAGES, **OTHERS}.items()
    return [(page, name) for page, text in pages for name in sorted(set(re.findall(pattern, text)))]


def links() -> list[tuple[str, str, str]]:
    """Return each page with the path and the heading of each relative link in it."""
    pattern = r"\]\((?!\w+:)([^)#]*)(?:#([^)]*))?\)"
    return [
        (page, *link) for page, text in {**PAGES, **OTHERS}.items() for link in sorted(set(re.findall(pattern, text)))
    ]


def anchors(text: str) -> set[str]:
    """Return the anchors that a forge gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_readme_is_short() -> None:
    """It leads to docs/ instead of growing into it."""
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize(("page", "target", "anchor"), links())
def test_each_relative_link_has_a_target(page: str, target: str, anchor: str) -> None:
    """The target is a file and, with an anchor, a heading."""
    path = (ROOT / page).parent / target if target else ROOT / page
    assert path.exists()
    assert not anchor or anchor in anchors(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", [*PAGES, *OTHERS])
def test_each_code_block_is_closed(page: str) -> None:
    """An open block would show the rest of the page as code."""
    marks = [line for line in {**PAGES, **OTHERS}[page].splitlines() if line.startswith("```")]
    assert [mark for mark in marks[1::2] if mark != "```"] == [] and len(marks) % 2 == 0
    assert "```\n```" not in {**PAGES, **OTHERS}[page]


def test_index_lists_every_page() -> None:
    """docs/README.md links each page of docs/."""
    assert set(re.findall(r"\]\(([\w-]+\.md)", DOCS["README.md"])) == set(DOCS) - {"README.md"}


@pytest.mark.parametrize(("page", "name"), named_files())
def test_each_named_file_exists(page: str, name: str) -> None:
    """A reader of a page finds the files that it names."""
    assert (ROOT / name).is_file() or (ROOT / "pipeline" / name).is_file()


def test_tables_of_reasons_equal_the_programs() -> None:
    """Each reason is listed once, under its class, with a cause and the end of the report's advice."""
    section = DOCS["troubleshooting.md"].partition("## Reasons\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z_]+)` \| (.+?) \| (.*) \|$", section, re.MULTILINE)
    assert [name for name, _, _ in rows] == list(REASONS)
    assert [name for name, cause, advice in rows if not cause or not REASONS[name].advice.endswith(advice)] == []
    kinds = [
        {REASONS[name].kind for name, _, _ in rows if f"| `{name}` |" in part} for part in section.split("### ")[1:]
    ]
    assert kinds == [{"backend"}, {"config"}, {"document"}, {"answer"}, {"internal"}]


def test_pages_have_commands() -> None:
    """The test below has cases."""
    assert len(commands()) >= 6


@pytest.mark.parametrize("command", commands())
def test_each_documented_command_is_accepted(command: str) -> None:
    """The command line parses it."""
    assert parser().parse_args(shlex.split(command)[1:]).command


@pytest.mark.parametrize("target", everywhere(r"^(?:\S+=\S+ )*make (\w+)|`make (\w+)`"))
def test_each_documented_make_target_exists(target: tuple[str, str]) -> None:
    """make knows how to build it."""
    ran = subprocess.run(["make", "-n", "".join(target)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("command", everywhere(r"python (scripts/\w+[^`\n#]*)"))
def test_each_documented_script_exists_with_its_flags(command: str) -> None:
    """The flags are in its --help."""
    words = shlex.split(command)
    names = list(itertools.takewhile(lambda word: not word.startswith("--"), words))
    flags = words[len(names) :]
    ran = subprocess.run([sys.executable, *names, "--help"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("usage: ")
    assert [flag for flag in flags if flag.startswith("--") and flag not in ran.stdout] == []


def test_documented_agent_loads(tmp_path: Path) -> None:
    """A user who pastes the agent of docs/agents.md gets a valid one."""
    (tmp_path / "appointments.yaml").write_text(agent_text(), encoding="utf-8")
    assert load_agent("appointments", agents_dir=tmp_path).schema == yaml.safe_load(agent_text())["schema"]


def agent_text() -> str:
    """Return the first agent file of docs/."""
    return next(text for kind, text in BLOCKS if kind == "yaml" and "system_prompt" in text and "schema:\n" in text)


@pytest.mark.parametrize("text", [text for kind, text in BLOCKS if kind == "yaml"])
def test_each_yaml_block_loads(text: str, tmp_path: Path) -> None:
    """Blocks are agent files, fragments of docs/agents.md's agent, or config files."""
    tree = yaml.safe_load(text)
    agent = yaml.safe_load(agent_text())
    if isinstance(tree.get("schema"), str):
        tree.pop("examples", None)  # they fit a schema that the reader makes: test_own_agent_section_works
    if tree.keys() <= {*agent, "request", "variables", "variants", "overflow", "split"}:
        (tmp_path / "a.yaml").write_text(yaml.safe_dump({**agent, **tree}), encoding="utf-8")
        (tmp_path / "my_agent.schema.json").write_text(json.dumps(agent["schema"]), encoding="utf-8")
        assert load_agent("a", agents_dir=tmp_path).name == "a"
    else:
        (tmp_path / "p.yaml").write_text(text, encoding="utf-8")
        assert load_config(tmp_path / "p.yaml", environ={})


def test_documented_config_loads(tmp_path: Path) -> None:
    """It has two replicas under a custom name, with Ollama as the fallback."""
    (tmp_path / "p.yaml").write_text(next(text for kind, text in BLOCKS if "fallback:" in text), encoding="utf-8")
    app = load_config(tmp_path / "p.yaml", environ={})
    assert app.provider_config(app.provider).base_urls == ("http://gpu1:8000", "http://gpu2:8000")
    assert app.fallback_names() == ("ollama",)


def section_commands(page: str, heading: str) -> list[str]:
    """Return the lines of the first block under a heading of a page, without comments."""
    text = PAGES[page].partition(f"## {heading}\n")[2].partition("```\n")[2].partition("```")[0]
    return [re.sub(r"\s+#.*", "", line) for line in text.splitlines()]


@pytest.mark.parametrize(("page", "count"), [("README.md", 4), ("docs/quickstart.md", 4)])
def test_first_record_page_works(place: Place, page: str, count: int) -> None:
    """Its commands, in order and with only the server configured, end with a valid record."""
    place.env |= {"PIPELINE_CONFIG": "", "VLLM_BASE_URL": place.server.url}
    printed = []
    for words in (shlex.split(part) for line in section_commands(page, WALKED[0][1]) for part in line.split(" && ")):
        if words[0] == "cd":
            place.folder = place.folder / words[1]
        elif words[0] == "pipeline":
            ran = place.call(*words[1:])
            assert ran.code == 0, f"{words}\n{ran.out}{ran.err}"
            printed.append(ran.out)
    assert len(printed) == count
    assert [line["id"] for line in place.lines("results.jsonl")] == ["example.txt"]
    if page == "README.md":
        shown = re.search(r"```text\n(.*?)```", README, re.DOTALL)
        assert shown
        here = {"http://127.0.0.1:8000": place.server.url, "smollm2-135m-instruct": "llama3.1"}
        expected = re.sub("|".join(here), lambda match: here[match[0]], shown.group(1)).splitlines()
        assert set(expected) <= set("".join(printed).splitlines())


def test_own_agent_section_works(place: Place) -> None:
    """Its blocks, in order, end with a record of the user's document in the user's fields."""
    place.env |= {"PIPELINE_CONFIG": "", "VLLM_BASE_URL": place.server.url}
    assert place.call("init", "news").code == 0
    place.folder = place.folder / "news"
    section = README.partition("## Your own agent\n")[2].partition("\n## ")[0]
    for kind, text in re.findall(r"```(\w*)\n(.*?)```", section, re.DOTALL):
        if kind == "yaml":
            (place.folder / "agents" / "my_agent.yaml").write_text(text, encoding="utf-8")
            continue
        for line in text.splitlines():
            command, _, file = line.partition(" > ")
            words = shlex.split(command, comments=True)
            printed = " ".join(words[1:]) + "\n"
            if words[0] == "rm":
                (place.folder / words[2]).unlink()
                assert words[3:] == ["out"]
            elif words[0] == "pipeline":
                ran = place.call(*words[1:])
                assert ran.code == 0, f"{line}\n{ran.out}{ran.err}"
                printed = ran.out
            if file:
                (place.folder / file).write_text(printed, encoding="utf-8")
    records = {line["id"]: line["output"] for line in place.lines("results.jsonl")}
    assert set(records) == {"letter.txt"}
    assert all(list(output) == ["sender", "product", "complaint"] for output in records.values())


def test_example_page_works(place: Place) -> None:
    """Its commands end with three records and a grade."""
    place.env |= {"PIPELINE_CONFIG": "", "VLLM_BASE_URL": place.server.url}
    for words in map(shlex.split, section_commands(*WALKED[3])):
        if words[0] == "cd":
            place.folder = place.folder / words[1]
            continue
        ran = place.call(*words[1:])
        assert ran.code == 0, f"{words}\n{ran.out}{ran.err}"
    assert len(place.lines("results.jsonl")) == 3
    assert "kind" in ran.out


def test_every_other_documented_command_runs(place: Place) -> None:
    """They run in page order, purge last, in a folder with the files they name; each exits with 0."""
    pytest.importorskip("pyarrow")
    lines = "".join(json.dumps({"text": text}) + "\n" for text in [*["A plain text."] * 4, "[[fault:http_400]]"])
    place.documents({**{f"d{number:02}.txt": "A plain text." for number in range(60)}, "archive/2025-q4.jsonl": ""})
    (place.folder / "inbox" / "archive" / "2025-q4.jsonl").write_text(lines, encoding="utf-8")
    for name, text in {
        "prod.yaml": (place.folder / "pipeline.yaml").read_text(encoding="utf-8"),
        "agents/appointments.yaml": agent_text(),
        "inbox/example.txt": "A plain text.",
        "inbox/letter.txt": "A plain text.",
        "takedowns.txt": "d07.txt\n",
        "ids.txt": "archive/2025-q4.jsonl#5\n",
        "inbox/empty.txt": "",
        "record.json": '{"total": 3}',
        "my_models.py": "class Invoice:\n    model_json_schema = staticmethod(lambda: {'type': 'object'})\n",
    }.items():
        path = place.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    walked = {line for section in WALKED for line in section_commands(*section)}
    walked.add("pipeline eval --ask --quiet")  # needs a gold file: tests/test_gated_night.py
    others = [command for command in commands() if command not in walked]
    for command in dict.fromkeys(["pipeline run", *sorted(others, key=lambda line: "purge" in line)]):
        here = command.replace("/var/lib/node_exporter", str(place.folder)).replace("9464", "0").replace(":9091", ":1")
        ran = place.call(*shlex.split(here)[1:])
        assert ran.code == 0, f"{command}\n{ran.out}{ran.err}"
    assert len(others) >= 12
    assert "pipeline_exit_code" in (place.folder / "pipeline.prom").read_text(encoding="utf-8")
    assert "d07.txt" not in {line["id"] for line in place.lines("results.jsonl")}


def test_reruns_page_works(place: Place, server: FakeLLM) -> None:
    """Each command of docs/reruns.md is run in order, between two prompts of the built-in extractor."""
    place.configure({"agent": "extractor", "agents_dir": "agents"})
    place.documents(12)
    place.run()
    built_in = load_agent("extractor").path.read_text(encoding="utf-8")
    (place.folder / "agents" / "extractor.yaml").write_text(built_in.replace("You ", "Now you ", 1), encoding="utf-8")
    server.requests.clear()
    for line in section_commands(*WALKED[2]):
        ran = place.call(*shlex.split(line)[1:])
        assert ran.code == 0, f"{line}\n{ran.out}{ran.err}"
    assert set(place.done().values()) == {2}


def test_documented_program_runs(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It runs unchanged in a folder with a config file."""
    place.configure()
    (place.folder / "config").mkdir()
    (place.folder / "pipeline.yaml").rename(place.folder / "config" / "default.yaml")
    monkeypatch.chdir(place.folder)
    exec(first_block("docs/python.md", "python"), {})
    assert capsys.readouterr().out.startswith("vllm {'")


def test_documented_queries_read_the_results(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """DuckDB accepts each of them; the first returns the last line of each id."""
    duckdb = pytest.importorskip("duckdb")
    place.documents({"a.txt": "text", "b.txt": "text", "bad.txt": "[[fault:http_400]]"})
    place.run("--set", "runner.max_error_rate=1")
    place.run("--redo", "all", "--set", "runner.max_error_rate=1")
    monkeypatch.chdir(place.folder)
    queries = [query for query in first_block("docs/outputs.md", "sql").split(";") if query.strip()]
    result = [duckdb.sql(query).fetchall() for query in queries]
    assert sorted(row[0] for row in result[0]) == ["a.txt", "b.txt"]
    assert result[1] == [("rejected", 1)]
    assert [row[:2] for row in result[2]] == [(1, 2), (2, 2)]
