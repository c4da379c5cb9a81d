"""Documents that are skipped without being read or passed to a worker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from test_output import result

from pipeline.config import InputConfig, InputSource
from pipeline.documents import ListingCounts, load_entries
from pipeline.output.index import Index
from pipeline.output.record_keys import key_of_outcome
from pipeline.records import Entry, Stamp
from pipeline.run.selection.selection import Selection, SelectionRules
from pipeline.shards import WHOLE


@contextmanager
def selection(**done: tuple[str, str | None]) -> Iterator[Selection]:
    """Yield a selection over an output in which these ids are done, each with a text and a version."""
    index = Index()
    for id, (text, version) in done.items():
        digest = sha256(text.encode()).hexdigest()
        index.record(key_of_outcome(replace(result(id, sha256=digest), version=version), Stamp(1, "run-1")))
    fingerprint = result("any").fingerprint
    yield Selection(
        index,
        SelectionRules("run-2"),
        shard=WHOLE,
        fingerprint=lambda _id, _known: fingerprint,
        decided_by=lambda _id, _reason: None,
    )
    index.close()


def unread() -> bytes:
    """Fail the test, because this document must not be read."""
    pytest.fail("was read")


def test_document_with_an_equal_version_is_skipped_unread() -> None:
    """An equal size and mtime, or ETag, means equal bytes; another version is read by a worker."""
    with selection(a=("text", "v1")) as chosen:
        assert chosen.judge(Entry("a", "a", "v1", 4, "text", unread))[0] == "skip"
    with selection(a=("text", "v1")) as chosen:
        choice, entry = chosen.judge(Entry("a", "a", "v2", 4, "text", unread))
        assert (choice, entry.latest_is_valid) == ("do", True)


def test_unchanged_rows_of_a_grown_file_are_skipped_by_hash(tmp_path: Path) -> None:
    """Their bytes are already in memory, so only the new and the changed row go to a worker."""
    lines = ['{"text": "one"}', '{"text": "two, changed"}', '{"text": "three"}']
    path = tmp_path / "all.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    entries = load_entries(InputConfig((InputSource(str(path)),)), output=None, counts=ListingCounts())
    done = {"all.jsonl#1": (lines[0], "old"), "all.jsonl#2": ('{"text": "two"}', "old")}
    with selection(**done) as chosen:
        choices = {entry.id: chosen.judge(entry)[0] for entry in entries}
    assert choices == {"all.jsonl#1": "skip", "all.jsonl#2": "do", "all.jsonl#3": "do"}
