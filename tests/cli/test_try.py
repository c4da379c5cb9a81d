"""`pipeline try`: a document's way through the agent is shown, and no file is written."""

from __future__ import annotations

import json

import pytest
from conftest import Place, everything_below
from fake_llm import FakeLLM, Fault

ESCAPE = "\x1b["


def test_try_shows_prompts_answer_and_verdict(place: Place) -> None:
    """They are in order of time, and the exit code is 0."""
    place.documents({"a.txt": "A plain text."})
    ran = place.call("try", "inbox/a.txt")
    assert ran.code == 0, ran.err
    order = ["document a.txt, agent small", "Sum the text up.", "A plain text.", "answer from vllm, model llama3.1"]
    places = [ran.out.index(text) for text in [*order, '"summary":', "\nVALID 1 request,"]]
    assert places == sorted(places)


def test_try_prints_the_output_as_json(place: Place) -> None:
    """The output is complete JSON that can be copied, printed once when it equals the answer."""
    place.documents({"a.txt": "text"})
    shown = place.call("try", "inbox/a.txt").out
    answer = shown.partition("\nanswer from ")[2].partition("\n")[2]
    assert json.loads(answer.partition("\nVALID")[0])["summary"]
    assert shown.count('"summary"') == 1


def test_try_prints_a_repaired_answer_and_its_output(place: Place) -> None:
    """An answer in a fence is shown as it came, and the output below it."""
    place.documents({"a.txt": "[[fault:fenced]] text"})
    shown = place.call("try", "inbox/a.txt").out
    answer, _, output = shown.partition("\nanswer from ")[2].partition("\noutput\n")
    assert "```" in answer
    assert json.loads(output.partition("\nVALID")[0])["summary"]


def test_try_writes_no_file(place: Place) -> None:
    """No file or folder is created or changed."""
    place.documents({"a.txt": "text", "b.txt": "[[fault:http_400]]"})
    before = everything_below(place.folder)
    place.call("try", "inbox")
    assert everything_below(place.folder) == before


def test_try_shows_a_re_ask_with_its_complaint(place: Place, server: FakeLLM) -> None:
    """Only the added part of the second prompt is printed."""
    server.faults = lambda _, n: Fault("wrong_type") if n == 1 else None
    place.documents({"a.txt": "A text that is seen once."})
    ran = place.call("try", "inbox/a.txt")
    assert ran.code == 0, ran.out
    assert "further request, with this added to the user prompt" in ran.out
    assert "It breaks the JSON schema at $.summary" in ran.out
    assert ran.out.count("A text that is seen once.") == 1
    assert "VALID 2 requests" in ran.out and "1 correction" in ran.out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[fault:wrong_type]]", "FAILED schema_invalid (validate): $.summary: "),
        ("[[fault:http_400]]", "FAILED rejected (call): HTTP 400"),
        (" ", "FAILED document_empty (load)"),
    ],
)
def test_try_of_a_failing_document_exits_with_1(place: Place, text: str, message: str) -> None:
    """It prints reason, stage and advice, and tries the other documents as well."""
    place.documents({"good.txt": "text"})
    (place.folder / "inbox" / "bad.txt").write_text(text, encoding="utf-8")
    ran = place.call("try", "inbox/bad.txt", "inbox/good.txt")
    assert ran.code == 1
    assert message in ran.out and "\n  to do: " in ran.out
    assert "VALID" in ran.out


def test_try_shows_failed_requests(place: Place) -> None:
    """Each precedes the answer that finally succeeded."""
    place.documents({"a.txt": "[[fault:http_500*2]] text"})
    ran = place.call("try", "inbox/a.txt")
    assert ran.code == 0
    assert ran.out.count("no answer from vllm") == 2 and "http_500" in ran.out
    assert "VALID 3 requests" in ran.out


def test_try_with_an_unreachable_server_exits_with_3_at_once(place: Place) -> None:
    """A person is watching, so it does not wait; the message names the server."""
    place.documents({"a.txt": "text"})
    ran = place.call("try", "inbox/a.txt", "--set", "vllm.base_url=http://127.0.0.1:9")
    assert ran.code == 3
    assert "no provider is available: vllm (http://127.0.0.1:9)" in ran.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("inbox",), "which holds no document"),
        (("inbox/nothing.txt",), "there is no such file"),
        (("inbox", "--variant", "other"), "variant: got 'other'"),
        (("inbox", "--set", "vllm.model=other"), "'llama3.1'"),
    ],
)
def test_invalid_try_command_exits_with_2(place: Place, arguments: tuple[str, ...], message: str) -> None:
    """The error is in the usage, the agent or the model."""
    if "--set" in arguments:
        place.documents(1)
    ran = place.call("try", *arguments)
    assert (ran.code, message in ran.err) == (2, True), ran.err


def test_try_variant_uses_the_variants_prompt(place: Place) -> None:
    """The output names the variant."""
    place.configure(agent={"variants": {"terse": {"system_prompt": "Be terse."}}})
    place.documents({"a.txt": "text"})
    ran = place.call("try", "inbox/a.txt", "--variant", "terse")
    assert "variant terse" in ran.out and "Be terse." in ran.out


def test_try_limit_takes_the_first_documents(place: Place) -> None:
    """It applies to the documents of a folder."""
    place.documents(5)
    assert place.call("try", "inbox", "--limit", "2").out.count("VALID") == 2


def test_try_uses_colour_only_on_a_terminal(place: Place) -> None:
    """NO_COLOR and a dumb terminal switch it off."""
    place.documents({"a.txt": "text"})
    assert ESCAPE in place.on_terminal("try", "inbox/a.txt").out
    assert ESCAPE not in place.on_terminal("try", "inbox/a.txt", env={"NO_COLOR": "1"}).out
    assert ESCAPE not in place.on_terminal("try", "inbox/a.txt", env={"TERM": "dumb"}).out
    assert ESCAPE not in place.call("try", "inbox/a.txt").out


def test_try_spells_out_terminal_escapes(place: Place) -> None:
    """A document cannot clear the screen."""
    (place.folder / "inbox" / "a.txt").write_text("clear \x1b[2J this", encoding="utf-8")
    shown = place.call("try", "inbox/a.txt").out
    assert "\\x1b[2J" in shown and "\x1b" not in shown


def test_try_accepts_an_id_or_a_path(place: Place) -> None:
    """The id, and so the variant and the metadata, are those of a run."""
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


def test_run_and_errors_accept_an_id_or_a_path(place: Place) -> None:
    """A file of ids works too; an unknown name is exit 2 before any request."""
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
