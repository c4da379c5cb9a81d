"""A failure whose cause is a setting is tried again by the plain command when that setting has changed."""

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
    """The reasons whose digest is another one than with the usual settings."""
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
def test_each_reason_depends_on_its_own_settings(app: AppConfig, wanted: set[str]) -> None:
    """Reading settings for what could not be read, the server's for its own trouble, and nothing about transport."""
    if app.vllm.api_key:
        wanted = {reason for reason in wanted if app.vllm.preflight != APP.vllm.preflight}
    assert changed(app) == wanted


def test_more_context_and_overflow_decide_what_was_too_long() -> None:
    """`num_ctx` of the provider that is asked, and `overflow` of the agent."""
    ollama = replace(AGENT, provider="ollama")
    app = replace(APP, provider="ollama")
    more = replace(app, ollama=OllamaConfig(num_ctx=32768))
    before, after = deciding_digests(app, ollama), deciding_digests(more, ollama)
    assert {reason for reason in LENGTH if before[reason] != after[reason]} == LENGTH
    assert before["document_unreadable"] == after["document_unreadable"]
    assert changed(agent=replace(AGENT, overflow="head")) >= LENGTH


def test_another_way_to_repair_answers_decides_what_was_invalid() -> None:
    """`answers.repair` and `max_reasks`."""
    app = replace(APP, answers=replace(APP.answers, repair="full"))
    assert changed(app) == ANSWERS
    assert changed(agent=replace(AGENT, max_reasks=3)) == ANSWERS


def lines(place: Place, texts: Mapping[str, str], *, field: str = "body") -> None:
    """Writes a file of JSON Lines, an hour old."""
    path = place.folder / "inbox" / "all.jsonl"
    path.write_text("".join(json.dumps({"id": id, field: text}) + "\n" for id, text in texts.items()))
    os.utime(path, (HOUR_AGO, HOUR_AGO))


def dry(place: Place, *arguments: str) -> str:
    """What `--dry-run` says of failed documents."""
    out = place.run("--dry-run", *arguments).out
    return next(line.split("before", 1)[1].strip() for line in out.splitlines() if "failed before" in line)


def test_a_wrong_text_field_is_repaired_by_the_plain_command(place: Place) -> None:
    """Documents that could not be read because of a setting are read when it is right, and counted as failed before."""
    place.documents(20)
    lines(place, {f"line{number}": "text" for number in range(4)})
    place.run(code=1)
    assert set(place.failed().values()) == {"document_unreadable"}
    place.run(code=1)
    assert dry(place) == "4   (0 to be tried again, 4 skipped)"
    right = ("--set", "input.text_field=body")
    assert dry(place, *right) == "4   (4 to be tried again, 0 skipped)"
    assert dry(place, *right, "--no-retry-failed") == "4   (0 to be tried again, 4 skipped)"
    ran = place.run(*right)
    assert "FINISHED: 24 found, 4 done, 20 skipped (exit 0)" in ran.out
    assert place.failed() == {}


def test_an_unchanged_cause_is_not_tried_again(place: Place) -> None:
    """Each retry costs a request: another setting, or another provider's, changes nothing."""
    place.documents({**{f"d{n}.txt": "x" for n in range(30)}, "bad.txt": "[[fault:http_400*99]]"})
    place.run()
    place.asked()
    place.run("--set", "input.text_field=body", "--set", "ollama.num_ctx=1", "--set", "vllm.timeout=19")
    assert place.asked() == []


def test_overflow_head_does_what_was_too_long(place: Place) -> None:
    """The agent's file says `overflow: head` from now on: the document is cut and done."""
    with FakeLLM(("llama3.1",), 2000) as narrow:
        place.configure({"vllm.base_url": narrow.url})
        place.documents({"long.txt": "word " * 9000, **{f"d{n}.txt": "x" for n in range(30)}})
        place.run()
        assert place.failed() == {"long.txt": "context_length"}
        assert "1 remains failed" in place.run().out
        assert [seen.document for seen in narrow.chats()].count("long.txt") == 1
        place.configure({"vllm.base_url": narrow.url}, agent={"overflow": "head"})
        place.run()
        assert place.failed() == {}


