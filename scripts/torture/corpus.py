"""The documents of a torture run: the fault that each one causes, and how it must end.

It must not read an output: check.py compares outputs with this.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from torture.inbox import Inbox

RETRIES = 2
ALL = RETRIES + 1
REASKED = ("wrong_type", "invalid_json", "nan", "deep", "duplicate_key")
LOST = 2 * (ALL + 1)
"""Each request of a lost connection may be sent twice (a stale connection); finally the document is sent alone once."""
TRANSIENT = ("http_400_crash", "http_402", "http_409", "http_424", "http_499")
"""Statuses 4xx that report a transient state of the server."""
NO_ANSWER = ("empty_model_response", "bad_response")
LINES_A_FILE = 40
TOO_LARGE_BYTES = 20_000
SECRET_PHRASE = "the harbour master counted"


@dataclass(frozen=True, slots=True)
class Case:
    """The fault of a document (`marker`), its end (`reason`, None: a result), and its requests in a quiet run.

    `ollama`: its end in that dialect. `streamed`: further ends that are allowed for a streamed answer.
    """

    marker: str
    reason: str | None
    requests: int
    ollama: str | None = None
    streamed: tuple[str, ...] = ()

    def ends(self, dialect: str) -> str | None:
        """Return the expected reason in this dialect, None for a result."""
        return self.ollama if dialect == "ollama" and self.ollama else self.reason

    @property
    def name(self) -> str:
        """The fault without its count."""
        return self.marker.partition("*")[0]

    @property
    def attempts(self) -> int:
        """Return the most attempts that its record may have, whatever happened to the server."""
        return self.requests * ALL if self is LONG else 2 * ALL if self.name in REASKED else ALL

    @property
    def times(self) -> int | None:
        """The number of requests with the fault; None: all."""
        count = self.marker.partition("*")[2]
        return int(count) if count else None


FINE = Case("", None, 1)
LONG = Case("", None, 40)
"""A document of about ten windows; a later run that counts tokens differently splits the rest of it again."""
LONG_LINES = 130
KILLER = Case("kill", "connection_error", LOST)
PERMANENT = (
    *(Case(name, "server_error", ALL) for name in ("http_500", "http_502_html", "http_408", "stream_error")),
    *(
        Case(name, "overloaded", ALL)
        for name in ("http_429", "http_429_bare", "http_429_date", "http_503", "http_503_retry")
    ),
    *(Case(name, "timeout", 2) for name in ("hang", "drip_header", "drip_body", "slow")),
    *(Case(name, "connection_error", LOST) for name in ("close", "reset", "half_body")),
    *(Case(name, "bad_response", ALL) for name in ("html_200", "garbage_200")),
    Case("done_false", None, ALL, ollama="bad_response"),
    *(Case(name, "empty_model_response", ALL) for name in ("empty_content", "null_content", "thinking_only")),
    Case("no_choices", "empty_model_response", ALL, ollama="bad_response", streamed=NO_ANSWER),
    Case("abort", "server_error", ALL, ollama="bad_response"),
    *(Case(name, "response_too_large", ALL) for name in ("huge", "endless")),
    *(Case(name, "server_error", ALL) for name in TRANSIENT),
    *(Case(name, "unauthorized", 2) for name in ("http_401", "http_403_empty")),
    *(Case(name, "not_found", 2) for name in ("http_404_url", "redirect")),
    Case("http_404_model", "model_not_found", 2),
    *(Case(name, "rejected", 2) for name in ("http_400", "http_422")),
    Case("http_413", "document_too_large", 2),
    Case("context", "context_length", 1),
    *(Case(name, "invalid_json", 2) for name in REASKED[1:]),
    Case("wrong_type", "schema_invalid", 2),
    *(
        Case(name, reason, ALL)
        for name, reason in (("late_after_429", "overloaded"), ("late_after_504", "server_error"))
    ),
    Case("truncated", "output_truncated", 1),
    *(Case(name, "generation_loop", 1) for name in ("loop_whitespace", "repetition")),
)
DOUBLING = Case("doubled*1", None, 2)
"""Few of them: after the first one, a run uses each connection once, and the others have no effect."""
REPAIRED = tuple(
    Case(name, None, 1)
    for name in ("fenced", "prose", "think_block", "trailing_comma", "doubly_encoded", "truncated_prompt", "surrogate")
) + tuple(Case(name, None, 1) for name in ("interim_102", "interim_103", "interim_many"))
ONCE = ("hang", "drip_body", "invalid_json", "wrong_type", "truncated", "http_401", "http_400", "http_422")
TWICE = (
    *TRANSIENT,
    "http_500",
    "http_429",
    "http_503",
    "close",
    "reset",
    "half_body",
    "html_200",
    "huge",
    "done_false",
)
PASSING = (
    *(Case(f"{name}*1", None, 2) for name in ONCE),
    *(Case(f"{name}*{n}", None, n + 1) for name in TWICE for n in (1, 2)),
    *(Case(f"late_after_{status}*1", None, 2) for status in (429, 504)),
    Case("kill*1", None, 2),
)
NEVER_SENT = (
    Case("blank", "document_empty", 0),
    Case("oversized", "document_too_large", 0),
    Case("no_text", "document_unreadable", 0),
    Case("no_json", "document_unreadable", 0),
)
ONLY_LINES = ("no_text", "no_json")
ONLY_FILES = ("oversized",)


@dataclass(slots=True)
class Doc:
    """One document; `revision` grows with each change of its text.

    `twin_of`: the id of another document with the same text; `is_twin` of either: the text is never changed.
    """

    id: str
    case: Case
    revision: int = 0
    data: bytes = b""
    twin_of: str | None = None
    is_twin: bool = False

    @property
    def named(self) -> str:
        """Return the id in its text, which the server sees."""
        return self.twin_of or self.id

    @property
    def sha256(self) -> str:
        """Return the hash that its records must contain."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def text(self) -> str:
        """Return the text of a readable document as the pipeline reads it."""
        return str(json.loads(self.data)["text"]) if ".jsonl#" in self.id else self.data.decode()

    def write(self) -> None:
        """Build its bytes for the current revision."""
        self.data = _bytes_of(self)


