"""What servers can reuse: a request has the same bytes up to the document, whatever the document is."""

from __future__ import annotations

import json
from typing import Any

import pytest
import responses
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import OllamaConfig, VLLMConfig
from pipeline.llm.ollama import OllamaClient
from pipeline.llm.protocol import encode
from pipeline.llm.vllm import VLLMClient

URLS = {"vllm": "http://127.0.0.1:1/v1/chat/completions", "ollama": "http://127.0.0.1:1/api/chat"}
SCHEMA = {"type": "object", "properties": {"summary": {"type": "string"}}}
SYSTEM = "Sum the text up.\n"


def client_of(kind: str, **settings: Any) -> VLLMClient | OllamaClient:
    """A client of a server that is not there."""
    if kind == "ollama":
        return OllamaClient(OllamaConfig(base_url="http://127.0.0.1:1", model="m", **settings))
    return VLLMClient(VLLMConfig(base_url="http://127.0.0.1:1", model="m", **settings))


def bodies(client: VLLMClient | OllamaClient, kind: str, *texts: str) -> list[bytes]:
    """The bytes that go over the wire for these documents."""
    with responses.RequestsMock() as wire:
        wire.post(URLS[kind], json={})
        sent = []
        for text in texts:
            client.call_llm({"system": SYSTEM, "user": text}, SCHEMA, text)
            sent.append(bytes(wire.calls[-1].request.body))  # type: ignore[arg-type]
        return sent


@pytest.mark.parametrize("kind", ["vllm", "ollama"])
def test_two_requests_have_the_same_bytes_up_to_the_document(kind: str) -> None:
    """Model, options, schema and system prompt come first; then the document, and nothing of the question after it."""
    first, second = bodies(client_of(kind), kind, "One text.", "Another text.")
    at = first.index(b"One text.")
    assert first[:at] == second[: second.index(b"Another text.")]
    assert first[at:] == b'One text."}]}'
    assert json.dumps(SCHEMA, separators=(",", ":")).encode() in first[:at]
    assert encode(SYSTEM) in first[:at]


@pytest.mark.parametrize("kind", ["vllm", "ollama"])
def test_a_preflight_that_finds_more_changes_the_bytes(kind: str) -> None:
    """What is encoded once is encoded anew when the client takes over another model name."""
    client = client_of(kind)
    bodies(client, kind, "One text.")
    client.adopt(model="other", think=None, digest=None)
    assert b'"model":"other"' in bodies(client, kind, "One text.")[0]


def test_messages_of_extra_body_are_sent() -> None:
    """The document then stands where `extra_body` puts it, if at all."""
    own = [{"role": "user", "content": "fixed"}]
    sent = bodies(client_of("vllm", extra_body={"messages": own}), "vllm", "One text.")[0]
    assert json.loads(sent)["messages"] == own


@pytest.mark.parametrize("kind", ["vllm", "ollama"])
@given(texts=st.lists(st.text(max_size=20), min_size=1, max_size=4), system=st.text(max_size=9))
def test_a_body_is_its_payload(kind: str, texts: list[str], system: str) -> None:
    """Whatever stands in the prompts: the same JSON as when all of it is encoded each time."""
    client = client_of(kind)
    for text in [*texts, *texts]:
        prompts = {"system": system, "user": text}
        for schema in (SCHEMA, None, dict(SCHEMA)):
            assert client.bodies.body(prompts, schema) == encode(client.payload(prompts, schema))
