"""The public names: where they are, their signatures, and what they need."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import fields
from typing import Any

import pytest
from fake_llm import FakeLLM

import pipeline
from pipeline import (
    AppConfig,
    ExtractionAttempt,
    LLMClient,
    ModelMetadata,
    OllamaClient,
    OllamaConfig,
    ResolvedAgentConfig,
    VLLMClient,
    VLLMConfig,
    build_config_from_resolved,
    build_llm_client,
    check_vllm_health,
    classify_global_event,
    load_config,
)

NAMED = (
    *("AppConfig", "ExtractionAttempt", "LLMClient", "ModelMetadata", "OllamaClient", "OllamaConfig", "VLLMClient"),
    *("ResolvedAgentConfig", "VLLMConfig", "build_config_from_resolved", "build_llm_client", "check_vllm_health"),
    *("Extractor", "Record", "classify_global_event", "extract", "load_config", "read_results"),
)
TEN = {
    "base_url": "http://127.0.0.1:8000",
    "model": "",
    "timeout": 300.0,
    "max_retries": 3,
    "retry_base_delay": 1.0,
    "retry_max_delay": 30.0,
    "retry_backoff_multiplier": 2.0,
    "max_tokens": 1024,
    "temperature": 0.0,
    "api_key": "",
}


def test_package_exports_exactly_the_public_names() -> None:
    """An unknown name raises AttributeError."""
    assert sorted(pipeline.__all__) == sorted(NAMED)
    assert all(getattr(pipeline, name).__name__ == name for name in NAMED)
    with pytest.raises(AttributeError, match="no attribute 'VllmClient'"):
        pipeline.VllmClient  # noqa: B018


def test_import_of_the_package_is_lazy() -> None:
    """A command that needs no client does not load the client modules."""
    code = "import sys, pipeline; print([name for name in sys.modules if name.startswith(('pipeline.', 'requests'))])"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == "[]"


def test_public_signatures_are_unchanged() -> None:
    """Names, order, defaults and kinds of the arguments are compared."""
    health = inspect.signature(check_vllm_health)
    assert str(health) == "(base_url: 'str', timeout: 'float' = 10.0, *, api_key: 'str' = '') -> 'bool'"
    for client in (LLMClient, OllamaClient, VLLMClient):
        assert list(inspect.signature(client.call_llm).parameters) == [
            *("self", "prompts", "json_schema", "document_text")
        ]
        assert list(inspect.signature(client.close).parameters) == ["self"]
    for build in (build_llm_client, build_config_from_resolved):
        assert list(inspect.signature(build).parameters) == ["resolved", "ollama", "vllm"]
    assert list(inspect.signature(classify_global_event).parameters)[:2] == ["text", "client"]


def test_vllm_config_has_its_ten_fields() -> None:
    """They have these defaults, and the config is `AppConfig.vllm`."""
    config = load_config(environ={}).vllm
    assert type(config) is VLLMConfig
    assert {name: getattr(config, name) for name in TEN} == TEN
    assert set(TEN) <= {field.name for field in fields(VLLMConfig)} & {field.name for field in fields(OllamaConfig)}


def test_environment_sets_all_ten_fields() -> None:
    """Each variable is VLLM_ and the field's name; empty and foreign ones are ignored."""
    texts = ("base_url", "model", "api_key")
    given: dict[str, Any] = {name: "http://x" if name in texts else 9 for name in TEN}
    given |= {"temperature": 1.5, "retry_base_delay": 0.5}
    environ = {f"VLLM_{name.upper()}": str(value) for name, value in given.items()} | {"VLLM_PORT": "tcp://10.0.0.1"}
    result = load_config(environ=environ).vllm
    assert {name: getattr(result, name) for name in TEN} == given
    assert load_config(environ=dict.fromkeys(environ, "")).vllm == VLLMConfig()


@pytest.mark.parametrize("kind", ["ollama", "vllm"])
def test_client_needs_only_its_config(kind: str) -> None:
    """Public names alone build a client from the environment, and its attempt names the model that answered."""
    with FakeLLM(("llama3.1",)) as server:
        name = kind.upper()
        app = load_config(environ={f"{name}_BASE_URL": server.url, f"{name}_MODEL": "llama3.1"})
        assert type(app) is AppConfig
        resolved = ResolvedAgentConfig("a", "default", kind, max_tokens=99)
        client = build_llm_client(resolved, app.ollama, app.vllm)
        config = build_config_from_resolved(resolved, app.ollama, app.vllm)
        by_hand = VLLMClient(config) if isinstance(config, VLLMConfig) else OllamaClient(config)
        for sender in (client, by_hand):
            attempt = sender.call_llm({"system": "s", "user": "u"}, None, "u")
            assert isinstance(attempt, ExtractionAttempt)
            assert (attempt.error, attempt.max_tokens) == (None, 99)
            assert attempt.model == ModelMetadata(kind, "llama3.1", server.url)
            sender.close()
        assert check_vllm_health(server.url) is True
    assert check_vllm_health(server.url, 1.0) is False
