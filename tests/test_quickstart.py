"""The agents and the documents that come with the project: what a first user meets, held to its own rules."""

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
    """The agent's file as it stands."""
    loaded: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    return loaded


def parts(schema: Mapping[str, Any], place: str = "$") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each schema inside a schema, with its place."""
    yield place, schema
    for name, inner in schema.get("properties", {}).items():
        yield from parts(inner, f"{place}.{name}")
    if "items" in schema:
        yield from parts(schema["items"], f"{place}[]")


def types_of(part: Mapping[str, Any]) -> set[str]:
    """The types that a part allows."""
    named = part["type"]
    return set(named if isinstance(named, list) else [named])


def is_bounded(part: Mapping[str, Any]) -> bool:
    """True when no value of the part's types can grow without end."""
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
    """The names a template asks for; `invalid` stands for a `$` that means nothing."""
    found = list(Template.pattern.finditer(template))
    names = {match["named"] or match["braced"] or "" for match in found} - {""}
    return names | ({"invalid"} if any(match["invalid"] is not None for match in found) else set())


def texts() -> dict[str, bytes]:
    """The bytes of every file among the documents, by path."""
    return {
        path.relative_to(DOCUMENTS).as_posix(): path.read_bytes() for path in DOCUMENTS.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("path", AGENTS, ids=lambda path: path.stem)
class TestEveryAgent:
    def test_its_schema_is_a_valid_object_schema(self, path: Path) -> None:
        """Servers want an object at the top, and every agent's schema is one."""
        schema = agent_at(path)["schema"]
        Draft202012Validator.check_schema(schema)
        assert schema["type"] == "object"

    def test_its_schema_is_bounded_everywhere(self, path: Path) -> None:
        """All properties are required, nothing else is allowed, and no list, text or score is open-ended."""
        assert [place for place, part in parts(agent_at(path)["schema"]) if not is_bounded(part)] == []

    def test_its_schema_uses_only_what_servers_enforce(self, path: Path) -> None:
        """A keyword that a grammar leaves out would be an expensive way to find invalid answers."""
        found = [(place, key) for place, part in parts(agent_at(path)["schema"]) for key in part.keys() - ENFORCED]
        assert found == []

    def test_it_asks_for_a_quote_short_enough_to_copy(self, path: Path) -> None:
        """Every agent grounds something in the text."""
        quotes = [part["maxLength"] for _, part in parts(agent_at(path)["schema"]) if part.get("x-quote")]
        assert all(length <= 200 for length in quotes)
        assert quotes or path == CLASSIFIER

    def test_its_system_prompt_is_static(self, path: Path) -> None:
        """The system prompt is the same for every document, so that servers can reuse it."""
        assert placeholders(agent_at(path)["system_prompt"]) == set()

    def test_its_document_comes_last_and_fenced(self, path: Path) -> None:
        """The text stands once, at the end, between marks that the system prompt calls untrusted."""
        agent = agent_at(path)
        assert placeholders(agent["user_prompt"]) == {"document"}
        assert agent["user_prompt"].endswith("<document>\n$document\n</document>\n")
        assert "between <document> and </document>" in agent["system_prompt"]
        assert "instructions" in agent["system_prompt"]


class TestOrder:
    def test_the_extractor_writes_evidence_before_scores(self) -> None:
        """Models write in the schema's order: what is quoted first can carry what is judged later."""
        schema = agent_at(EXTRACTOR)["schema"]["properties"]
        company = list(schema["companies"]["items"]["properties"])
        assert company.index("evidence") < company.index("sentiment") < company.index("impact_score")
        assert list(schema).index("evidence") == 0 and list(schema)[-1] == "confidence"

    def test_the_classifier_writes_facts_before_its_judgement(self) -> None:
        """The severity comes after the facts and after what is affected."""
        names = list(agent_at(CLASSIFIER)["schema"]["properties"])
        assert names.index("facts") < names.index("regions") < names.index("is_global_event") < names.index("severity")


class TestDocuments:
    def test_there_are_thirty(self) -> None:
        """Files and lines that hold a report, and the damaged one."""
        lines = [line for line in ARCHIVE.read_text("utf-8").splitlines() if line]
        assert len(texts()) - 1 + len(lines) == 30

    def test_all_promised_formats_are_there(self) -> None:
        """Each format that a folder may hold is met once at least."""
        assert {Path(name).suffix for name in texts()} == {".txt", ".md", ".json", ".jsonl", ".gz"}

    def test_the_json_files_carry_metadata(self) -> None:
        """Metadata goes through to the results."""
        for path in DOCUMENTS.rglob("*.json"):
            assert json.loads(path.read_text("utf-8")).keys() == {"text", "title", "published_at", "source"}

    def test_one_compressed_text_is_whole_and_one_is_cut(self) -> None:
        """A damaged file is one failed document, never the end of the run."""
        folder = DOCUMENTS / "archive"
        assert b"Fenwick" in gzip.decompress((folder / "2026-04-03.txt.gz").read_bytes())
        with pytest.raises(EOFError):
            gzip.decompress((folder / "2026-04-10-damaged.txt.gz").read_bytes())

    def test_the_gold_fits_the_agent_and_the_documents(self) -> None:
        """Each judged file is there with these bytes, and what is said to stand in a text stands there."""
        gold = read_gold(QUICKSTART / "gold.jsonl", agent_at(AGENTS[2])["schema"], agent="quickstart")
        assert len(gold.documents) == 29
        whole = texts()
        for (name, sha256), judged in gold.documents.items():
            data = whole.get(name)
            if data is not None and not name.endswith(".gz"):
                assert hashlib.sha256(data).hexdigest() == sha256
                assert all(value is None or value in data.decode() for value in judged.gold.values())


class TestConfig:
    def test_it_sets_what_a_demonstration_needs_and_no_more(self) -> None:
        """Whoever copies it as a template gets the careful defaults for all the rest."""
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
    """`local_llm.py -- python -c CODE` in an environment that names no server but the given one."""
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

    def test_a_vllm_server_of_the_users_own_is_used_as_it_is(self) -> None:
        """No server is started and nothing is set when VLLM_BASE_URL is there."""
        assert local_llm(self.SHOW, VLLM_BASE_URL="http://127.0.0.1:9").stdout == "None\n"

    def test_an_ollama_of_the_users_own_becomes_the_provider(self) -> None:
        """The config names vllm; OLLAMA_BASE_URL alone says that Ollama is meant."""
        assert local_llm(self.SHOW, OLLAMA_BASE_URL="http://127.0.0.1:9").stdout == "ollama\n"

    def test_a_provider_that_was_chosen_is_kept(self) -> None:
        """PIPELINE_PROVIDER of the user's own stands."""
        ran = local_llm(self.SHOW, OLLAMA_BASE_URL="http://127.0.0.1:9", PIPELINE_PROVIDER="vllm")
        assert ran.stdout == "vllm\n"

    def test_the_commands_exit_code_is_its_own(self) -> None:
        """make sees what the pipeline said."""
        assert local_llm("raise SystemExit(7)", VLLM_BASE_URL="http://127.0.0.1:9").returncode == 7


@pytest.mark.parametrize("path", [EXTRACTOR, CLASSIFIER])
def test_the_gold_of_a_built_in_agent_fits_its_texts(path: Path) -> None:
    """Every text is judged, by the bytes it has; names and tickers stand in it, and its grade counts."""
    folder = ROOT / "config" / "builtin"
    schema = agent_at(path)["schema"]
    gold = read_gold(folder / f"{path.stem}.gold.jsonl", schema, agent=path.stem)
    texts = {each.name: each.read_bytes() for each in (folder / "documents").iterdir()}
    assert set(gold.documents) == {(name, hashlib.sha256(data).hexdigest()) for name, data in texts.items()}
    for (name, _), document in gold.documents.items():
        companies = document.gold.get("companies", [])
        named = [company[key] for company in companies for key in ("name", "ticker") if company.get(key)]
        assert all(each in texts[name].decode() for each in (*named, *document.gold.get("commodities", ())))
        grade = grade_document(graded_fields(schema, {}), document.gold, document.gold)
        assert grade.totals[1:] == (0, 0)
