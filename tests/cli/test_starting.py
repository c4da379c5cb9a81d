"""Starting an agent from a built-in one, from records or from a class, and hints about beginners' mistakes."""

from __future__ import annotations

import json

import jsonschema
import pytest
from conftest import Place
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.answers.schema import compile_schema
from pipeline.answers.starting_schema import schema_of_records
from pipeline.config.texts import shorten

PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4))


@settings(max_examples=60)
@given(st.lists(st.dictionaries(st.text(), VALUES, max_size=4), min_size=1, max_size=4))
def test_records_fit_the_schema_drafted_from_them(records: list[dict[str, object]]) -> None:
    """They may have nulls, mixed types, and lists of objects with different fields."""
    schema = schema_of_records(records)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert [error.message for record in records for error in validator.iter_errors(record)] == []


def test_schema_from_example_is_usable_by_an_agent(place: Place) -> None:
    """The example is one object, JSON Lines, or the results of a run."""
    record = {"title": "a", "amount": 3, "tags": ["x"], "paid": None}
    (place.folder / "record.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    schema = json.loads(place.call("schema", "--from-example", "record.json").out)
    assert schema["required"] == ["title", "amount", "tags", "paid"]
    assert schema["properties"]["paid"] == {"type": ["string", "null"], "maxLength": 100}
    assert schema["additionalProperties"] is False
    place.documents(2)
    place.run()
    drafted = json.loads(place.call("schema", "--from-example", "out/results.jsonl").out)
    assert list(drafted["properties"]) == ["summary"]
    (place.folder / "no.json").write_text("{", encoding="utf-8")
    for name in ("no.json", "none.json"):
        assert place.call("schema", "--from-example", name).code == 2


def test_schema_from_pydantic_class(place: Place) -> None:
    """Any class with pydantic's method works; the schema is closed and has no titles."""
    source = (
        "class Invoice:\n"
        "    @staticmethod\n"
        "    def model_json_schema():\n"
        "        item = {'type': 'object', 'properties': {'title': {'title': 'T', 'type': 'string'}}}\n"
        "        return {'title': 'Invoice', 'type': 'object', '$defs': {'Item': item},\n"
        "                'properties': {'total': {'title': 'Total', 'type': 'number', 'default': 0},\n"
        "                               'items': {'type': 'array', 'items': {'$ref': '#/$defs/Item'}}}}\n"
    )
    (place.folder / "invoices.py").write_text(source, encoding="utf-8")
    ran = place.call("schema", "--from-pydantic", "invoices:Invoice")
    assert ran.code == 0, ran.err
    schema = json.loads(ran.out)
    assert schema["properties"]["total"] == {"type": "number"}
    assert schema["$defs"]["Item"]["properties"] == {"title": {"type": "string"}}
    assert schema["$defs"]["Item"]["additionalProperties"] is schema["additionalProperties"] is False
    compile_schema(schema, where="a class")
    for name in ("invoices", "invoices:Other", "nowhere:Invoice"):
        assert place.call("schema", "--from-pydantic", name).code == 2


def test_quotes_are_marked_in_the_drafted_schema(place: Place) -> None:
    """Without --quote stderr names the texts; with it they get x-quote; another name is refused with the nearest."""
    record = {"title": "a", "items": [{"evidence": "b", "amount": 3}]}
    (place.folder / "record.json").write_text(json.dumps(record), encoding="utf-8")
    assert "Text fields: title, items.evidence. To require" in place.call("schema", "--from-example", "record.json").err
    ran = place.call("schema", "--from-example", "record.json", "--quote", "items.evidence")
    assert ran.err == ""
    schema = json.loads(ran.out)
    assert schema["properties"]["items"]["items"]["properties"]["evidence"]["x-quote"] is True
    assert "x-quote" not in schema["properties"]["title"]
    compile_schema(schema, where="an example")
    words = ("schema", "--from-example", "record.json")
    repeated = place.call(*words, "--quote", "title", "--quote", "items.evidence")
    assert repeated.out == place.call(*words, "--quote", "title,items.evidence").out
    assert repeated.out.count("x-quote") == 2
    wrong = place.call("schema", "--from-example", "record.json", "--quote", "items.evidnce")
    assert wrong.code == 2
    assert "--quote: got 'items.evidnce', need one of title, items.evidence" in wrong.err
    assert place.call("schema", "--quote", "title").code == 2


def test_schema_from_a_real_pydantic_class(place: Place) -> None:
    """Optional, nested and recursive fields; a class or module that fails is an error of the user, exit 2."""
    pytest.importorskip("pydantic")
    source = (
        "from pydantic import BaseModel, Field\n"
        "class Line(BaseModel):\n"
        "    title: str\n"
        "    parent: 'Line | None' = None\n"
        "class Invoice(BaseModel):\n"
        "    number: str = Field(json_schema_extra={'x-quote': True})\n"
        "    note: 'str | None' = None\n"
        "    lines: list[Line] = []\n"
        "class Unfinished(BaseModel):\n"
        "    other: 'Missing'\n"
    )
    (place.folder / "invoices.py").write_text(source, encoding="utf-8")
    (place.folder / "faulty.py").write_text("1 / 0\n", encoding="utf-8")
    ran = place.call("schema", "--from-pydantic", "invoices:Invoice", "--quote", "note,lines.title")
    assert ran.code == 0, ran.err
    schema = json.loads(ran.out)
    assert schema["properties"]["number"] == {"type": "string", "x-quote": True}
    assert schema["properties"]["note"]["anyOf"][0] == {"type": "string", "x-quote": True}
    assert schema["$defs"]["Line"]["properties"]["title"]["x-quote"] is True
    compile_schema(schema, where="a class")
    for name, error in (("invoices:Unfinished", "PydanticUserError"), ("faulty:Invoice", "ZeroDivisionError")):
        refused = place.call("schema", "--from-pydantic", name)
        assert (refused.code, error in refused.err) == (2, True), refused.err


def test_init_agent_copies_a_built_in_agent(place: Place) -> None:
    """The project owns the copy, and .gitignore excludes the output."""
    ran = place.call("init", "mine", "--agent", "extractor")
    assert ran.code == 0, ran.err
    project = place.folder / "mine"
    assert "out/" in (project / ".gitignore").read_text(encoding="utf-8").splitlines()
    agent = (project / "agents" / "extractor.yaml").read_text(encoding="utf-8")
    assert agent.startswith("# yaml-language-server: $schema=../config/schemas/agent.schema.json\n")
    assert Place(project, place.server, env={"PIPELINE_CONFIG": ""}).call("run", "--dry-run").code == 0
    assert place.call("init", "other", "--agent", "extractr").code == 2


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("Read:\n{{ document }}", "user_prompt, line 2: got '{{ document }}', which is Jinja's syntax; need $document"),
        ("{{ title | upper }} $document", "need $title"),
        ("{document}", "which is the syntax of str.format; need $document"),
        ('${document} {"a": {"b": 1}} {{x}}', None),
    ],
)
def test_foreign_template_syntax_is_refused(place: Place, prompt: str, message: str | None) -> None:
    """It would be sent literally; other braces are text."""
    place.configure(agent={"user_prompt": prompt})
    place.documents(1)
    ran = place.call("run", "--dry-run")
    assert (ran.code, message is None or message in ran.err) == (0 if message is None else 2, True), ran.err


