"""Servers other than vLLM and Ollama: their errors, names for finish reasons, and shapes of a reply."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_server import answering, reply

from pipeline.config import OllamaConfig, VLLMConfig
from pipeline.llm.endings import CUT_REASONS, DOUBTFUL, NATURAL
from pipeline.llm.error_bodies import error_in, read_error
from pipeline.llm.error_patterns import OVERFLOWS
from pipeline.llm.ollama import OllamaClient
from pipeline.llm.transport.http import Reply
from pipeline.llm.vllm import VLLMClient
from pipeline.records import ExtractionAttempt

SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}},
    "required": ["a"],
    "additionalProperties": False,
}
TEXT = '{"a": 1}'


def attempt_of(answer: bytes, *, schema: Any = SCHEMA, **settings: Any) -> ExtractionAttempt:
    """Return the attempt of the OpenAI client for this reply."""
    with answering({"/v1/chat/completions": answer}) as server:
        config = VLLMConfig(
            base_url=server.url,
            model="m",
            type="openai",
            timeout=60.0,
            max_tokens=900,
            **settings,
        )
        return VLLMClient(config).call_llm({"system": "s", "user": "u"}, schema, "u")


def ollama_attempt_of(answer: bytes, *, schema: Any = SCHEMA) -> ExtractionAttempt:
    """Return the attempt of the Ollama client for this reply."""
    with answering({"/api/chat": answer}) as server:
        return OllamaClient(OllamaConfig(base_url=server.url, timeout=60.0)).call_llm({"user": "u"}, schema, "u")


def completion(content: Any, finish: Any = "stop", **message: Any) -> dict[str, Any]:
    """Return a completion of the OpenAI protocol."""
    return {
        "choices": [
            {
                "message": {"role": "assistant", "content": content, **message},
                "finish_reason": finish,
            }
        ]
    }


def flat(message: str) -> dict[str, Any]:
    """Return an error at top level, as SGLang, LMDeploy and TensorRT-LLM write them."""
    return {
        "object": "error",
        "message": message,
        "type": "BadRequestError",
        "param": None,
        "code": 400,
    }


def nested(message: str, **more: Any) -> dict[str, Any]:
    """Return an error in the shape of the OpenAI protocol."""
    return {"error": {"message": message, "type": "invalid_request_error", **more}}


# every known form of "the prompt is too long", from public bug reports and sources
TOO_LONG = json.loads((Path(__file__).parents[1] / "data" / "prompts_too_long.json").read_text("utf-8"))


@pytest.mark.parametrize("row", TOO_LONG, ids=[row["server"] for row in TOO_LONG])
def test_each_wording_of_a_too_long_prompt_is_context_length(row: dict[str, Any]) -> None:
    """The counts in the message determine how much of the document fits."""
    attempt = attempt_of(reply(row["body"], row["status"]))
    assert attempt.reason == "context_length"
    if row["status"] != 200:
        assert (attempt.needed_tokens, attempt.context_length) == (row["needed"], row["limit"])


def test_each_error_pattern_matches_a_real_message() -> None:
    """A pattern that matches no known message would be a guess."""
    texts = [json.dumps(row["body"], ensure_ascii=False) for row in TOO_LONG]
    texts += [
        "max_tokens must be at least 1, got 0",
        "input length exceeds the context length",
    ]
    texts += [
        "default_max_tokens (-5) must be greater than 0",
        "context length of only 4096 tokens",
    ]
    texts += ["input length and `max_tokens` exceed context limit: 174167 + 64000 > 200000"]
    texts += ["This model's maximum prompt length is 131072 but the request contains 537812 tokens"]
    texts += ["The input token count (1196265) exceeds the maximum number of tokens allowed (1048575)"]
    texts += ["Prompt contains 140000 tokens, too large for model with 131072 maximum context length"]
    assert [row.seen_on for row in OVERFLOWS if not any(row.text.search(text) for text in texts)] == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (flat("CUDA error"), "CUDA error"),
        (
            {"error": "Request failed during generation", "error_type": "generation"},
            "Request failed during generation",
        ),
        (
            {"error": "model_not_ready", "message": "try again"},
            "model_not_ready: try again",
        ),
        ({"error": {"message": {"a": 1}}}, '{"a": 1}'),
        ({"error": {"code": "no_quota"}}, "no_quota"),
        ({"error": {"message": 'Upstream: {"error": {"message": "inner"}}'}}, "inner"),
        ({"error": True, "message": "boolean"}, "boolean"),
        ({"detail": {"reason": "shape"}}, '{"reason": "shape"}'),
        ({}, "an error without a message"),
        (b"no healthy upstream", 'no JSON in the error\'s body: "no healthy upstream"'),
        (
            b"\n\n404 page not found\n",
            'no JSON in the error\'s body: "404 page not found"',
        ),
        (b"", "no JSON in the error's body"),
        (
            b"<!DOCTYPE html><head><style>x</style><title>403 &amp; out</title></head><body>long",
            'no JSON in the error\'s body: "403 & out" (a page of a proxy?)',
        ),
        (
            b"<html><style>b{}</style><p>Blocked by policy",
            'no JSON in the error\'s body: "Blocked by policy" (a page of a proxy?)',
        ),
    ],
)
def test_error_message_is_found_in_each_shape_of_body(body: Any, message: str) -> None:
    """The message contains the server's own words, or the heading of an HTML page."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    assert read_error(Reply(400, {}, data)).message == message


