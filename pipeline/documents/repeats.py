"""Texts that repeat one another: a teaser above an article, a headline that two elements hold."""

from __future__ import annotations

from collections.abc import Sequence

_MOST_LINES = 200
"""Lines of the texts before the main one that are compared with it; a teaser has a few."""

_CUTS = ("[…]", "[...]", "[ … ]", "[ ... ]", "…", "...")
"""How a teaser shows that it is cut."""


def without_repeats(before: Sequence[str], main: Sequence[str]) -> str:
    """Return the texts in order, separated by blank lines.

    Of those `before` the main ones, lines are left out that stand in a main text, or in an earlier line. Of the main
    texts, one that is equal to another is left out.
    """
    kept_main = list(dict.fromkeys(text.strip() for text in main if text.strip()))
    whole = f" {' '.join(' '.join(kept_main).split())} "
    kept: list[str] = []
    seen: set[str] = set()
    left = _MOST_LINES
    for text in before:
        lines = []
        for line in text.split("\n"):
            words = " ".join(_uncut(line).split())
            left -= 1
            if not words or words in seen or (left >= 0 and f" {words} " in whole):
                continue
            seen.add(words)
            lines.append(line.strip())
        if lines:
            kept.append("\n".join(lines))
    return "\n\n".join([*kept, *kept_main])


def _uncut(line: str) -> str:
    """Return a line without the mark that it is cut."""
    line = line.rstrip()
    return line.removesuffix(next((cut for cut in _CUTS if line.endswith(cut)), ""))


def headed(titles: Sequence[str], text: str) -> str:
    """Return the text below its titles; a title that is the first line of the text is not repeated."""
    first = " ".join(text.partition("\n")[0].split())
    return "\n\n".join(part for part in (*(title for title in dict.fromkeys(titles) if title != first), text) if part)
