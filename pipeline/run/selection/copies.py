"""Documents that need no request because another one has the same request: in this run, or in an earlier one.

Two documents have the same request when the fingerprints of their queries are equal, and the digests of the document's
part: its text after decoding, and the metadata in the prompt. How the bytes were read (field, encoding, format) needs
no comparison, as the decoded text is compared.

A copy holds no worker and no text while it waits: it is a row on disk (output/copies.py).
"""

from __future__ import annotations

import json
from collections.abc import Collection
from functools import lru_cache
from hashlib import sha256
from string import Template
from typing import Protocol

from pipeline.agents.prompts import named_values
from pipeline.output.copies import Copied
from pipeline.records import Document, Entry
from pipeline.run.document.attempts import runs_so_far
from pipeline.run.plan import VariantQuery


class Questions(Protocol):
    """The requests of this run and of earlier ones (output/copies.py); `run` is the number of this run."""

    run: int

    def answered_before(
        self, question: str, fingerprints: Collection[str], document_id: str
    ) -> tuple[str, int] | None: ...

    def claim(self, question: str, fingerprint: str, document_id: str) -> str | None: ...


_UNIQUE = {"id", "uri"}
"""Placeholders with a different value for each document."""


def question_sha256(document: Document, template: str) -> str | None:
    """Return the digest of a document's part of a prompt; None when no other document can have the same one.

    The digest covers the notes of the decoding and the pages, too, because the record of a copy repeats them.
    """
    names = _names(template)
    if not names.isdisjoint(_UNIQUE):
        return None
    values = sorted(named_values(template, document).items()) if names else []
    # JSON holds no NUL, so no two documents have the same bytes by a different division
    pages = [document.pages] if document.pages else []
    head = json.dumps([document.notes, values, *pages], ensure_ascii=True)
    return sha256(f"{head}\0{document.text}".encode("utf-8", "surrogatepass")).hexdigest()


@lru_cache(maxsize=64)
def _names(template: str) -> frozenset[str]:
    """Return the placeholders of a template besides `$document`."""
    names = {match["named"] or match["braced"] for match in Template.pattern.finditer(template)}
    return frozenset(names - {"document", None})


def copy_of(
    entry: Entry, document: Document, query: VariantQuery, *, question: str | None, copies: Questions | None
) -> Copied | None:
    """Return the document as a copy of another one with the same request; None when it must be sent."""
    if copies is None or question is None:
        return None
    if (earlier_answer := copies.answered_before(question, query.result_fingerprints, entry.id)) is not None:
        original, run = earlier_answer
        return _copied(entry, document, query, question=question, original=original, run=run, word="reused")
    if (original_id := copies.claim(question, query.fingerprint, entry.id)) is not None:
        return _copied(entry, document, query, question=question, original=original_id, run=copies.run, word="shared")
    return None


def _copied(
    entry: Entry, document: Document, query: VariantQuery, *, question: str, original: str, run: int, word: str
) -> Copied:
    record = {
        "note": f"{word}:{original}",
        "uri": entry.uri,
        "sha256": document.sha256,
        "agent": query.resolved.agent,
        "variant": query.resolved.variant,
        "fingerprint": query.whole_fingerprint,
        "split_fingerprint": query.failure_fingerprint,
        "question_sha256": question,
        "version": entry.version,
        "metadata": dict(document.metadata),
        "runs": runs_so_far(entry.latest, document.sha256, query) + 1,
    }
    return Copied(entry.id, original, run, record)
