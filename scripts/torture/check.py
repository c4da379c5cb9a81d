"""Check an output against the expected end of each document: after every run, and in full at the end.

It must not repair or start anything: it reads files and reports faults.
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
from torture.server import SCHEMA, RequestLedger, quotes
from torture.site import CONCURRENCY, RETRY_RUNS, Site, ended_in_startup
from torture.windows import wrong_ledger

Record = Mapping[str, Any]
MOST_OPEN = 32
"""Most long documents that may be open at a time: sixteen, or as many as keep the workers busy."""
BLURRED = frozenset({"connection_error", "server_error", "timeout", "overloaded", "unauthorized"})
"""Reasons that are also allowed when the server was away, or refused the key, in the run of the failure."""


@dataclass(slots=True)
class Findings:
    """Faults by kind: a sentence each, with the document and the expected result."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    swapped: list[str] = field(default_factory=list)
    wrong_ends: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)

    def rows(self) -> dict[str, list[str]]:
        """Return the faults by the names of the table."""
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
    """A copy of an output: complete lines as records, and the broken ones."""

    results: list[Record] = field(default_factory=list)
    errors: list[Record] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, outbox: Outbox) -> Snapshot:
        """Read the output."""
        snapshot = cls()
        snapshot.results = list(snapshot._read(outbox, "results"))
        snapshot.errors = list(snapshot._read(outbox, "errors"))
        return snapshot

    def last_results(self) -> dict[str, Record]:
        """Return the result of each id: the highest run, then the place in the file."""
        return {line["id"]: line for line in sorted(self.results, key=lambda line: int(line["run"]))}

    def recorded_by(self, label: str) -> set[str]:
        """Return the ids in records of one run, or of the rival that followed it and tried them again."""
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


def check_run(
    label: str, before: Snapshot, after: Snapshot, *, ledger: RequestLedger, over: bool, unwritten: int
) -> Findings:
    """Return the faults of one run; `over`: it ended by itself, so no document may be open.

    `unwritten`: the records that a killed run may lose.
    """
    findings = Findings()
    results_before = Counter(line["id"] for line in before.results)
    results_after = Counter(line["id"] for line in after.results)
    findings.lost += [
        f"{label}: the result of {name} is gone"
        for name in results_before
        if results_after[name] < results_before[name]
    ]
    requests = ledger.requests_by_run.get(label, Counter())
    recorded = after.recorded_by(label)
    open_now = set(requests) - recorded - {doc.named for name in recorded if (doc := ledger.corpus.docs.get(name))}
    if over and open_now:
        findings.lost.append(f"{label}: ended with {sorted(open_now)[:5]} sent and not recorded")
    long = sum(ledger.corpus.docs[name].case is LONG for name in open_now)
    most = CONCURRENCY + unwritten + min(long, MOST_OPEN)
    if len(open_now) > most:
        description = f"{label}: {len(open_now)} documents were sent and not recorded, expected at most {most}"
        findings.requests.append(description)
    events = ledger.events[label]
    blamed = (_blamed(line, label, ledger=ledger) for line in after.errors)
    findings.wrong_ends += [f"{label}: {sentence}" for sentence in blamed if sentence]
    for name, count in requests.items():
        case = ledger.corpus.docs[name].case
        allowed = case.requests if not events else 2 * (1 + events) * max(case.requests, 2 * ALL)
        if count > allowed:
            findings.requests.append(
                f"{label}: {name} ({case.marker or 'fine'}) cost {count} requests, allowed {allowed}"
            )
    return findings


def _blamed(line: Record, label: str, *, ledger: RequestLedger) -> str | None:
    """Return a description of a failure that is due to a store, this machine or another document."""
    doc = ledger.corpus.docs.get(line["id"])
    if doc is None or line["run_id"] != label:
        return None
    description = f"{doc.id} ({doc.case.marker or 'fine'}) failed as {line['reason']}: {line['message']}"
    if line["reason"] in ("document_unreadable", "internal_error"):
        return description if doc.case.reason != line["reason"] else None
    is_fine = (doc.case.reason, doc.case.ollama, doc.case.times) == (None, None, None)
    return description if is_fine and not ledger.events[label] else None


def check_end(corpus: Corpus, site: Site, *, ledger: RequestLedger) -> Findings:
    """Return the faults of a finished campaign's output."""
    findings = Findings()
    snapshot = Snapshot.of(site.outbox)
    findings.broken += snapshot.broken
    results = snapshot.last_results()
    _check_doubled(corpus, snapshot, findings)
    errors = {line["id"]: line for line in snapshot.errors}
    for doc in corpus.visible():
        _check_document(doc, results.get(doc.id), errors.get(doc.id), site=site, ledger=ledger, findings=findings)
    strangers = sorted((set(results) | set(errors)) - set(corpus.docs))
    findings.swapped += [
        f"{line['id']}: a result of {line['run_id']} holds {sentence}"
        for line in snapshot.results
        if (sentence := _another(line, corpus))
    ]
    findings.other += [f"{name}: a record of a document that does not exist" for name in strangers]
    findings.other += [f"{name}: was finished and sent again in {run}" for run, name in ledger.repeated]
    findings.requests += [
        f"{name}: a window was answered and sent again in {run}" for run, name in ledger.repeated_windows
    ]
    _check_report(corpus, site, results=len(results), errors=len(errors), findings=findings)
    _check_files(site, findings)
    return findings


