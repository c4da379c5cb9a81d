"""Holds an output against what each document allows: after every run, and in full at the end.

It must not mend or start anything: it reads files and names what is wrong.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import jsonschema

from torture.corpus import ALL, LONG, SECRET_PHRASE, Corpus, Doc
from torture.outbox import Outbox
from torture.server import SCHEMA, Book, quotes
from torture.site import CONCURRENCY, RETRY_RUNS, Site, ended_in_startup
from torture.windows import wrong_ledger

Record = Mapping[str, Any]
MOST_OPEN = 32
"""Long documents that may be open at a time: sixteen, or as many as keep the workers busy."""
BLURRED = frozenset({"connection_error", "server_error", "timeout", "overloaded", "unauthorized"})
"""What a document may stand with as well when the run in which it failed saw its server go away, or refuse its key."""


@dataclass(slots=True)
class Findings:
    """What is wrong, by kind: a sentence each, that names the document and what was expected."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    swapped: list[str] = field(default_factory=list)
    wrong_ends: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)

    def rows(self) -> dict[str, list[str]]:
        """Return the kinds as the table names them."""
        return {
            "lost": self.lost,
            "doubled": self.doubled,
            "broken lines": self.broken,
            "swapped": self.swapped,
            "wrong ends": self.wrong_ends,
            "wrong requests": self.requests,
            "other faults": self.other,
        }


@dataclass(slots=True)
class Snapshot:
    """An output as it is stored: whole lines as records, and the pieces that are none."""

    results: list[Record] = field(default_factory=list)
    errors: list[Record] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, outbox: Outbox) -> Snapshot:
        """Return what is in the output now."""
        taken = cls()
        taken.results = list(taken._read(outbox, "results"))
        taken.errors = list(taken._read(outbox, "errors"))
        return taken

    def last_results(self) -> dict[str, Record]:
        """Return the result of each id: the highest run, then the place in the file."""
        return {line["id"]: line for line in sorted(self.results, key=lambda line: int(line["run"]))}

    def recorded_by(self, label: str) -> set[str]:
        """Return the ids that one run has written of, or its rival when that came after it and tried them again."""
        runs = (label, f"{label}-rival")
        return {line["id"] for line in [*self.results, *self.errors] if line["run_id"] in runs}

    def _read(self, outbox: Outbox, kind: str) -> Iterator[Record]:
        for name, data in outbox.files(kind):
            for number, line in enumerate(data.splitlines(keepends=True), 1):
                try:
                    value = json.loads(line) if line.endswith(b"\n") else None
                except ValueError:
                    value = None
                if isinstance(value, dict):
                    yield value
                else:
                    self.broken.append(f"{name} line {number}: {line[:60]!r}, expected a whole record")


def check_run(label: str, before: Snapshot, after: Snapshot, *, book: Book, over: bool, unwritten: int) -> Findings:
    """Return what one run did wrong; `over`: it came to its end by itself, so nothing may be under way.

    `unwritten`: records that a killed run may have had in memory.
    """
    found = Findings()
    was, now = Counter(line["id"] for line in before.results), Counter(line["id"] for line in after.results)
    found.lost += [f"{label}: the result of {name} is gone" for name in was if now[name] < was[name]]
    asked = book.asked.get(label, Counter())
    recorded = after.recorded_by(label)
    open_now = set(asked) - recorded - {doc.named for name in recorded if (doc := book.corpus.docs.get(name))}
    if over and open_now:
        found.lost.append(f"{label}: ended with {sorted(open_now)[:5]} asked and not recorded")
    long = sum(book.corpus.docs[name].case is LONG for name in open_now)
    most = CONCURRENCY + unwritten + min(long, MOST_OPEN)
    if len(open_now) > most:
        told = f"{label}: {len(open_now)} documents were asked and not recorded, expected at most {most}"
        found.requests.append(told)
    events = book.events[label]
    blamed = (_blamed(line, label, book=book) for line in after.errors)
    found.wrong_ends += [f"{label}: {sentence}" for sentence in blamed if sentence]
    for name, count in asked.items():
        case = book.corpus.docs[name].case
        allowed = case.requests if not events else 2 * (1 + events) * max(case.requests, 2 * ALL)
        if count > allowed:
            found.requests.append(f"{label}: {name} ({case.marker or 'fine'}) cost {count} requests, allowed {allowed}")
    return found


def _blamed(line: Record, label: str, *, book: Book) -> str | None:
    """Return which failure of a run is that of a store, of this machine or of another document."""
    doc = book.corpus.docs.get(line["id"])
    if doc is None or line["run_id"] != label:
        return None
    told = f"{doc.id} ({doc.case.marker or 'fine'}) failed as {line['reason']}: {line['message']}"
    if line["reason"] in ("document_unreadable", "internal_error"):
        return told if doc.case.reason != line["reason"] else None
    is_fine = (doc.case.reason, doc.case.ollama, doc.case.times) == (None, None, None)
    return told if is_fine and not book.events[label] else None


def check_end(corpus: Corpus, site: Site, *, book: Book) -> Findings:
    """Return what is wrong with the output of a campaign that came to its end."""
    found, taken = Findings(), Snapshot.of(site.outbox)
    found.broken += taken.broken
    results = taken.last_results()
    _check_doubled(corpus, taken, found)
    errors = {line["id"]: line for line in taken.errors}
    for doc in corpus.visible():
        _check_document(doc, results.get(doc.id), errors.get(doc.id), site=site, book=book, found=found)
    strangers = sorted((set(results) | set(errors)) - set(corpus.docs))
    found.swapped += [
        f"{line['id']}: a result of {line['run_id']} holds {told}"
        for line in taken.results
        if (told := _another(line, corpus))
    ]
    found.other += [f"{name}: a record of a document that does not exist" for name in strangers]
    found.other += [f"{name}: was finished and asked again in {run}" for run, name in book.again]
    found.requests += [f"{name}: a window was answered and asked again in {run}" for run, name in book.windows_again]
    _check_report(corpus, site, results=len(results), errors=len(errors), found=found)
    _check_files(site, found)
    return found


