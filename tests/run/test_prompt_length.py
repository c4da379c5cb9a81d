"""Whole runs against servers that truncate prompts: no truncated result, and a note where it cannot be verified."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import pytest
from balanced_llm import BalancedLLM
from conftest import Place
from cutting_llm import MODEL, CuttingLLM, count
from fake_llm import FakeLLM
from length_servers import KINDS, article

AGENT = {"system_prompt": "Sum the text up. " * 50, "user_prompt": "$document\n"}


def corpus(place: Place, size: int = 40, *, long: float = 0.2) -> None:
    """Write documents of all kinds, a share of them too long for 4,096 tokens."""
    rng = random.Random(7)
    texts = {}
    for number in range(size):
        words = rng.randrange(30_000, 60_000) if number < size * long else rng.randrange(20, 4_000)
        texts[f"d{number:03}.txt"] = KINDS[number % len(KINDS)](rng, 10_000)[:words] + "."
    place.documents(texts)


def configure(
    place: Place, server: CuttingLLM | BalancedLLM, *, agent: dict[str, Any] | None = None, **settings: Any
) -> None:
    """Configure an OpenAI-compatible provider at the server; failures do not end the run."""
    vllm = {"vllm.type": "openai", "vllm.base_url": server.url, "vllm.model": MODEL}
    rules = {"runner.max_error_rate": 1, "runner.fail_fast": 0, "runner.abort_error_rate": 1}
    place.configure({**vllm, **rules, **settings}, agent={**AGENT, **(agent or {})})


@pytest.mark.parametrize("way", ["head", "tail", "middle", "half", "oldest", "oldest_refuse"])
def test_no_result_of_a_truncated_prompt_is_written(place: Place, way: str) -> None:
    """20 % of the documents are too long: each of them fails, and all others are results."""
    corpus(place)
    with CuttingLLM(way) as server:
        configure(place, server)
        place.run()
        done, failed = set(place.done()), place.failed()
        assert done & server.cut == set()
        assert {name for name, reason in failed.items() if reason == "prompt_truncated"} == server.cut
        assert set(failed.values()) <= {"prompt_truncated", "context_length"}
        assert len(done) + len(failed) == 40
    assert not any("prompt_length_unverified" in line["notes"] for line in place.lines("results.jsonl"))


def test_server_that_refuses_long_prompts_gets_few_verification_requests(place: Place) -> None:
    """The few verification requests count as overhead in the report and the metrics."""
    corpus(place, 60)
    with CuttingLLM("refuse") as server:
        configure(place, server)
        place.run("--metrics-textfile", "metrics.prom")
        assert set(place.failed().values()) == {"context_length"}
        assert 3 <= server.verification_requests <= 40
        overhead = place.last_run()["overhead"]
        assert overhead["requests"] >= server.verification_requests
        assert overhead["prompt_tokens"] > 0
        metrics = (place.folder / "metrics.prom").read_text(encoding="utf-8")
        for name, value in overhead.items():
            assert re.search(rf"pipeline_overhead_{name}_total{{.*}} {float(value)}\n", metrics)
        assert all(line["attempts"] == 1 for line in place.lines("results.jsonl"))


@pytest.mark.parametrize("counts", ["none", "zero", "gateway", "uncached"])
def test_unusable_token_counts_are_noted_in_every_record(place: Place, counts: str) -> None:
    """With missing or wrong usage every record has the note, and the run warns once."""
    corpus(place, 20)
    with CuttingLLM("tail", counts=counts) as server:
        configure(place, server, **{"runner.concurrency": 1})
        ran = place.run()
    notes = [line["notes"] for line in place.lines("results.jsonl")]
    assert len(notes) == 20
    assert all("prompt_length_unverified" in note for note in notes)
    assert ran.err.count("cannot verify that the server reads whole prompts") == 1
    assert "context_length" in ran.err


def test_first_short_records_have_the_note_too(place: Place) -> None:
    """Counts without cached tokens may be low for a long prompt, so the server is tested before a record is exempt."""
    place.documents(6)
    with CuttingLLM("tail", counts="uncached") as server:
        configure(place, server, agent={"system_prompt": "Sum the text up."})
        place.run()
    assert all("prompt_length_unverified" in line["notes"] for line in place.lines("results.jsonl"))


def test_configured_context_length_prevents_long_prompts(place: Place) -> None:
    """Long documents fail as context_length without a request, and records have no note."""
    corpus(place, 20)
    with CuttingLLM("tail", counts="none") as server:
        configure(place, server, **{"vllm.context_length": 4096})
        ran = place.run()
        assert server.cut == set()
    assert set(place.failed().values()) == {"context_length"}
    assert {line["attempts"] for line in place.lines("errors.jsonl")} == {0}
    assert "cannot verify" not in ran.err
    assert not any("prompt_length_unverified" in line["notes"] for line in place.lines("results.jsonl"))


@pytest.mark.parametrize("overflow", ["head", "head_tail"])
def test_overflow_uses_the_detected_limit(place: Place, overflow: str) -> None:
    """Long documents are cut and noted, and their records have the detected context length."""
    corpus(place, 20)
    with CuttingLLM("tail") as server:
        configure(place, server, agent={"overflow": overflow})
        ran = place.run()
        assert server.cut == set()
    lines = place.lines("results.jsonl")
    assert len(lines) == 20
    cut = [line for line in lines if "document_truncated" in line["notes"]]
    assert len(cut) >= 4
    assert all(4000 <= line["context_length"] <= 4096 for line in cut)
    assert ran.err.count("found a context of") == 1


def test_failed_verification_request_postpones_its_document(place: Place) -> None:
    """While verification requests fail, no result that needs one is written; none is lost."""
    corpus(place, 6, long=0)
    failures = iter([True] * 3)
    with CuttingLLM("tail") as server:
        server.fail = lambda body: body["max_tokens"] == 1 and next(failures, False)
        configure(place, server)
        place.run()
    assert len(place.done()) == 6


def test_ollama_behind_the_openai_protocol_is_refused(place: Place) -> None:
    """As the first provider it is exit 2 and names the right type; with a configured context length it is accepted."""
    place.documents(2)
    with CuttingLLM("half", ollama=True) as server:
        configure(place, server)
        ran = place.run(code=2)
        assert "type: ollama" in ran.err
        assert "type: ollama" in place.call("check").out
        configure(place, server, **{"vllm.context_length": 4096})
        place.run()
        assert len(place.done()) == 2


def test_ollama_is_recognised_before_its_model_is_looked_up(place: Place) -> None:
    """Its /v1 accepts `llama3.1` for `llama3.1:latest`, so a missing tag must not hide the wrong type."""
    place.documents(2)
    with FakeLLM(dialects=("ollama", "ollama_v1")) as server:
        settings = {"vllm.type": "openai", "vllm.base_url": f"{server.url}/v1", "vllm.model": "llama3.1"}
        place.configure(settings)
        assert "type: ollama" in place.run(code=2).err
        place.configure({**settings, "vllm.context_length": 8192})
        ran = place.call("check")
        assert (ran.code, ran.out.count("warning: this is an Ollama")) == (0, 1), ran.out
        place.run()
    assert len(place.done()) == 2


def test_ollama_behind_the_openai_protocol_is_no_fallback(place: Place) -> None:
    """It is marked unavailable with a warning."""
    place.documents(2)
    place.server.down()
    with CuttingLLM("half", ollama=True) as server:
        other = {"providers.other": {"type": "openai", "base_url": server.url, "model": MODEL}}
        place.configure({**other, "fallback": ["other"], "runner.startup_wait_s": 0, "runner.max_outage_s": 1})
        ran = place.run(code=3)
    assert "type: ollama" in ran.err
    assert place.done() == {}


def test_truncated_prompt_without_a_document_is_exit_2(place: Place) -> None:
    """A prompt that the server truncates even without a document is a configuration error before the first document."""
    place.documents(2)
    with CuttingLLM("tail", context=1024) as server:
        configure(place, server, agent={"system_prompt": "Sum the text up. " * 400})
        ran = place.run(code=2)
        assert server.answers == 0
    assert "the prompt without a document is cut" in ran.err
    assert json.dumps(place.done()) == "{}"


def test_results_from_before_a_detected_limit_are_sent_again(place: Place) -> None:
    """The server's context shrinks during the run; the next run repeats the results that may have been truncated."""
    texts = {"a.txt": "The profit rose. " * 2_000, "b.txt": "The profit fell. " * 1_900, "c.txt": "Well. " * 40_000}
    place.documents(texts)
    with CuttingLLM("tail", context=1 << 30) as server:
        server.shrink_after, server.shrunk = 1, 4096
        configure(place, server, **{"runner.concurrency": 1})
        ran = place.run(code=1)
        assert "may come from prompts cut before" in ran.err
        assert place.last_run()["ask_again"] == ["b.txt"]
        assert place.failed() == {"c.txt": "prompt_truncated"}
        place.run()
        assert place.failed() == {"b.txt": "prompt_truncated", "c.txt": "prompt_truncated"}
        place.run()
        assert place.done() == {"a.txt": 1, "b.txt": 1}


