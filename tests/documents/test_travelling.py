"""Entries go to worker processes as pickles, and are read there as they would be read here."""

from __future__ import annotations

import gzip
import pickle
import threading
import time
import zipfile
from pathlib import Path

import pytest

from pipeline.config import InputConfig
from pipeline.documents import ListingCounts, load_entries
from pipeline.documents.archives.compression import NotedBytes
from pipeline.errors import DocumentError
from pipeline.records import Entry
from pipeline.stores import OutageRetry


def entries(folder: Path) -> dict[str, Entry]:
    """The entries of a folder as a run lists them, by id."""
    outage_retry = OutageRetry(1.0, threading.Event(), time.monotonic)
    config = InputConfig(uri=str(folder))
    listed = load_entries(config, output=None, counts=ListingCounts(), outage_retry=outage_retry)
    return {entry.id: entry for entry in listed}


def test_files_and_lines_are_read_as_here(tmp_path: Path) -> None:
    """With their notes: plain and packed files, and the lines of a file of many documents."""
    (tmp_path / "a.txt").write_text("text", encoding="utf-8")
    (tmp_path / "b.md.gz").write_bytes(gzip.compress(b"packed") + b"junk")
    (tmp_path / "c.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n', encoding="utf-8")
    found = entries(tmp_path)
    assert set(found) == {"a.txt", "b.md.gz", "c.jsonl#1", "c.jsonl#2"}
    for entry in found.values():
        sent = pickle.loads(pickle.dumps(entry))
        assert sent == entry
        here = entry.read()
        there = sent.read()
        assert there == here
        assert isinstance(there, NotedBytes) == isinstance(here, NotedBytes)
        assert getattr(there, "notes", ()) == getattr(here, "notes", ())


def test_what_was_replaced_since_the_listing_is_noticed_there(tmp_path: Path) -> None:
    """The file has another identity, and its newest version is read; a file that is gone is the document's failure."""
    path = tmp_path / "a.txt"
    path.write_text("text", encoding="utf-8")
    (entry,) = entries(tmp_path).values()
    sent = pickle.loads(pickle.dumps(entry))
    (tmp_path / "new").write_text("other", encoding="utf-8")
    (tmp_path / "new").replace(path)
    assert sent.read() == entry.read() == b"other"
    path.unlink()
    with pytest.raises(DocumentError):
        sent.read()


def test_members_of_archives_stay_here(tmp_path: Path) -> None:
    """They are read through the archive, which is open in this process."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("m.txt", "member")
    (entry,) = entries(tmp_path).values()
    with pytest.raises((pickle.PicklingError, TypeError, AttributeError)):
        pickle.dumps(entry)
