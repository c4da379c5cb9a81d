"""Description of a small difference between a quote and the document that should contain it.

It only builds a message, which never quotes the document; no answer is accepted because of it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping

MOST_CHARS = 2_000_000
"""Longer documents are not searched again: each fold reads the whole text."""
LEAST_LETTERS = 3
"""Letters and digits of a folded quote; fewer are found in every document."""

_ELLIPSIS = re.compile(r"[\[(]?(?:…|\.{3,})[\])]?")
_PUNCTUATION = re.compile(r"[^\w\s]|_")
_ALL_SPACE = re.compile(r"\s+")


def _without_accents(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(char for char in decomposed if not unicodedata.combining(char))


_FOLDS: Mapping[str, Callable[[str], str]] = {
    "letter case": str.casefold,
    "punctuation": lambda text: _PUNCTUATION.sub("", text),
    "white space": lambda text: _ALL_SPACE.sub("", text),
    "accents or forms of letters": _without_accents,
}


class QuoteDifferences:
    """The comparison of quotes with one document, which is folded at most once for each kind of difference."""

    def __init__(self, document: str) -> None:
        self._document = document if len(document) <= MOST_CHARS else ""
        self._folded: dict[str, str] = {}

    def name(self, quote: str) -> str | None:
        """Return how the quote differs, such as `letter case`; None when it differs in more than that."""
        for name in _FOLDS:
            if self._is_found(quote, (name,)):
                return name
        if self._leaves_words_out(quote):
            return "words that an ellipsis leaves out"
        pair = ("letter case", "punctuation")
        if self._is_found(quote, pair):
            return " and ".join(pair)
        return "letter case, punctuation, white space or accents" if self._is_found(quote, tuple(_FOLDS)) else None

    def _is_found(self, quote: str, names: tuple[str, ...]) -> bool:
        folded = _fold(quote, names)
        if sum(map(str.isalnum, folded)) < LEAST_LETTERS:
            return False
        key = "+".join(names)
        if key not in self._folded:
            self._folded[key] = _fold(self._document, names)
        return folded in self._folded[key]

    def _leaves_words_out(self, quote: str) -> bool:
        parts = [" ".join(part.split()) for part in _ELLIPSIS.split(quote)]
        parts = [part for part in parts if part]
        if len(parts) == 0 or not _ELLIPSIS.search(quote) or any(not any(map(str.isalnum, part)) for part in parts):
            return False
        document = " ".join(self._document.split())
        place = 0
        for part in parts:
            start = document.find(part, place)
            if start < 0:
                return False
            place = start + len(part)
        return True


def _fold(text: str, names: tuple[str, ...]) -> str:
    for name in names:
        text = _FOLDS[name](text)
    return " ".join(text.split())