def test_check_reports_the_verified_prompt_length(place: Place) -> None:
    """`check` itself verifies a long prompt without a document; a short one is verified by the first long document."""
    with CuttingLLM("tail", context=1 << 30) as server:
        configure(place, server)
        assert "long prompts: not verified yet" in place.call("check").out
        configure(place, server, agent={"system_prompt": "Sum the text up. " * 400})
        assert re.search(r"long prompts: read whole up to \d+ tokens \(verified\)", place.call("check").out)


def test_check_reports_the_detected_limit(place: Place) -> None:
    """The prompt without a document is near the limit but still read whole."""
    with CuttingLLM("tail", context=4096) as server:
        configure(place, server, agent={"system_prompt": "Sum the text up. " * 300})
        ran = place.call("check")
        assert ran.code == 0, ran.out + ran.err
        assert re.search(r"long prompts: cut without an error beyond 40\d\d tokens", ran.out)


@pytest.mark.parametrize(
    ("counts", "why"), [("none", "no prompt tokens"), ("zero", "no prompt tokens"), ("gateway", "LiteLLM may count")]
)
def test_check_warns_about_unusable_token_counts(place: Place, counts: str, why: str) -> None:
    """The warning gives the cause and advises to set `context_length`."""
    corpus(place, 3, long=0)
    with CuttingLLM("tail", counts=counts) as server:
        configure(place, server)
        ran = place.call("check")
        warning = next(line for line in ran.out.splitlines() if "prompt_length_unverified" in line)
        assert why in warning
        assert "context_length" in warning
        assert server.answers == 0
        configure(place, server, **{"vllm.context_length": 4096})
        assert "prompt_length_unverified" not in place.call("check").out


