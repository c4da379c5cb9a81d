"""Verification that prompts are read whole: no false alarm on honest servers, every truncation found on others."""

from __future__ import annotations

import random
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from length_servers import (
    KINDS,
    TOKENIZERS,
    Balanced,
    Kind,
    Server,
    Tokenizer,
    article,
    blanks,
    case_of,
    characters,
    pieces,
    table,
)
from slow_marks import mostly_slow

from pipeline.llm.prompt_length.detected_limits import AcceptedResult
from pipeline.llm.prompt_length.halves import HalvesResult, split, verify_by_halves
from pipeline.llm.prompt_length.repetition import TWO_LIMITS, UNVERIFIED, Probe, TruncatedCounts, is_straight
from pipeline.llm.prompt_length.token_weight import weigh
from pipeline.llm.prompt_length.verification_case import VerificationResult
from pipeline.llm.prompt_length.verifier import PromptVerifier
from pipeline.records import utc_now

MOST_REQUESTS = 40
SHAPES: tuple[dict[str, Any], ...] = (
    {},
    {"user": "$document\n---\nOnce more:\n$document"},
    {"around": ("You extract facts. " * 40, "An example text. " * 120, "{} " * 60, "Another one. " * 90, "{} " * 30)},
    {"complaint": "\n\nYour answer was wrong: say it again. " * 12},
)


@given(kind=st.sampled_from(KINDS), words=st.integers(2, 400), seed=st.integers(0, 10**6))
@settings(max_examples=300, deadline=None)
def test_split_keeps_words_and_clusters_whole(kind: Kind, words: int, seed: int) -> None:
    """No character is lost, and neither half is empty."""
    text = kind(random.Random(seed), words)
    first, second = split(text)
    assert first + second == text
    assert first
    assert second


def test_fitted_line_must_keep_rising() -> None:
    """A truncation could hide in the tolerance of many short copies."""
    assert is_straight(700, 1300, 2500, copies=2)
    assert not is_straight(700, 4000, 4000, copies=1000)
    assert not is_straight(2050, 2050, 2050, copies=4)


@pytest.mark.parametrize("order", mostly_slow(["random", "ascending", "descending"]))
@pytest.mark.parametrize("tokenizer", mostly_slow(TOKENIZERS))
@pytest.mark.parametrize("context", [8192, 1 << 40])
def test_honest_servers_need_at_most_40_requests(order: str, tokenizer: Tokenizer, context: int) -> None:
    """100,000 documents of all kinds in any order cause no false alarm."""
    rng = random.Random(11)
    server = Server("refuse", context=context, tokenizer=tokenizer)
    pool = []
    for number in range(400):
        words = int(10 ** rng.uniform(0.5, 3.6))
        case, _ = case_of(server, KINDS[number % len(KINDS)](rng, words), **SHAPES[number % len(SHAPES)])
        if case.tokens is not None:
            pool.append(case)
    cases = [pool[number % len(pool)] for number in range(100_000)]
    if order == "random":
        rng.shuffle(cases)
    else:
        cases.sort(key=lambda case: case.size_bytes, reverse=order == "descending")
    verifier = PromptVerifier("server")
    verified = [verifier.verify(case) for case in cases]
    assert not any(result is None or result.is_cut or result.notes for result in verified)
    assert server.requests <= MOST_REQUESTS