@settings(deadline=None)
@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.text(),
        lambda x: st.lists(x) | st.dictionaries(st.sampled_from(["error", "message", "detail", "code", "type"]), x),
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_error_body_gives_a_message(body: bytes) -> None:
    """No body makes the function raise."""
    assert read_error(Reply(500, {}, body)).message


@pytest.mark.parametrize(("status", "reason"), [(403, "rejected"), (404, "not_found"), (502, "server_error")])
def test_html_error_page_is_attributed_to_a_proxy(status: int, reason: str) -> None:
    """A firewall's 403 page does not mean that the key is wrong."""
    attempt = attempt_of(reply(b"<html><title>Forbidden by policy</title></html>", status))
    assert (attempt.reason, "Forbidden by policy" in attempt.message) == (reason, True)
    assert attempt_of(reply(nested("bad key"), 403)).reason == "unauthorized"


@pytest.mark.parametrize("finish", [*NATURAL, *DOUBTFUL, "STOP", "END_TURN", None])
def test_each_name_of_a_natural_end_is_accepted(finish: str | None) -> None:
    """A complete object with such a finish reason is an answer."""
    attempt = attempt_of(reply(completion(TEXT, finish)))
    assert (attempt.error, attempt.raw_text) == (None, TEXT)


@pytest.mark.parametrize("finish", [*DOUBTFUL, None])
@pytest.mark.parametrize("text", ['{"a": ', '{"a": 1', "Let me call a tool", '[{"a": 1}'])
def test_unclear_finish_reason_needs_a_whole_object(finish: str | None, text: str) -> None:
    """Without a statement that it ended, the answer may be incomplete."""
    attempt = attempt_of(reply(completion(text, finish)))
    assert (attempt.reason, "incomplete" in attempt.message) == ("bad_response", True)


@pytest.mark.parametrize("finish", [*CUT_REASONS, "MAX_TOKENS"])
def test_each_name_of_a_truncated_end_is_refused(finish: str) -> None:
    """No truncated answer becomes a result."""
    assert attempt_of(reply(completion(TEXT, finish))).reason == "output_truncated"


def test_missing_finish_reason_equals_null() -> None:
    """Gateways that rebuild replies omit the key."""
    body = completion(TEXT)
    del body["choices"][0]["finish_reason"]
    assert attempt_of(reply(body)).ok
    assert ollama_attempt_of(reply({"message": {"content": TEXT}, "done": True})).ok
    assert ollama_attempt_of(reply({"message": {"content": TEXT[:-1]}, "done": True})).reason == "bad_response"


def test_answer_may_be_text_parts_or_a_tool_call() -> None:
    """Text parts are joined without thinking parts; the arguments of a single tool call are the answer."""
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": '{"a": 9}'}]},
        {"type": "text", "text": '{"a"'},
    ]
    assert attempt_of(reply(completion([*parts, {"type": "text", "text": ": 1}"}]))).raw_text == TEXT
    call = {"type": "function", "function": {"name": "extraction", "arguments": TEXT}}
    attempt = attempt_of(reply(completion(None, "tool_calls", tool_calls=[call])))
    assert (attempt.raw_text, attempt.notes) == (TEXT, ("answer_in_tool_call",))
    assert attempt_of(reply(completion(None, "tool_calls", tool_calls=[call, call]))).reason == "empty_model_response"
    assert attempt_of(reply(completion(TEXT, "tool_calls", tool_calls=[]))).raw_text == TEXT


def test_201_reply_is_an_answer() -> None:
    """Some gateways report a completion as created."""
    assert attempt_of(reply(completion(TEXT), 201)).raw_text == TEXT


def events(*chunks: Any) -> bytes:
    """Return server-sent events without an end mark."""
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)


def test_unrequested_stream_is_joined() -> None:
    """A finish_reason ends it even without [DONE]; without either it is incomplete."""
    first = {"choices": [{"delta": {"content": '{"a"'}}]}
    last = {"choices": [{"delta": {"content": ": 1}"}, "finish_reason": "stop"}]}
    for body in (
        events(first, last),
        events(first, last) + b"data: [DONE]\n\n",
        b": ping\n\n" + events(first, last),
    ):
        assert attempt_of(reply(body)).raw_text == TEXT
        assert attempt_of(reply(body), stream=True).raw_text == TEXT
    assert attempt_of(reply(events(first))).reason == "bad_response"


PADDING = [
    "\n\n\n    ",
    " " * 300,
    "<|im_end|>",
    "<|endoftext|>\n<|endoftext|>",
    "</s>\n",
]


