"""A prompt placeholder that stays empty causes a warning with the names that have values."""

from __future__ import annotations

import logging

import pytest

from pipeline.run.preview.placeholders import PlaceholderWatch


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_empty_placeholder_is_reported_after_100_documents(caplog: pytest.LogCaptureFixture) -> None:
    """It is reported once, with the names that have values; an alias counts as filled."""
    watch = PlaceholderWatch({"default": "$source $from $author $document $id"})
    for _ in range(99):
        watch.add("default", {"author": "Anna", "subject": "S", "site": " "})
    assert not warnings_of(caplog)
    for _ in range(99):
        watch.add("default", {"author": "Anna", "subject": "S"})
    watch.close()
    (warning,) = warnings_of(caplog)
    assert "$source of the user prompt was empty in the first 100 documents" in warning
    assert "have values: $author, $subject (" in warning


def test_empty_placeholder_of_a_short_run_is_reported_at_its_end(caplog: pytest.LogCaptureFixture) -> None:
    """The run needs at least five documents, and one filled value prevents the warning."""
    for documents, filled in ((4, 0), (5, 1)):
        watch = PlaceholderWatch({"default": "$title $document"})
        for number in range(documents):
            watch.add("default", {"title": "T"} if number < filled else {})
        watch.close()
    assert not warnings_of(caplog)
    watch = PlaceholderWatch({"a": "$title $document", "b": "$document"})
    for number in range(12):
        watch.add("ab"[number % 2], {})
    watch.close()
    assert "in the first 6 documents; the documents have no metadata" in warnings_of(caplog)[0]