@dataclass(slots=True)
class Corpus:
    """All documents by id, and the files that hold them; `shown`: the number of files in the inbox."""

    inbox: Inbox
    docs: dict[str, Doc] = field(default_factory=dict)
    files: list[tuple[str, list[Doc]]] = field(default_factory=list)
    shown: int = 0

    def show(self, count: int) -> None:
        """Put files into the inbox until `count` of them are there."""
        for name, docs in self.files[self.shown : count]:
            self._put(name, docs)
        self.shown = max(self.shown, min(count, len(self.files)))

    def visible(self) -> Iterator[Doc]:
        """Yield the documents that are in the inbox."""
        for _, docs in self.files[: self.shown]:
            yield from docs

    def change(self, rng: random.Random) -> Doc | None:
        """Change the text of a document without faults in the inbox, and return it; None when there is none."""
        fine = [
            (name, docs, doc)
            for name, docs in self.files[: self.shown]
            for doc in docs
            if doc.case in (FINE, LONG) and not doc.is_twin
        ]
        if not fine:
            return None
        name, docs, doc = rng.choice(fine)
        doc.revision += 1
        doc.write()
        self._put(name, docs)
        return doc

    def _put(self, name: str, docs: list[Doc]) -> None:
        data = b"".join(doc.data + b"\n" for doc in docs) if name.endswith(".jsonl") else docs[0].data
        self.inbox.put(name, data)


def make_corpus(inbox: Inbox, count: int, rng: random.Random, *, long: float) -> Corpus:
    """Return `count` documents with faults of every kind among them, half of them as lines, in random order.

    `long`: the share of long ones, which cause no fault.
    """
    cases = chosen_cases(count, rng)
    fine = [place for place, case in enumerate(cases) if case is FINE]
    for place in fine[: round(count * long)]:
        cases[place] = LONG
    corpus = Corpus(inbox)
    lines = [case for case in cases if case.name in ONLY_LINES]
    alone = [case for case in cases if case.name in ONLY_FILES]
    for case in cases:
        if case.name not in ONLY_LINES + ONLY_FILES:
            (lines if rng.random() < 0.5 else alone).append(case)
    rng.shuffle(lines)
    for number, start in enumerate(range(0, len(lines), LINES_A_FILE)):
        name = f"lines/part-{number:03}.jsonl"
        part = lines[start : start + LINES_A_FILE]
        corpus.files.append((name, [Doc(f"{name}#{n}", case) for n, case in enumerate(part, 1)]))
    for number, case in enumerate(alone):
        name = f"texts/{number % 7}/text-{number:05}.txt"
        corpus.files.append((name, [Doc(name, case)]))
    rng.shuffle(corpus.files)
    corpus.docs = {doc.id: doc for _, docs in corpus.files for doc in docs}
    _make_twins([doc for doc in corpus.docs.values() if doc.case is FINE])
    for doc in corpus.docs.values():
        doc.write()
    return corpus


def _make_twins(fine: list[Doc]) -> None:
    """Give every tenth of these documents the text of the one before it: only one of the two may be sent."""
    for original, twin in zip(fine[8::10], fine[9::10], strict=False):
        twin.twin_of = original.id
        original.is_twin = twin.is_twin = True


def chosen_cases(count: int, rng: random.Random) -> list[Case]:
    """Return one case per document: faults of each kind in turn, few killers, and most documents without a fault."""
    kinds = [*PERMANENT, *REPAIRED, *PASSING, *NEVER_SENT]
    faulty = [kinds[n % len(kinds)] for n in range(max(len(kinds), count * 2 // 5))]
    faulty += [KILLER, DOUBLING] * max(1, count // 1000)
    cases = (faulty + [FINE] * count)[:count]
    rng.shuffle(cases)
    return cases


def _bytes_of(doc: Doc) -> bytes:
    is_line = ".jsonl#" in doc.id
    name = doc.case.name
    if name == "no_json":
        return b'{"text": "a line that breaks off'
    if name == "no_text":
        return json.dumps({"title": f"nothing in {doc.id}"}).encode()
    text = "   " if name == "blank" else _text_of(doc)
    text += "x" * TOO_LARGE_BYTES if name == "oversized" else ""
    return json.dumps({"text": text, "title": f"line {doc.id}"}).encode() if is_line else text.encode()


def _text_of(doc: Doc) -> str:
    fault = f"[[fault:{doc.case.marker}]]\n" if doc.case.marker and doc.case not in NEVER_SENT else ""
    quote = (
        f"On that day {SECRET_PHRASE} {len(doc.named) + doc.revision} ships for {doc.named} in revision {doc.revision}"
    )
    long = "".join(f"Line {number} of {doc.named} tells of the weather at sea.\n" for number in range(LONG_LINES))
    return (
        f"[[doc:{doc.named}]][[rev:{doc.revision}]]\n{fault}{quote} and wrote it down.\n"
        + (long if doc.case is LONG else "")
        + "More of it.\n" * doc.revision
    )
