"""The windows of a torture run's long documents: the answered ones, and the faults of a result's windows.

It must not start anything: it reads an output's windows and the prompts that the server received.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from fake_llm.planted import PART, part_of

from torture.corpus import LONG, Corpus, Doc
from torture.outbox import Outbox

Record = Mapping[str, Any]
Window = tuple[str, str]
"""A document's id, and the hash of the part of its text."""


def window_of(name: str, prompt: str) -> Window | None:
    """Return the window that a prompt contains; None for a whole document."""
    return (name, _hash(part_of(prompt).strip())) if PART in prompt else None


def answered_windows(corpus: Corpus, outbox: Outbox) -> Iterator[Window]:
    """Yield the windows whose answers an output holds for the current text of their documents."""
    for _, data in outbox.files("windows"):
        for line in data.splitlines():
            try:
                record = json.loads(line)
            except ValueError:  # the end of a file whose run was killed
                continue
            doc = corpus.docs.get(record["id"])
            if doc is not None and record["sha256"] == doc.sha256:
                yield doc.id, _hash(doc.text[record["start"] : record["end"]].strip())


def wrong_ledger(doc: Doc, line: Record) -> str | None:
    """Return the fault of a result's windows; None when they cover the text once."""
    windows = line.get("windows")
    if doc.case is not LONG:
        return "windows, of a short document" if windows else None
    if not windows:
        return "no windows, of a long document"
    rows = [row[:2] for row in windows["rows"]]
    ends = [0, *(max(end for _, end in rows[: count + 1]) for count in range(len(rows)))]
    gap = any(start > end for (start, _), end in zip(rows, ends, strict=False))
    if gap or ends[-1] != len(doc.text) or not all(earlier < later for earlier, later in pairwise(rows)):
        return f"windows {rows[:5]}, which do not cover its {len(doc.text)} characters"
    return None


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