def _check_doubled(corpus: Corpus, taken: Snapshot, found: Findings) -> None:
    for kind, lines in (("results", taken.results), ("errors", taken.errors)):
        for name, count in Counter(line["id"] for line in lines).items():
            allowed = 1 + (corpus.docs[name].revision if name in corpus.docs and kind == "results" else 0)
            if count > allowed:
                found.doubled.append(f"{name}: {count} lines of {kind}, expected at most {allowed}")


def _check_document(
    doc: Doc, result: Record | None, error: Record | None, *, site: Site, book: Book, found: Findings
) -> None:
    expected = doc.case.ends(site.dialect)
    told = f"{doc.id} ({doc.case.marker or 'fine'}): expected {expected or 'a result'}"
    line = result if expected is None else error
    if result is None and error is None:
        found.lost.append(f"{told}, found nothing")
    elif line is None:
        got = "a result" if error is None else f"{error['reason']}: {error['message']} (runs {error['runs']})"
        found.wrong_ends.append(f"{told}, got {got}")
    elif result is not None and error is not None:
        found.wrong_ends.append(f"{told}, got a result and an error")
    else:
        found.wrong_ends += [f"{told}, got {why}" for why in _wrong(doc, line, expected=expected, book=book)]


def _wrong(doc: Doc, line: Record, *, expected: str | None, book: Book) -> Iterator[str]:
    """Yield what does not fit the document in its last record."""
    asked = book.asked.get(line["run_id"], Counter())[doc.named]
    # A server that goes away leaves requests unread.
    if line["attempts"] > asked and not book.events[line["run_id"]]:
        yield f"attempts {line['attempts']}, but the server saw {asked} in {line['run_id']}"
    # A document that meets outages is sent again, and its record counts every request.
    if line["attempts"] > doc.case.attempts and not book.events[line["run_id"]]:
        yield f"attempts {line['attempts']}, allowed {doc.case.attempts}"
    if line["sha256"] != doc.sha256 and (doc.case.name != "oversized" or line["sha256"] is not None):
        yield f"sha256 {line['sha256']}, which is not that of revision {doc.revision}"
    if expected is None:
        if told := wrong_ledger(doc, line):
            yield told
        output = line["output"]
        for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(output):
            yield f"an invalid output: {error.message}"
        if output.get("revision") != doc.revision:
            yield f"the output of revision {output.get('revision')}"
        if ("quote" in output) != quotes(doc.named):
            yield "a quotation too few or too many"
        return
    blurred = book.events[line["run_id"]] > 0 and line["attempts"] and line["reason"] in BLURRED
    if line["reason"] not in (expected, *doc.case.streamed) and not blurred:
        yield f"{line['reason']}: {line['message']}"
    if not 1 <= line["runs"] <= 1 + RETRY_RUNS:
        yield f"runs {line['runs']}, allowed 1 to {1 + RETRY_RUNS}"


def _another(line: Record, corpus: Corpus) -> str | None:
    """Return what of another document's answer a result holds: each answer names its own document."""
    output = line["output"]
    doc = corpus.docs.get(line["id"])
    named = doc.named if doc is not None else line["id"]
    if output.get("document") != named:
        return f"the answer to {output.get('document')}"
    return "the quotation of another document" if named not in output.get("quote", named) else None


def _check_report(corpus: Corpus, site: Site, *, results: int, errors: int, found: Findings) -> None:
    data = site.outbox.content("report.json")
    if data is None:
        found.other.append("report.json: is not there")
        return
    report = json.loads(data)
    counts, count = report["run"]["counts"], sum(1 for _ in corpus.visible())
    if counts["found"] != sum(counts[name] for name in ("done", "failed", "skipped", "ignored", "left")):
        found.other.append(f"report.json: {counts} do not add up")
    if (counts["found"], counts["left"], counts["failed"]) != (count, 0, 0):
        found.other.append(f"report.json: {counts}, expected {count} found, all of them skipped in the last run")
    if results + errors != count:
        found.other.append(f"{results} results and {errors} errors, expected {count} together")
    for name, data in site.outbox.files("runs/"):
        counts = json.loads(data)["counts"]
        if counts["found"] != sum(counts[name] for name in ("done", "failed", "skipped", "ignored", "left")):
            found.other.append(f"{name}: {counts} do not add up")


def _check_files(site: Site, found: Findings) -> None:
    """No secret anywhere, no text of a document in a log, nothing half written left behind."""
    found.other += [f"{name}: holds the key" for name, data in site.outbox.files("") if site.key.encode() in data]
    for path in sorted(path for path in site.root.rglob("*") if path.is_file()):
        data = path.read_bytes()
        if site.key.encode() in data:
            found.other.append(f"{path}: holds the key")
        if path.suffix == ".log" and SECRET_PHRASE.encode() in data:
            found.other.append(f"{path}: holds a document's text")
        if path.suffix == ".log" and b"Traceback" in data and not ended_in_startup(data.decode(errors="replace")):
            found.other.append(f"{path}: holds a traceback")
        if path.suffix == ".tmp" or path.is_relative_to(site.root / "tmp"):
            found.other.append(f"{path}: was left behind")
