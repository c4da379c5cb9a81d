"""The meaning of each note of a record in a few words, for the report page and docs/troubleshooting.md."""

from __future__ import annotations

from collections.abc import Mapping

NOTES: Mapping[str, str] = {
    "annotations_added": "free-text annotations were read too",
    "answer_in_reasoning": "the server returned the answer in its reasoning field",
    "answer_in_tool_call": "the server returned the answer as a tool call",
    "attachments_skipped": "attached files were not read",
    "cells_out_of_order": "cells stored out of order were placed after those before them",
    "comments_added": "comments were read too",
    "document_split": "read in windows, and merged (overflow: split)",
    "document_truncated": "the text was cut to fit the context (overflow)",
    "drawings_skipped": "drawings without text were not read",
    "encoding": "decoded from this encoding",
    "encoding_guessed": "no encoding was declared; this one fits best",
    "form_fields_added": "values of form fields were read too",
    "formulas_without_value": "formulas without a stored result were read as formulas",
    "hidden_columns": "hidden columns were read too",
    "hidden_rows": "hidden rows were read too",
    "hidden_sheets": "hidden sheets were read too",
    "hidden_slides": "hidden slides were read too",
    "hidden_text": "hidden text was read too",
    "implausible_usage": "the server reported impossible token counts; they count as unknown",
    "invalid_bytes": "bytes that are no text were replaced",
    "items_dropped": "more items than the schema allows were left out (x-over)",
    "low_text_quality": "the text may be garbled, as after a poor scan",
    "max_tokens_clamped": "the server allowed fewer tokens than max_tokens",
    "merge_conflicts": "windows gave different values (`merge.conflicts` of the record)",
    "model_reloading": "the server loaded the model again for this request",
    "numbers_not_finite": "NaN and infinite numbers became null",
    "pages_without_text": "pages without text, perhaps scanned",
    "prompt_length_unverified": "the pipeline cannot verify that the server reads prompts whole",
    "references_skipped": "lists of references were not read",
    "reused": "identical to a document done earlier; not sent again",
    "several_models": "windows were answered by several models",
    "shared": "identical to another document of this run; not sent again",
    "sheets_skipped": "sheets that are absent from the file, or of an unknown kind, were not read",
    "slides_skipped": "slides that are absent from the file were not read",
    "speaker_notes_added": "speaker notes were read too",
    "special_tokens_broken": "control tokens of the model in the text were broken up",
    "surrogates_scrubbed": "invalid characters were replaced",
    "symbols_unknown": "characters of an unknown symbol font were replaced",
    "tracked_changes": "read as if all changes were accepted",
    "trailing_bytes": "bytes after the packed data were ignored",
    "trailing_commas": "trailing commas in the JSON were ignored",
    "trailing_whitespace": "the answer was followed by white space only",
    "truncated": "the web archive holds only the beginning of the page",
    "windows_divided": "windows were divided into smaller ones",
    "windows_reused": "windows were answered in an earlier run",
    "xml_repaired": "XML that is not well-formed was repaired",
}
"""By the name of the note: the part before its colon."""


def hint_of(note: str) -> str | None:
    """Return the meaning of a note, which may carry a value (`encoding:cp1252`); None for an unknown one."""
    return NOTES.get(note.partition(":")[0])
