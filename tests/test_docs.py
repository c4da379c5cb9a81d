"""Quotations in docs/: notes, exit codes, settings, flags and messages exist in the program."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from pipeline import errors
from pipeline.cli import parser
from pipeline.report.note_hints import NOTES

ROOT = Path(__file__).parent.parent
PAGES = {page.name: page.read_text(encoding="utf-8") for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))}
SPANS = re.compile(r"(?<!`)`([^`\n]+(?:\n[^`\n]+)?)`(?!`)")
VALUE = re.compile(r"\S*[\d…/`]\S*|\b[A-Z]\b|\bdocuments?\b|\bpipeline [^`)\n]*|\{\}|%[sd]|[^\w\s'-]+|  +")
"""What a message and its template may differ in, and what divides a line: values, plurals, commands, punctuation."""
NOT_NOTES = {
    *("cached_tokens", "completion_tokens", "elapsed_s", "eval_count", "finished_at", "judged_by", "latency_s"),
    *("output_truncated", "prompt_cache", "prompt_eval_count", "prompt_tokens", "run_id", "shown_characters"),
    "split_fingerprint",
}
"""Names in statements about notes that are no notes themselves."""


def texts(tree: ast.AST) -> Iterator[str]:
    """Yield each text of a module, `{}` in the place of each value."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def phrases(text: str) -> list[str]:
    """Return the words of a text, divided at values and punctuation."""
    return [" ".join(part.split()) for part in VALUE.split(text) if part.split()]


@cache
def trees() -> list[ast.Module]:
    """Return the syntax tree of each module: a worker that runs none of these tests does not parse the program."""
    return [ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "pipeline").rglob("*.py"))]


@cache
def printed() -> str:
    """Return the phrases of all texts of the program, one a line."""
    return "\n".join(dict.fromkeys(phrase for tree in trees() for text in texts(tree) for phrase in phrases(text)))


def section(heading: str) -> str:
    """Return a section of docs/troubleshooting.md."""
    return PAGES["troubleshooting.md"].partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def quoted(page: str) -> list[str]:
    """Return the phrases of three words or more in a page's sentences in code spans and blocks of output (`text`)."""
    blocks = re.findall(r"```text\n(.*?)```", PAGES[page], re.DOTALL)
    spans = [span for span in SPANS.findall(re.sub(r"```.*?```", "", PAGES[page], flags=re.DOTALL)) if is_message(span)]
    lines = [line for block in blocks if "──" not in block for line in block.splitlines()]
    return [phrase for quote in (*spans, *lines) for phrase in phrases(quote) if len(phrase.split()) >= 3]


def is_message(span: str) -> bool:
    """Return whether a code span is a sentence of the program: four words or more, without a flag or code."""
    programs = {"pipeline", "python", "make", "pip", "export", "ollama", "kubectl", "helm", "docker", "ray", "airflow"}
    is_text = re.fullmatch(r"[a-zA-Z][\w ,'()…:.\n-]+", span) is not None and " -" not in span
    return is_text and len(span.split()) >= 4 and span.split()[0] not in programs


@pytest.mark.parametrize("page", PAGES)
def test_each_quoted_message_is_in_the_program(page: str) -> None:
    """A user who searches the pages for a log line finds it, and vice versa."""
    assert [phrase for phrase in quoted(page) if phrase not in printed()] == []


def test_pages_quote_messages() -> None:
    """The test above has cases."""
    assert len([phrase for page in PAGES for phrase in quoted(page)]) >= 20


def noted() -> set[str]:
    """Return the names that a statement of pipeline/ adds to notes, and the constants that are notes."""
    name = re.compile(r"([a-z]+(?:_[a-z]+)+)(?::\{\}.*)?|([a-z]+):\{\}.*")
    matches: set[str] = set()
    for tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign | ast.Return | ast.Expr):
                if "note" not in ast.unparse(node).lower():
                    continue
                matches |= {match[1] or match[2] for text in texts(node) if (match := name.fullmatch(text))}
    return matches - NOT_NOTES


def test_each_note_has_a_meaning() -> None:
    """The report page shows it beside the note."""
    assert noted() - set(NOTES) == set()
    assert len(noted()) > 30


def test_table_of_notes_equals_the_programs() -> None:
    """docs/troubleshooting.md has each note with the meaning that the report page shows."""
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| (.+?) \|", section("Notes"), re.MULTILINE))
    assert rows == NOTES


@pytest.mark.parametrize("page", ["nightly.md", "troubleshooting.md"])
def test_each_exit_code_is_listed(page: str) -> None:
    """It has its cause."""
    table = PAGES[page].partition("\n## Exit codes\n")[2].partition("\n## ")[0]
    codes = {int(code) for row in re.findall(r"^\| ([\d, ]+) \|", table, re.MULTILINE) for code in row.split(",")}
    assert codes == {value for name, value in vars(errors).items() if name.startswith("EXIT_")}


def settings() -> list[str]:
    """Return each dotted setting that a page names."""
    sections = "input|output|ollama|vllm|answers|runner|eval|cost"
    spans = {span for text in PAGES.values() for span in re.findall(rf"`((?:{sections})\.[a-z_.]+[a-z])", text)}
    return sorted(spans - {"eval.json"})


@pytest.mark.parametrize("name", settings())
def test_each_named_setting_exists(name: str) -> None:
    """It is in the schema of the config file, or below a free mapping such as `input.storage`."""
    part = json.loads((ROOT / "config" / "schemas" / "pipeline.schema.json").read_text(encoding="utf-8"))
    for key in name.split("."):
        if "properties" not in part:
            break
        assert key in part["properties"]
        part = part["properties"][key]


def options() -> set[str]:
    """Return each option of each command."""
    commands = next(action for action in parser()._actions if isinstance(action.choices, dict)).choices
    assert commands is not None
    return {flag for command in commands.values() for flag in command._option_string_actions}


@pytest.mark.parametrize("page", PAGES)
def test_each_named_flag_exists(page: str) -> None:
    """A code span that begins with `--` names an option of some command, except for other programs."""
    others = {"--allow-auto-truncate", "--reasoning-parser", "--max-model-len", "--structured-outputs-config"}
    spans = re.findall(r"(?<!`)`(--[a-z-]+)", re.sub(r"```.*?```", "", PAGES[page], flags=re.DOTALL))
    scripts = re.findall(r"python scripts/[^`\n]*", PAGES[page])
    assert [flag for flag in spans if flag not in options() | others and not scripts] == []
