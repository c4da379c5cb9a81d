"""The fake server speaks both dialects as documented, with answers that fit the schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jsonschema
import pytest
import requests
from chat_requests import CHATS, SCHEMA, ask, body_for, content_of, saying
from fake_llm import FakeLLM
from fake_llm.schema import answer_for, quote_from
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture
def server() -> Iterator[FakeLLM]:
    """Yield a server that answers at once."""
    with FakeLLM(("llama3.1",)) as running:
        yield running


def test_token_counts_agree_everywhere(server: FakeLLM) -> None:
    """/tokenize, vLLM's usage and Ollama's counter give the same count of a prompt."""
    request_body = body_for(CHATS[1], "Invoice 17 from ACME " * 20)
    count = requests.post(server.url + "/tokenize", json=request_body, timeout=60).json()["count"]
    usage = requests.post(server.url + CHATS[1], json=request_body, timeout=60).json()["usage"]
    assert ask(server, CHATS[0], "Invoice 17 from ACME " * 20).json()["prompt_eval_count"] == count
    assert usage["prompt_tokens"] == count
    assert usage["total_tokens"] == count + usage["completion_tokens"]


def test_vllm_answer_is_clamped_to_the_remaining_context() -> None:
    """The reply is a 200 with `length`, and the total is the context."""
    with FakeLLM(("llama3.1",), 100, answer=saying("word " * 200)) as server:
        answer = ask(server, CHATS[1], "x" * 360, max_tokens=90).json()
        assert answer["choices"][0]["finish_reason"] == "length"
        assert answer["usage"]["total_tokens"] == 100
        full = ask(server, CHATS[1], "x" * 391)
        assert full.status_code == 400
        assert full.json()["error"]["message"].startswith("max_tokens must be at least 1, got 0.")


def test_ollama_refuses_a_long_prompt_with_truncate_false(server: FakeLLM) -> None:
    """The 400 is JSON inside a JSON string, with both counts."""
    answer = ask(server, CHATS[0], "x" * 40_000, options={"num_ctx": 4096})
    inner = json.loads(answer.json()["error"])["error"]
    assert (answer.status_code, inner["type"], inner["n_ctx"]) == (400, "exceed_context_size_error", 4096)


def test_ollama_truncates_a_long_prompt_silently() -> None:
    """Without `truncate: false` a truncating server answers 200 with the count of half a window."""
    with FakeLLM(("llama3.1",), truncates=True) as server:
        answer = ask(server, CHATS[0], "x" * 40_000, truncate=True)
        assert (answer.status_code, answer.json()["prompt_eval_count"]) == (200, 4098)


def test_ollama_durations_add_up() -> None:
    """The total beyond load, prompt and generation is the queue time."""
    with FakeLLM(("llama3.1",), slots=1, latency_s=0.1) as server, ThreadPoolExecutor(2) as pool:
        answers = [
            future.result().json() for future in [pool.submit(ask, server, CHATS[0], f"text {i}") for i in (1, 2)]
        ]
    parts = ("load_duration", "prompt_eval_duration", "eval_duration")
    queued = sorted(answer["total_duration"] - sum(answer.get(part, 0) for part in parts) for answer in answers)
    assert 0 <= queued[0] < 50_000_000 < queued[1]
    assert answers[0]["done"] is True
    assert answers[0]["done_reason"] == "stop"


def test_ollama_pages_describe_the_model(server: FakeLLM) -> None:
    """It is listed with its tag, shown, loaded by an empty chat, and then reported by ps with its context."""
    root = requests.get(server.url + "/", timeout=60)
    assert (root.text, root.headers["content-type"]) == ("Ollama is running", "text/plain; charset=utf-8")
    assert requests.get(server.url + "/api/tags", timeout=60).json()["models"][0]["name"] == "llama3.1:latest"
    shown = requests.post(server.url + "/api/show", json={"model": "llama3.1"}, timeout=60).json()
    assert shown["model_info"][shown["model_info"]["general.architecture"] + ".context_length"] == 8192
    assert requests.get(server.url + "/api/ps", timeout=60).json() == {"models": []}
    empty = {"model": "llama3.1", "messages": [], "stream": False, "options": {"num_ctx": 2048}}
    assert requests.post(server.url + "/api/chat", json=empty, timeout=60).json()["done_reason"] == "load"
    assert requests.get(server.url + "/api/ps", timeout=60).json()["models"][0]["context_length"] == 2048
    assert server.loads == 1


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"model": "nosuch"}, 404, "model 'nosuch' not found"),
        ({"model": ""}, 400, "model is required"),
        ({"think": True}, 400, '"llama3.1" does not support thinking'),
        ({"keep_alive": "300"}, 400, 'time: missing unit in duration "300"'),
        ({"options": {"num_ctx": "many"}}, 500, 'option "num_ctx" must be of type integer'),
        ({"format": "xml"}, 500, 'invalid format: "\\"xml\\""; expected "json" or a valid JSON Schema object'),
    ],
)
def test_ollama_errors_have_its_format(server: FakeLLM, change: dict[str, Any], status: int, message: str) -> None:
    """They are a single string, with the status of the real server."""
    answer = ask(server, CHATS[0], "text", **change)
    assert (answer.status_code, answer.json()) == (status, {"error": message})


def test_ollama_streams_ndjson_by_default(server: FakeLLM) -> None:
    """The parts join to the answer, and the last line has the counts."""
    server.answer = saying("Zürich " * 30)
    request_body = {key: value for key, value in body_for(CHATS[0], "text", schema=None).items() if key != "stream"}
    answer = requests.post(server.url + CHATS[0], json=request_body, timeout=60)
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.content.splitlines()]
    assert "".join(line["message"]["content"] for line in lines) == "Zürich " * 30
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert lines[-1]["eval_count"] > 0


def test_single_dialect_server_rejects_the_other_dialect() -> None:
    """The error for a wrong URL has the shape of its own dialect."""
    with FakeLLM(dialects={"vllm"}) as server:
        assert requests.get(server.url + "/api/tags", timeout=60).json() == {"detail": "Not Found"}
        assert ask(server, "/api/chat", "text").status_code == 404
    with FakeLLM(dialects={"ollama"}) as server:
        assert requests.get(server.url + "/v1/models", timeout=60).text == "404 page not found"


@pytest.mark.parametrize("path", CHATS)
def test_answer_fits_the_schema_and_depends_on_the_document(server: FakeLLM, path: str) -> None:
    """Equal documents get equal answers, other documents other ones."""
    first, again, other = (content_of(ask(server, path, text)) for text in ("one text", "one text", "another text"))
    assert first == again != other
    jsonschema.validate(json.loads(first), SCHEMA)
    assert content_of(ask(server, path, "text", schema=None)) == "ok"


NESTED = {
    "type": "object",
    "properties": {
        "evidence": {"type": "array", "minItems": 1, "maxItems": 3, "items": {"$ref": "#/$defs/evidence"}},
        "kind": {"enum": ["a", "b", None]},
        "score": {"type": "integer", "minimum": 3, "maximum": 5},
        "level": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        "code": {"type": ["string", "null"], "pattern": "^[A-Z]{2,5}$"},
        "when": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]},
        "tags": {"type": "array", "maxItems": 0, "items": {"type": "string"}},
        "long": {"type": "string", "minLength": 200, "maxLength": 210},
        "tree": {"$ref": "#/$defs/tree"},
        "certain": {"type": "boolean"},
        "fixed": {"const": 7},
    },
    "required": ["evidence", "kind", "score", "level", "code", "when", "tags", "long", "tree", "certain", "fixed"],
    "additionalProperties": False,
    "$defs": {
        "evidence": {
            "type": "object",
            "properties": {"quote": {"type": "string", "maxLength": 60}, "page": {"type": "integer", "maximum": -3}},
            "required": ["quote", "page"],
        },
        "tree": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "child": {"anyOf": [{"$ref": "#/$defs/tree"}, {"type": "null"}]},
            },
            "required": ["name", "child"],
        },
    },
}


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=300))
def test_any_document_gets_a_valid_answer(text: str) -> None:
    """The schema uses every known keyword."""
    jsonschema.Draft202012Validator(NESTED).validate(json.loads(answer_for(text, NESTED)))


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=300))
def test_quote_is_part_of_its_document(text: str) -> None:
    """The quoted text is literal."""
    assert quote_from(text) in text


def test_quotes_come_from_the_fenced_document() -> None:
    """Neither the instructions around it nor a marker is quoted."""
    prompt = "A much longer instruction than the text.\n<document>\n[[fault:slow]] Short news.\n</document>\nAnswer."
    assert quote_from(prompt) == "Short news."
