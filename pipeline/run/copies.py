"""Which documents need not be asked, because another one was asked the same: in this run, or before it.

A copy holds no worker and no text while it waits: it is a row on disk (output/copies.py).
"""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import PurePosixPath
from string import Template

from pipeline.agents import render
from pipeline.output.copies import Copied, Copies
from pipeline.records import Document, Entry
from pipeline.run.attempts import runs_so_far
from pipeline.run.plan import VariantQuery

_LINE = re.compile(r"#\d+\Z")


def copy_of(entry: Entry, document: Document, query: VariantQuery, *, copies: Copies) -> Copied | None:
    """Return the document as a copy of one that was asked the same; None when it is to be asked itself.

    Across runs only a document whose bytes are new under this id is one, and only when the prompt holds nothing but
    the text: then equal bytes are an equal question.
    """
    is_new = entry.known is None or entry.known.sha256 != document.sha256
    if is_new and _holds_the_text_only(query.resolved.user_prompt):
        found = copies.done_elsewhere(document.sha256, query.fingerprint, entry.id)
        if found is not None and _is_read_alike(found[0], entry.id):
            return _copied(entry, document, query, original=found[0], run=found[1], word="reused")
    original = copies.claim(_question(document, query), entry.id)
    if original is None:
        return None
    return _copied(entry, document, query, original=original, run=copies.run, word="shared")


def _question(document: Document, query: VariantQuery) -> str:
    """Return a digest of all that is asked, and of what the record says of the text besides."""
    prompts = render(query.resolved, document)
    text = "\0".join((query.fingerprint, prompts["system"], prompts["user"], *document.notes))
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _copied(entry: Entry, document: Document, query: VariantQuery, *, original: str, run: int, word: str) -> Copied:
    own = {
        "note": f"{word}:{original}",
        "uri": entry.uri,
        "sha256": document.sha256,
        "agent": query.resolved.agent,
        "variant": query.resolved.variant,
        "fingerprint": query.fingerprint,
        "version": entry.version,
        "metadata": dict(document.metadata),
        "runs": runs_so_far(entry.known, document.sha256, query) + 1,
    }
    return Copied(entry.id, original, run, own)


def _holds_the_text_only(template: str) -> bool:
    names = {found["named"] or found["braced"] for found in Template.pattern.finditer(template)}
    return names <= {"document", None}


def _is_read_alike(one: str, other: str) -> bool:
    """Return True for names of one kind: the same bytes are another text as .html than as .txt."""
    return _suffixes(one) == _suffixes(other)


def _suffixes(document_id: str) -> tuple[bool, str]:
    name, lines = _LINE.subn("", document_id)
    return bool(lines), PurePosixPath(name).suffix.lower()