WAYS = ("head", "half", "oldest", "oldest_refuse")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("tokenizer", mostly_slow(TOKENIZERS))
@pytest.mark.parametrize("keeps_room", mostly_slow([True, False]))
@pytest.mark.parametrize("shape", range(len(SHAPES)))
def test_every_truncation_is_found(way: str, tokenizer: Tokenizer, keeps_room: bool, shape: int) -> None:
    """Whichever part a server keeps, no truncated document passes and no whole one is reported."""
    rng = random.Random(f"{way}{shape}")
    server = Server(way, context=4096, tokenizer=tokenizer, keeps_room=keeps_room)
    verifier, cuts = PromptVerifier("server"), 0
    for number in range(240):
        words = int(10 ** rng.uniform(1.5, 3.6))
        case, lost = case_of(server, KINDS[number % len(KINDS)](rng, words), **SHAPES[shape])
        if case.tokens is None or 0 < lost <= 8 * case.places:  # too few to distinguish from the cost of the halves
            continue
        verified = verifier.verify(case)
        assert verified is not None
        assert verified.is_cut == (lost > 0), (number, case.tokens, lost, verifier.finding)
        assert not verified.notes
        cuts += verified.is_cut
    assert cuts > 3 or way == "oldest_refuse"
    assert verifier.context_length is not None
    assert 4096 - 256 - 64 <= verifier.context_length <= 4096 or server.count(SHAPES[shape].get("around", ())) > 2000


def test_one_token_per_byte_hides_no_truncation() -> None:
    """Qwen counts digits this way.

    The last probe loses so little that it fits the line, and the next document is longer.
    """
    rng = random.Random(13)
    server = Server("head", context=11_810, tokenizer=characters, keeps_room=False)
    verifier = PromptVerifier("server")
    for kind, words, is_cut in ((table, 10, False), (blanks, 1_000, True)):
        case, lost = case_of(server, kind(rng, words), **SHAPES[2])
        verified = verifier.verify(case)
        assert (lost > 0) == is_cut
        assert verified is not None
        assert verified.is_cut == is_cut


CORPORA = st.lists(st.tuples(st.sampled_from(KINDS), st.floats(1.0, 3.6)), min_size=1, max_size=24)


def verify_corpus(
    server: Server, documents: list[tuple[Kind, float]], shape: dict[str, Any], concurrency: int
) -> list[tuple[int, VerificationResult]]:
    """Return the number of tokens that each document lost, and the verifier's result; refused documents are left out.

    A document that lost a few tokens is left out too: no count can distinguish them from the cost of its halves.
    """
    rng = random.Random(13)
    cases = [case_of(server, kind(rng, int(10**size)), **shape) for kind, size in documents]
    counted = [(case, lost) for case, lost in cases if case.tokens is not None and not 0 < lost <= 8 * case.places]
    verifier = PromptVerifier("server")
    with ThreadPoolExecutor(concurrency) as pool:
        verified = list(pool.map(verifier.verify, [case for case, _ in counted]))
    return [(lost, result) for (_, lost), result in zip(counted, verified, strict=True) if result is not None]


def check_any_corpus(data: st.DataObject, concurrency: int) -> None:
    """Check on a server that truncates in any way, or refuses, that exactly the truncated documents are reported.

    The prompt without a document takes less than half of the context.
    """
    server = Server(
        data.draw(st.sampled_from(("refuse", "head", "tail", "middle", *WAYS[1:])), "way"),
        tokenizer=data.draw(st.sampled_from(TOKENIZERS), "tokenizer"),
        keeps_room=data.draw(st.booleans(), "keeps_room"),
    )
    shape = data.draw(st.sampled_from(SHAPES), "shape")
    server.context = 1 << 40
    server.context = 2 * case_of(server, "", **shape)[0].base + data.draw(st.integers(1_000, 10_000), "room")
    documents = data.draw(CORPORA, "documents")
    order = data.draw(st.sampled_from(("as drawn", "ascending", "descending")), "order")
    if order != "as drawn":
        documents.sort(key=lambda document: document[1], reverse=order == "descending")
    verified = verify_corpus(server, documents, shape, concurrency)
    assert all(document.is_cut == (lost > 0) for lost, document in verified)
    assert not any(document.notes for _, document in verified)


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_any_corpus_on_any_server(data: st.DataObject) -> None:
    """Kinds, lengths, orders, prompts, tokenizers, limits and truncations vary; one document at a time."""
    check_any_corpus(data, 1)


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_any_corpus_on_any_server_in_parallel(data: st.DataObject) -> None:
    """The same property with eight documents at a time."""
    check_any_corpus(data, 8)


