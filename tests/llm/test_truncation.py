"""Silent truncation of prompts: token counts typical of it, and texts too long for their count."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_server import answering, reply

from pipeline.config import OllamaConfig
from pipeline.llm.ollama import OllamaClient
from pipeline.llm.preflight.enforcement import TABLES, unenforced_keywords
from pipeline.llm.prompt_length.ollama_truncation import TruncationJudge, truncated_counts
from pipeline.records import ExtractionAttempt


def taught(num_ctx: int = 8192, *, chars_per_token: float = 4.0, documents: int = 10) -> TruncationJudge:
    """Return a judge that has seen documents of this cost."""
    judge = TruncationJudge(num_ctx)
    for n in range(documents):
        assert judge.is_cut(int((100 + n) * chars_per_token), 100 + n) is False
    return judge


@pytest.mark.parametrize(
    ("num_ctx", "counts"),
    [(4096, {2050, 2051, 4095, 4096}), (8192, {4098, 4099, 8191, 8192}), (32768, {16386, 16387, 32767, 32768})],
)
def test_token_counts_typical_of_a_truncation(num_ctx: int, counts: set[int]) -> None:
    """They were reported for real servers, old and new."""
    assert set(truncated_counts(num_ctx)) >= counts


@settings(deadline=None)
@given(count=st.integers(1, 8192))
def test_typical_count_alone_is_no_proof(count: int) -> None:
    """An honest prompt may have any count."""
    assert taught().is_cut(count * 4, count) is False


@pytest.mark.parametrize("count", sorted(truncated_counts(8192)))
def test_long_text_with_a_typical_count_was_truncated(count: int) -> None:
    """It has twice the usual characters per token."""
    assert taught().is_cut(count * 8, count) is True


HONEST_COUNTS = st.integers(1, 9000).filter(lambda count: count not in truncated_counts(8192))


@settings(deadline=None)
@given(count=HONEST_COUNTS, chars=st.integers(1, 10**6))
def test_long_text_with_another_count_was_not_truncated(count: int, chars: int) -> None:
    """Texts may be dense or sparse; only a truncation leaves those counts."""
    assert taught().is_cut(chars, count) is False


def test_usual_cost_is_learned_in_the_run() -> None:
    """With 2 usual characters per token (Chinese, numbers) 4 are suspicious; with 8 they are normal."""
    assert taught(chars_per_token=2.0).is_cut(4098 * 4, 4098) is True
    assert taught(chars_per_token=8.0).is_cut(4098 * 8, 4098) is False


def test_first_document_is_judged_by_a_usual_text() -> None:
    """The first document of a run may be truncated."""
    assert TruncationJudge(8192).is_cut(4098 * 5, 4098) is False
    assert TruncationJudge(8192).is_cut(4098 * 9, 4098) is True


@pytest.mark.parametrize("count", [None, 0])
def test_missing_count_is_not_judged(count: int | None) -> None:
    """Some servers omit the count."""
    assert TruncationJudge(8192).is_cut(10**6, count) is False


def test_counts_without_cached_tokens_do_not_look_truncated() -> None:
    """After an implausibly small count, a typical count means a truncation only if the text is too long to fit."""
    judge = taught()
    for count in (1, 7, 60):
        assert judge.is_cut(20_000, count) is False
    assert judge.is_cut(24_000, 4098) is False
    assert judge.is_cut(40_000, 4098) is True


def test_cached_counts_do_not_spoil_the_usual_cost() -> None:
    """However many of them come, a real truncation is detected."""
    judge = taught()
    for _ in range(300):
        judge.is_cut(20_000, 3)
    assert judge.is_cut(40_000, 4098) is True


def attempt_of(count: int, *, chars: int, num_ctx: int = 8192) -> ExtractionAttempt:
    """Return the attempt for a document of this length that the server says cost `count` tokens."""
    message = {"role": "assistant", "content": "{}"}
    body = {"message": message, "done": True, "done_reason": "stop", "prompt_eval_count": count, "eval_count": 2}
    with answering(reply(body)) as server:
        client = OllamaClient(OllamaConfig(base_url=server.url, num_ctx=num_ctx))
        return client.call_llm({"system": "s", "user": "x" * chars}, None, "x" * chars)


def test_truncated_prompt_gives_no_result() -> None:
    """A valid answer to half a document fails, with the numbers in the message."""
    attempt = attempt_of(4098, chars=60_000)
    assert (attempt.error, attempt.reason, attempt.raw_text) == ("prompt_truncated", "prompt_truncated", "{}")
    assert "the server read 4098 tokens of a prompt of 60001 bytes" in attempt.message
    assert "`ollama.num_ctx` is 8192" in attempt.message
    assert attempt_of(4098, chars=20_000).ok
    assert attempt_of(4097, chars=60_000).ok


def test_document_alone_may_exceed_its_count() -> None:
    """The caller gives its length, wherever it is in the request."""
    counts = {"prompt_eval_count": 4098, "eval_count": 2, "done": True, "done_reason": "stop"}
    with answering(reply({"message": {"content": "{}"}, **counts})) as server:
        client = OllamaClient(OllamaConfig(base_url=server.url))
        assert client.call_llm({"user": "short"}, None, "x" * 60_000).reason == "prompt_truncated"
        assert client.call_llm({"user": "short"}, None, "x" * 20_000).ok


def test_clamped_context_has_its_own_typical_counts() -> None:
    """The server truncates to the context that the preflight found."""
    client = OllamaClient(OllamaConfig())
    client.adopt(model="m", think=None, digest=None, context_length=2048)
    assert client._truncation.is_cut(20_000, 2047) is True


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "code": {"type": "string", "pattern": "[A-Z]+", "format": "email"},
        "anchored": {"type": "string", "pattern": "^[A-Z]+$", "format": "date"},
        "score": {"type": "number", "minimum": 0, "maximum": 1},
        "count": {"type": "integer", "minimum": 0, "maximum": 9, "multipleOf": 3},
        "tags": {"type": "array", "uniqueItems": True, "items": {"type": "string", "not": {"const": "x"}}},
        "both": {"allOf": [{"type": "string"}, {"enum": ["yes", "no"]}]},
        "one": {"allOf": [{"type": "string"}]},
        "not": {"type": "string", "enum": ["if", "then"]},
    },
    "required": ["code", "if"],
    "additionalProperties": False,
}


def test_ignored_schema_keywords_of_each_server() -> None:
    """They are listed by place; names of properties and enum values do not count."""
    everybody = ["$.count: multipleOf", "$.tags[]: not"]
    assert unenforced_keywords(SCHEMA, "openai") == everybody
    assert unenforced_keywords(SCHEMA, "vllm") == [*everybody, "$.both: allOf"]
    assert unenforced_keywords(SCHEMA, "ollama") == [
        *("$.code: pattern", "$.code: format", "$.score: minimum", "$.score: maximum"),
        *("$.count: multipleOf", "$.tags: uniqueItems", "$.tags[]: not"),
    ]


def test_universally_enforced_keywords_are_not_listed() -> None:
    """The built-in agents use only these."""
    items = {"type": "array", "minItems": 1, "maxItems": 3, "items": {"$ref": "#/$defs/x"}}
    schema = {
        "type": "object",
        "properties": {"a": items},
        "$defs": {"x": {"type": ["string", "null"], "maxLength": 4}},
    }
    assert [unenforced_keywords(schema, kind) for kind in TABLES] == [[], [], []]


def test_full_context_with_a_slightly_longer_text_is_truncated() -> None:
    """An old server keeps all but one token: 10 % too long was truncated, an exact fit was not."""
    assert taught().is_cut(int(8191 * 4 * 1.1), 8191) is True
    assert taught().is_cut(8191 * 4, 8191) is False


def test_dense_scripts_are_judged_by_their_bytes() -> None:
    """For Chinese after English, three bytes per character make lengths comparable."""
    english = taught(chars_per_token=4.0)
    text = "\u5e02" * 9000
    assert english.is_cut(len(text.encode()), 4098) is True
