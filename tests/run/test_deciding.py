"""A plain run retries a failure caused by a setting once that setting has changed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from conftest import HOUR_AGO, Place
from fake_llm import FakeLLM

from pipeline.config import AppConfig, InputConfig, OllamaConfig, ResolvedAgentConfig, VLLMConfig
from pipeline.errors import REASONS
from pipeline.run.selection.deciding import deciding_digests

APP = AppConfig(provider="vllm", fallback=())
AGENT = ResolvedAgentConfig("small", "default", provider="vllm")
READING = {
    "document_unreadable", "document_too_large", "document_empty", "unsupported_format", "duplicate_id",
    "document_too_expensive",
}  # fmt: skip
LENGTH = {"context_length", "prompt_truncated", "document_too_large"}
ANSWERS = {"invalid_json", "schema_invalid", "not_grounded", "output_truncated", "generation_loop"}
SERVER = {name for name, reason in REASONS.items() if reason.kind in ("backend", "config")}


def changed(app: AppConfig = APP, agent: ResolvedAgentConfig = AGENT) -> set[str]:
    """Return the reasons whose deciding digest differs from the one with the usual settings."""
    before, after = deciding_digests(APP, AGENT), deciding_digests(app, agent)
    assert set(before) == set(REASONS)
    return {reason for reason in REASONS if before[reason] != after[reason]}


@pytest.mark.parametrize(
    ("app", "wanted"),
    [
        (replace(APP, input=InputConfig(text_field="body")), READING),
        (replace(APP, input=InputConfig(max_document_bytes=5)), READING),
        (replace(APP, input=InputConfig(exclude=("x",), min_documents=0)), set()),
        (replace(APP, vllm=VLLMConfig(api_key="k", headers={"x": "y"}, preflight="off")), SERVER - READING - ANSWERS),
        (replace(APP, vllm=VLLMConfig(timeout=5)), SERVER),
        (replace(APP, vllm=VLLMConfig(stream=True)), SERVER),
        (replace(APP, ollama=OllamaConfig(num_ctx=5)), set()),
        (APP, set()),
    ],
)
def test_each_reason_has_its_own_deciding_settings(app: AppConfig, wanted: set[str]) -> None:
    """Reading settings decide unreadable documents, provider settings server errors; transport settings decide none."""
    if app.vllm.api_key:
        wanted = {reason for reason in wanted if app.vllm.preflight != APP.vllm.preflight}
    assert changed(app) == wanted


def test_context_and_overflow_settings_decide_context_length_failures() -> None:
    """These are `num_ctx` of the provider in use and `overflow` of the agent."""
    ollama = replace(AGENT, provider="ollama")
    app = replace(APP, provider="ollama")
    more = replace(app, ollama=OllamaConfig(num_ctx=32768))
    before, after = deciding_digests(app, ollama), deciding_digests(more, ollama)
    assert {reason for reason in LENGTH if before[reason] != after[reason]} == LENGTH
    assert before["document_unreadable"] == after["document_unreadable"]
    assert changed(agent=replace(AGENT, overflow="head")) >= LENGTH


def test_repair_settings_decide_invalid_answers() -> None:
    """These are `answers.repair` and `max_reasks`."""
    app = replace(APP, answers=replace(APP.answers, repair="full"))
    assert changed(app) == ANSWERS
    assert changed(agent=replace(AGENT, max_reasks=3)) == ANSWERS


def lines(place: Place, texts: Mapping[str, str], *, field: str = "body") -> None:
    """Write a JSONL file with an mtime one hour ago."""
    path = place.folder / "inbox" / "all.jsonl"
    path.write_text("".join(json.dumps({"id": id, field: text}) + "\n" for id, text in texts.items()))
    os.utime(path, (HOUR_AGO, HOUR_AGO))


def dry(place: Place, *arguments: str) -> str:
    """Return what `--dry-run` reports about failed documents."""
    out = place.run("--dry-run", *arguments).out
    return next(line.split("before", 1)[1].strip() for line in out.splitlines() if "failed before" in line)


def test_corrected_text_field_retries_unreadable_documents(place: Place) -> None:
    """Documents that failed because of a wrong setting are read by the next plain run, and counted as failed before."""
    place.documents(20)
    lines(place, {f"line{number}": "text" for number in range(4)})
    place.run(code=1)
    assert set(place.failed().values()) == {"document_unreadable"}
    place.run(code=1)
    assert dry(place) == "4   (0 to be retried, 4 skipped)"
    right = ("--set", "input.text_field=body")
    assert dry(place, *right) == "4   (4 to be retried, 0 skipped)"
    assert dry(place, *right, "--no-retry-failed") == "4   (0 to be retried, 4 skipped)"
    ran = place.run(*right)
    assert "FINISHED: 24 found, 4 done, 20 skipped (exit 0)" in ran.out
    assert place.failed() == {}


def test_failure_with_unchanged_settings_is_not_retried(place: Place) -> None:
    """Each retry costs a request: changing an unrelated setting, or another provider's, retries nothing."""
    place.documents({**{f"d{n}.txt": "x" for n in range(30)}, "bad.txt": "[[fault:http_400*99]]"})
    place.run()
    place.sent_documents()
    place.run("--set", "input.text_field=body", "--set", "ollama.num_ctx=1", "--set", "vllm.timeout=19")
    assert place.sent_documents() == []


def test_overflow_head_retries_documents_that_were_too_long(place: Place) -> None:
    """After the agent changes to `overflow: head`, the document is truncated and done."""
    with FakeLLM(("llama3.1",), 2000) as narrow:
        place.configure({"vllm.base_url": narrow.url})
        place.documents({"long.txt": "word " * 9000, **{f"d{n}.txt": "x" for n in range(30)}})
        place.run()
        assert place.failed() == {"long.txt": "context_length"}
        assert "1 remains failed" in place.run().out
        assert [chat.document for chat in narrow.chats()].count("long.txt") == 1
        place.configure({"vllm.base_url": narrow.url}, agent={"overflow": "head"})
        place.run()
        assert place.failed() == {}


