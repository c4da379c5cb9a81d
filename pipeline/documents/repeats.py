"""Texts that repeat one another: a teaser above an article, a headline in two elements."""

from __future__ import annotations

from collections.abc import Sequence

_MOST_LINES = 200
"""Lines of the texts before the main one that are compared with it; a teaser has a few."""

_CUTS = ("[…]", "[...]", "[ … ]", "[ ... ]", "…", "...")
"""The marks at the end of a teaser that is cut."""


def without_repeats(leading: Sequence[str], main: Sequence[str]) -> str:
    """Return the texts in order, separated by blank lines.

    Lines of the `leading` texts are left out if they occur in a main text, or in an earlier line. Of the main
    texts, one that is equal to another is left out.
    """
    kept_main = list(dict.fromkeys(text.strip() for text in main if text.strip()))
    main_text = f" {' '.join(' '.join(kept_main).split())} "
    kept_texts: list[str] = []
    seen_lines: set[str] = set()
    lines_left = _MOST_LINES
    for text in leading:
        lines = []
        for line in text.split("\n"):
            words = " ".join(_without_cut_mark(line).split())
            lines_left -= 1
            if not words or words in seen_lines or (lines_left >= 0 and f" {words} " in main_text):
                continue
            seen_lines.add(words)
            lines.append(line.strip())
        if lines:
            kept_texts.append("\n".join(lines))
    return "\n\n".join([*kept_texts, *kept_main])


def _without_cut_mark(line: str) -> str:
    """Return a line without the mark that it is cut."""
    line = line.rstrip()
    return line.removesuffix(next((cut for cut in _CUTS if line.endswith(cut)), ""))


def headed(titles: Sequence[str], text: str) -> str:
    """Return the text below its titles; a title that is the first line of the text is not repeated."""
    first = " ".join(text.partition("\n")[0].split())
    return "\n\n".join(part for part in (*(title for title in dict.fromkeys(titles) if title != first), text) if part)