@pytest.mark.parametrize("padding", PADDING)
@pytest.mark.parametrize("finish", ["length", "repetition"])
def test_whole_object_before_white_space_is_an_answer(padding: str, finish: str) -> None:
    """The model was done and then generated only white space."""
    attempt = attempt_of(reply(completion(TEXT + padding, finish)))
    assert (attempt.error, attempt.raw_text, attempt.notes) == (
        None,
        TEXT,
        ("trailing_whitespace",),
    )
    whole = {
        "message": {"content": TEXT + padding},
        "done": True,
        "done_reason": "length",
    }
    assert ollama_attempt_of(reply(whole)).notes == ("trailing_whitespace",)


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), min_size=1),
    st.integers(1, 300),
    st.data(),
)
def test_truncated_object_before_white_space_is_refused(
    value: dict[str, Any], spaces: int, data: st.DataObject
) -> None:
    """Only a whole object may precede the white space."""
    text = json.dumps(value)
    cut = text[: data.draw(st.integers(1, len(text) - 1))]
    assert attempt_of(reply(completion(text + "\n" * spaces, "length"))).raw_text == text
    assert attempt_of(reply(completion(cut + "\n" * spaces, "length"))).reason in (
        "output_truncated",
        "generation_loop",
    )


@pytest.mark.parametrize("text", ["{" + " \n" * 60 + '"a": 1', '{"a": 1, "b": "' + "x" * 50 + " " * 90])
def test_white_space_flood_names_the_grammar_setting(text: str) -> None:
    """vLLM can forbid white space in its grammar."""
    attempt = attempt_of(reply(completion(text, "length")))
    assert not attempt.ok
    assert "disable_any_whitespace" in attempt.message


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content", "thinking"])
@pytest.mark.parametrize("content", [None, "", " \n"])
@pytest.mark.parametrize(
    "thoughts",
    [
        TEXT,
        f"\n```json\n{TEXT}\n```\n",
        f"<think>maybe {{}}</think>\n{TEXT}",
        f"hm\n</think>{TEXT}",
    ],
)
def test_answer_in_the_reasoning_is_accepted(field: str, content: Any, thoughts: str) -> None:
    """A server that puts the whole answer into the reasoning loses no document."""
    attempt = attempt_of(reply(completion(content, **{field: thoughts})))
    assert (attempt.error, attempt.raw_text, attempt.notes) == (
        None,
        TEXT,
        ("answer_in_reasoning",),
    )


@pytest.mark.parametrize(
    "thoughts",
    [
        f"I could say {TEXT}",
        f"<think>{TEXT}</think>",
        f"<think>{TEXT}",
        f"{TEXT}\nBut is that right?",
        '{"a": "no integer"}',
        f"</think>\nThe answer is {TEXT}",
        "[1]",
        f"{TEXT}\n{TEXT}",
    ],
)
def test_draft_in_the_reasoning_is_no_answer(thoughts: str) -> None:
    """An object among other thoughts is a draft, and an object that breaks the schema is no answer."""
    attempt = attempt_of(reply(completion(None, reasoning_content=thoughts)))
    assert (attempt.reason, attempt.thought) == ("empty_model_response", True)
    assert "enable_thinking: false" in attempt.message


def test_truncated_reasoning_is_no_answer() -> None:
    """An object at the end of truncated thoughts may be a draft; the advice names the settings."""
    attempt = attempt_of(reply(completion(None, "length", reasoning_content=TEXT)))
    assert (attempt.reason, attempt.thought) == ("output_truncated", True)
    assert "thinking_token_budget" in attempt.message
    thinking = {
        "message": {"content": "", "thinking": TEXT},
        "done": True,
        "done_reason": "length",
    }
    assert "ollama.think" in ollama_attempt_of(reply(thinking)).message


def test_ollama_thinking_counts_as_reasoning() -> None:
    """Ollama #15288 puts the whole answer into `thinking`."""
    thinking = {
        "message": {"content": "", "thinking": TEXT},
        "done": True,
        "done_reason": "stop",
    }
    assert ollama_attempt_of(reply(thinking)).notes == ("answer_in_reasoning",)


def test_empty_answer_stopped_for_length_is_context_length() -> None:
    """LMDeploy replies this way to a prompt that leaves no room (LMDeploy #1589)."""
    body = {
        **completion("", "length"),
        "usage": {"prompt_tokens": 5000, "completion_tokens": 0},
    }
    assert attempt_of(reply(body)).reason == "context_length"


@pytest.mark.parametrize(
    "body",
    [
        {"error": "maximum context length " * 400_000},
        {"error": {"message": "exceed session " * 600_000, "code": "x" * 8_000_000, "type": "y" * 8_000_000}},
        {"message": "context " * 1_000_000},
    ],
)
def test_huge_error_is_shortened_before_the_search(body: dict[str, Any]) -> None:
    """A message of 8 MB costs no more than its first 20 kB."""
    started = time.process_time()
    assert len(error_in(body).message) <= 20_100
    assert time.process_time() - started < 1
