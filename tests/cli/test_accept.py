"""`pipeline errors --accept`: failures that need no repair stop counting, and count again when something changes."""

from __future__ import annotations

import json

import pytest
from conftest import Place
from s3_server import S3Server

BAD = "[[fault:http_400*99]]"


@pytest.fixture(params=["folder", "store"])
def out(request: pytest.FixtureRequest, place: Place) -> str:
    """The place's output in each backend, with three documents done and two failed: `rejected`, and empty."""
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


def test_accepting_turns_runs_green_and_a_change_turns_them_red(place: Place, out: str) -> None:
    """By reason, in the configured output when none is named; the acceptance holds for this failure only."""
    ran = place.call("errors", "--accept", "rejected,document_empty")
    assert (ran.code, ran.out) == (0, f"{out}: 2 accepted; 2 failures accepted in all (accepted.jsonl).\n"), ran.err
    ran = place.run()
    assert "FINISHED: 5 found, 0 done, 5 skipped; 2 failures are accepted (exit 0)" in ran.out
    place.change("bad.txt", f"another text, and still {BAD}")
    assert "1 failure is accepted" in place.run(code=1).out
    place.run(code=1)


def test_accepted_failures_are_shown_as_such(place: Place, out: str) -> None:
    """In the list, in a document's story, and for programs."""
    place.call("errors", out, "--accept", "rejected")
    listed = place.call("errors", out).out
    assert "2 failed documents" in listed and ", 1 of them accepted; 3 documents are done" in listed
    assert "accepted      yes" in place.call("errors", out, "--show", "bad.txt").out
    told = json.loads(place.call("errors", out, "--json").out)
    assert {group["reason"]: group["accepted"] for group in told["groups"]} == {"rejected": 1, "document_empty": 0}


def test_an_acceptance_is_taken_back(place: Place, out: str) -> None:
    """--unaccept names the same things, and the next run counts them again."""
    (place.folder / "ids.txt").write_text("bad.txt\nempty.txt\n")
    assert place.call("errors", out, "--accept", "@ids.txt").code == 0
    place.run()
    ran = place.call("errors", out, "--unaccept", "document_empty")
    assert "1 no longer accepted; 1 failure accepted in all" in ran.out, ran.err
    place.run(code=1)


def test_accepted_documents_are_tried_again_when_they_are_named(place: Place, out: str) -> None:
    """Not by the plain command; one that fails again the same way makes no bad run of it."""
    place.call("errors", out, "--accept", "rejected,document_empty")
    place.asked()
    place.run()
    assert place.asked() == []
    place.run("--only-failed", "rejected")
    assert set(place.asked()) == {"bad.txt"}


def test_what_names_no_failure_is_refused(place: Place, out: str) -> None:
    """A misspelt reason, one that nothing failed for, and ids of other documents."""
    ran = place.call("errors", out, "--accept", "rejekted")
    assert ran.code == 2 and "the nearest is rejected" in ran.err
    (place.folder / "ids.txt").write_text("a.txt\n")
    for wrong in ("timeout", "@ids.txt"):
        ran = place.call("errors", out, "--accept", wrong)
        assert ran.code == 2 and "matches no failure" in ran.err
    assert "matches no accepted failure" in place.call("errors", out, "--unaccept", "rejected").err
    ran = place.call("run", "--only-failed", "timout")
    assert ran.code == 2 and "the nearest is timeout" in ran.err


def test_purged_documents_are_accepted_no_more(place: Place, out: str) -> None:
    """What has to go is gone from accepted.jsonl, too."""
    place.call("errors", out, "--accept", "rejected,document_empty")
    (place.folder / "ids.txt").write_text("bad.txt\n")
    assert place.call("purge", "--ids", "ids.txt").code == 0
    told = json.loads(place.call("errors", "--json").out)
    assert (told["failed"], told["accepted"]) == (1, 1)


@pytest.mark.slow
def test_a_running_run_is_waited_for(place: Place) -> None:
    """Accepting needs the lock: beside a run that does not end in time it exits 3, names the holder, writes nothing."""
    place.configure({"runner.concurrency": 1})
    place.documents({"a.txt": BAD, "b.txt": "[[fault:drip_header]]"})
    running = place.start("run")
    place.wait_for(lambda: (place.folder / "out" / "errors.jsonl").exists(), "the lock")
    ran = place.call("errors", "--accept", "rejected", "--set", "runner.lock_wait_s=0")
    assert ran.code == 3 and "run" in ran.err
    assert not (place.folder / "out" / "accepted.jsonl").exists()
    running.end(15)


@pytest.mark.parametrize("command", [("report", "--text"), ("errors",), ("compact",), ("diff", "--by", "fingerprint")])
def test_the_output_may_be_left_out(place: Place, command: tuple[str, ...]) -> None:
    """It is then the one of the configuration in use."""
    place.configure({"output.uri": "elsewhere"})
    place.documents(2)
    place.run()
    place.configure({"output.uri": "elsewhere"}, agent={"system_prompt": "Another one.\n"})
    place.run()
    ran = place.call(*command)
    assert ran.code == 0, ran.err
    assert "elsewhere" in ran.out


def test_one_output_is_compared_with_the_configured_one(place: Place) -> None:
    """`diff` with one OUT: what is configured is the output before."""
    place.documents(2)
    place.run()
    place.run("--output", "trial")
    ran = place.call("diff", "trial")
    assert ran.code == 0, ran.err
    assert "out" in ran.out and "trial" in ran.out