def test_missing_token_counts_are_noted() -> None:
    """Without usage, or with a count of 0, each record has the note."""
    case, _ = case_of(Server("head"), article(random.Random(1), 5000))
    for tokens in (None, 0):
        verifier = PromptVerifier("server")
        verified = verifier.verify(replace(case, tokens=tokens))
        assert verified is not None
        assert verified.notes == (UNVERIFIED,)


def test_contradicting_counts_reveal_two_servers() -> None:
    """A load balancer may have replicas with different limits; from then on records have the note."""
    rng = random.Random(5)
    small, large = Server("tail", context=4096), Server("tail", context=1 << 40)
    verifier = PromptVerifier("s")
    cut, missing = case_of(small, article(rng, 9_000))
    result = verifier.verify(cut)
    assert result is not None
    assert result.is_cut
    assert missing > 0
    case, _ = case_of(large, article(rng, 9_000))
    uncertain = verifier.verify(case)
    assert uncertain is not None
    assert uncertain.notes == (UNVERIFIED,)
    assert verifier.finding.unverified == TWO_LIMITS


@pytest.mark.parametrize("lost", [0, 900])
def test_truncated_halves_are_sent_again(lost: int) -> None:
    """Another server of the address truncates both halves, one of them twice; the highest counts decide."""
    text = article(random.Random(2), 9_000)
    around = 200
    first, second = (len(pieces(half)) for half in split(text))
    counts = {True: iter((3_000, around + first)), False: iter((3_000, 3_000, around + second))}
    renewed: list[bool] = []

    def send(part: str, whole: bool) -> Probe:
        return Probe(next(counts[whole], around + (first if whole else second)) if part else around)

    tokens = around + first + second - lost
    limit = TruncatedCounts(tokens, tokens, 256, tokens)
    result = verify_by_halves(text, send, tokens=tokens, places=1, truncation=limit, renew=lambda: renewed.append(True))
    assert result.is_cut == (lost > 0)
    assert result.differs
    assert 1 <= len(renewed) <= 2


def test_halves_with_constant_low_counts_mean_truncation() -> None:
    """They are no sign of two servers, because no count has changed."""
    text = article(random.Random(2), 9_000)
    result = verify_by_halves(
        text,
        lambda part, _: Probe(3_000 if part else 200),
        tokens=9_000,
        places=1,
        truncation=TruncatedCounts(9, 9, 1, 9),
    )
    assert result == HalvesResult(is_cut=True)


HOW = ("robin", "random")


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("way", ["tail", "half", "oldest"])
@pytest.mark.parametrize("reach", [None, 0, 1])
@pytest.mark.parametrize("seed", mostly_slow(range(4)))
def test_two_limits_behind_one_address_are_detected(how: str, way: str, reach: int | None, seed: int) -> None:
    """Whichever server verifies, few documents truncated by the smaller one pass without the note."""
    rng = random.Random(f"{how}{way}{seed}")
    balanced = Balanced(Server(way, context=4096), Server(way, context=1 << 40), how=how, rng=rng, verified_by=reach)
    verifier, cuts, silent = PromptVerifier("server"), 0, []
    for number in range(150):
        words = rng.randrange(2_000, 8_000) if rng.random() < 0.2 else rng.randrange(20, 900)
        case, lost = case_of(balanced, KINDS[number % 2](rng, words))
        assert case.tokens is not None
        verified = verifier.verify(case)
        assert verified is not None
        if lost and not verified.is_cut and not verified.notes:
            silent.append(case.tokens)
        cuts += verified.is_cut
    near = verifier.finding.truncation
    assert cuts > 3 or verifier.finding.unverified
    assert all(near is not None and near.is_near(tokens, 256) for tokens in silent), (silent, verifier.finding)
    assert len(silent) <= 4


