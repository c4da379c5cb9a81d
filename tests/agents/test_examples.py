"""Few-shot examples: checked when the agent is loaded, sent as chat turns, and part of the fingerprint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import AGENT, Place
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.agents import fingerprint, load_agent, render, resolve
from pipeline.config import AppConfig, VLLMConfig
from pipeline.errors import ConfigError
from pipeline.llm.protocol import Bodies, encode, messages
from pipeline.records import Document

SCHEMA = {
    "type": "object",
    "properties": {"company": {"type": "string", "x-quote": True}, "score": {"type": "integer"}},
    "required": ["company"],
}
EXAMPLE = {"document": "Acme $rose <today>.", "output": {"company": "Acme"}}


def agent_file(folder: Path, **changes: Any) -> Path:
    path = folder / "mine.yaml"
    tree = {"system_prompt": "Copy.", "user_prompt": "Text: $document\n", "schema": SCHEMA, **changes}
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


def resolved_of(folder: Path, **changes: Any) -> Any:
    agent_file(folder, **changes)
    return resolve(load_agent("mine", agents_dir=folder), AppConfig(), variant="default")


def test_examples_are_turns_before_the_document(tmp_path: Path) -> None:
    """The example's text is in a user prompt like the document's, and its output is the assistant's answer."""
    second = {"document": "Beta fell.", "output": {"company": "Beta", "score": 2}}
    resolved = resolved_of(tmp_path, examples=[EXAMPLE, second])
    prompts = render(resolved, Document("d", "d", "0" * 64, "Gamma."))
    assert [(turn["role"], turn["content"]) for turn in messages(prompts)] == [
        ("system", "Copy."),
        ("user", "Text: Acme $rose <today>.\n"),
        ("assistant", '{"company": "Acme"}'),
        ("user", "Text: Beta fell.\n"),
        ("assistant", '{"company": "Beta", "score": 2}'),
        ("user", "Text: Gamma.\n"),
    ]


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ({"document": "Acme."}, r"examples\[0\].output: got nothing, need an object"),
        ({"output": {"company": "Acme"}}, r"examples\[0\].document: got nothing, need a text"),
        ({**EXAMPLE, "ouput": {}}, r"unknown key 'ouput'; the nearest is output"),
        ({"document": "Acme.", "output": {"company": 5}}, r"examples\[0\].output: .*company"),
        ({"document": "Beta.", "output": {"company": "Acme"}}, r"examples\[0\].output: "),
    ],
)
def test_invalid_example_is_refused(tmp_path: Path, example: dict[str, Any], message: str) -> None:
    """An output that breaks the schema or has a wrong quote is refused with its place."""
    agent_file(tmp_path, examples=[example])
    with pytest.raises(ConfigError, match=message):
        load_agent("mine", agents_dir=tmp_path)


def test_examples_are_part_of_the_fingerprint(tmp_path: Path) -> None:
    """An agent without examples has the fingerprint it had before examples existed."""
    plain = fingerprint(resolved_of(tmp_path), VLLMConfig())
    assert fingerprint(resolved_of(tmp_path, examples=[]), VLLMConfig()) == plain
    original = fingerprint(resolved_of(tmp_path, examples=[EXAMPLE]), VLLMConfig())
    other = fingerprint(resolved_of(tmp_path, examples=[{**EXAMPLE, "document": "Acme fell."}]), VLLMConfig())
    assert len({plain, original, other}) == 3


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(max_size=10), max_size=3), st.text(max_size=10), st.text(max_size=10))
def test_body_with_examples_equals_its_payload(answers: list[str], system: str, user: str) -> None:
    """This holds whatever prompts were sent before."""
    bodies = Bodies(lambda prompts, schema: {"messages": messages(prompts), "schema": schema})
    turns = {f"example_{n}_answer": text for n, text in enumerate(answers)}
    for extra in ({}, turns, {"example_1": "x", **turns}):
        prompts = {"system": system, **extra, "user": user}
        assert bodies.body(prompts, None) == encode({"messages": messages(prompts), "schema": None})


@pytest.mark.parametrize("provider", ["vllm", "ollama"])
def test_run_sends_examples_in_both_dialects(place: Place, provider: str) -> None:
    """A changed example redoes the documents, and the dry run counts them."""
    example = {"document": "An example text.", "output": {"summary": "An example."}}
    ollama = {"ollama.base_url": place.server.url, "ollama.model": "llama3.1"}
    place.configure({"provider": provider, **ollama}, agent={"examples": [example]})
    place.documents(3)
    place.run()
    sent = [chat for chat in place.server.chats() if chat.document.endswith(".txt")]
    assert len(sent) == 3
    for chat in sent:
        turns = chat.body["messages"]
        assert [turn["role"] for turn in turns] == ["system", "user", "assistant", "user"]
        assert json.loads(turns[2]["content"]) == example["output"]
    assert "3 skipped" in place.run().out
    other = {**example, "document": "Another text."}
    place.configure({"provider": provider, **ollama}, agent={"examples": [other]})
    assert "3 done" in place.run().out


def test_dry_run_counts_the_tokens_of_examples(place: Place) -> None:
    """A long example makes every estimated prompt longer."""

    def tokens() -> int:
        (line,) = [line for line in place.run("--dry-run").out.splitlines() if "prompt tokens" in line]
        return int("".join(char for char in line.split("prompt tokens")[0] if char.isdigit()))

    place.configure()
    place.documents(3)
    before = tokens()
    long = {"document": "word " * 2000, "output": {"summary": "An example."}}
    place.configure(agent={"examples": [long]})
    assert tokens() > before + 3 * 1500
    assert AGENT["schema"]["required"] == ["summary"]
