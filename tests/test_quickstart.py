"""The agents and documents of the repository, which a new user sees first, follow the project's own rules."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from string import Template
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from pipeline.answers.merge_keywords import MERGE_KEYWORDS
from pipeline.truth.gold import read_gold
from pipeline.truth.graded_fields import graded_fields
from pipeline.truth.grading import grade_document

ROOT = Path(__file__).parent.parent
QUICKSTART = ROOT / "config" / "quickstart"
DOCUMENTS = QUICKSTART / "documents"
ARCHIVE = DOCUMENTS / "archive" / "2026-q2.jsonl"
LOCAL_LLM = ROOT / "scripts" / "local_llm.py"
EXTRACTOR = ROOT / "pipeline" / "agents" / "extractor.yaml"
CLASSIFIER = ROOT / "pipeline" / "agents" / "event_classifier.yaml"
AGENTS = [EXTRACTOR, CLASSIFIER, QUICKSTART / "agents" / "quickstart.yaml"]

ENFORCED = {
    *("type", "properties", "required", "additionalProperties", "items", "enum"),
    *("maxItems", "maxLength", "minimum", "maximum", "x-quote"),
    *MERGE_KEYWORDS,
}
"""The keywords that every server's grammar holds a model to, and our own."""


def agent_at(path: Path) -> dict[str, Any]:
    """Return the content of the agent's file."""
    loaded: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    return loaded


def parts(schema: Mapping[str, Any], place: str = "$") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each schema inside a schema, with its place."""
    yield place, schema
    for name, inner in schema.get("properties", {}).items():
        yield from parts(inner, f"{place}.{name}")
    if "items" in schema:
        yield from parts(schema["items"], f"{place}[]")


def types_of(part: Mapping[str, Any]) -> set[str]:
    """Return the types that a part allows."""
    named = part["type"]
    return set(named if isinstance(named, list) else [named])


def is_bounded(part: Mapping[str, Any]) -> bool:
    """Return whether every value of the part's types has a bounded size."""
    types = types_of(part)
    closed = part.get("additionalProperties") is False and part.get("required") == list(part.get("properties", {}))
    return (
        ("object" not in types or closed)
        and ("array" not in types or ("maxItems" in part and "items" in part))
        and ("string" not in types or "maxLength" in part or "enum" in part)
        and ("integer" not in types or (part.get("minimum"), part.get("maximum")) == (0, 100))
        and "number" not in types
    )


def placeholders(template: str) -> set[str]:
    """Return the names in a template; `invalid` represents a `$` that begins no name."""
    matches = list(Template.pattern.finditer(template))
    names = {match["named"] or match["braced"] or "" for match in matches} - {""}
    return names | ({"invalid"} if any(match["invalid"] is not None for match in matches) else set())