@pytest.mark.parametrize(("kind", "setting"), [("vllm", "VLLM_BASE_URL"), ("ollama", "OLLAMA_BASE_URL")])
def test_refused_default_address_names_its_setting(place: Place, kind: str, setting: str) -> None:
    """An address that the user has configured gets no such hint."""
    place.configure({"provider": kind, "vllm.base_url": "http://127.0.0.1:8000", "vllm.model": ""})
    output = place.call("check").out
    if "Connection refused" not in output:
        pytest.skip("a server listens at the usual port of this machine")
    assert f"or set {setting} (or `{kind}.base_url`) to the address of yours" in output
    place.configure({"provider": kind, f"{kind}.base_url": "http://127.0.0.1:9"})
    assert "default address" not in place.call("check").out


@pytest.mark.parametrize("command", ["check", "try", "run"])
def test_address_of_an_unused_provider_is_reported(place: Place, command: str) -> None:
    """Its server gets no request; when its provider is used, there is no warning."""
    place.documents(1)
    unused_url = "http://127.0.0.1:9"
    place.configure({"provider": "ollama", "ollama.base_url": unused_url, "vllm.base_url": None})
    place.env |= {"VLLM_BASE_URL": unused_url}
    words = {"check": [], "try": ["inbox/d000.txt"], "run": ["--set", "runner.startup_wait_s=0"]}[command]
    outage = ["--set", "runner.max_outage_s=0"]
    ran = place.call(command, *words, *outage)
    assert (ran.code, "VLLM_BASE_URL is set, but the provider is ollama" in ran.out + ran.err) == (3, True), ran
    used = place.call(command, *words, *outage, "--set", "provider=vllm")
    assert "VLLM_BASE_URL is set" not in used.out + used.err


@settings(max_examples=60)
@given(st.text(alphabet="ab ,.", max_size=200), st.integers(10, 80))
def test_shortened_text_ends_with_a_whole_word(text: str, limit: int) -> None:
    """A single long word is cut."""
    short = shorten(text, limit)
    assert len(short) <= limit + 1
    if short != text:
        beginning = short.removesuffix(" …")
        assert text.startswith(beginning)
        assert len(beginning) * 2 < limit or text[len(beginning)] in " ,;:." or " " not in text[limit // 2 : limit]