def too_long(place: Place, *, servers: Sequence[FakeLLM], dialect: str = "vllm") -> None:
    """Write one document of 2,250 tokens among short ones, for servers whose addresses are transport settings."""
    own = {"provider": dialect, f"{dialect}.base_url": [server.url for server in servers], f"{dialect}.max_tokens": 100}
    place.configure({**own, **({"ollama.num_ctx": 32768} if dialect == "ollama" else {})})
    place.documents({"long.txt": "word " * 9000, **{f"d{n}.txt": "x" for n in range(30)}})


def chats_about(server: FakeLLM, document: str = "long.txt") -> int:
    """Return how many requests of this server were about the document."""
    return [chat.document for chat in server.chats()].count(document)


@pytest.mark.parametrize("dialect", ["vllm", "ollama"])
def test_larger_context_retries_documents_that_were_too_long(place: Place, dialect: str) -> None:
    """A server restarted with a larger context gets the document again; with the same or a smaller one it does not."""
    with FakeLLM(("llama3.1",), 2000) as narrow:
        too_long(place, servers=[narrow], dialect=dialect)
        place.run()
        assert place.failed() == {"long.txt": "context_length"}
        place.run()
        assert chats_about(narrow) == 1
    with FakeLLM(("llama3.1",), 1500) as narrower:
        too_long(place, servers=[narrower], dialect=dialect)
        place.run()
        assert chats_about(narrower) == 0
    with FakeLLM(("llama3.1",), 2200) as wider:
        too_long(place, servers=[wider], dialect=dialect)
        place.run(code=1)  # all that were tried have failed
        assert place.failed() == {"long.txt": "context_length"}
        place.run()
        assert chats_about(wider) == 1
    with FakeLLM(("llama3.1",), 32768) as wide:
        too_long(place, servers=[wide], dialect=dialect)
        place.run()
        assert place.failed() == {}


def test_run_does_not_wait_for_an_unavailable_server_to_learn_its_context(place: Place) -> None:
    """The context is unknown, so the failure remains and the run ends after the first preflight."""
    with FakeLLM(("llama3.1",), 2000) as narrow:
        too_long(place, servers=[narrow])
        place.run()
    ran = place.run("--set", "runner.startup_wait_s=1")
    assert "1 remains failed" in ran.out


def test_smallest_context_of_the_replicas_decides_a_retry(place: Place) -> None:
    """A document too long for one replica is not retried because another replica has a larger context."""
    with FakeLLM(("llama3.1",), 2000) as narrow, FakeLLM(("llama3.1",), 2200) as wider:
        too_long(place, servers=[narrow, wider])
        place.run()
        assert place.failed() == {"long.txt": "context_length"}
        before = chats_about(narrow) + chats_about(wider)
        place.run()
        assert chats_about(narrow) + chats_about(wider) == before


def test_oversized_file_is_not_retried_for_a_larger_context(place: Place) -> None:
    """The file was never sent; only `input.max_document_bytes` decides its failure."""
    place.configure({"vllm.base_url": place.server.url, "input.max_document_bytes": 1000})
    place.documents({"long.txt": "word " * 9000, **{f"d{n}.txt": "x" for n in range(30)}})
    place.run()
    (line,) = place.lines("errors.jsonl")
    assert line["reason"] == "document_too_large"
    assert "@" not in line["decided_by"]


def test_accepted_failure_is_retried_when_its_settings_change(place: Place) -> None:
    """Accepting a failure holds only for the settings that caused it."""
    lines(place, {"a": "text"})
    place.run(code=1)
    place.call("errors", "--accept", "document_unreadable")
    place.run()
    place.run("--set", "input.text_field=body")
    assert place.failed() == {}


def test_failure_recorded_by_an_older_version_is_retried_once(place: Place) -> None:
    """Its line lacks the deciding digest; the line that replaces it has one."""
    place.documents({"bad.txt": "[[fault:http_400*99]]", **{f"d{n}.txt": "x" for n in range(30)}})
    place.run()
    path = place.folder / "out" / "errors.jsonl"
    (line,) = place.lines("errors.jsonl")
    assert line.pop("decided_by")
    path.write_text(json.dumps(line) + "\n")
    place.sent_documents()
    place.run(code=1)
    assert set(place.sent_documents()) == {"bad.txt"}
    place.run()
    assert place.sent_documents() == []


@pytest.mark.parametrize("retries", [0, 2])
def test_changed_settings_restart_the_count_of_retry_runs(place: Place, retries: int) -> None:
    """An invalid answer is retried in `retry_runs` more runs, and again that often after a setting changes."""
    settings: dict[str, Any] = {"runner.retry_runs": retries, "runner.max_error_rate": 1}
    place.configure(settings)
    place.documents({"bad.txt": "[[fault:wrong_type]]"})
    for is_sent in [True, *[True] * retries, False, False]:
        place.sent_documents()
        place.run()
        assert bool(place.sent_documents()) == is_sent
    place.configure({**settings, "answers.repair": "off"})
    for is_sent in [True, *[True] * retries, False]:
        place.sent_documents()
        place.run()
        assert bool(place.sent_documents()) == is_sent


def test_installing_an_extra_retries_documents_that_needed_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain run retries the unreadable documents once the extra is installed."""
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pypdfium2", None)
        before = deciding_digests(APP, AGENT)
    after = deciding_digests(APP, AGENT)
    assert {reason for reason in REASONS if before[reason] != after[reason]} == READING
