"""Distinguish an object that prose offers as the answer from one that it quotes as an example.

An answer starts a line or follows a colon; an object within a sentence, or one called an example, is not an answer.
"""

from __future__ import annotations

import re

_LEAD_CHARS = 200
_EXAMPLE = re.compile(
    r"for example|for instance|\bexamples?\b|\be\.\s?g\.|\bsuch as\b|something like|\bzum beispiel\b|\bbeispiel|"
    r"\bz\.\s?b\.|par exemple|\bexemple\b|por ejemplo|\bejemplo\b|\besempio\b|例如|比如|例えば",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?。！？](?=\s)|[}\]>](?=\s*\n)|\n[ \t]*\n[ \t]*(?=\S)")
_ABBREVIATION = re.compile(r"\b(?:e\.\s?g|z\.\s?b|i\.\s?e)\.", re.IGNORECASE)
_DECORATION = " \t`*_\"'>"
_FENCE = re.compile(r"```[^`\n]*\n\s*\Z")


def is_answer_in_prose(text: str, start: int) -> bool:
    """Return True when the object that begins at `start` is offered as the answer."""
    lead = _FENCE.sub("\n", text[max(0, start - _LEAD_CHARS) : start])
    line = lead.rpartition("\n")[2].rstrip(_DECORATION)
    if line and not line.endswith((":", "：", "=", "|>")):
        return False
    return _EXAMPLE.search(_last_sentence(lead.rstrip(_DECORATION + "\n"))) is None


def _last_sentence(lead: str) -> str:
    """Return the last sentence before an object."""
    masked = _ABBREVIATION.sub(lambda match: match[0].replace(".", "\u2024"), lead)
    ends = [match.end() for match in _SENTENCE_END.finditer(masked)]
    return (masked[ends[-1] :] if ends else masked).replace("\u2024", ".")
