"""`Extractor`, `extract` and `classify_global_event`: one text, one client, the same checks as in a run."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import Place
from fake_llm import FakeLLM

from pipeline.agents import load_agent
from pipeline.api import Extractor, classify_global_event, extract, read_results
from pipeline.config import OllamaConfig, VLLMConfig
from pipeline.errors import ConfigError, OutputError
from pipeline.llm.ollama import OllamaClient
from pipeline.llm.vllm import VLLMClient
from pipeline.records import ExtractionAttempt, Failure, ModelMetadata, Result

TEXT = "[[doc:1]] The strait was closed to tankers on Monday."


def test_event_is_classified_by_any_provider() -> None:
    """The output fits the agent's schema, and the metadata names the provider that answered."""
    with FakeLLM(("llama3.1",)) as server:
        clients = (
            VLLMClient(VLLMConfig(base_url=server.url, model="llama3.1")),
            OllamaClient(OllamaConfig(base_url=server.url, model="llama3.1")),
        )
        results = [classify_global_event(TEXT, client) for client in clients]
    schema = load_agent("event_classifier").compiled
    assert [type(result) for result in results] == [Result, Result]
    assert [result.model.provider for result in results if isinstance(result, Result)] == ["vllm", "ollama"]
    assert all(schema.violation(result.output) is None for result in results if isinstance(result, Result))


@pytest.mark.parametrize("stream", [False, True])
def test_metadata_has_the_servers_model_name(stream: bool) -> None:
    """With an empty `model` the server uses its only model."""
    with FakeLLM(("served-one",)) as server:
        result = classify_global_event(TEXT, VLLMClient(VLLMConfig(base_url=server.url, stream=stream)))
    assert isinstance(result, Result)
    assert result.model.name == "served-one"


def test_extract_retries_with_the_clients_settings() -> None:
    """Two retries are three requests, with the pauses of its back-off."""
    slept: list[float] = []
    with FakeLLM(("llama3.1",)) as server:
        config = VLLMConfig(base_url=server.url, model="llama3.1", max_retries=2, retry_base_delay=0.5)
        text = f"{TEXT} [[fault:http_500]]"
        result = classify_global_event(text, VLLMClient(config), sleep=slept.append, rng=random.Random(1))
        assert len(server.chats()) == 3
    assert isinstance(result, Failure)
    assert (result.reason, result.error, result.attempts) == ("server_error", "http_500", 3)
    assert len(slept) == 2
    assert slept[0] <= 0.5
    assert slept[1] <= 1.0


class Poet:
    """A client that answers in verse, then in JSON that breaks the schema."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def call_llm(
        self, prompts: Mapping[str, str], json_schema: Mapping[str, Any] | None, document_text: str
    ) -> ExtractionAttempt:
        """Record the prompt."""
        self.asked.append(prompts["user"])
        return ExtractionAttempt(ModelMetadata("muse", "ode"), raw_text="O sea!" if len(self.asked) == 1 else "{}")

    def close(self) -> None:
        """Do nothing."""


def test_custom_client_is_accepted_and_validated() -> None:
    """It gets one re-ask with the complaint, and its bad answers are a failure."""
    poet = Poet()
    result = classify_global_event(TEXT, poet)
    assert isinstance(result, Failure)
    assert (result.reason, result.stage, result.attempts) == ("schema_invalid", "validate", 2)
    assert poet.asked[1].startswith(poet.asked[0])
    assert "O sea!" in poet.asked[1]


@pytest.mark.parametrize("agent", ["extractor", "event_classifier"])
def test_extract_equals_a_run(place: Place, agent: str) -> None:
    """The result for a text equals that of a run, except for times and place."""
    place.configure({"agent": agent})
    (name,) = place.documents(1)
    place.run()
    line = json.loads((place.folder / "out" / "results.jsonl").read_text(encoding="utf-8"))
    text = (place.folder / "inbox" / name).read_text(encoding="utf-8")
    client = VLLMClient(VLLMConfig(base_url=place.server.url, model="llama3.1"))
    result = extract(text, agent, client, document_id=name)
    assert isinstance(result, Result)
    assert (result.output, result.sha256, result.fingerprint) == (line["output"], line["sha256"], line["fingerprint"])
    assert (result.attempts, result.document_chars) == (line["attempts"], line["document_chars"])


def test_extractor_reads_the_configuration(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a client it uses the configured provider; eight threads share it."""
    place.configure()
    monkeypatch.chdir(place.folder)
    monkeypatch.setenv("PIPELINE_CONFIG", "pipeline.yaml")
    with Extractor("agents/small.yaml") as extractor, ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda number: extractor(f"[[doc:{number}]] A text."), range(24)))
    assert all(isinstance(result, Result) and result.model.provider == "vllm" for result in results)
    assert sorted(chat.document for chat in place.server.chats()) == sorted(map(str, range(24)))


def test_metadata_fills_the_prompt(place: Place) -> None:
    """It has the role of a document's fields in a run."""
    place.configure(agent={"user_prompt": "$title: $document\n"})
    client = VLLMClient(VLLMConfig(base_url=place.server.url, model="llama3.1"))
    folder = str(place.folder / "agents")
    result = extract("[[doc:1]] A text.", "small", client, metadata={"title": "The title"}, agents_dir=folder)
    assert isinstance(result, Result)
    assert "The title: [[doc:1]] A text." in json.dumps(place.server.chats()[-1].body)
    with pytest.raises(ConfigError, match="is that of the text"):
        extract("A text.", "small", client, metadata={"text": "x"}, agents_dir=folder)


def test_missing_agent_is_a_config_error() -> None:
    """A wrong name or path is reported before any request."""
    with pytest.raises(ConfigError, match="which is not a file"):
        extract("A text.", "nowhere/agent.yaml", VLLMClient(VLLMConfig()))
    with pytest.raises(ConfigError, match="the nearest is extractor"):
        extract("A text.", "extracter", VLLMClient(VLLMConfig()))


def test_results_of_a_missing_folder_are_an_error(tmp_path: Path) -> None:
    """A mistyped path must not look like an output without records."""
    with pytest.raises(OutputError, match="is not a folder"):
        read_results(str(tmp_path / "nowhere"))
