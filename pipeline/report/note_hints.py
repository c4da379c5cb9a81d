"""The meaning of each note of a record in a few words, for the report page."""

from __future__ import annotations

from collections.abc import Mapping

_HINTS: Mapping[str, str] = {
    "answer_in_reasoning": "the server returned the answer in its reasoning field",
    "answer_in_tool_call": "the server returned the answer as a tool call",
    "attachments_skipped": "attached files were not read",
    "comments_added": "comments were read too",
    "document_split": "read in windows, and merged (overflow: split)",
    "document_truncated": "the text was cut to fit the context (overflow)",
    "drawings_skipped": "drawings without text were not read",
    "encoding": "decoded from this encoding",
    "encoding_guessed": "no encoding was declared; this one fits best",
    "form_fields_added": "values of form fields were read too",
    "hidden_slides": "hidden slides were read too",
    "hidden_text": "hidden text was read too",
    "items_dropped": "more items than the schema allows were left out (x-over)",
    "invalid_bytes": "bytes that are no text were replaced",
    "low_text_quality": "the text may be garbled, as after a poor scan",
    "max_tokens_clamped": "the server allowed fewer tokens than max_tokens",
    "merge_conflicts": "windows gave different values (`merge.conflicts` of the record)",
    "pages_without_text": "pages without text, perhaps scanned",
    "prompt_length_unverified": "the server does not prove that it reads prompts whole",
    "references_skipped": "lists of references were not read",
    "reused": "identical to a document done earlier; not sent again",
    "several_models": "windows were answered by several models",
    "shared": "identical to another document of this run; not sent again",
    "special_tokens_broken": "control tokens of the model in the text were broken up",
    "surrogates_scrubbed": "invalid characters were replaced",
    "tracked_changes": "read as if all changes were accepted",
    "trailing_whitespace": "the answer was followed by white space only",
    "windows_divided": "windows were divided into smaller ones",
    "windows_reused": "windows were answered in an earlier run",
}


def hint_of(note: str) -> str | None:
    """Return the meaning of a note, which may carry a value (`encoding:cp1252`); None for an unknown one."""
    return _HINTS.get(note.partition(":")[0])