def texts() -> dict[str, bytes]:
    """Return the bytes of every file among the documents, by path."""
    return {
        path.relative_to(DOCUMENTS).as_posix(): path.read_bytes() for path in DOCUMENTS.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("path", AGENTS, ids=lambda path: path.stem)
class TestEveryAgent:
    def test_agent_schema_is_a_valid_object_schema(self, path: Path) -> None:
        """Servers require an object at the top."""
        schema = agent_at(path)["schema"]
        Draft202012Validator.check_schema(schema)
        assert schema["type"] == "object"

    def test_agent_schema_is_bounded_everywhere(self, path: Path) -> None:
        """All properties are required, no others are allowed, and lists, texts and scores have limits."""
        assert [place for place, part in parts(agent_at(path)["schema"]) if not is_bounded(part)] == []

    def test_agent_schema_uses_only_enforced_keywords(self, path: Path) -> None:
        """A keyword that a grammar ignores would cost invalid answers."""
        result = [(place, key) for place, part in parts(agent_at(path)["schema"]) for key in part.keys() - ENFORCED]
        assert result == []

    def test_agent_asks_for_short_quotes(self, path: Path) -> None:
        """Every agent grounds some value in the text."""
        quotes = [part["maxLength"] for _, part in parts(agent_at(path)["schema"]) if part.get("x-quote")]
        assert all(length <= 200 for length in quotes)
        assert quotes or path == CLASSIFIER

    def test_agent_system_prompt_is_static(self, path: Path) -> None:
        """It is the same for every document, so that servers can reuse it."""
        assert placeholders(agent_at(path)["system_prompt"]) == set()

    def test_agent_prompt_ends_with_the_fenced_document(self, path: Path) -> None:
        """The text appears once, at the end, between marks that the system prompt calls untrusted."""
        agent = agent_at(path)
        assert placeholders(agent["user_prompt"]) == {"document"}
        assert agent["user_prompt"].endswith("<document>\n$document\n</document>\n")
        assert "between <document> and </document>" in agent["system_prompt"]
        assert "instructions" in agent["system_prompt"]


class TestOrder:
    def test_extractor_schema_has_evidence_before_scores(self) -> None:
        """Models write in the schema's order, so a quote can support a later judgement."""
        schema = agent_at(EXTRACTOR)["schema"]["properties"]
        company = list(schema["companies"]["items"]["properties"])
        assert company.index("evidence") < company.index("sentiment") < company.index("impact_score")
        assert list(schema).index("evidence") == 0 and list(schema)[-1] == "confidence"

    def test_classifier_schema_has_facts_before_the_judgement(self) -> None:
        """The severity comes after the facts and the affected goods."""
        names = list(agent_at(CLASSIFIER)["schema"]["properties"])
        assert names.index("facts") < names.index("regions") < names.index("is_global_event") < names.index("severity")


class TestDocuments:
    def test_there_are_thirty_documents(self) -> None:
        """They are files and lines with a report, and the damaged one."""
        lines = [line for line in ARCHIVE.read_text("utf-8").splitlines() if line]
        assert len(texts()) - 1 + len(lines) == 30

    def test_documents_cover_every_format(self) -> None:
        """Each format of a folder occurs at least once."""
        assert {Path(name).suffix for name in texts()} == {".txt", ".md", ".json", ".jsonl", ".gz"}

    def test_json_documents_have_metadata(self) -> None:
        """It is passed on to the results."""
        for path in DOCUMENTS.rglob("*.json"):
            assert json.loads(path.read_text("utf-8")).keys() == {"text", "title", "published_at", "source"}

    def test_one_compressed_document_is_damaged(self) -> None:
        """A damaged file is one failed document and does not end the run."""
        folder = DOCUMENTS / "archive"
        assert b"Fenwick" in gzip.decompress((folder / "2026-04-03.txt.gz").read_bytes())
        with pytest.raises(EOFError):
            gzip.decompress((folder / "2026-04-10-damaged.txt.gz").read_bytes())

    def test_gold_matches_the_agent_and_the_documents(self) -> None:
        """Each judged file has these bytes, and every quoted text occurs in it."""
        gold = read_gold(QUICKSTART / "gold.jsonl", agent_at(AGENTS[2])["schema"], agent="quickstart")
        assert len(gold.documents) == 29
        whole = texts()
        for (name, sha256), judged in gold.documents.items():
            data = whole.get(name)
            if data is not None and not name.endswith(".gz"):
                assert hashlib.sha256(data).hexdigest() == sha256
                assert all(value is None or value in data.decode() for value in judged.gold.values())


class TestConfig:
    def test_demo_config_has_only_necessary_settings(self) -> None:
        """A user who copies it gets the careful defaults for the rest."""
        config = yaml.safe_load((QUICKSTART / "pipeline.yaml").read_text("utf-8"))
        assert config.pop("runner") == {"max_error_rate": 1.0}
        assert config.pop("eval").keys() == {"gold", "min_documents", "fields"}
        assert config == {
            "provider": "vllm",
            "fallback": [],
            "agent": "quickstart",
            "agents_dir": "config/quickstart/agents",
            "input": {"uri": "config/quickstart/documents"},
            "output": {"uri": "out/quickstart"},
            "vllm": {"type": "openai"},
        }


def local_llm(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `local_llm.py -- python -c CODE` in an environment that names no other server."""
    named = ("VLLM_BASE_URL", "OLLAMA_BASE_URL", "PIPELINE_PROVIDER")
    environment = {key: value for key, value in os.environ.items() if key not in named}
    return subprocess.run(
        [sys.executable, LOCAL_LLM, "--", sys.executable, "-c", code],
        env={**environment, **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )


class TestLocalModel:
    SHOW = "import os; print(os.environ.get('PIPELINE_PROVIDER'))"

    def test_configured_vllm_server_is_used(self) -> None:
        """With VLLM_BASE_URL no server is started and no variable is set."""
        assert local_llm(self.SHOW, VLLM_BASE_URL="http://127.0.0.1:9").stdout == "None\n"

    def test_configured_ollama_becomes_the_provider(self) -> None:
        """The config names vllm, so OLLAMA_BASE_URL alone selects Ollama."""
        assert local_llm(self.SHOW, OLLAMA_BASE_URL="http://127.0.0.1:9").stdout == "ollama\n"

    def test_configured_provider_is_kept(self) -> None:
        """The user's own PIPELINE_PROVIDER is not changed."""
        ran = local_llm(self.SHOW, OLLAMA_BASE_URL="http://127.0.0.1:9", PIPELINE_PROVIDER="vllm")
        assert ran.stdout == "vllm\n"

    def test_exit_code_of_the_command_is_passed_on(self) -> None:
        """make gets the exit code of the pipeline."""
        assert local_llm("raise SystemExit(7)", VLLM_BASE_URL="http://127.0.0.1:9").returncode == 7


@pytest.mark.parametrize("path", [EXTRACTOR, CLASSIFIER])
def test_gold_of_a_built_in_agent_matches_its_texts(path: Path) -> None:
    """Every text is judged with its current bytes, names and tickers occur in it, and its grade counts."""
    folder = ROOT / "config" / "builtin"
    schema = agent_at(path)["schema"]
    gold = read_gold(folder / f"{path.stem}.gold.jsonl", schema, agent=path.stem)
    texts = {item.name: item.read_bytes() for item in (folder / "documents").iterdir()}
    assert set(gold.documents) == {(name, hashlib.sha256(data).hexdigest()) for name, data in texts.items()}
    for (name, _), document in gold.documents.items():
        companies = document.gold.get("companies", [])
        named = [company[key] for company in companies for key in ("name", "ticker") if company.get(key)]
        assert all(item in texts[name].decode() for item in (*named, *document.gold.get("commodities", ())))
        grade = grade_document(graded_fields(schema, {}), document.gold, document.gold)
        assert grade.totals[1:] == (0, 0)
