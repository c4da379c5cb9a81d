"""The preflight of gateways and other OpenAI servers, which report less than vLLM and Ollama."""

from __future__ import annotations

from typing import Any

import pytest
from fake_llm import FakeLLM
from raw_server import Line, RawServer, answering, reply
from test_preflight import KINDS, SAMPLE, client_of, look

from pipeline.llm.capabilities import Preflight

ANSWER = {"choices": [{"message": {"content": "ok"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 9}}
CHAT = "/v1/chat/completions"
TWICE = (CHAT, CHAT)
"""The same tiny question, asked twice: does the server leave out of its count what it has in its cache?"""


@pytest.mark.parametrize("kind", KINDS)
def test_preflight_off_sends_only_a_completion(kind: str) -> None:
    """A gateway that has only the chat route passes."""
    with FakeLLM() as server:
        assert look(client_of(kind, server.url, preflight="off")) == Preflight("ok")
        assert [request.path for request in server.requests] == ["/api/chat" if kind == "ollama" else CHAT]


def test_preflight_warn_accepts_a_missing_model_list() -> None:
    """It logs a warning, and the tiny completion decides."""
    with answering({CHAT: reply(ANSWER)}) as server:
        assert look(client_of("vllm", server.url)).status == "misconfigured"
        result = look(client_of("vllm", server.url, preflight="warn"))
    assert (result.status, result.reason, result.warnings) == ("ok", None, ("/v1/models answers HTTP 404",))


@pytest.mark.parametrize("status", [403, 500, 501])
def test_preflight_warn_ignores_errors_of_the_model_list(status: int) -> None:
    """The completion decides; in strict mode a 5xx is a server that may recover."""
    with answering({"/v1/models": reply(b"", status), CHAT: reply(ANSWER)}) as server:
        strict = look(client_of("vllm", server.url))
        result = look(client_of("vllm", server.url, preflight="warn"))
    assert strict.status == ("misconfigured" if status == 403 else "unreachable")
    assert (result.status, result.warnings) == ("ok", (f"/v1/models answers HTTP {status}",))


def test_preflight_warn_stops_after_an_unanswered_request() -> None:
    """No second request is sent to a server that closed the first connection."""
    paths = []

    def talk(line: Line) -> None:
        paths.append(getattr(line.read(), "path", None))
        line.close()

    with RawServer(talk) as server:
        result = look(client_of("vllm", server.url, preflight="warn"))
    assert (result.status, result.reason, paths) == ("unreachable", "connection_error", ["/v1/models"])


def test_preflight_warn_needs_an_answer_to_the_completion() -> None:
    """A server that answers neither list nor completion does not pass."""
    with answering({"/v1/models": reply(b"", 404), CHAT: reply(b"", 404)}) as server:
        result = look(client_of("vllm", server.url, preflight="warn"))
    assert (result.status, result.reason) == ("misconfigured", "not_found")


@pytest.mark.parametrize(
    ("row", "context"),
    [
        ({"id": "m"}, None),
        ({"id": "m", "max_model_len": 2048}, 2048),
        ({"id": "m", "meta": {"n_ctx": 512, "n_ctx_train": 8192}}, 512),
        ({"id": "m", "meta": None, "max_model_len": "many"}, None),
    ],
)
def test_openai_servers_may_report_no_context_length(row: dict[str, Any], context: int | None) -> None:
    """vLLM has `max_model_len`, llama.cpp has `meta`; a server with neither may be an Ollama."""
    pages = {"/v1/models": reply({"data": [row]}), CHAT: reply(ANSWER)}
    with answering(pages) as server:
        preflight = look(client_of("openai", server.url, model="m", max_tokens=8), canary=False)
        paths = ["/v1/models", *([] if context else ["/api/version"]), CHAT, *TWICE]
        assert [request.path for request in server.got] == paths
    assert (preflight.status, preflight.context_length, preflight.server) == ("ok", context, None)


@pytest.mark.parametrize("prefix", ["", "/llm/team-a"])
@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/"])
def test_base_url_may_have_a_prefix_and_end_in_v1(prefix: str, ending: str) -> None:
    """Every path is requested below the prefix, without a doubled /v1."""
    result = {f"{prefix}/v1/models": reply({"data": [{"id": "m"}]}), f"{prefix}{CHAT}": reply(ANSWER)}
    with answering({**result, f"{prefix}/version": reply({"version": "0.32.0"})}) as server:
        client = client_of("vllm", server.url + prefix + ending, model="m")
        assert look(client, canary=False).status == "ok"
        assert client.model.endpoint == server.url + prefix
        assert [request.path for request in server.got] == [
            f"{prefix}/v1/models", f"{prefix}/version", f"{prefix}{CHAT}", *(prefix + path for path in TWICE)
        ]  # fmt: skip


@pytest.mark.parametrize("listed", [{}, {"data": None}, {"data": "m"}, {"data": [None, "m", {"name": "m"}]}])
def test_model_list_of_an_unknown_shape_is_empty(listed: Any) -> None:
    """The preflight does not raise."""
    with answering({"/v1/models": reply(listed)}) as server:
        preflight = look(client_of("vllm", server.url, model="m"))
    assert (preflight.status, preflight.reason) == ("misconfigured", "model_not_found")


@pytest.mark.parametrize("listed", [{}, {"models": None}, {"models": 7}, {"models": [None, "m", {"name": None}]}])
def test_ollama_tags_of_an_unknown_shape_are_empty(listed: Any) -> None:
    """The preflight does not raise."""
    with answering({"/api/tags": reply(listed)}) as server:
        preflight = look(client_of("ollama", server.url, model="m"))
    assert (preflight.status, preflight.reason) == ("misconfigured", "model_not_found")


def test_missing_version_is_unknown() -> None:
    """It is requested, but no check depends on it."""
    with answering({"/v1/models": reply({"data": [{"id": "m"}]}), CHAT: reply(ANSWER)}) as server:
        preflight = look(client_of("vllm", server.url, model="m"), canary=False)
    assert (preflight.status, preflight.server, preflight.prompt_tokens) == ("ok", None, 9)
    assert SAMPLE.json_schema is not None
