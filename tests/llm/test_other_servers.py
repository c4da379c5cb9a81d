"""What servers other than vLLM and Ollama answer: their errors, words for an end, and shapes of an answer."""

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
from pipeline.llm.endings import CUT, DOUBTFUL, NATURAL
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


def asked(answer: bytes, *, schema: Any = SCHEMA, **settings: Any) -> ExtractionAttempt:
    """What the client of the OpenAI protocol makes of this answer."""
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


def asked_ollama(answer: bytes, *, schema: Any = SCHEMA) -> ExtractionAttempt:
    """What Ollama's client makes of this answer."""
    with answering({"/api/chat": answer}) as server:
        return OllamaClient(OllamaConfig(base_url=server.url, timeout=60.0)).call_llm({"user": "u"}, schema, "u")


def said(content: Any, finish: Any = "stop", **message: Any) -> dict[str, Any]:
    """A completion of the OpenAI protocol."""
    return {
        "choices": [
            {
                "message": {"role": "assistant", "content": content, **message},
                "finish_reason": finish,
            }
        ]
    }


def flat(message: str) -> dict[str, Any]:
    """An error at top level, as SGLang, LMDeploy and TensorRT-LLM write them."""
    return {
        "object": "error",
        "message": message,
        "type": "BadRequestError",
        "param": None,
        "code": 400,
    }


def nested(message: str, **more: Any) -> dict[str, Any]:
    """An error in the shape of the OpenAI protocol."""
    return {"error": {"message": message, "type": "invalid_request_error", **more}}


# every known form of "the prompt is too long", from public bug reports and sources
TOO_LONG = json.loads((Path(__file__).parents[1] / "data" / "prompts_too_long.json").read_text("utf-8"))


@pytest.mark.parametrize("row", TOO_LONG, ids=[row["server"] for row in TOO_LONG])
def test_every_form_of_a_prompt_that_is_too_long(row: dict[str, Any]) -> None:
    """It is the document's own length, whoever says so; its counts tell how much of it fits."""
    attempt = asked(reply(row["body"], row["status"]))
    assert attempt.reason == "context_length"
    if row["status"] != 200:
        assert (attempt.needed_tokens, attempt.context_length) == (row["needed"], row["limit"])


def test_every_row_of_the_table_is_met_by_a_real_message() -> None:
    """A pattern that no known message meets would be a guess."""
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
def test_an_error_body_is_read_in_whatever_shape_it_comes(body: Any, message: str) -> None:
    """A person sees the server's own words, of a page its heading."""
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
def test_any_error_body_has_a_message(body: bytes) -> None:
    """Nothing that a server sends is more than words."""
    assert read_error(Reply(500, {}, body)).message


@pytest.mark.parametrize(("status", "reason"), [(403, "rejected"), (404, "not_found"), (502, "server_error")])
def test_a_page_is_a_proxys(status: int, reason: str) -> None:
    """A firewall's 403 page says nothing about a key."""
    attempt = asked(reply(b"<html><title>Forbidden by policy</title></html>", status))
    assert (attempt.reason, "Forbidden by policy" in attempt.message) == (reason, True)
    assert asked(reply(nested("bad key"), 403)).reason == "unauthorized"


@pytest.mark.parametrize("finish", [*NATURAL, *DOUBTFUL, "STOP", "END_TURN", None])
def test_a_natural_end_counts_under_every_name(finish: str | None) -> None:
    """A complete object that ended by itself is an answer."""
    attempt = asked(reply(said(TEXT, finish)))
    assert (attempt.error, attempt.raw_text) == (None, TEXT)


@pytest.mark.parametrize("finish", [*DOUBTFUL, None])
@pytest.mark.parametrize("text", ['{"a": ', '{"a": 1', "Let me call a tool", '[{"a": 1}'])
def test_a_doubtful_end_counts_for_whole_objects_only(finish: str | None, text: str) -> None:
    """What does not say that it ended may have broken off."""
    attempt = asked(reply(said(text, finish)))
    assert (attempt.reason, "incomplete" in attempt.message) == ("bad_response", True)


@pytest.mark.parametrize("finish", [*CUT, "MAX_TOKENS"])
def test_a_cut_is_one_under_every_name(finish: str) -> None:
    """Nothing cut becomes a result."""
    assert asked(reply(said(TEXT, finish))).reason == "output_truncated"


def test_a_missing_finish_reason_is_a_null_one() -> None:
    """Gateways that rebuild replies leave the key out."""
    body = said(TEXT)
    del body["choices"][0]["finish_reason"]
    assert asked(reply(body)).ok
    assert asked_ollama(reply({"message": {"content": TEXT}, "done": True})).ok
    assert asked_ollama(reply({"message": {"content": TEXT[:-1]}, "done": True})).reason == "bad_response"


def test_an_answer_may_come_as_parts_or_as_a_tool_call() -> None:
    """Parts of text are put together, and thoughts among them left out; one tool call's arguments are the answer."""
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": '{"a": 9}'}]},
        {"type": "text", "text": '{"a"'},
    ]
    assert asked(reply(said([*parts, {"type": "text", "text": ": 1}"}]))).raw_text == TEXT
    call = {"type": "function", "function": {"name": "extraction", "arguments": TEXT}}
    attempt = asked(reply(said(None, "tool_calls", tool_calls=[call])))
    assert (attempt.raw_text, attempt.notes) == (TEXT, ("answer_in_tool_call",))
    assert asked(reply(said(None, "tool_calls", tool_calls=[call, call]))).reason == "empty_model_response"
    assert asked(reply(said(TEXT, "tool_calls", tool_calls=[]))).raw_text == TEXT


