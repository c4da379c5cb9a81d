"""The contract, sections 5 to 7, as a model: what is known of each document, and what a run would do with it.

It must not know how the pipeline does it: it sees the inbox, the flags, and the lines of an output.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RETRY_RUNS = 1
KINDS: Mapping[str, tuple[str | None, bool]] = {
    "": (None, False),
    "[[fault:http_400]]": ("rejected", True),
    "[[fault:truncated]]": ("output_truncated", False),
    "[[fault:wrong_type]]": ("schema_invalid", False),
    "[[fault:http_500]]": ("server_error", False),
    "  ": ("document_empty", True),
    "\0": ("document_unreadable", True),
}
"""What a document holds: the reason it always fails for, and whether the document is to blame."""
NEVER_SENT = ("  ", "\0")


@dataclass(frozen=True)
class Doc:
    """A document in the inbox; a right answer names its `revision`."""

    kind: str
    revision: int
    data: bytes

    @property
    def sha256(self) -> str:
        """Return the hash of its bytes."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def reason(self) -> str | None:
        """Return the reason why it fails, if it does."""
        return KINDS[self.kind][0]


@dataclass(frozen=True)
class Flags:
    """The flags of one run."""

    run_id: str
    redo: str | None = None
    only_failed: frozenset[str] | None = None
    retry_failed: bool = True
    limit: int | None = None

    def arguments(self) -> Iterator[str]:
        """Return the command-line arguments."""
        yield from ("--run-id", self.run_id)
        yield from ("--redo", self.redo) if self.redo else ()
        yield from () if self.retry_failed else ("--no-retry-failed",)
        yield from ("--limit", str(self.limit)) if self.limit else ()
        if self.only_failed is not None:
            yield from ("--only-failed", ",".join(sorted(self.only_failed)))


@dataclass(frozen=True)
class Last:
    """The last line of a document: bytes, prompt, reason, number of runs, and run."""

    sha256: str
    question: int
    reason: str | None
    runs: int
    run_id: str


@dataclass
class Model:
    """What the output holds; `results`: the hashes of each document's lines of results, in order."""

    last: dict[str, Last] = field(default_factory=dict)
    results: dict[str, list[str]] = field(default_factory=dict)

    def tries(self, name: str, doc: Doc, *, question: int, flags: Flags) -> bool:
        """Return whether a run with these flags tries the document."""
        last = self.last.get(name)
        if flags.only_failed is not None:
            return bool(last and last.reason and (not flags.only_failed or last.reason in flags.only_failed))
        if last is None or last.sha256 != doc.sha256:
            return True
        if flags.redo == "all":
            return last.run_id != flags.run_id
        if last.reason and not flags.retry_failed:
            return False
        if last.question != question and flags.redo != "none":
            return True
        return bool(last.reason) and not KINDS[doc.kind][1] and last.runs <= RETRY_RUNS

    def note(self, name: str, doc: Doc, *, question: int, flags: Flags) -> None:
        """Note that a run has recorded the document."""
        last, runs = self.last.get(name), 0
        if doc.reason:
            again = last and last.reason and (last.sha256, last.question) == (doc.sha256, question)
            runs = last.runs + 1 if last and again else 1
        else:
            self.results.setdefault(name, []).append(doc.sha256)
        self.last[name] = Last(doc.sha256, question, doc.reason, runs, flags.run_id)

    def standing(self) -> dict[str, tuple[str, int, str]]:
        """Return the documents that count as failed."""
        return {name: (last.reason, last.runs, last.sha256) for name, last in self.last.items() if last.reason}

    def output_counts(self) -> tuple[int, int, int]:
        """Return the numbers of done, failed, and failed with a stale result."""
        failed = self.standing()
        stale = [name for name, (_, _, sha) in failed.items() if self.results.get(name, [sha])[-1] != sha]
        return len(self.last) - len(failed), len(failed), len(stale)

    @classmethod
    def read(cls, lines: Mapping[str, list[dict[str, Any]]], questions: Mapping[str, int]) -> Model:
        """Read these lines: the highest run is the last, and within a run the result."""
        model = cls()
        order = sorted(
            ((line["run"], kind == "results", at, line) for kind in lines for at, line in enumerate(lines[kind])),
            key=lambda item: item[:3],
        )
        for _, is_result, _, line in order:
            if is_result:
                model.results.setdefault(line["id"], []).append(line["sha256"])
            question = questions[line["fingerprint"]]
            failure = Last(line["sha256"], question, line.get("reason"), line.get("runs", 0), line["run_id"])
            model.last[line["id"]] = failure
        return model


def whole_lines(path: Path) -> tuple[list[dict[str, Any]], bool]:
    """Return the records of a file, and whether it has other content."""
    collected: list[dict[str, Any]] = []
    data = path.read_bytes() if path.exists() else b""
    broken = bool(data) and not data.endswith(b"\n")
    for line in data.split(b"\n"):
        try:
            collected += [json.loads(line)] if line else []
        except ValueError:
            broken = True
    return collected, broken