@pytest.mark.parametrize("reach", [None, 0, 1])
@pytest.mark.parametrize("concurrency", [1, 8])
@pytest.mark.parametrize("seed", mostly_slow(range(3)))
def test_documents_accepted_before_the_limit_are_doubted(reach: int | None, concurrency: int, seed: int) -> None:
    """This includes documents accepted by other threads meanwhile: none truncated is a plain result."""
    rng = random.Random(f"{reach}{seed}")
    servers = (Server(rng.choice(("tail", "half")), context=3000), Server("tail", context=1 << 40))
    balanced = Balanced(*servers, how=rng.choice(("robin", "random")), rng=rng, verified_by=reach)
    words = [int(3300 * 1.2**step) for step in range(8)] + [rng.randrange(20, 700) for _ in range(24)]
    rng.shuffle(words)
    texts = [article(rng, size) for size in words]
    verifier = PromptVerifier("server")

    def silent(number: int) -> AcceptedResult | None:
        case, lost = case_of(balanced, texts[number])
        assert case.tokens is not None
        verified = verifier.verify(replace(case, document=str(number)))
        assert verified is not None
        passed = lost > 8 and not verified.is_cut and not verified.notes
        return AcceptedResult(str(number), case.tokens, 1, utc_now(), is_noted=False) if passed else None

    with ThreadPoolExecutor(concurrency) as pool:
        accepted = [candidate for candidate in pool.map(silent, range(len(texts))) if candidate is not None]
    assert all(verifier.limits.doubts(candidate) for candidate in accepted), (accepted, verifier.finding)


def fine(text: str) -> list[str]:
    """Tokenize with a poor vocabulary: three letters, a digit, or four blanks for each token."""
    return re.findall(r" ?[A-Za-z]{1,3}|\d|\s{1,4}|.", text, re.DOTALL)


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("tokenizer", [pieces, fine])
@pytest.mark.parametrize("kind", KINDS)
def test_estimate_is_at_least_the_token_count(kind: Kind, tokenizer: Tokenizer, counted: bool) -> None:
    """This holds for base64, tables or another script after articles; an article is estimated at most twofold."""
    rng, verifier = random.Random(7), PromptVerifier("s", limit_is_set=True)
    server = Server("refuse", context=1 << 40, tokenizer=tokenizer)
    verifier.mark_as_refusing()
    for _ in range(20 * counted):
        text = article(rng, 800)
        case, _ = case_of(server, text, around=())
        verifier.verify(replace(case, weight=weigh(text)))
    text = kind(rng, 3_000)
    tokens = len(tokenizer(text))
    assert verifier.estimate(weigh(text)) >= tokens
    if kind is article and counted:
        assert verifier.estimate(weigh(text)) <= 2 * tokens


def test_short_documents_do_not_wait_for_a_verification() -> None:
    """While a longer document is being verified, other threads accept documents of verified lengths."""
    rng, verifier = random.Random(9), PromptVerifier("s")
    server = Server("refuse", context=1 << 40)
    short = [case_of(server, article(rng, 600))[0] for _ in range(4)]
    verifier.verify(short[0])
    long, _ = case_of(server, article(rng, 30_000))
    began, go_on, stop = threading.Event(), threading.Event(), threading.Event()

    def slow(text: str, max_tokens: int, whole: bool) -> Probe:
        began.set()
        assert go_on.wait(60)
        return long.send(text, max_tokens, whole)

    with ThreadPoolExecutor(2) as pool:
        proving = pool.submit(verifier.verify, replace(long, send=slow))
        assert began.wait(60)
        waiting = pool.submit(verifier.verify, long, may_wait=lambda: not stop.is_set())
        assert [verifier.verify(case) for case in short] == [VerificationResult()] * 4
        assert not proving.done()
        stop.set()
        assert waiting.result(30) is None
        go_on.set()
        assert proving.result(30) == VerificationResult()
