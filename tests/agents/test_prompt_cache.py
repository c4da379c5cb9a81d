"""Prompt caching: requests have equal bytes up to the document."""

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
    """Return a client of a server that does not exist."""
    if kind == "ollama":
        return OllamaClient(OllamaConfig(base_url="http://127.0.0.1:1", model="m", **settings))
    return VLLMClient(VLLMConfig(base_url="http://127.0.0.1:1", model="m", **settings))


def bodies(client: VLLMClient | OllamaClient, kind: str, *texts: str) -> list[bytes]:
    """Return the request bytes for these documents."""
    with responses.RequestsMock() as wire:
        wire.post(URLS[kind], json={})
        sent = []
        for text in texts:
            client.call_llm({"system": SYSTEM, "user": text}, SCHEMA, text)
            sent.append(bytes(wire.calls[-1].request.body))  # type: ignore[arg-type]
        return sent


@pytest.mark.parametrize("kind", ["vllm", "ollama"])
def test_requests_have_equal_bytes_up_to_the_document(kind: str) -> None:
    """Model, options, schema and system prompt come first, and no part of the prompt follows the document."""
    first, second = bodies(client_of(kind), kind, "One text.", "Another text.")
    at = first.index(b"One text.")
    assert first[:at] == second[: second.index(b"Another text.")]
    assert first[at:] == b'One text."}]}'
    assert json.dumps(SCHEMA, separators=(",", ":")).encode() in first[:at]
    assert encode(SYSTEM) in first[:at]


@pytest.mark.parametrize("kind", ["vllm", "ollama"])
def test_changed_model_name_updates_the_cached_bytes(kind: str) -> None:
    """The encoded part is rebuilt when a preflight finds another model name."""
    client = client_of(kind)
    bodies(client, kind, "One text.")
    client.adopt(model="other", think=None, digest=None)
    assert b'"model":"other"' in bodies(client, kind, "One text.")[0]


def test_messages_of_extra_body_are_sent() -> None:
    """The document is then wherever `extra_body` puts it, if at all."""
    own = [{"role": "user", "content": "fixed"}]
    sent = bodies(client_of("vllm", extra_body={"messages": own}), "vllm", "One text.")[0]
    assert json.loads(sent)["messages"] == own


@pytest.mark.parametrize("kind", ["vllm", "ollama"])
@given(texts=st.lists(st.text(max_size=20), min_size=1, max_size=4), system=st.text(max_size=9))
def test_body_equals_its_payload(kind: str, texts: list[str], system: str) -> None:
    """Whatever the prompts, the JSON equals an encoding of the whole payload."""
    client = client_of(kind)
    for text in [*texts, *texts]:
        prompts = {"system": system, "user": text}
        for schema in (SCHEMA, None, dict(SCHEMA)):
            assert client.bodies.body(prompts, schema) == encode(client.payload(prompts, schema))