def _check_doubled(corpus: Corpus, snapshot: Snapshot, findings: Findings) -> None:
    for kind, lines in (("results", snapshot.results), ("errors", snapshot.errors)):
        for name, count in Counter(line["id"] for line in lines).items():
            allowed = 1 + (corpus.docs[name].revision if name in corpus.docs and kind == "results" else 0)
            if count > allowed:
                findings.doubled.append(f"{name}: {count} lines of {kind}, expected at most {allowed}")


def _check_document(
    doc: Doc, result: Record | None, error: Record | None, *, site: Site, ledger: RequestLedger, findings: Findings
) -> None:
    expected = doc.case.ends(site.dialect)
    description = f"{doc.id} ({doc.case.marker or 'fine'}): expected {expected or 'a result'}"
    line = result if expected is None else error
    if result is None and error is None:
        findings.lost.append(f"{description}, found nothing")
    elif line is None:
        ending = "a result" if error is None else f"{error['reason']}: {error['message']} (runs {error['runs']})"
        findings.wrong_ends.append(f"{description}, got {ending}")
    elif result is not None and error is not None:
        findings.wrong_ends.append(f"{description}, got a result and an error")
    else:
        findings.wrong_ends += [
            f"{description}, got {complaint}" for complaint in _wrong(doc, line, expected=expected, ledger=ledger)
        ]


def _wrong(doc: Doc, line: Record, *, expected: str | None, ledger: RequestLedger) -> Iterator[str]:
    """Yield the faults of a document's last record."""
    requests = ledger.requests_by_run.get(line["run_id"], Counter())[doc.named]
    # A server that goes away leaves requests unread.
    if line["attempts"] > requests and not ledger.events[line["run_id"]]:
        yield f"attempts {line['attempts']}, but the server saw {requests} in {line['run_id']}"
    # A document that meets outages is sent again, and its record counts every request.
    if line["attempts"] > doc.case.attempts and not ledger.events[line["run_id"]]:
        yield f"attempts {line['attempts']}, allowed {doc.case.attempts}"
    if line["sha256"] != doc.sha256 and (doc.case.name != "oversized" or line["sha256"] is not None):
        yield f"sha256 {line['sha256']}, which is not that of revision {doc.revision}"
    if expected is None:
        if complaint := wrong_ledger(doc, line):
            yield complaint
        output = line["output"]
        for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(output):
            yield f"an invalid output: {error.message}"
        if output.get("revision") != doc.revision:
            yield f"the output of revision {output.get('revision')}"
        if ("quote" in output) != quotes(doc.named):
            yield "a quotation too few or too many"
        return
    blurred = ledger.events[line["run_id"]] > 0 and line["attempts"] and line["reason"] in BLURRED
    if line["reason"] not in (expected, *doc.case.streamed) and not blurred:
        yield f"{line['reason']}: {line['message']}"
    if not 1 <= line["runs"] <= 1 + RETRY_RUNS:
        yield f"runs {line['runs']}, allowed 1 to {1 + RETRY_RUNS}"


def _another(line: Record, corpus: Corpus) -> str | None:
    """Return the fault of a result with another document's answer: each answer names its own document."""
    output = line["output"]
    doc = corpus.docs.get(line["id"])
    named = doc.named if doc is not None else line["id"]
    if output.get("document") != named:
        return f"the answer to {output.get('document')}"
    return "the quotation of another document" if named not in output.get("quote", named) else None


def _check_report(corpus: Corpus, site: Site, *, results: int, errors: int, findings: Findings) -> None:
    data = site.outbox.content("report.json")
    if data is None:
        findings.other.append("report.json: is not there")
        return
    report = json.loads(data)
    counts = report["run"]["counts"]
    count = sum(1 for _ in corpus.visible())
    if counts["found"] != sum(counts[name] for name in ("done", "failed", "skipped", "ignored", "left")):
        findings.other.append(f"report.json: {counts} do not add up")
    if (counts["found"], counts["left"], counts["failed"]) != (count, 0, 0):
        findings.other.append(f"report.json: {counts}, expected {count} found, all of them skipped in the last run")
    if results + errors != count:
        findings.other.append(f"{results} results and {errors} errors, expected {count} together")
    for name, data in site.outbox.files("runs/"):
        counts = json.loads(data)["counts"]
        if counts["found"] != sum(counts[name] for name in ("done", "failed", "skipped", "ignored", "left")):
            findings.other.append(f"{name}: {counts} do not add up")


def _check_files(site: Site, findings: Findings) -> None:
    """No secret anywhere, no text of a document in a log, nothing half written left behind."""
    findings.other += [f"{name}: holds the key" for name, data in site.outbox.files("") if site.key.encode() in data]
    for path in sorted(path for path in site.root.rglob("*") if path.is_file()):
        data = path.read_bytes()
        if site.key.encode() in data:
            findings.other.append(f"{path}: holds the key")
        if path.suffix == ".log" and SECRET_PHRASE.encode() in data:
            findings.other.append(f"{path}: holds a document's text")
        if path.suffix == ".log" and b"Traceback" in data and not ended_in_startup(data.decode(errors="replace")):
            findings.other.append(f"{path}: holds a traceback")
        if path.suffix == ".tmp" or path.is_relative_to(site.root / "tmp"):
            findings.other.append(f"{path}: was left behind")
