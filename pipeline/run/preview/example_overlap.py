"""Documents of the input whose text or name is in an agent's few-shot examples.

Used by `pipeline check`; it reads no document itself.
"""

from __future__ import annotations

from pipeline.records import Entry
from pipeline.run.plan import ExtractionPlan

MOST_WARNINGS = 5


class ExampleOverlap:
    """A comparison of documents with the examples of all variants; `warnings` has one line for each match."""

    def __init__(self, plan: ExtractionPlan) -> None:
        self.warnings: list[str] = []
        self._by_text: dict[str, int] = {}
        for query in plan.queries.values():
            for number, example in enumerate(query.resolved.examples):
                self._by_text.setdefault(_without_layout(example.document), number)

    def compare_entry(self, entry: Entry) -> None:
        """Compare the names of a document; an example that is a name was meant to contain the document's text."""
        for name in {entry.id, entry.uri} if self._by_text else ():
            if (number := self._by_text.pop(_without_layout(name), None)) is not None:
                self._warn(f"examples[{number}].document is the name of a document ({name}), need its text")

    def compare_text(self, entry: Entry, text: str) -> None:
        """Compare the text of a document."""
        if self._by_text and (number := self._by_text.pop(_without_layout(text), None)) is not None:
            need = "the model is given its answer; take a text that is not in the input"
            self._warn(f"examples[{number}] has the text of the document {entry.id}: {need}")

    def _warn(self, message: str) -> None:
        if len(self.warnings) < MOST_WARNINGS:
            self.warnings.append(message)


def _without_layout(text: str) -> str:
    """Return a text without differences in white space: YAML ends a text with a line break."""
    return " ".join(text.split())
