"""Entries are pickled for worker processes, and are read there as in the main process."""

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
    """Return the entries of a folder as a run lists them, by id."""
    outage_retry = OutageRetry(1.0, threading.Event(), time.monotonic)
    config = InputConfig(uri=str(folder))
    listed = load_entries(config, output=None, counts=ListingCounts(), outage_retry=outage_retry)
    return {entry.id: entry for entry in listed}


def test_pickled_files_and_lines_are_read_the_same(tmp_path: Path) -> None:
    """This covers plain and compressed files, and lines of a file of many documents, with their notes."""
    (tmp_path / "a.txt").write_text("text", encoding="utf-8")
    (tmp_path / "b.md.gz").write_bytes(gzip.compress(b"packed") + b"junk")
    (tmp_path / "c.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n', encoding="utf-8")
    listing = entries(tmp_path)
    assert set(listing) == {"a.txt", "b.md.gz", "c.jsonl#1", "c.jsonl#2"}
    for entry in listing.values():
        sent = pickle.loads(pickle.dumps(entry))
        assert sent == entry
        here = entry.read()
        there = sent.read()
        assert there == here
        assert isinstance(there, NotedBytes) == isinstance(here, NotedBytes)
        assert getattr(there, "notes", ()) == getattr(here, "notes", ())


def test_worker_notices_a_replaced_file(tmp_path: Path) -> None:
    """A file that is opened in the worker is read in its newest version; a removed file fails its document."""
    path = tmp_path / "a.md"
    path.write_text("text", encoding="utf-8")
    (entry,) = entries(tmp_path).values()
    sent = pickle.loads(pickle.dumps(entry))
    (tmp_path / "new").write_text("other", encoding="utf-8")
    (tmp_path / "new").replace(path)
    assert sent.read() == entry.read() == b"other"
    path.unlink()
    with pytest.raises(DocumentError):
        sent.read()


def test_archive_members_are_not_pickled(tmp_path: Path) -> None:
    """They are read through the archive, which is open in the main process."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("m.txt", "member")
    (entry,) = entries(tmp_path).values()
    with pytest.raises((pickle.PicklingError, TypeError, AttributeError)):
        pickle.dumps(entry)