def too_long(place: Place, *, servers: Sequence[FakeLLM], dialect: str = "vllm") -> None:
    """One document of 2,250 tokens among short ones, for servers whose addresses are settings of transport only."""
    own = {"provider": dialect, f"{dialect}.base_url": [server.url for server in servers], f"{dialect}.max_tokens": 100}
    place.configure({**own, **({"ollama.num_ctx": 32768} if dialect == "ollama" else {})})
    place.documents({"long.txt": "word " * 9000, **{f"d{n}.txt": "x" for n in range(30)}})


def chats_about(server: FakeLLM, document: str = "long.txt") -> int:
    """How many requests of this server were about the document."""
    return [seen.document for seen in server.chats()].count(document)


@pytest.mark.parametrize("dialect", ["vllm", "ollama"])
def test_a_server_with_a_larger_context_does_what_was_too_long(place: Place, dialect: str) -> None:
    """The server is restarted with more: the plain command tries it again; with as much or less it does not."""
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


def test_a_server_that_is_down_is_not_waited_for_because_of_a_document_that_is_too_long(place: Place) -> None:
    """Nothing is known of its context: the failure remains, and the run ends when the first look at it has ended."""
    with FakeLLM(("llama3.1",), 2000) as narrow:
        too_long(place, servers=[narrow])
        place.run()
    ran = place.run("--set", "runner.startup_wait_s=1")
    assert "1 remains failed" in ran.out


def test_replicas_with_different_contexts_do_not_send_a_document_back_and_forth(place: Place) -> None:
    """The smallest context of those in use counts, since the document may go to that server."""
    with FakeLLM(("llama3.1",), 2000) as narrow, FakeLLM(("llama3.1",), 2200) as wider:
        too_long(place, servers=[narrow, wider])
        place.run()
        assert place.failed() == {"long.txt": "context_length"}
        before = chats_about(narrow) + chats_about(wider)
        place.run()
        assert chats_about(narrow) + chats_about(wider) == before


def test_a_file_that_is_too_large_is_not_tried_for_the_context(place: Place) -> None:
    """It was never sent: `input.max_document_bytes` decided it, and no server."""
    place.configure({"vllm.base_url": place.server.url, "input.max_document_bytes": 1000})
    place.documents({"long.txt": "word " * 9000, **{f"d{n}.txt": "x" for n in range(30)}})
    place.run()
    (line,) = place.lines("errors.jsonl")
    assert line["reason"] == "document_too_large"
    assert "@" not in line["decided_by"]


def test_an_accepted_failure_is_tried_again_when_its_cause_has_changed(place: Place) -> None:
    """Accepting says that nothing can be done; a changed setting says that something was."""
    lines(place, {"a": "text"})
    place.run(code=1)
    place.call("errors", "--accept", "document_unreadable")
    place.run()
    place.run("--set", "input.text_field=body")
    assert place.failed() == {}


def test_a_line_of_an_older_version_is_tried_once(place: Place) -> None:
    """It does not say what decided it; the line that replaces it does."""
    place.documents({"bad.txt": "[[fault:http_400*99]]", **{f"d{n}.txt": "x" for n in range(30)}})
    place.run()
    path = place.folder / "out" / "errors.jsonl"
    (line,) = place.lines("errors.jsonl")
    assert line.pop("decided_by")
    path.write_text(json.dumps(line) + "\n")
    place.asked()
    place.run(code=1)
    assert set(place.asked()) == {"bad.txt"}
    place.run()
    assert place.asked() == []


@pytest.mark.parametrize("retries", [0, 2])
def test_retry_runs_begin_anew_with_another_cause(place: Place, retries: int) -> None:
    """A failed answer is tried in `retry_runs` more runs, and again that often when what decides it has changed."""
    settings: dict[str, Any] = {"runner.retry_runs": retries, "runner.max_error_rate": 1}
    place.configure(settings)
    place.documents({"bad.txt": "[[fault:wrong_type]]"})
    for wanted in [True, *[True] * retries, False, False]:
        place.asked()
        place.run()
        assert bool(place.asked()) == wanted
    place.configure({**settings, "answers.repair": "off"})
    for wanted in [True, *[True] * retries, False]:
        place.asked()
        place.run()
        assert bool(place.asked()) == wanted


def test_an_extra_that_is_installed_later_decides_what_could_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plain command tries the documents again that needed it."""
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pypdfium2", None)
        before = deciding_digests(APP, AGENT)
    after = deciding_digests(APP, AGENT)
    assert {reason for reason in REASONS if before[reason] != after[reason]} == READING
