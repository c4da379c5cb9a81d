"""One review session: the documents for the page, and the judgements that it saves.

Every method may be called by any thread; one lock orders them. It must not know HTTP.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.answers.schema import CompiledSchema
from pipeline.errors import ConfigError
from pipeline.logs import visible
from pipeline.review.choice import Candidate
from pipeline.review.form import form_of, quotes_in, shown_value
from pipeline.review.marks import SHOWN_CHARS, Mark, marks_of, pieces_of
from pipeline.review.texts import Texts
from pipeline.shards import hash_fraction
from pipeline.truth.comparators import canonical_json, is_something
from pipeline.truth.gold import GoldDocument, checked_line, read_gold, relaxed_schema
from pipeline.truth.gold_file import append_lines
from pipeline.truth.graded_fields import Leaf, every_field, graded_fields

GOLD_VERSION = 1
_NOTE_CHARS = 2000
_SIDES = ("OUT", "OTHER")


class UnacceptableError(Exception):
    """The judgement cannot be saved; the message gives the reason and quotes no value."""


@dataclass(frozen=True, slots=True)
class ReviewOptions:
    """The documents to review, the reviewer, and the gold file. `holdout`: the share of documents to seal."""

    output: str
    gold: Path
    agent: str | None
    schema: Mapping[str, Any]
    by: str
    blind: bool = False
    holdout: float = 0.0
    other: str | None = None
    fields: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class ReviewSession:
    """The documents of one session; `judged` counts the saved ones."""

    def __init__(
        self, options: ReviewOptions, candidates: Sequence[Candidate], texts: Texts, *, now: Callable[[], str]
    ) -> None:
        self.options = options
        self.candidates = [candidate for candidate in candidates if candidate.id in texts]
        self.form = form_of(options.schema, off=_ungraded(options))
        self.unavailable = {id: str(trouble) for id, trouble in texts.troubles.items()}
        self._texts = texts
        self._now = now
        self._lock = threading.Lock()
        self._relaxed: CompiledSchema = relaxed_schema(options.schema, where="the output's schema")
        self._saved: dict[int, frozenset[str]] = {}

    @property
    def judged(self) -> int:
        """The number of documents with a judgement of this sitting; waits for one that is being saved."""
        with self._lock:
            return len(self._saved)

    def overview(self) -> dict[str, Any]:
        """Return the data that the page loads once."""
        with self._lock:
            documents = [
                {"id": visible(candidate.id), "saved": number in self._saved, "set": self.set_of(candidate)}
                for number, candidate in enumerate(self.candidates)
            ]
        options = self.options
        return {
            "agent": options.agent,
            "output": visible(options.output),
            "gold": visible(str(options.gold)),
            "by": options.by,
            "form": self.form,
            "documents": documents,
            "unavailable": [{"id": visible(id), "why": why} for id, why in self.unavailable.items()],
        }

    def document(self, number: int) -> dict[str, Any]:
        """Return one document as the page shows it; IndexError for a number that does not exist."""
        candidate = self.candidates[number]
        with self._lock:
            text = self._texts[candidate.id]
            is_saved = number in self._saved
        answer = self.shown_answer(candidate)
        marks = self.marks(candidate, text)
        sides = self._both_values(candidate)
        # a value in the form would reveal which of two sides is the output's
        answer_values = None if answer is None else {**shown_value(self.form, answer), **dict.fromkeys(sides)}
        return {
            "number": number,
            "key": self._draft_key(candidate, answer_values),
            "id": visible(candidate.id),
            "set": self.set_of(candidate),
            "saved": is_saved,
            "pieces": [[piece.text, piece.numbers, piece.proves] for piece in pieces_of(text, marks)],
            "characters": len(text),
            "shown_characters": min(len(text), SHOWN_CHARS),
            "answer": answer_values,
            "misfits": self._misfits(answer, answer_values, sides),
            "marks": {mark.pointer: [mark.number, len(mark.places)] for mark in marks},
            "reason": candidate.reason,
            "notes": [visible(note) for note in candidate.notes],
            "sides": {name: self._side_values(name, values, named=is_saved) for name, values in sides.items()},
            "judged_by": self._judged_by(candidate),
        }

    def save(self, number: int, judgement: Mapping[str, Any]) -> dict[str, Any]:
        """Append a judgement to the gold file, and sync it to disk.

        IndexError for a document that does not exist, UnacceptableError for a judgement that is not valid, OutputError
        when it cannot be written.
        """
        candidate = self.candidates[number]
        line = self._line(candidate, judgement)
        try:
            checked_line(line, str(self.options.gold), schema=self._relaxed, agent=self.options.agent)
        except ConfigError as error:
            raise UnacceptableError(str(error).removeprefix(f"{self.options.gold}: ")) from error
        judged = frozenset({*line["gold"], *(path.partition(".")[0] for path in (*line["unknown"], *line["partial"]))})
        if not judged:
            raise UnacceptableError("no field has a decision, need one at least")
        with self._lock:
            missing = self._saved.get(number, frozenset()) - judged
            if missing:
                message = f"{', '.join(sorted(missing))} was judged before"
                raise UnacceptableError(f"{message}: withdraw the judgement to leave it out")
            append_lines(self.options.gold, [line])
            self._saved[number] = judged
            return {"judged": len(self._saved), "sides": self._revealed_values(candidate)}

    def withdraw(self, number: int) -> dict[str, Any]:
        """Append the line that withdraws all judgements of a document; errors as `save`."""
        candidate = self.candidates[number]
        with self._lock:
            append_lines(self.options.gold, [{**self._head(candidate), "gold": None, **self._ending()}])
            self._saved.pop(number, None)
            return {"judged": len(self._saved)}

    def set_of(self, candidate: Candidate) -> str:
        """Return the set of the gold that a document belongs to; chosen by its id alone."""
        return "holdout" if hash_fraction("holdout", candidate.id) < self.options.holdout else "dev"

    def shown_answer(self, candidate: Candidate) -> Mapping[str, Any] | None:
        """Return the answer that may be shown: none of a holdout document, none in a blind review."""
        return None if self.options.blind or self.set_of(candidate) == "holdout" else candidate.answer

    def text(self, candidate: Candidate) -> str:
        """Return the text of a document."""
        with self._lock:
            return self._texts[candidate.id]

    def marks(self, candidate: Candidate, text: str) -> list[Mark]:
        """Return the marks of the quotes in the shown answer."""
        answer = self.shown_answer(candidate)
        if answer is None:
            return []
        # where two answers differ, a mark would reveal the output's
        alike = {name: value for name, value in answer.items() if name not in self._both_values(candidate)}
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        evidence = candidate.evidence if candidate.text_sha256 == digest else None
        return marks_of(text, quotes_in(self.form, alike), evidence)

    def _draft_key(self, candidate: Candidate, answer_values: Any) -> str:
        """Return the name of a draft in the browser, where drafts of earlier sittings may still be."""
        parts = [candidate.id, candidate.sha256, self.options.by, self.options.other, self.form, answer_values]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _line(self, candidate: Candidate, judgement: Mapping[str, Any]) -> dict[str, Any]:
        gold = judgement.get("gold")
        unknown = judgement.get("unknown", [])
        partial = judgement.get("partial", [])
        note = judgement.get("note", "")
        if not isinstance(gold, dict) or not isinstance(unknown, list) or not isinstance(partial, list):
            raise UnacceptableError("need gold (an object), unknown and partial (lists of paths)")
        if not isinstance(note, str) or len(note) > _NOTE_CHARS:
            raise UnacceptableError(f"note: need a text of at most {_NOTE_CHARS} characters")
        return {
            **self._head(candidate),
            "gold": gold,
            "unknown": unknown,
            "partial": partial,
            "set": self.set_of(candidate),
            "why": candidate.why,
            "how": {name: self._way_judged(candidate, name, value) for name, value in gold.items()},
            "saw": None if self.shown_answer(candidate) is None else candidate.fingerprint,
            **self._ending(),
            "note": note,
        }

    def _head(self, candidate: Candidate) -> dict[str, Any]:
        head = {"v": GOLD_VERSION, "id": candidate.id, "sha256": candidate.sha256}
        return head | ({"agent": self.options.agent} if self.options.agent else {})

    def _ending(self) -> dict[str, Any]:
        return {"by": self.options.by, "at": self._now()}

    def _way_judged(self, candidate: Candidate, name: str, value: Any) -> str:
        """Return how a property was judged: accepted as shown, corrected, or typed without an answer."""
        answer = self.shown_answer(candidate)
        if answer is None:
            return "typed"
        answers = [answer.get(name)]
        if name in self._both_values(candidate) and candidate.other is not None:
            answers.append(candidate.other.get(name))
        return "accepted" if any(_is_part(value, candidate_value) for candidate_value in answers) else "corrected"

    def _both_values(self, candidate: Candidate) -> dict[str, tuple[Any, Any]]:
        """Return the two values of each property on which the outputs differ, when both may be shown."""
        answer = self.shown_answer(candidate)
        other = candidate.other
        if answer is None or other is None:
            return {}
        values = {name: (answer.get(name), other.get(name)) for name in self.form["properties"]}
        return {name: pair for name, pair in values.items() if canonical_json(pair[0]) != canonical_json(pair[1])}

    def _side_values(self, name: str, values: tuple[Any, Any], *, named: bool) -> dict[str, Any]:
        form = self.form["properties"][name]
        order = _order(name, values)
        values_shown = [shown_value(form, values[at]) for at in order]
        return {"values": values_shown, "names": [_SIDES[at] for at in order] if named else None}

    def _revealed_values(self, candidate: Candidate) -> dict[str, list[str]]:
        return {
            name: [_SIDES[at] for at in _order(name, values)] for name, values in self._both_values(candidate).items()
        }

    def _misfits(self, answer: Mapping[str, Any] | None, answer_values: Any, sides: Mapping[str, Any]) -> list[str]:
        """Return the properties whose value does not fit the form, which was made of a newer schema."""
        if answer is None or answer_values is None:
            return []
        return [
            name for name, value in answer_values.items() if value is None and name not in sides and answer.get(name)
        ]

    def _judged_by(self, candidate: Candidate) -> list[str]:
        """Return the reviewers of this document in the present gold file; none while it cannot be read."""
        try:
            gold = read_gold(self.options.gold, self.options.schema)
        except ConfigError:
            return []
        key = (candidate.id, candidate.sha256 or "")
        return [visible(person) for person, documents in gold.by_person.items() if key in documents]


def judged_keys(documents: Iterable[GoldDocument]) -> frozenset[tuple[str, str]]:
    """Return id and sha256 of the documents that have a judgement."""
    return frozenset((document.id, document.sha256) for document in documents)


def _ungraded(options: ReviewOptions) -> frozenset[str]:
    fields = every_field(graded_fields(options.schema, options.fields))
    lists = (item_field.item if hasattr(item_field, "item") else item_field for item_field in fields)
    return frozenset(
        item_field.path for item_field in lists if isinstance(item_field, Leaf) and item_field.comparator is None
    )


def _order(name: str, values: tuple[Any, Any]) -> tuple[int, int]:
    """Return the order in which the two sides are shown, which depends on their values only."""
    first = hash_fraction("side", json.dumps([name, values], sort_keys=True, default=str)) < 0.5
    return (0, 1) if first else (1, 0)


def _is_part(gold: Any, answer: Any) -> bool:
    """Return True when the gold equals the shown value, apart from omitted properties of objects."""
    if not is_something(gold):
        return not is_something(answer)
    if isinstance(gold, dict) and isinstance(answer, Mapping):
        return all(_is_part(value, answer.get(name)) for name, value in gold.items())
    if isinstance(gold, list) and isinstance(answer, list):
        return len(gold) == len(answer) and all(map(_is_part, gold, answer))
    return canonical_json(gold) == canonical_json(answer)
