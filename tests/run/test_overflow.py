"""Documents that exceed the context: refused, or cut to just fit, and how the record shows it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import AGENT, Place
from fake_llm import FakeLLM
from hypothesis import given
from hypothesis import strategies as st

from pipeline.records import ExtractionAttempt, ModelMetadata
from pipeline.run.document.overflow import GAP, LEAST_CHARS, KeptText, full_text, shorter

CONTEXT, ANSWER = 2000, 200
WORDS = "".join(f"word-{n} " for n in range(33_000))  # about 97,000 tokens of the fake server's
DIALECTS = ("vllm", "ollama", "openai")


@pytest.fixture
def narrow() -> Iterator[FakeLLM]:
    """Yield a server with a small context."""
    with FakeLLM(("llama3.1",), CONTEXT) as running:
        yield running


def ask(place: Place, server: FakeLLM, dialect: str, **agent: Any) -> None:
    """Run the pipeline over one long document in this dialect."""
    place.documents({"long.txt": WORDS})
    settings = {"provider": dialect, "runner.max_error_rate": 1, "vllm.base_url": server.url}
    if dialect == "openai":
        gateway = {"type": "openai", "base_url": server.url, "model": "llama3.1"}
        settings |= {"provider": "gateway", "providers.gateway": gateway}
    ollama = {"ollama.base_url": server.url, "ollama.model": "llama3.1", "ollama.num_ctx": CONTEXT}
    place.configure({**settings, **ollama}, agent={"max_tokens": ANSWER, **agent})
    place.run()


def sent(server: FakeLLM) -> list[str]:
    """Return the document text in each request for it."""
    chats = [chat for chat in server.chats() if chat.document == "long.txt"]
    return [str(chat.body["messages"][-1]["content"]).removesuffix("\n") for chat in chats]


@pytest.mark.parametrize("dialect", ["vllm", "ollama"])
def test_too_long_document_fails_after_one_request(place: Place, narrow: FakeLLM, dialect: str) -> None:
    """By default the document is not cut, and the error contains both token counts."""
    ask(place, narrow, dialect)
    (error,) = place.lines("errors.jsonl")
    assert (error["reason"], error["attempts"], error["notes"]) == ("context_length", 1, [])
    assert str(len(AGENT["system_prompt"] + "\n[[doc:long.txt]] " + WORDS + "\n") // 4) in error["message"]
    assert str(CONTEXT) in error["message"]
    assert len(sent(narrow)) == 1


@pytest.mark.parametrize("overflow", ["head", "head_tail"])
@pytest.mark.parametrize("dialect", ["vllm", "ollama"])
def test_document_is_cut_to_fit_within_three_requests(
    place: Place, narrow: FakeLLM, dialect: str, overflow: str
) -> None:
    """The server's counts show how much fits; the kept ends of the document fill nearly the whole context."""
    ask(place, narrow, dialect, overflow=overflow)
    (result,) = place.lines("results.jsonl")
    prompts, document = sent(narrow), f"[[doc:long.txt]] {WORDS}"
    assert result["notes"] == ["document_truncated"]
    assert (result["attempts"], prompts[0]) == (len(prompts), document)
    assert len(prompts) <= 3
    head, gap, tail = prompts[-1].partition(GAP)
    assert (gap == GAP) == (overflow == "head_tail")
    assert document.startswith(head)
    assert document.endswith(tail)
    assert 0.94 * (CONTEXT - ANSWER) <= result["usage"]["prompt_tokens"] <= CONTEXT - ANSWER
    assert result["document_chars"] == len(prompts[-1])


def test_server_without_token_counts_needs_at_most_four_requests(place: Place, narrow: FakeLLM) -> None:
    """The first cut keeps what might just fit, each further cut removes a quarter."""
    ask(place, narrow, "openai", overflow="head")
    (result,) = place.lines("results.jsonl")
    assert result["notes"] == ["document_truncated"]
    assert result["attempts"] == len(sent(narrow)) <= 4


@pytest.mark.parametrize(
    ("quote", "grounded"),
    [("word-1 word-2", True), ("word-32998  word-32999", True), ("word-15000 word-15001", False), ("[…]", False)],
)
def test_quotes_must_be_in_the_text_that_was_sent(place: Place, narrow: FakeLLM, quote: str, grounded: bool) -> None:
    """A quote from the removed part, or of the gap mark, is not grounded."""
    narrow.answer = lambda _prompt, _schema: json.dumps({"summary": "s", "quote": quote})
    quoted = {"summary": {"type": "string"}, "quote": {"type": "string", "x-quote": True}}
    ask(place, narrow, "vllm", overflow="head_tail", max_reasks=0, schema={**AGENT["schema"], "properties": quoted})
    assert place.failed() == ({} if grounded else {"long.txt": "not_grounded"})