def test_check_detects_counts_without_cached_tokens(place: Place) -> None:
    """It sends the same new tiny prompt twice; with a configured context length it sends none."""
    with CuttingLLM("tail", counts="uncached") as server:
        configure(place, server)
        for _ in range(2):
            output = place.call("check").out
            assert "long prompts: prompt_length_unverified: its counts leave out cached tokens; set the" in output
        configure(place, server, **{"vllm.context_length": 4096})
        assert "prompt_length_unverified" not in place.call("check").out


@pytest.mark.parametrize("way", ["refuse", "half"])
def test_check_detects_whether_ollama_refuses_long_prompts(place: Place, way: str) -> None:
    """One request larger than the context shows it, without generating tokens."""
    with CuttingLLM(way, ollama=True) as server:
        ollama_at(place, server)
        result = "refused by the server; no verification needed" if way == "refuse" else "not verified yet"
        assert f"long prompts: {result}" in place.call("check").out


@pytest.mark.parametrize("way", ["refuse", "half"])
def test_prompt_that_only_looks_truncated_passes(place: Place, way: str) -> None:
    """White space has the token count of a truncated prompt; the verification request shows that it is whole."""
    num_ctx = 2048
    half = num_ctx - (num_ctx - 4) // 2
    system, user = AGENT["system_prompt"], " " * 16 * 600
    while count([system, user]) < half:
        user += "." if count([system, user + " " * 16 * 40]) > half else " " * 16 * 40
    place.documents(2)
    with CuttingLLM(way, context=num_ctx, ollama=True) as server:
        ollama_at(place, server, num_ctx=num_ctx, agent={**AGENT, "user_prompt": f"{user}$document"})
        checked = place.call("check")
        assert checked.code == 0, checked.out
        place.run()
    assert len(place.done()) == 2


def test_truncated_prompt_is_not_reported_as_a_small_context(place: Place) -> None:
    """It fits the context that the server reports, so the exit 2 message must not blame the context."""
    place.documents(2)
    with CuttingLLM("half", context=2048, ollama=True) as server:
        ollama_at(place, server, num_ctx=2048, agent={**AGENT, "user_prompt": "Sum it up. " * 800 + "$document\n"})
        ran = place.run(code=2)
    assert "the prompt without a document is cut" in ran.err
    assert "does not fit" not in ran.err


ADDRESSES = [("random", 1, 1), ("random", 8, 1), ("connection", 1, 1), ("random", 8, 2), ("robin", 8, 1)]


@pytest.mark.parametrize(("how", "concurrency", "processes"), ADDRESSES)
def test_replicas_with_different_limits_behind_one_address(
    place: Place, how: str, concurrency: int, processes: int
) -> None:
    """Proof requests reach only the larger one; results truncated by the smaller fail, are noted, or are repeated."""
    rng = random.Random(11)
    texts = {f"d{n:02}.txt": article(rng, 4_000 if n % 4 == 1 else 100 + n)[: 24_000 + 700 * n] for n in range(40)}
    place.documents(texts)
    with BalancedLLM([CuttingLLM("tail"), CuttingLLM("tail", context=1 << 20)], how, seed=2) as balancer:
        balancer.verified_by = 1
        configure(place, balancer, **{"runner.concurrency": concurrency, "runner.processes": processes})
        ran = place.call("run")
        again = set(place.last_run().get("ask_again", []))
        noted = {line["id"] for line in place.lines("results.jsonl") if "prompt_length_unverified" in line["notes"]}
        if len(balancer.cut) > 2:  # fewer do not change the counts
            assert balancer.cut & set(place.done()) <= again | noted
        assert set(place.failed().values()) <= {"prompt_truncated"}
        assert ran.code == (1 if again else 0)


