"""One document's current record together with the text that its evidence refers to, if that is unchanged.

It must not format anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from pipeline.evidence import page_starts
from pipeline.output.newest_prompt import Prompt
from pipeline.records import Document

GONE = "This document is no longer in the input."
_EARLIER = (
    "This record is of an earlier prompt, schema or model than that of the last run: `pipeline run` extracts the"
    " document again."
)
_DIGEST_CHARS = 12


@dataclass(frozen=True, slots=True)
class ShownQuote:
    """A quote with its place; `number` counts from 1, `text` is the answer's.

    `page`: None without pages; `window`: None in a document that was sent whole.
    """

    number: int
    path: str
    text: str
    start: int
    end: int
    match: str
    count: int
    page: int | None
    window: int | None


@dataclass(frozen=True, slots=True)
class ShownDocument:
    """A record with its document. `failed_later`: the failure after this result; None when there is none.

    `is_earlier`: the record is of an earlier prompt, schema or model than that of the newest run.
    `text` is None for a document that cannot be read; `trouble`: the reason why its places are not shown, "" when they
    are. `pages`: where each page begins in the text.
    """

    record: Mapping[str, Any]
    failed_later: Mapping[str, Any] | None
    text: str | None
    pages: Sequence[int]
    trouble: str
    quotes: tuple[ShownQuote, ...]
    is_earlier: bool = False

    @property
    def is_stale(self) -> bool:
        """True when the document failed after the run that wrote this record."""
        return self.failed_later is not None

    @property
    def notice(self) -> str:
        """The reason why this record is not the document's result of the newest run; "" when it is."""
        later = self.failed_later
        if later is None:
            return _EARLIER if self.is_earlier and "output" in self.record else ""
        parts = ["an earlier prompt, schema or model"] if self.is_earlier else []
        parts += ["an earlier version of the document"] if later["sha256"] != self.record["sha256"] else []
        of = f", of {' and '.join(parts)}" if parts else ""
        return (
            f"The latest attempt failed: {later['reason']} (run {later['run']})."
            f" This is the earlier result{of} (run {self.record['run']})."
        )

    @property
    def marked(self) -> tuple[ShownQuote, ...]:
        """The quotes that are marked in the text: none when the text has changed."""
        return () if self.text is None or self.trouble else self.quotes

    @property
    def window_borders(self) -> list[tuple[int, str]]:
        """Return the beginning of each window, or beginning and end of the one that failed, with a label."""
        if self.text is None or self.trouble:
            return []
        failed = self.record.get("window")
        if failed is not None:
            name = f"window {failed['n']}, which failed"
            return [(failed["start"], f"begin of {name}"), (failed["end"], f"end of {name}")]
        rows = (self.record.get("windows") or {}).get("rows", ())
        return [(row[0], f"window {number}") for number, row in enumerate(rows, start=1)]


def shown_document(
    records: Sequence[Mapping[str, Any]],
    document: Document | None,
    *,
    trouble: str = "",
    prompts: Sequence[Prompt] = (),
) -> ShownDocument:
    """Return the record and text of a document: its last result, or its failure when it has none.

    `records`: of this document, newest first; `prompts`: of each record. `document`: the present one in the input, None
    when it is missing or cannot be read; `trouble`: the reason.
    """
    place, record = next((item for item in enumerate(records) if "output" in item[1]), (0, records[0]))
    later = None if place == 0 else records[0]
    is_earlier = bool(prompts) and prompts[place] == "earlier"
    if document is None:
        return ShownDocument(record, later, None, (), trouble or GONE, quotes_of(record), is_earlier)
    pages = page_starts(document.text, document.pages)
    trouble = _difference(record, document)
    return ShownDocument(record, later, document.text, pages, trouble, quotes_of(record), is_earlier)


def quotes_of(record: Mapping[str, Any]) -> tuple[ShownQuote, ...]:
    """Return the quotes of a result in the order of its evidence; none for a failure."""
    return tuple(
        ShownQuote(
            number,
            quote["path"],
            str(_at_pointer(record.get("output"), quote["path"])),
            quote["start"],
            quote["end"],
            quote["match"],
            quote["count"],
            quote.get("page"),
            quote.get("window"),
        )
        for number, quote in enumerate(record.get("evidence") or (), start=1)
    )


def _difference(record: Mapping[str, Any], document: Document) -> str:
    """Return the reason why the record's places do not fit the present document; "" when they fit."""
    if record["sha256"] is not None and record["sha256"] != document.sha256:
        digest = record["sha256"][:_DIGEST_CHARS]
        return f"This document has changed since (sha256 {digest}…): its places are not shown."
    text_sha256 = record.get("text_sha256")
    if text_sha256 is not None and text_sha256 != sha256(document.text.encode("utf-8")).hexdigest():
        return (
            "The file is the same, but reads differently now (another version of PDFium or trafilatura, "
            "or other input settings): its places are not shown."
        )
    return ""


def _at_pointer(value: Any, pointer: str) -> Any:
    """Return the value at a JSON Pointer; None for a missing place."""
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(value, list):
            value = value[int(name)] if name.isdecimal() and int(name) < len(value) else None
        else:
            value = value.get(name) if isinstance(value, Mapping) else None
    return value
