"""Helpers for tests of files with many documents: their documents and their memory use."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipeline.config import InputConfig, InputSource
from pipeline.documents import ListingCounts, decode, load_entries
from pipeline.errors import DocumentError
from pipeline.records import Document


def documents_of(path: Path, counts: ListingCounts | None = None, **config: Any) -> list[Document | str]:
    """Return each document, or `ID: REASON` for one that fails."""
    collected: list[Document | str] = []
    settings = InputConfig(uri=(InputSource(str(path)),), **config)
    for entry in load_entries(settings, output=None, counts=counts or ListingCounts()):
        try:
            collected.append(decode(entry, entry.read(), text_field="text"))
        except DocumentError as error:
            collected.append(f"{entry.id}: {error.reason}")
    return collected


def in_folder_of_input(tmp_path: Path) -> Iterator[None]:
    """Make inputs relative to the current directory, in its folder `in`, as the body of a fixture."""
    here = Path.cwd()
    os.chdir(tmp_path)
    Path("in").mkdir()
    yield
    os.chdir(here)


def peak_bytes(call: Callable[[], object]) -> int:
    """Return the peak Python memory of a call in bytes."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