def test_a_201_is_an_answer() -> None:
    """Some gateways say that a completion was created."""
    assert asked(reply(said(TEXT), 201)).raw_text == TEXT


def events(*chunks: Any) -> bytes:
    """Server-sent events without an end mark."""
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)


def test_an_unasked_stream_is_put_together() -> None:
    """Whether or not it ends in [DONE], a finish_reason is an end; without either it broke off."""
    first = {"choices": [{"delta": {"content": '{"a"'}}]}
    last = {"choices": [{"delta": {"content": ": 1}"}, "finish_reason": "stop"}]}
    for body in (
        events(first, last),
        events(first, last) + b"data: [DONE]\n\n",
        b": ping\n\n" + events(first, last),
    ):
        assert asked(reply(body)).raw_text == TEXT
        assert asked(reply(body), stream=True).raw_text == TEXT
    assert asked(reply(events(first))).reason == "bad_response"


PADDING = [
    "\n\n\n    ",
    " " * 300,
    "<|im_end|>",
    "<|endoftext|>\n<|endoftext|>",
    "</s>\n",
]


@pytest.mark.parametrize("padding", PADDING)
@pytest.mark.parametrize("finish", ["length", "repetition"])
def test_a_whole_object_before_white_space_is_a_result(padding: str, finish: str) -> None:
    """The model was done, and went on with nothing."""
    attempt = asked(reply(said(TEXT + padding, finish)))
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
    assert asked_ollama(reply(whole)).notes == ("trailing_whitespace",)


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), min_size=1),
    st.integers(1, 300),
    st.data(),
)
def test_nothing_cut_is_completed_by_white_space(value: dict[str, Any], spaces: int, data: st.DataObject) -> None:
    """Only a whole object may stand before the white space."""
    text = json.dumps(value)
    cut = text[: data.draw(st.integers(1, len(text) - 1))]
    assert asked(reply(said(text + "\n" * spaces, "length"))).raw_text == text
    assert asked(reply(said(cut + "\n" * spaces, "length"))).reason in (
        "output_truncated",
        "generation_loop",
    )


@pytest.mark.parametrize("text", ["{" + " \n" * 60 + '"a": 1', '{"a": 1, "b": "' + "x" * 50 + " " * 90])
def test_white_space_within_an_answer_names_the_setting(text: str) -> None:
    """A flood of white space is a matter of the grammar, which vLLM can forbid."""
    attempt = asked(reply(said(text, "length")))
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
def test_an_answer_in_the_reasoning_is_taken(field: str, content: Any, thoughts: str) -> None:
    """A server that takes the whole answer for thoughts loses nothing."""
    attempt = asked(reply(said(content, **{field: thoughts})))
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
def test_a_draft_in_the_reasoning_is_none(thoughts: str) -> None:
    """What thoughts hold beside other thoughts is a draft, and an object that breaks the schema no answer."""
    attempt = asked(reply(said(None, reasoning_content=thoughts)))
    assert (attempt.reason, attempt.thought) == ("empty_model_response", True)
    assert "enable_thinking: false" in attempt.message


def test_reasoning_that_was_cut_holds_no_answer() -> None:
    """An object at the end of thoughts that were stopped for length may be a draft; the advice names the settings."""
    attempt = asked(reply(said(None, "length", reasoning_content=TEXT)))
    assert (attempt.reason, attempt.thought) == ("output_truncated", True)
    assert "thinking_token_budget" in attempt.message
    thinking = {
        "message": {"content": "", "thinking": TEXT},
        "done": True,
        "done_reason": "length",
    }
    assert "ollama.think" in asked_ollama(reply(thinking)).message


def test_ollamas_thinking_is_reasoning_too() -> None:
    """Ollama #15288: the whole answer in `thinking`."""
    thinking = {
        "message": {"content": "", "thinking": TEXT},
        "done": True,
        "done_reason": "stop",
    }
    assert asked_ollama(reply(thinking)).notes == ("answer_in_reasoning",)


def test_a_server_that_generates_nothing_had_no_room() -> None:
    """LMDeploy answers a prompt that leaves no room with an empty text, stopped for length (LMDeploy #1589)."""
    body = {
        **said("", "length"),
        "usage": {"prompt_tokens": 5000, "completion_tokens": 0},
    }
    assert asked(reply(body)).reason == "context_length"


@pytest.mark.parametrize(
    "body",
    [
        {"error": "maximum context length " * 400_000},
        {"error": {"message": "exceed session " * 600_000, "code": "x" * 8_000_000, "type": "y" * 8_000_000}},
        {"message": "context " * 1_000_000},
    ],
)
def test_a_huge_error_is_cut_before_it_is_searched(body: dict[str, Any]) -> None:
    """A message of 8 MB costs no more than its first 20 kB."""
    started = time.process_time()
    assert len(error_in(body).message) <= 20_100
    assert time.process_time() - started < 1
