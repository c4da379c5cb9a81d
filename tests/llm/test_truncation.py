"""When a prompt was cut without a word: counts that a cut leaves, and texts too long for them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_server import answering, reply

from pipeline.config import OllamaConfig
from pipeline.llm.ollama import OllamaClient
from pipeline.llm.preflight.enforcement import TABLES, unenforced
from pipeline.llm.prompt_length.ollama_truncation import TruncationJudge, truncated_counts
from pipeline.records import ExtractionAttempt


def taught(num_ctx: int = 8192, *, chars_per_token: float = 4.0, documents: int = 10) -> TruncationJudge:
    """A judge that has seen documents of this cost."""
    judge = TruncationJudge(num_ctx)
    for n in range(documents):
        assert judge.is_cut(int((100 + n) * chars_per_token), 100 + n) is False
    return judge


@pytest.mark.parametrize(
    ("num_ctx", "counts"),
    [(4096, {2050, 2051, 4095, 4096}), (8192, {4098, 4099, 8191, 8192}), (32768, {16386, 16387, 32767, 32768})],
)
def test_the_counts_that_a_cut_leaves(num_ctx: int, counts: set[int]) -> None:
    """As reported of real servers, old and new."""
    assert set(truncated_counts(num_ctx)) >= counts


@settings(deadline=None)
@given(count=st.integers(1, 8192))
def test_a_fingerprint_alone_is_no_proof(count: int) -> None:
    """An honest prompt may have any count, also one of those."""
    assert taught().is_cut(count * 4, count) is False


@pytest.mark.parametrize("count", sorted(truncated_counts(8192)))
def test_a_text_too_long_for_a_fingerprint_was_cut(count: int) -> None:
    """Twice the usual characters a token, at a count that a cut leaves."""
    assert taught().is_cut(count * 8, count) is True


HONEST_COUNTS = st.integers(1, 9000).filter(lambda count: count not in truncated_counts(8192))


@settings(deadline=None)
@given(count=HONEST_COUNTS, chars=st.integers(1, 10**6))
def test_a_text_too_long_for_another_count_was_not_cut(count: int, chars: int) -> None:
    """Dense or sparse texts exist; only a cut leaves those counts."""
    assert taught().is_cut(chars, count) is False


def test_the_usual_cost_is_the_one_of_this_run() -> None:
    """Two characters a token (Chinese, numbers) make four of them suspicious; for eight they are nothing."""
    assert taught(chars_per_token=2.0).is_cut(4098 * 4, 4098) is True
    assert taught(chars_per_token=8.0).is_cut(4098 * 8, 4098) is False


def test_before_anything_is_known_a_usual_text_is_assumed() -> None:
    """The first document of a run can be a cut one."""
    assert TruncationJudge(8192).is_cut(4098 * 5, 4098) is False
    assert TruncationJudge(8192).is_cut(4098 * 9, 4098) is True


@pytest.mark.parametrize("count", [None, 0])
def test_without_a_count_nothing_is_judged(count: int | None) -> None:
    """Some servers leave it out."""
    assert TruncationJudge(8192).is_cut(10**6, count) is False


def test_a_server_that_counts_the_uncached_only_does_not_make_retries_look_cut() -> None:
    """Once a count was far too small, a fingerprint needs a text that cannot have fitted as well."""
    judge = taught()
    for count in (1, 7, 60):
        assert judge.is_cut(20_000, count) is False
    assert judge.is_cut(24_000, 4098) is False
    assert judge.is_cut(40_000, 4098) is True


def test_cached_counts_do_not_spoil_the_usual_cost() -> None:
    """However many of them come, a real cut is seen."""
    judge = taught()
    for _ in range(300):
        judge.is_cut(20_000, 3)
    assert judge.is_cut(40_000, 4098) is True


def asked(count: int, *, chars: int, num_ctx: int = 8192) -> ExtractionAttempt:
    """What the client makes of an answer to so long a document that says it cost `count`."""
    message = {"role": "assistant", "content": "{}"}
    body = {"message": message, "done": True, "done_reason": "stop", "prompt_eval_count": count, "eval_count": 2}
    with answering(reply(body)) as server:
        client = OllamaClient(OllamaConfig(base_url=server.url, num_ctx=num_ctx))
        return client.call_llm({"system": "s", "user": "x" * chars}, None, "x" * chars)


def test_a_cut_prompt_is_no_result() -> None:
    """A whole, valid answer to half a document fails, with the numbers."""
    attempt = asked(4098, chars=60_000)
    assert (attempt.error, attempt.reason, attempt.raw_text) == ("prompt_truncated", "prompt_truncated", "{}")
    assert "the server read 4098 tokens of a prompt of 60001 bytes" in attempt.message
    assert "`ollama.num_ctx` is 8192" in attempt.message
    assert asked(4098, chars=20_000).ok
    assert asked(4097, chars=60_000).ok


def test_the_document_alone_can_be_too_long_for_its_count() -> None:
    """It is judged by what the caller says of it, wherever in the request it stands."""
    counts = {"prompt_eval_count": 4098, "eval_count": 2, "done": True, "done_reason": "stop"}
    with answering(reply({"message": {"content": "{}"}, **counts})) as server:
        client = OllamaClient(OllamaConfig(base_url=server.url))
        assert client.call_llm({"user": "short"}, None, "x" * 60_000).reason == "prompt_truncated"
        assert client.call_llm({"user": "short"}, None, "x" * 20_000).ok


def test_a_clamped_context_has_its_own_truncated_counts() -> None:
    """What the preflight found is what the server cuts to."""
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


def test_the_keywords_that_each_kind_of_server_ignores() -> None:
    """By place; names of properties and values of enums are no keywords."""
    everybody = ["$.count: multipleOf", "$.tags[]: not"]
    assert unenforced(SCHEMA, "openai") == everybody
    assert unenforced(SCHEMA, "vllm") == [*everybody, "$.both: allOf"]
    assert unenforced(SCHEMA, "ollama") == [
        *("$.code: pattern", "$.code: format", "$.score: minimum", "$.score: maximum"),
        *("$.count: multipleOf", "$.tags: uniqueItems", "$.tags[]: not"),
    ]


def test_what_is_enforced_everywhere_is_not_listed() -> None:
    """The keywords that the built-in agents use."""
    items = {"type": "array", "minItems": 1, "maxItems": 3, "items": {"$ref": "#/$defs/x"}}
    schema = {
        "type": "object",
        "properties": {"a": items},
        "$defs": {"x": {"type": ["string", "null"], "maxLength": 4}},
    }
    assert [unenforced(schema, kind) for kind in TABLES] == [[], [], []]


def test_a_full_context_needs_little_more_to_be_suspicious() -> None:
    """An old server keeps all but one token: a text a tenth too long was cut, one that fits to the letter was not."""
    assert taught().is_cut(int(8191 * 4 * 1.1), 8191) is True
    assert taught().is_cut(8191 * 4, 8191) is False


def test_scripts_with_few_characters_a_token_are_judged_by_their_bytes() -> None:
    """Chinese after English: three bytes a character make the length comparable."""
    english = taught(chars_per_token=4.0)
    text = "\u5e02" * 9000
    assert english.is_cut(len(text.encode()), 4098) is True
