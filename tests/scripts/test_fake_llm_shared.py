"""The fake Ollama whose model another client keeps loaded behaves as recorded from a real one."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import requests
from chat_requests import CHATS, body_for
from fake_llm import FakeLLM

PATH = Path(__file__).parents[1] / "data/ollama_transcripts.jsonl"
RECORDED: dict[str, Any] = {
    record["name"]: record["response"]["body"] for record in map(json.loads, PATH.read_text("utf-8").splitlines())
}


def _body(num_ctx: int) -> dict[str, Any]:
    return body_for(CHATS[0], "Invoice 17", options={"num_ctx": num_ctx, "num_predict": 5})


def _ps(server: FakeLLM) -> dict[str, Any]:
    shown: dict[str, Any] = requests.get(server.url + "/api/ps", timeout=60).json()
    return shown


def test_request_with_another_context_waits_while_the_model_is_kept() -> None:
    """One with the same context is answered at once; /api/ps shows the loaded context and its expiry."""
    with FakeLLM(("llama3.1",)) as server:
        server.keep(2048, 60)
        with pytest.raises(requests.Timeout):
            requests.post(server.url + CHATS[0], json=_body(4096), timeout=0.3)
        assert requests.post(server.url + CHATS[0], json=_body(2048), timeout=60).status_code == 200
        (row,) = _ps(server)["models"]
        assert row["context_length"] == 2048
        assert datetime.fromisoformat(row["expires_at"].replace("Z", "+00:00")) > datetime.now().astimezone()
        assert server.loads == 0


def test_unloading_the_model_ends_the_wait() -> None:
    """`keep_alive: 0` on /api/generate, as `ollama stop` sends it, gets the recorded reply."""
    with FakeLLM(("llama3.1",)) as server, ThreadPoolExecutor(1) as pool:
        server.keep(2048, 60)
        waiting = pool.submit(requests.post, server.url + CHATS[0], json=_body(4096), timeout=60)
        unload = {"model": "llama3.1", "keep_alive": 0}
        payload = requests.post(server.url + "/api/generate", json=unload, timeout=60).json()
        assert list(payload) == list(RECORDED["unload"])
        assert payload["done_reason"] == RECORDED["unload"]["done_reason"]
        assert waiting.result().status_code == 200
        assert _ps(server)["models"][0]["context_length"] == 4096


def test_kept_model_expires() -> None:
    """The wait ends when the other client's keep-alive time is over."""
    with FakeLLM(("llama3.1",)) as server:
        server.keep(2048, 0.3)
        assert requests.post(server.url + CHATS[0], json=_body(4096), timeout=60).status_code == 200


def test_loaded_models_are_listed_with_the_recorded_fields() -> None:
    """/api/ps has every real field, and an empty list when no model is loaded."""
    with FakeLLM(("llama3.1",)) as server:
        assert _ps(server) == RECORDED["ps_nothing_loaded"]
        server.keep(2048, 60)
        (row,), (recorded,) = _ps(server)["models"], RECORDED["ps_loaded_2048"]["models"]
        assert set(recorded) <= set(row)