def test_check_reports_that_vllm_refuses_long_prompts(place: Place) -> None:
    """A server known to refuse long prompts needs no verification."""
    assert "long prompts: refused by the server; no verification needed" in place.call("check").out


def test_tokenizer_request_counts_as_overhead(place: Place) -> None:
    """The true length of a refused prompt comes from vLLM's tokenizer, in a request of no document."""
    place.documents({"short.txt": "x"})
    place.configure({"runner.max_error_rate": 1})
    place.run()
    before = place.last_run()["overhead"]["requests"]
    place.documents({"long.txt": "word " * 20_000})
    place.run()
    tokenized = [request for request in place.server.requests if request.path == "/tokenize"]
    assert tokenized
    assert place.last_run()["overhead"]["requests"] == before + len(tokenized)


def ollama_at(place: Place, server: CuttingLLM, *, num_ctx: int = 4096, agent: dict[str, Any] = AGENT) -> None:
    """Configure the native Ollama protocol at the server; failures do not end the run."""
    ollama = {"provider": "ollama", "ollama.base_url": server.url, "ollama.model": MODEL, "ollama.num_ctx": num_ctx}
    rules = {"runner.max_error_rate": 1, "runner.fail_fast": 0, "runner.abort_error_rate": 1}
    place.configure({**ollama, **rules}, agent=agent)


def test_ollama_that_refuses_long_prompts_needs_no_verification(place: Place) -> None:
    """A few requests show that it refuses them; no document is verified or noted."""
    corpus(place)
    with CuttingLLM("refuse", ollama=True) as server:
        ollama_at(place, server)
        place.run()
        assert 1 <= server.verification_requests <= 4
    assert set(place.failed().values()) == {"context_length"}
    assert len(place.done()) + len(place.failed()) == 40
    assert not any("prompt_length_unverified" in line["notes"] for line in place.lines("results.jsonl"))


def test_ollama_that_ignores_truncate_false_is_verified(place: Place) -> None:
    """An old version truncates anyway: each truncated document fails, and all others are results."""
    corpus(place)
    with CuttingLLM("half", ollama=True) as server:
        ollama_at(place, server)
        place.run()
        assert set(place.done()) & server.cut == set()
        assert {name for name, reason in place.failed().items() if reason == "prompt_truncated"} == server.cut
        assert len(place.done()) + len(place.failed()) == 40


@pytest.mark.parametrize("way", ["refuse", "half"])
def test_tables_of_white_space_are_not_reported_as_truncated(place: Place, way: str) -> None:
    """Their token counts look truncated; the verification request decides, not the ratio of characters to tokens."""
    num_ctx, around = 2048, 2
    system = AGENT["system_prompt"]
    half = num_ctx - (num_ctx - 4) // 2
    texts = {}
    for number, width in enumerate((12, 13, 15, 15, 16, 16)):
        name, cell = f"[[doc:t{number}.txt]]", " " * width + "7"
        text = "\n".join([cell * 8] * 40)
        while count([system, f"{name} {text}\n"]) + around < half + around:
            text += cell if count([system, f"{name} {text}{cell}\n"]) <= half else "."
        texts[f"t{number}.txt"] = text
    place.documents(texts)
    with CuttingLLM(way, context=num_ctx, ollama=True) as server:
        ollama_at(place, server, num_ctx=num_ctx)
        place.run()
        assert server.cut == set()
    assert place.failed() == {}
    assert len(place.done()) == 6


def test_replacement_by_a_truncating_ollama_is_detected(place: Place) -> None:
    """During the run a vLLM that refuses long prompts is replaced by an Ollama that truncates them."""
    rng = random.Random(3)
    long = {f"z{number}.txt": KINDS[number](rng, 10_000)[:40_000] + "." for number in range(len(KINDS))}
    place.documents({f"a{number}.txt": KINDS[number % len(KINDS)](rng, 200) for number in range(12)} | long)
    with CuttingLLM("refuse") as server:
        server.becomes_ollama_after = 5
        configure(place, server, **{"runner.concurrency": 2})
        place.run()
        assert server.ollama
        assert server.cut
        assert set(place.done()) & server.cut == set()
        assert len(place.done()) + len(place.failed()) == 18
