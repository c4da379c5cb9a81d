"""The number of times a text mentions an item of a list: by one of its texts, or by all of its values in one place.

A complete mention is one line, or one sentence, with all values of the item. A name alone may also be in a sentence
that states no row. Both only count; list_overlap.py decides what is repeated.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

from pipeline.long.folding import folded

_NUMBER = re.compile(r"-?\d+(?:[.,]\d+)*")
_LINE_END = re.compile(r"(?<!-)\n")
SENTENCE_END = re.compile(r"[\u3002\uff01\uff1f\u2026]|[.!?][\"'\u201d\u2019)\]]*(?=\s|$)")


class Mentions:
    """The mentions in one text, which is folded on demand."""

    def __init__(self, text: str) -> None:
        self._text = text

    @cached_property
    def plain(self) -> str:
        """The text after folding, in lower case."""
        return plain(self._text)

    @cached_property
    def _passages(self) -> list[str]:
        """The lines of each sentence: a page may end within a sentence, and lines of a table have no other end."""
        sentences = SENTENCE_END.split(self._text)
        return [plain(line) for sentence in sentences for line in _LINE_END.split(sentence)]

    def of_text(self, needle: str) -> int:
        """Return how often the text contains a folded text; 0 for the empty one."""
        return self.plain.count(needle) if needle else 0

    def complete(self, item: Any) -> int:
        """Return the number of complete mentions of an item."""
        values = list(leaves(item))
        longest = max((plain(value) for value in values if isinstance(value, str)), key=len, default="")
        return sum(min(map(counter(passage), values), default=0) for passage in self._passages if longest in passage)


def counter(part: str) -> Callable[[Any], int]:
    """Return a function that counts how often a folded text contains a value, a number in one of its usual forms."""
    numbers = _NUMBER.findall(part)

    def count(leaf: Any) -> int:
        if isinstance(leaf, str):
            return part.count(plain(leaf))
        forms = {f"{leaf:g}", f"{leaf:,}", f"{leaf:.2f}", f"{leaf:,.2f}", str(leaf)}
        return sum(number in forms for number in numbers)

    return count


def leaves(value: Any) -> Iterator[str | int | float]:
    """Yield all strings and numbers in a value."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from leaves(item)
    elif isinstance(value, (str, int, float)) and not isinstance(value, bool):
        yield value


def texts(value: Any) -> Iterator[str]:
    """Yield all strings in a value."""
    return (leaf for leaf in leaves(value) if isinstance(leaf, str))


def plain(text: str) -> str:
    """Return the folded text in lower case."""
    return folded(text).casefold()
