"""`pipeline try`: what is shown of a document's way through the agent, and that nothing is written."""

from __future__ import annotations

import json

import pytest
from conftest import Place, everything_below
from fake_llm import FakeLLM, Fault

ESCAPE = "\x1b["


def test_the_prompts_the_answer_and_the_verdict_are_shown(place: Place) -> None:
    """In the order in which they come, and the exit code is 0."""
    place.documents({"a.txt": "A plain text."})
    ran = place.call("try", "inbox/a.txt")
    assert ran.code == 0, ran.err
    order = ["document a.txt, agent small", "Sum the text up.", "A plain text.", "answer from vllm, model llama3.1"]
    places = [ran.out.index(text) for text in [*order, '{"summary":', "\noutput\n", "\nVALID 1 request,"]]
    assert places == sorted(places)


def test_the_output_shown_is_json(place: Place) -> None:
    """It can be copied out."""
    place.documents({"a.txt": "text"})
    shown = place.call("try", "inbox/a.txt").out
    assert json.loads(shown.partition("\noutput\n")[2].partition("\nVALID")[0])["summary"]


def test_nothing_is_written(place: Place) -> None:
    """Neither the output's folder nor anything else appears or changes."""
    place.documents({"a.txt": "text", "b.txt": "[[fault:http_400]]"})
    before = everything_below(place.folder)
    place.call("try", "inbox")
    assert everything_below(place.folder) == before


def test_a_wrong_answer_is_shown_with_the_complaint_and_the_answer_after_it(place: Place, server: FakeLLM) -> None:
    """Of the second prompt only what is new is shown."""
    server.faults = lambda _, n: Fault("wrong_type") if n == 1 else None
    place.documents({"a.txt": "A text that is seen once."})
    ran = place.call("try", "inbox/a.txt")
    assert ran.code == 0, ran.out
    assert "further request, with this added to the user prompt" in ran.out
    assert "It breaks the JSON schema at $.summary" in ran.out
    assert ran.out.count("A text that is seen once.") == 1
    assert "VALID 2 requests" in ran.out and "1 correction" in ran.out


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[[fault:wrong_type]]", "FAILED schema_invalid (validate): $.summary: "),
        ("[[fault:http_400]]", "FAILED rejected (call): HTTP 400"),
        (" ", "FAILED document_empty (load)"),
    ],
)
def test_a_document_that_fails_is_exit_code_1(place: Place, text: str, told: str) -> None:
    """With the reason, where it happened, and what to do about it; the other documents are tried all the same."""
    place.documents({"good.txt": "text"})
    (place.folder / "inbox" / "bad.txt").write_text(text, encoding="utf-8")
    ran = place.call("try", "inbox/bad.txt", "inbox/good.txt")
    assert ran.code == 1
    assert told in ran.out and "\n  to do: " in ran.out
    assert "VALID" in ran.out


def test_failed_requests_are_shown(place: Place) -> None:
    """Each of them, before the answer that came at last."""
    place.documents({"a.txt": "[[fault:http_500*2]] text"})
    ran = place.call("try", "inbox/a.txt")
    assert ran.code == 0
    assert ran.out.count("no answer from vllm") == 2 and "http_500" in ran.out
    assert "VALID 3 requests" in ran.out


def test_a_server_that_is_not_there_is_exit_code_3_at_once(place: Place) -> None:
    """Nobody who looks on wants to wait for it; the message names the server."""
    place.documents({"a.txt": "text"})
    ran = place.call("try", "inbox/a.txt", "--set", "vllm.base_url=http://127.0.0.1:9")
    assert ran.code == 3
    assert "no provider is available: vllm (http://127.0.0.1:9)" in ran.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("inbox",), "which holds no document"),
        (("inbox/nothing.txt",), "there is no such file"),
        (("inbox", "--variant", "other"), "variant: got 'other'"),
        (("inbox", "--set", "vllm.model=other"), "'llama3.1'"),
    ],
)
def test_what_cannot_be_tried_is_exit_code_2(place: Place, arguments: tuple[str, ...], told: str) -> None:
    """Usage, agent and model."""
    if "--set" in arguments:
        place.documents(1)
    ran = place.call("try", *arguments)
    assert (ran.code, told in ran.err) == (2, True), ran.err


