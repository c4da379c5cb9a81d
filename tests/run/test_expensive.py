"""Documents that cost too much CPU time fail once, never hang a run, and are not retried while unchanged."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from conftest import Place, line_with

SLOW = b'Content-Type: text/plain; a="' + b";" * 800_000 + b'"\n\nx\n'


def test_expensive_document_fails_once(place: Place) -> None:
    """It exceeds the CPU limit, the others are done, and the next run skips it until the limit is raised."""
    place.documents({"a.txt": "One.", "b.txt": "Two."})
    (place.folder / "inbox" / "c.eml").write_bytes(SLOW)
    place.configure({"input.limits": {"cpu_s": 0.5}, "runner.max_error_rate": 1})
    place.run()
    assert sorted(place.done()) == ["a.txt", "b.txt"]
    assert place.failed() == {"c.eml": "document_too_expensive"}
    begun = time.process_time()
    place.run()
    assert place.last_run()["counts"] == {**place.last_run()["counts"], "skipped": 3, "failed": 0}
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_ends_a_run_that_is_decoding(place: Place, number: int, code: int) -> None:
    """A document that takes minutes to decode delays the end by no more than the grace."""
    place.documents({"a.txt": "One."})
    (place.folder / "inbox" / "b.eml").write_bytes(SLOW)
    place.configure({"input.limits": {"cpu_s": 600}, "runner.grace_s": 1})
    child = place.start("run")
    place.wait_for_results(1)
    child.process.send_signal(number)
    line_with(child, "stopping")
    begun = time.monotonic()
    assert child.end().code == code
    assert time.monotonic() - begun < 60
    assert place.last_run()["counts"]["left"] == 1


def test_document_is_left_when_its_decoder_process_cannot_start(place: Place, tmp_path: Path) -> None:
    """The run exits with 3 and writes no error; the next run does the document."""
    place.documents({"a.txt": "One."})
    (place.folder / "inbox" / "b.eml").write_bytes(b"Subject: Rates\n\nThe bank held rates.\n")
    start_up = tmp_path / "start_up"
    start_up.mkdir()
    (start_up / "sitecustomize.py").write_text("import sys; sys.executable = '/nonexistent/python'")
    ran = place.run(code=3, env={"PYTHONPATH": str(start_up)})
    assert "the process that decodes documents cannot be started" in ran.err
    assert place.failed() == {}
    place.run()
    assert sorted(place.done()) == ["a.txt", "b.eml"]
