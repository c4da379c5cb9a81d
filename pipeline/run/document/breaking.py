"""The form of a document in a prompt: without special tokens, so that no text in it can end its message or its section.

The module breaks the special tokens of all model families, the marks that the agent puts around `$document`, and the
special tokens of the current server's tokenizer. The record keeps the document's own text and metadata.
"""

from __future__ import annotations

from pipeline.agents import names_special_tokens
from pipeline.config import ResolvedAgentConfig
from pipeline.documents.special_tokens import (
    break_delimiters,
    break_special_tokens,
    break_tokens,
    candidates,
    delimiters,
)
from pipeline.records import Document, changed


def candidates_in(document: Document) -> tuple[str, ...]:
    """Return the texts of a document and its metadata that may be special tokens of the model."""
    return candidates("\n".join((document.text, document.id, *map(str, document.metadata.values()))))


def broken(text: str, resolved: ResolvedAgentConfig, *, tokens: frozenset[str]) -> str:
    """Return the text without special tokens and without the marks that this prompt puts around a document."""
    text, _ = break_tokens(break_special_tokens(text)[0], tokens)
    return break_delimiters(text, delimiters(resolved.user_prompt))[0]


def harmless_names(document: Document, *, tokens: frozenset[str]) -> Document:
    """Return the document with these special tokens broken in its id, URI and metadata, for a prompt only."""
    if not tokens:
        return document
    metadata = {
        name: break_tokens(value, tokens)[0] if isinstance(value, str) else value
        for name, value in document.metadata.items()
    }
    document_id, _ = break_tokens(document.id, tokens)
    uri, _ = break_tokens(document.uri, tokens)
    return changed(document, metadata=metadata, id=document_id, uri=uri)


def with_broken_tokens(
    document: Document, resolved: ResolvedAgentConfig, *, tokens: frozenset[str]
) -> tuple[Document, bool]:
    """Return the document with a text for a prompt, and whether any special token in it was broken."""
    text = broken(document.text, resolved, tokens=tokens)
    has_names = names_special_tokens(resolved, document) or harmless_names(document, tokens=tokens) != document
    is_broken = text != document.text
    return changed(document, text=text) if is_broken else document, has_names or is_broken
