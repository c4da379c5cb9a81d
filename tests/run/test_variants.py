"""Variants in a run: each gets its own preflight, documents keep their variant, and the report compares them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from conftest import AGENT, Place
from fake_llm import FakeLLM, ReceivedRequest
from raw_server import refusing_url

TERSE = "Be brief.\n"


def weighted(a: float = 3, b: float = 1, **own: Any) -> dict[str, Any]:
    """Return two weighted variants: `a` equals the agent, `b` has settings of its own."""
    return {"variants": {"a": {"weight": a}, "b": {"weight": b, "system_prompt": TERSE, **own}}}


def system_of(request: ReceivedRequest) -> str:
    """Return the system prompt of a chat."""
    return str(next((message["content"] for message in request.body["messages"] if message["role"] == "system"), ""))


@pytest.mark.parametrize("kind", ["vllm", "ollama"])
def test_each_variant_has_a_preflight_with_its_prompt_and_schema(place: Place, server: FakeLLM, kind: str) -> None:
    """Each gets one small completion; the server's models are requested once."""
    place.configure(
        {"provider": kind, "ollama.base_url": server.url, "ollama.model": "llama3.1"},
        agent=weighted(max_tokens=100),
    )
    ran = place.call("check")
    assert ran.code == 0, ran.err
    schemas = [
        chat.body.get("format") or chat.body.get("response_format", {}).get("json_schema", {}).get("schema")
        for chat in server.chats()
        if system_of(chat) in (AGENT["system_prompt"], TERSE)
    ]
    assert [set(schema["properties"]) for schema in schemas] == [{"summary"}] * 2
    page = "/v1/models" if kind == "vllm" else "/api/tags"
    assert [request.path for request in server.requests].count(page) == 1
    assert f"OK      provider {kind} at {server.url}, variant a: model llama3.1" in ran.out
    assert f"OK      provider {kind} at {server.url}, variant b: model llama3.1" in ran.out


@pytest.mark.parametrize("own", [{"max_tokens": 9000}, {"system_prompt": "word " * 9000}, {"model": "no-such-model"}])
def test_unusable_variant_is_reported_before_the_first_document(place: Place, own: dict[str, Any]) -> None:
    """A too long prompt, a too large answer or an unknown model of one variant is exit 2 with its name."""
    place.documents(3)
    place.configure(agent=weighted(**own))
    ran = place.call("check")
    assert ran.code == 2
    assert "variant a: model" in ran.out
    (failed,) = [line for line in ran.out.splitlines() if "FAILED" in line]
    assert ", variant b: " in failed
    ran = place.run(code=2)
    assert "variant b: " in ran.err
    assert place.lines("results.jsonl") == []


def test_unreachable_server_is_checked_once_for_all_variants(place: Place) -> None:
    """Checking it for each variant would multiply the timeout."""
    place.configure({"vllm.base_url": refusing_url()}, agent=weighted())
    ran = place.call("check")
    assert ran.code == 3
    (warning,) = [line for line in ran.out.splitlines() if "FAILED" in line]
    assert ", variant a: connection_error" in warning


def test_variant_with_its_own_model_uses_that_model(place: Place) -> None:
    """Both models are checked, and each record names the model it used."""
    with FakeLLM(("llama3.1", "small-one")) as server:
        place.configure({"vllm.base_url": server.url}, agent=weighted(1, 1, model="small-one"))
        place.documents(20)
        place.run()
    models = {line["variant"]: line["model"]["name"] for line in place.lines("results.jsonl")}
    assert models == {"a": "llama3.1", "b": "small-one"}


def test_documents_keep_the_variant_chosen_by_weight(place: Place, server: FakeLLM) -> None:
    """The shares are about 3 to 1, and another output gives each document the same variant."""
    place.configure(agent=weighted())
    names = place.documents(200)
    place.run()
    given = {line["id"]: line["variant"] for line in place.lines("results.jsonl")}
    assert sorted(given) == names
    assert 30 <= sum(variant == "b" for variant in given.values()) <= 70
    sent = {chat.document: system_of(chat) for chat in server.chats() if chat.document in given}
    assert {name: prompt == TERSE for name, prompt in sent.items()} == {n: v == "b" for n, v in given.items()}
    for path in (place.folder / "out").rglob("*"):
        if path.is_file():
            path.unlink()
    place.run()
    assert {line["id"]: line["variant"] for line in place.lines("results.jsonl")} == given


def test_documents_of_one_variant_are_sent_consecutively(place: Place, server: FakeLLM) -> None:
    """Servers cache the start of recent prompts, so the variant should not change with every document."""
    place.configure(agent=weighted(1, 1))
    place.documents(200)
    place.run("--concurrency", "1")
    prompts = [system_of(chat) for chat in server.chats() if chat.document.endswith(".txt")]
    changes = sum(prompt != next_prompt for prompt, next_prompt in pairwise(prompts))
    assert len(prompts) == 200
    assert len(set(prompts)) == 2
    assert changes < 30


def test_limit_takes_the_first_documents_of_all_variants(place: Place) -> None:
    """--limit follows the listing order, not the grouping by variant."""
    place.configure(agent=weighted(1, 1))
    names = place.documents(200)
    place.run("--limit", "20", "--concurrency", "1")
    assert [line["id"] for line in place.lines("results.jsonl")] == names[:20]


def test_report_compares_the_variants(place: Place, server: FakeLLM) -> None:
    """It has validity, re-asks, tokens and latency; the second variant never matches the schema."""
    server.answer = lambda prompt, _schema: '{"summary": 5}' if TERSE in prompt else '{"summary": "good"}'
    server.latency_s = 0.05  # a sum of shorter ones may be rounded to 0
    lenient = {"runner.max_error_rate": 1, "runner.fail_fast": 0, "runner.abort_error_rate": 1}
    place.configure(lenient, agent=weighted(1, 1))
    names = place.documents(30)
    place.run()
    compared = place.last_run()["stats"]["variants"]
    assert place.report()["run"]["stats"]["variants"] == compared
    good, bad = compared["a"], compared["b"]
    assert (good["failed"], bad["done"], good["done"] + bad["failed"]) == (0, 0, len(names))
    assert (good["reasks"], bad["reasks"]) == (0, bad["failed"])
    assert bad["prompt_tokens"] / bad["failed"] > good["prompt_tokens"] / good["done"] > 0
    assert good["latency"]["sum_s"] > 0
