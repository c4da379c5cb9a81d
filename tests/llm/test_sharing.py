"""An Ollama that is busy for other clients: how /api/ps is interpreted."""

from __future__ import annotations

from fake_llm import FakeLLM

from pipeline.config import OllamaConfig
from pipeline.llm.ollama import OllamaClient
from pipeline.llm.sharing import CHECK_EVERY_S, LONG_AGO, SharingWatch


def test_unanswered_api_ps_keeps_the_held_state() -> None:
    """A busy server may not answer in time, so the model counts as held until an answer shows otherwise."""
    now = [0.0]
    with FakeLLM() as server:
        client = OllamaClient(OllamaConfig(base_url=server.url, model="llama3.1"))
        watch = SharingWatch(lambda: now[0])

        def look() -> object:
            now[0] += 2 * CHECK_EVERY_S
            assert watch.is_due(completed_at=LONG_AGO)
            return watch.check()

        with watch.pending(client):
            server.keep(2048, 600)
            server.api_key = "another"
            assert look() is None
            server.api_key = None
            assert look() is None
            state = look()
            assert state is not None
            server.api_key = "another"
            assert look() is state
            server.api_key = None
            server.release()
            assert look() is None
        client.close()
