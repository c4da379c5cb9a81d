"""The quotes of a failed answer that are not in its document, with the nearest text there, for `errors --show`.

An error line contains no text of the document, so the document is read again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.cli.input_document import read_document
from pipeline.config import AppConfig
from pipeline.errors import ConfigError, PipelineError
from pipeline.logs import visible
from pipeline.terminal import labelled


def missing_quote_lines(record: Mapping[str, Any], app: AppConfig | None, *, width: int) -> Iterator[str]:
    """Yield the missing quotes of a failed record if its document, its answer and its agent's schema are available."""
    if app is None or record.get("reason") != "not_grounded" or not record.get("raw"):
        return
    from pipeline.agents import load_agent  # slow to import, and needed for these failures only
    from pipeline.answers.validation import missing_quotes

    try:
        document, _ = read_document(app, record["id"])
        schema = load_agent(record["agent"], agents_dir=app.agents_dir).compiled
    except (ConfigError, PipelineError, OSError):  # the story is complete without it
        return
    if document is None or document.sha256 != record["sha256"]:
        return
    for missing in missing_quotes(record["raw"], schema, document_text=document.text):
        yield from labelled("no quote", visible(f"{missing.path}: {missing.quote}"), indent=2, width=width)
        nearest = missing.nearest or "no sentence of the document is like it"
        yield from labelled("nearest text", visible(nearest), indent=2, width=width)
