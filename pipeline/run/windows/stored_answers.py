"""The answers about windows, of this and earlier runs, that the output keeps until their documents have records.

An open document holds only the spans of its answers. The answers are read back when it is merged, so that memory does
not grow with the number of windows. This module must not write.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from pipeline.errors import InternalError
from pipeline.long.windows import Span
from pipeline.output import Output
from pipeline.output.window_lines import WindowLines
from pipeline.records import Document
from pipeline.run.windows.cutting import LongDocument, blank_answer
from pipeline.window_answers import WindowAnswer


@dataclass(frozen=True, slots=True)
class StoredAnswers:
    """The answers about windows in an output; `run_id`: only those of runs with this id, None: all."""

    lines: WindowLines
    run_id: str | None = None

    def spans(self, document: Document, text_sha256: str, question: str) -> list[Span]:
        """Return the windows of this text that are answered, sorted."""
        places = self.lines.places(
            document.id, sha256=document.sha256, text_sha256=text_sha256, question=question, run_id=self.run_id
        )
        return [Span(start, end) for start, end in places]

    def answers_about(self, long: LongDocument, spans: Collection[Span]) -> list[WindowAnswer]:
        """Return the answers about these windows, sorted; empty answers for blank windows, which have no line."""
        document = long.document
        stored = self.lines.answered(
            document.id, sha256=document.sha256, text_sha256=long.text_sha256, question=long.split.question
        )
        missing = set(spans)
        answers = [answer for answer in stored if (answer.start, answer.end) in missing]
        missing.difference_update((answer.start, answer.end) for answer in answers)
        for start, end in missing:
            if document.text[start:end].strip():
                raise InternalError(f"{document.id!r}: the answer about characters {start:,} to {end:,} is missing")
            answers.append(blank_answer(long, Span(start, end)))
        return sorted(answers, key=lambda answer: (answer.start, answer.end))


def stored_answers(output: Output, *, redo: str | None) -> StoredAnswers | None:
    """Return the answers about windows that a run may reuse: with --redo all, only those of its own run id."""
    if output.windows is None:
        return None
    return StoredAnswers(output.windows, output.stamp.run_id if redo == "all" else None)