def test_the_variant_decides_what_is_asked(place: Place) -> None:
    """A pinned one is named and its prompt shown."""
    place.configure(agent={"variants": {"terse": {"system_prompt": "Be terse."}}})
    place.documents({"a.txt": "text"})
    ran = place.call("try", "inbox/a.txt", "--variant", "terse")
    assert "variant terse" in ran.out and "Be terse." in ran.out


def test_the_limit_is_kept(place: Place) -> None:
    """Of a folder the first documents only."""
    place.documents(5)
    assert place.call("try", "inbox", "--limit", "2").out.count("VALID") == 2


def test_a_terminal_gets_colours_and_others_do_not(place: Place) -> None:
    """NO_COLOR is heeded; a dumb terminal gets plain text."""
    place.documents({"a.txt": "text"})
    assert ESCAPE in place.on_terminal("try", "inbox/a.txt").out
    assert ESCAPE not in place.on_terminal("try", "inbox/a.txt", env={"NO_COLOR": "1"}).out
    assert ESCAPE not in place.on_terminal("try", "inbox/a.txt", env={"TERM": "dumb"}).out
    assert ESCAPE not in place.call("try", "inbox/a.txt").out


def test_nothing_in_a_document_reaches_the_terminal_as_an_escape(place: Place) -> None:
    """What would clear the screen is spelled out."""
    (place.folder / "inbox" / "a.txt").write_text("clear \x1b[2J this", encoding="utf-8")
    shown = place.call("try", "inbox/a.txt").out
    assert "\\x1b[2J" in shown and "\x1b" not in shown


def test_a_document_of_the_input_is_named_by_its_id_or_path(place: Place) -> None:
    """`try` and `run` ask the same for it: the id, from which the variant follows, and the metadata are the same."""
    place.configure({"input.uri": [{"uri": "inbox", "name": "news"}]})
    place.documents({"2026/a.txt": "text", "2026/b.txt": "text"})
    for name in ("news/2026/a.txt", "inbox/2026/a.txt"):
        ran = place.call("try", name)
        assert ran.code == 0, ran.err
        assert "\ndocument news/2026/a.txt, agent small" in ran.out
    assert place.call("try", "inbox/2026").out.count("\ndocument ") == 2
    outside = place.folder / "other.txt"
    outside.write_text("text", encoding="utf-8")
    assert "\ndocument other.txt, agent small" in place.call("try", "other.txt").out
    ran = place.call("try", "news/2026/aa.txt")
    assert ran.code == 2
    assert "the nearest is news/2026/a.txt" in ran.err


def test_run_and_errors_name_documents_as_try_does(place: Place) -> None:
    """By id, by path or by a file of ids; a wrong name is exit 2 before anything is asked."""
    place.documents({"a.txt": "text", "b.txt": "[[fault:http_400]]", "c.txt": "text", "d.txt": "text"})
    (place.folder / "ids").write_text("c.txt\n", encoding="utf-8")
    lenient = ("--set", "runner.max_error_rate=1")
    place.run("--ids", "a.txt", "inbox/b.txt", "--ids", "@ids", *lenient)
    assert (place.done(), place.failed()) == ({"a.txt": 1, "c.txt": 1}, {"b.txt": "rejected"})
    place.run("--ids", "a.txt", "--redo", "all", *lenient)
    assert place.done() == {"a.txt": 2, "c.txt": 1}
    ran = place.run("--ids", "b.text", code=2)
    assert "--ids: got 'b.text', which is not a document of the input; the nearest is b.txt" in ran.err
    for name in ("b.txt", "inbox/b.txt"):
        assert place.call("errors", "--show", name).out.startswith("FAILED b.txt")
    assert "the nearest is b.txt" in place.call("errors", "--show", "b.text").err
