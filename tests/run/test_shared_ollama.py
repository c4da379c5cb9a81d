"""A model that other clients keep loaded with another context: reported and waited for, without failed documents."""

from __future__ import annotations

import sys
import time

import pytest
from conftest import Place, line_with
from fake_llm import FakeLLM

from pipeline.cli.check_text import waiting_lines
from pipeline.config import OllamaConfig
from pipeline.llm.capabilities import FoundError, facts_of
from pipeline.llm.ollama import OllamaClient
from pipeline.llm.sharing import LoadConflict

HELD = "another client keeps the model llama3.1 loaded with a context of 2048 tokens until"
WAYS = "set `ollama.num_ctx: 2048` (or `auto`), stop the other client, or run `ollama stop llama3.1`"


@pytest.fixture
def shared(place: Place) -> Place:
    """Return a place whose provider is Ollama."""
    place.configure(_settings(place))
    return place


def _settings(place: Place) -> dict[str, object]:
    return {
        "provider": "ollama",
        "ollama.base_url": place.server.url,
        "ollama.model": "llama3.1",
        "ollama.max_tokens": 200,
        "ollama.retry_base_delay": 0.01,
        "ollama.timeout": 20,
    }


LONG_S = 120.0
"""Longer than any of it takes on a slow machine, and far shorter than the other client goes on (600 s)."""


def test_run_reports_a_held_model_and_waits(shared: Place) -> None:
    """When the other client releases the model, every document is done without a failure."""
    shared.documents(6)
    shared.server.keep(2048, 600)
    began = time.monotonic()
    child = shared.start("run", "--progress", "plain")
    line = line_with(child, HELD)
    assert time.monotonic() - began < LONG_S
    assert WAYS in line
    assert "a request with 8192 waits" in line
    shared.server.release()
    ran = child.end()
    assert ran.code == 0, ran.err
    assert len(shared.done()) == 6
    assert shared.failed() == {}
    assert shared.server.loads == 1


def test_model_taken_by_another_client_during_a_run_is_reported(shared: Place) -> None:
    """The documents wait longer than the request timeout, and none fails."""
    shared.configure({**_settings(shared), "ollama.timeout": 8, "ollama.max_retries": 0, "runner.concurrency": 2})
    shared.documents(40)
    shared.server.latency_s = 0.1
    child = shared.start("run", "--progress", "plain")
    shared.wait_for_results(5)
    shared.server.keep(2048, 14)
    line = line_with(child, HELD)
    assert WAYS in line
    ran = child.end()
    assert ran.code == 0, ran.err
    assert len(shared.done()) == 40
    assert shared.failed() == {}


def test_model_held_beyond_max_outage_s_exits_with_3(shared: Place) -> None:
    """Every document is left, as in an outage."""
    settings = {**_settings(shared), "runner.startup_wait_s": 1, "runner.max_outage_s": 3}
    shared.configure(settings)
    shared.documents(3)
    shared.server.keep(2048, 600)
    ran = shared.run(code=3)
    assert "no provider was available for 3 s" in ran.err
    assert HELD in ran.err
    assert shared.failed() == {}


def test_fallback_is_used_while_the_model_is_held(shared: Place) -> None:
    """After `startup_wait_s` the next provider is used."""
    shared.configure({**_settings(shared), "fallback": ["vllm"], "runner.startup_wait_s": 1})
    shared.documents(3)
    shared.server.keep(2048, 600)
    ran = shared.run()
    assert HELD in ran.err
    assert {line["model"]["provider"] for line in shared.lines("results.jsonl")} == {"vllm"}


def test_check_explains_a_held_model_and_exits_with_3(shared: Place) -> None:
    """It prints at once which context is loaded and what to do, and exits 30 s later."""
    shared.server.keep(2048, 600)
    began = time.monotonic()
    process = shared.start("check").process
    assert process.stdout is not None
    waiting = next(line for line in process.stdout if line.startswith("WAITING ollama"))
    assert time.monotonic() - began < LONG_S
    assert HELD in waiting
    assert WAYS in waiting
    rest, _ = process.communicate(timeout=LONG_S)
    assert process.returncode == 3
    assert time.monotonic() - began > 30
    assert "FAILED  provider ollama" in rest


@pytest.mark.parametrize("width", [60, 80, 120, sys.maxsize])
def test_check_wraps_a_waiting_message_between_words(width: int) -> None:
    """It is wrapped at every terminal width, and is one line in a file."""
    message = LoadConflict("llama3.1", 2048, 8192, "ollama.num_ctx", None).message
    lines = waiting_lines("ollama at http://127.0.0.1:11434", message, width=width)
    assert " ".join(" ".join(lines).split()) == f"WAITING ollama at http://127.0.0.1:11434: {message}"
    assert max(map(len, lines)) <= width
    assert width < sys.maxsize or len(lines) == 1


def test_check_waits_for_a_cold_model(shared: Place) -> None:
    """The load may take `load_timeout`, and no other client is blamed."""
    shared.server.load_s = 7.0
    ran = shared.call("check")
    assert ran.code == 0, ran.err
    assert "WAITING" not in ran.out
    assert "model load: 7." in ran.out


def test_check_reports_parallel_requests(shared: Place) -> None:
    """A low number points to OLLAMA_NUM_PARALLEL."""
    shared.server.latency_s = 0.2
    assert "requests side by side: 4 or more" in shared.call("check").out
    with FakeLLM(latency_s=0.2, slots=1) as server:
        shared.configure({**_settings(shared), "ollama.base_url": server.url})
        output = shared.call("check").out
    assert "requests side by side: 1 (the others wait in the server's queue; OLLAMA_NUM_PARALLEL" in output


def test_num_ctx_auto_uses_the_loaded_context(shared: Place) -> None:
    """The log and every record have it, and the model is not reloaded."""
    shared.configure({**_settings(shared), "ollama.num_ctx": "auto"})
    shared.documents(3)
    shared.server.keep(2048, 600)
    ran = shared.run()
    assert "num_ctx auto: context chosen" in ran.err
    assert {line["context_length"] for line in shared.lines("results.jsonl")} == {2048}
    assert shared.server.loads == 0


@pytest.mark.parametrize("loaded", [0, 1200])
def test_num_ctx_auto_requests_8192_if_too_little_is_loaded(shared: Place, loaded: int) -> None:
    """The context must hold the prompt, max_tokens and 1,024 tokens; a smaller one is waited for and replaced."""
    shared.configure({**_settings(shared), "ollama.num_ctx": "auto"})
    shared.documents(2)
    if loaded:
        shared.server.keep(loaded, 0.5)
    shared.run()
    assert {line["context_length"] for line in shared.lines("results.jsonl")} == {8192}


@pytest.mark.parametrize("name", ["llama3.1:8b", "llama3", "Llama3.1", "lama3.1:latest", "meta/llama3.1"])
def test_unknown_model_name_suggests_the_nearest_one(name: str) -> None:
    """Ollama names are exact; a wrong tag, case, owner or spelling gets the installed name as a suggestion."""
    with FakeLLM(("qwen3:8b", "llama3.1:latest")) as server, pytest.raises(FoundError) as caught:
        facts_of(OllamaClient(OllamaConfig(base_url=server.url, model=name)))
    assert "did you mean 'llama3.1:latest'?" in caught.value.preflight.message
