"""The texts of the chosen documents, read once more from the input and kept in an unnamed temporary file.

It must not write to an output: a text in it would outlive the review.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from pipeline import documents
from pipeline.config import AppConfig
from pipeline.config.limits import limits_of
from pipeline.documents import ListingCounts, load_entries
from pipeline.errors import DocumentError, OutputError
from pipeline.output import left_out
from pipeline.records import Document, Entry
from pipeline.review.choice import Candidate
from pipeline.stores.local import temporary_folder

Trouble = Literal["gone", "changed", "unreadable"]


@dataclass(frozen=True, slots=True)
class Texts:
    """The readable texts by id, and why the others cannot be judged."""

    troubles: Mapping[str, Trouble]
    _file: BinaryIO
    _places: Mapping[str, tuple[int, int]]

    def __contains__(self, document_id: object) -> bool:
        return document_id in self._places

    def __getitem__(self, document_id: str) -> str:
        """Return the text of a document; one thread at a time."""
        start, size = self._places[document_id]
        self._file.seek(start)
        return self._file.read(size).decode("utf-8", "surrogatepass")

    def count(self, trouble: Trouble) -> int:
        """Return the number of documents that cannot be judged for this cause."""
        return sum(value == trouble for value in self.troubles.values())

    def close(self) -> None:
        """Close the unnamed temporary file, which deletes it."""
        self._file.close()


def read_texts(app: AppConfig, candidates: Iterable[Candidate]) -> Texts:
    """Read the chosen documents from the input, in one pass that ends when all are found.

    ConfigError for an input that is not there, TryLaterError when its listing is interrupted, OutputError without room
    for the texts.
    """
    by_id = {candidate.id: candidate for candidate in candidates}
    troubles: dict[str, Trouble] = {}
    places: dict[str, tuple[int, int]] = {}
    try:
        # open for the whole review
        file: BinaryIO = tempfile.TemporaryFile(prefix="pipeline-review-")  # noqa: SIM115
        for entry in _entries_by_id(app, by_id):
            candidate = by_id.pop(entry.id)
            document = None if candidate.reason == "internal_error" else _decoded(entry, app)
            if document is None or candidate.sha256 is None:
                troubles[entry.id] = "unreadable"
            elif document.sha256 != candidate.sha256:
                troubles[entry.id] = "changed"
            else:
                data = document.text.encode("utf-8", "surrogatepass")
                places[entry.id] = (file.tell(), len(data))
                file.write(data)
    except OSError as exc:
        raise OutputError(f"the texts of the documents, in {temporary_folder()}: {exc.strerror or exc}") from exc
    troubles |= dict.fromkeys(by_id, "gone")
    return Texts(troubles, file, places)


def _entries_by_id(app: AppConfig, by_id: Mapping[str, Candidate]) -> Iterator[Entry]:
    """Yield the first entry of each waiting id; the caller removes ids that it has read."""
    if not by_id:
        return
    output: Path | str | None = left_out(app)
    for entry in load_entries(app.input, output=output, counts=ListingCounts()):
        if entry.id in by_id and entry.duplicate_of is None:
            yield entry
            if not by_id:
                return


def _decoded(entry: Entry, app: AppConfig) -> Document | None:
    """Return the document as a run reads it; None when it cannot be read."""
    try:
        data = entry.read()
        return documents.decode(entry, data, text_field=app.input.text_field, limits=limits_of(app.input.limits))
    except DocumentError:
        return None