@pytest.mark.parametrize("overflow", ["fail", "head"])
@pytest.mark.parametrize(
    ("chars", "answers", "reason"),
    [
        (7120, [WORDS[:780], '{"summary": "s"}'], "invalid_json"),
        (7000, ['{"summary": 7}', '{"summary": "' + WORDS[:900]], "output_truncated"),
    ],
)
def test_a_reask_is_never_cut(
    place: Place, narrow: FakeLLM, overflow: str, chars: int, answers: list[str], reason: str
) -> None:
    """A re-ask that no longer fits keeps the first reason; one with a clamped answer fails as output_truncated."""
    remaining = iter(answers)
    narrow.answer = lambda prompt, _schema: next(remaining) if "[[doc:" in prompt else '{"summary": "s"}'
    agent = {"overflow": overflow, "max_tokens": ANSWER}
    place.configure({"vllm.base_url": narrow.url, "runner.max_error_rate": 1}, agent=agent)
    place.documents({"a.txt": WORDS[:chars]})
    place.run()
    (error,) = place.lines("errors.jsonl")
    assert (error["reason"], error["attempts"]) == (reason, 2)
    assert "document_truncated" not in error["notes"]
    assert [chat.document for chat in narrow.chats()].count("a.txt") == 2


def attempt(reason: str = "context_length", **more: Any) -> ExtractionAttempt:
    """Return an attempt that failed for this reason."""
    return ExtractionAttempt(ModelMetadata("p", "m"), error=reason, reason=reason, **more)


def test_only_context_overflows_shorten_the_document() -> None:
    """A truncated answer counts when the server clamped it to the room left by the prompt."""
    text = full_text("x" * 10_000)

    def cut(failed: ExtractionAttempt, overflow: str = "head") -> KeptText | None:
        return shorter(text, failed, overflow=overflow, prompt_chars=10_100)

    assert cut(attempt("timeout")) is None
    assert cut(attempt("output_truncated")) is None
    assert cut(attempt(), "fail") is None
    clamped = attempt(
        "output_truncated", notes=("max_tokens_clamped",), prompt_tokens=2525, max_tokens=1000, context_length=3000
    )
    assert cut(clamped) == KeptText(text.text, int(2000 * 0.97 * 4) - 100)
    assert cut(attempt("prompt_truncated", prompt_tokens=4098)) == KeptText(text.text, 7500)


@given(
    text=st.text(min_size=1, max_size=3000),
    overflow=st.sampled_from(["head", "head_tail"]),
    needed=st.none() | st.integers(1, 10**6),
    context=st.none() | st.integers(1, 10**5),
    around=st.integers(0, 500),
)
def test_repeated_cuts_shrink_and_keep_the_original_ends(
    text: str, overflow: str, needed: int | None, context: int | None, around: int
) -> None:
    """Each cut is shorter than the last and consists of the original's ends, whatever counts the server reports."""
    kept_text: KeptText | None = full_text(text)
    failed = attempt(needed_tokens=needed, context_length=context, max_tokens=50)
    for _ in range(200):
        assert kept_text is not None
        before, size = kept_text.chars, around + len(kept_text.model_text)
        kept_text = shorter(kept_text, failed, overflow=overflow, prompt_chars=size)
        if kept_text is None:
            return
        assert LEAST_CHARS <= kept_text.chars < before
        assert kept_text.model_text == (
            text[: kept_text.head] + (GAP + text[-kept_text.tail :] if kept_text.tail else "")
        )
    pytest.fail("it goes on for ever")


def test_gap_mark_in_the_document_is_kept() -> None:
    """Each cut is made from the original, so no earlier mark has to be removed."""
    text = f"{'a' * 300}{GAP}{'b' * 3000}"
    once = shorter(full_text(text), attempt(), overflow="head_tail", prompt_chars=len(text))
    assert once is not None
    twice = shorter(once, attempt(), overflow="head_tail", prompt_chars=len(once.model_text))
    assert twice is not None
    assert twice.model_text.startswith(f"{'a' * 300}{GAP}b")
    assert twice.model_text.count(GAP) == 2
