"""`pipeline errors --accept`: accepted failures stop counting, and count again after a change."""

from __future__ import annotations

import json

import pytest
from conftest import Place
from s3_server import S3Server

BAD = "[[fault:http_400*99]]"


@pytest.fixture(params=["folder", "store"])
def out(request: pytest.FixtureRequest, place: Place) -> str:
    """Return the URI of an output in each backend, with three documents done and two failed."""
    uri = "out"
    if request.param == "store":
        s3: S3Server = request.getfixturevalue("s3")
        uri = f"s3://{request.getfixturevalue('bucket')}/out"
        place.env.update(s3.env)
    place.configure({"output.uri": uri})
    place.documents({"a.txt": "x", "b.txt": "x", "c.txt": "x", "bad.txt": BAD})
    (place.folder / "inbox" / "empty.txt").write_text(" ")
    place.run(code=1)
    return uri


def test_accepted_failures_exit_with_0_until_they_change(place: Place, out: str) -> None:
    """--accept without OUT applies to the configured output, and only to the current failure of a document."""
    ran = place.call("errors", "--accept", "rejected,document_empty")
    assert (ran.code, ran.out) == (0, f"{out}: 2 accepted; 2 failures accepted in all (accepted.jsonl).\n"), ran.err
    ran = place.run()
    assert "FINISHED: 5 found, 0 done, 5 skipped; 2 failures are accepted (exit 0)" in ran.out
    place.change("bad.txt", f"another text, and still {BAD}")
    assert "1 failure is accepted" in place.run(code=1).out
    place.run(code=1)


def test_accepted_failures_are_marked(place: Place, out: str) -> None:
    """They are marked in the list, in the history of a document, and in the JSON."""
    place.call("errors", out, "--accept", "rejected")
    listed = place.call("errors", out).out
    assert "2 failed documents" in listed and ", 1 of them accepted; 3 documents are done" in listed
    assert "accepted      yes" in place.call("errors", out, "--show", "bad.txt").out
    payload = json.loads(place.call("errors", out, "--json").out)
    assert {group["reason"]: group["accepted"] for group in payload["groups"]} == {"rejected": 1, "document_empty": 0}


def test_unaccept_revokes_an_acceptance(place: Place, out: str) -> None:
    """--unaccept takes the same arguments, and the next run counts the failures again."""
    (place.folder / "ids.txt").write_text("bad.txt\nempty.txt\n")
    assert place.call("errors", out, "--accept", "@ids.txt").code == 0
    place.run()
    ran = place.call("errors", out, "--unaccept", "document_empty")
    assert "1 no longer accepted; 1 failure accepted in all" in ran.out, ran.err
    place.run(code=1)


def test_accepted_documents_are_retried_only_when_named(place: Place, out: str) -> None:
    """A plain run skips them; one that fails again in the same way keeps the exit code 0."""
    place.call("errors", out, "--accept", "rejected,document_empty")
    place.sent_documents()
    place.run()
    assert place.sent_documents() == []
    place.run("--only-failed", "rejected")
    assert set(place.sent_documents()) == {"bad.txt"}


def test_accept_without_a_matching_failure_is_refused(place: Place, out: str) -> None:
    """A misspelt reason, an unused reason, and ids of other documents are exit 2."""
    ran = place.call("errors", out, "--accept", "rejekted")
    assert ran.code == 2 and "the nearest is rejected" in ran.err
    (place.folder / "ids.txt").write_text("a.txt\n")
    for wrong in ("timeout", "@ids.txt"):
        ran = place.call("errors", out, "--accept", wrong)
        assert ran.code == 2 and "matches no failure" in ran.err
    assert "matches no accepted failure" in place.call("errors", out, "--unaccept", "rejected").err
    ran = place.call("run", "--only-failed", "timout")
    assert ran.code == 2 and "the nearest is timeout" in ran.err


def test_purge_removes_acceptances(place: Place, out: str) -> None:
    """accepted.jsonl no longer has the purged documents."""
    place.call("errors", out, "--accept", "rejected,document_empty")
    (place.folder / "ids.txt").write_text("bad.txt\n")
    assert place.call("purge", "--ids", "ids.txt").code == 0
    payload = json.loads(place.call("errors", "--json").out)
    assert (payload["failed"], payload["accepted"]) == (1, 1)


@pytest.mark.slow
def test_accept_needs_the_lock_of_the_output(place: Place) -> None:
    """Beside a run it exits with 3, names the holder and writes no file."""
    place.configure({"runner.concurrency": 1})
    place.documents({"a.txt": BAD, "b.txt": "[[fault:drip_header]]"})
    running = place.start("run")
    place.wait_for(lambda: (place.folder / "out" / "errors.jsonl").exists(), "the lock")
    ran = place.call("errors", "--accept", "rejected", "--set", "runner.lock_wait_s=0")
    assert ran.code == 3 and "run" in ran.err
    assert not (place.folder / "out" / "accepted.jsonl").exists()
    running.end(15)


@pytest.mark.parametrize("command", [("report", "--text"), ("errors",), ("compact",), ("diff", "--by", "fingerprint")])
def test_output_argument_defaults_to_the_configured_output(place: Place, command: tuple[str, ...]) -> None:
    """Each command uses `output.uri` if OUT is omitted."""
    place.configure({"output.uri": "elsewhere"})
    place.documents(2)
    place.run()
    place.configure({"output.uri": "elsewhere"}, agent={"system_prompt": "Another one.\n"})
    place.run()
    ran = place.call(*command)
    assert ran.code == 0, ran.err
    assert "elsewhere" in ran.out


def test_diff_of_one_output_compares_with_the_configured_one(place: Place) -> None:
    """The configured output is the earlier side."""
    place.documents(2)
    place.run()
    place.run("--output", "trial")
    ran = place.call("diff", "trial")
    assert ran.code == 0, ran.err
    assert "out" in ran.out and "trial" in ran.out
