"""Documents of the input whose text or name is in an agent's few-shot examples.

Used by `pipeline check`; it reads no document itself.
"""

from __future__ import annotations

from pipeline.records import Entry
from pipeline.run.plan import ExtractionPlan

MOST_WARNINGS = 5


class ExampleOverlap:
    """Compares documents with the examples of all variants; `warnings` has one line for each match."""

    def __init__(self, plan: ExtractionPlan) -> None:
        self.warnings: list[str] = []
        self._by_text: dict[str, int] = {}
        for query in plan.queries.values():
            for number, example in enumerate(query.resolved.examples):
                self._by_text.setdefault(_plain(example.document), number)

    def see_entry(self, entry: Entry) -> None:
        """Compare the names of a document: an example that is one of them was meant to hold its text."""
        for name in {entry.id, entry.uri} if self._by_text else ():
            if (number := self._by_text.pop(_plain(name), None)) is not None:
                self._warn(f"examples[{number}].document is the name of a document ({name}), need its text")

    def see_text(self, entry: Entry, text: str) -> None:
        """Compare the text of a document."""
        if self._by_text and (number := self._by_text.pop(_plain(text), None)) is not None:
            need = "the model is given its answer; take a text that is not in the input"
            self._warn(f"examples[{number}] has the text of the document {entry.id}: {need}")

    def _warn(self, message: str) -> None:
        if len(self.warnings) < MOST_WARNINGS:
            self.warnings.append(message)


def _plain(text: str) -> str:
    """Return a text without differences in white space: YAML ends a text with a line break."""
    return " ".join(text.split())
