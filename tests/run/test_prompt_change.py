"""A changed prompt, schema or model: what `run`, `check` and `run --dry-run` report before documents are sent again."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Place

OTHER = {"system_prompt": "Other.\n"}
BEFORE = "were extracted before a change of system_prompt"


@pytest.fixture
def done(place: Place) -> Place:
    """Three done documents, and an agent whose prompt changed since."""
    place.documents(3)
    place.run()
    place.sent_documents()
    place.configure(agent=OTHER)
    return place


def test_a_run_reports_what_it_extracts_again(done: Place) -> None:
    """At its start, with the part that changed and how to avoid it; the next run reports nothing."""
    log = done.run().err
    assert f"3 of 3 done documents {BEFORE}; those that are still in the input will be extracted again" in log
    assert "To see how many: --dry-run; to keep the earlier results: --redo none; to set a limit:" in log
    assert "done documents" not in done.run().err


def test_later_runs_extract_the_remaining_documents(done: Place) -> None:
    """The change is also reported after a first run with the new prompt that left documents."""
    assert f"3 of 3 done documents {BEFORE}; those that this run selects" in done.run("--limit", "1").err
    assert f"2 of 3 done documents {BEFORE}; those that are still in the input will be" in done.run().err


def test_a_single_document_is_counted_in_the_singular(place: Place) -> None:
    """It was extracted."""
    place.documents(1)
    place.run()
    place.configure(agent=OTHER)
    assert "1 of 1 done document was extracted before a change of system_prompt" in place.run().err


def test_removed_documents_are_reported_once(done: Place) -> None:
    """After a whole run, results of an earlier prompt can only belong to documents that the input no longer has."""
    next((done.folder / "inbox").iterdir()).unlink()
    assert f"3 of 3 done documents {BEFORE}" in done.run().err
    assert "done document" not in done.run("--set", "runner.max_redo=0").err
    assert done.call("check").out.startswith("READY: ")


def test_kept_results_are_reported_again(done: Place) -> None:
    """A run with --redo none, or of some documents, leaves results that a later run repeats."""
    done.run("--redo", "none")
    assert f"3 of 3 done documents {BEFORE}" in done.run("--ids", done.lines("results.jsonl")[0]["id"]).err
    assert f"2 of 3 done documents {BEFORE}" in done.run().err


def test_results_that_are_kept(done: Place) -> None:
    """--redo none says so, and sends nothing."""
    assert f"3 of 3 done documents {BEFORE}; --redo none keeps their results" in done.run("--redo", "none").err
    assert done.sent_documents() == []


@pytest.mark.parametrize("flags", [("--redo", "all"), ("--only-failed",)])
def test_flags_that_the_change_does_not_concern(done: Place, flags: tuple[str, ...]) -> None:
    """A run that does all documents, or failed ones alone, does not report the change."""
    assert "done documents" not in done.run(*flags).err


def test_a_quiet_run_stays_quiet(done: Place) -> None:
    """Cron mails nothing about a run that ends with 0."""
    ran = done.run("--quiet")
    assert (ran.out, ran.err) == ("", "")


def test_check_reports_it_without_sending_documents(done: Place) -> None:
    """As a warning below the verdict."""
    ran = done.call("check")
    assert ran.code == 0
    assert ran.out.startswith("READY, WITH WARNINGS")
    text = " ".join(ran.out.split())
    assert f"3 of 3 done documents {BEFORE}: `pipeline run` extracts those that are still in the input again" in text
    done.run()
    assert done.call("check").out.startswith("READY: ")


def test_check_refuses_what_a_run_would_refuse(done: Place) -> None:
    """Too many changed documents, or the output of another agent: exit 2 with the message of the run."""
    ran = done.call("check", "--set", "runner.max_redo=0.5")
    assert ran.code == 2
    assert f"runner.max_redo: got 0.5, but 3 of 3 done documents {BEFORE}" in ran.out
    ran = done.call("check", "--agent", "extractor")
    assert ran.code == 2
    assert "this output holds records of 'small'" in ran.out


def test_a_dry_run_names_the_change(done: Place) -> None:
    """And says that `runner.max_redo` would refuse the run."""
    assert "3   (changed: system_prompt)" in done.run("--dry-run").out
    refused = done.run("--dry-run", "--set", "runner.max_redo=0.5").out
    assert (
        f"A run would refuse this (exit code 2): runner.max_redo: got 0.5, but 3 of 3 done documents {BEFORE}"
        in refused
    )


def test_another_variant_is_named_as_such(place: Place) -> None:
    """A variant that no run used has no earlier question to compare with."""
    place.documents(2)
    place.configure(agent={"variants": {"terse": {"max_tokens": 50}}})
    place.run()
    assert "before a change of variant" in place.run("--variant", "terse").err


def test_an_output_without_summaries(done: Place) -> None:
    """Runs that were killed leave no summary: the documents are counted all the same."""
    for folder in ("runs", ".runs"):
        for path in Path(done.folder / "out" / folder).iterdir():
            path.unlink()
    assert "3 of 3 done documents were extracted before a change of the agent or its settings" in done.run().err
