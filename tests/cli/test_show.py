"""`pipeline show`: the record of a document with its quotes, its text, and its HTML page."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from conftest import Place

TEXT = "Three ships reached “Rotterdam” on Monday.\r\nThe first two were unloaded before noon.\n"
AGENT = {
    "schema": {
        "type": "object",
        "properties": {"evidence": {"type": "array", "items": {"type": "string", "x-quote": True}}},
        "required": ["evidence"],
    },
    "max_reasks": 0,
}


@pytest.fixture
def done(place: Place) -> Place:
    """Return a place with one result and one failure."""
    quotes = {"a.txt": ['"Rotterdam"', "before noon"], "bad.txt": ["not there at all"]}
    place.configure({"runner.max_error_rate": 1}, agent=AGENT)
    place.server.answer = lambda prompt, _schema: json.dumps(
        {"evidence": next((quote for name, quote in quotes.items() if name in prompt), [])}
    )
    place.documents({"a.txt": TEXT, "bad.txt": "A text."})
    place.run()
    return place


def test_show_prints_a_record_with_its_quotes_in_context(done: Place) -> None:
    """The document is named by id or path, OUT is optional, and a pipe gets no terminal codes."""
    ran = done.call("show", "out", "a.txt")
    assert ran.code == 0
    assert "DONE a.txt" in ran.out
    assert "1. /evidence/0: characters 34 to 45, folded" in ran.out
    assert "Three ships reached [[“Rotterdam”]] on Monday. The first two" in ran.out
    assert "\x1b" not in ran.out
    assert done.call("show", "inbox/a.txt").out == ran.out
    failed = done.call("show", "bad.txt")
    assert failed.code == 0
    assert "FAILED bad.txt" in failed.out
    unknown = done.call("show", "bat.txt")
    assert unknown.code == 2
    assert "show: got 'bat.txt': out has no record of it; the nearest is bad.txt" in unknown.err


def test_show_text_prints_the_text_of_the_digest(done: Place) -> None:
    """If the document was removed or changed, no text is printed, stderr explains why, and the exit code is 1."""
    path = done.folder / "inbox" / "a.txt"
    saved = done.folder / "text"
    assert done.start("show", "a.txt", "--text", stdout=str(saved)).end().code == 0
    (record,) = done.lines("results.jsonl")
    assert hashlib.sha256(saved.read_bytes()).hexdigest() == record["text_sha256"]
    path.write_text("another text", encoding="utf-8")
    changed = done.call("show", "a.txt", "--text")
    assert (changed.code, changed.out) == (1, "")
    assert (
        f"This document has changed since (sha256 {record['sha256'][:12]}…): its places are not shown." in changed.err
    )
    path.unlink()
    missing = done.call("show", "a.txt", "--text")
    assert (missing.code, missing.out) == (1, "")
    assert "This document is no longer in the input." in missing.err
    plain = done.call("show", "a.txt")
    assert plain.code == 0
    assert plain.out.startswith("This document is no longer in the input.\n")
    assert '[["Rotterdam"]]' in plain.out
    page = done.folder / "page.html"
    assert done.call("show", "a.txt", "--html", "page.html").code == 0
    assert "This document is no longer in the input." in page.read_text(encoding="utf-8")


def test_show_html_writes_a_single_file(done: Place) -> None:
    """An unwritable path is an error that names it."""
    assert "2 quotes are marked" in done.call("show", "a.txt", "--html", "page.html").out
    text = (done.folder / "page.html").read_text(encoding="utf-8")
    assert '<mark id="e1" data-n="1">“Rotterdam”</mark>' in text
    assert [path.name for path in done.folder.iterdir() if "page" in path.name] == ["page.html"]
    missing = done.call("show", "a.txt", "--html", str(Path("none") / "page.html"))
    assert missing.code == 3
    assert "cannot be written" in missing.err


def test_a_result_of_an_earlier_prompt(done: Place) -> None:
    """`show` reports the earlier prompt and, after a failed attempt with the new one, the failure."""
    done.configure({"runner.max_error_rate": 1}, agent={**AGENT, "system_prompt": "Other.\n"})
    done.server.answer = lambda _prompt, _schema: "no JSON"
    done.run("--ids", "bad.txt")
    earlier = "This record is of an earlier prompt, schema or model than that of the last run: `pipeline run` extracts"
    assert " ".join(done.call("show", "a.txt").out.split()).startswith(earlier)
    done.run()
    shown = " ".join(done.call("show", "a.txt").out.split())
    assert shown.startswith(
        "The latest attempt failed: invalid_json (run 3). This is the earlier result, of an earlier prompt, schema or "
        "model (run 1). all records pipeline errors out --show a.txt STALE a.txt"
    )
    assert done.call("show", "a.txt", "--html", "page.html").code == 0
    assert "The latest attempt failed: invalid_json" in (done.folder / "page.html").read_text(encoding="utf-8")


def test_a_result_of_an_earlier_version(done: Place) -> None:
    """A document that changed and failed names the earlier version, and no earlier prompt."""
    (done.folder / "inbox" / "a.txt").write_text("", encoding="utf-8")
    done.run()
    shown = " ".join(done.call("show", "a.txt").out.split())
    assert "failed: document_empty (run 2). This is the earlier result, of an earlier version of the document" in shown
