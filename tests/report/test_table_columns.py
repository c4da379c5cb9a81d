"""Columns of a terminal's table: cells that are shortened must not look alike."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.report.table_formats import _shortener

LETTERS = st.text("ab/", min_size=1, max_size=12)
IDS = st.sets(st.builds("{}{}{}".format, LETTERS, LETTERS, LETTERS), min_size=2, max_size=8)


@given(IDS, st.integers(6, 20), LETTERS, LETTERS)
def test_shortened_ids_remain_different(ids: set[str], size: int, prefix: str, suffix: str) -> None:
    """Whatever they share at their beginning, middle or end, they fit the column."""
    cells = [prefix * 3 + id + suffix * 3 for id in sorted(ids)]
    shorten = _shortener(cells, size)
    shortened = [shorten(cell) for cell in cells]
    assert len(set(shortened)) == len(cells), shortened
    assert all(len(text) <= size for text in shortened)


def test_ids_that_differ_in_the_middle_only() -> None:
    """The default keeps both ends, which are the same here; the shared prefix is left out instead."""
    cells = [f"archive/2026/january/{name}/story-of-the-day.txt" for name in ("acme", "beta", "core")]
    shorten = _shortener(cells, 20)
    assert [shorten(cell) for cell in cells] == [f"…{name}/story-of-the-…" for name in ("acme", "beta", "core")]


def test_ids_that_differ_at_an_end_keep_both_ends() -> None:
    """Nothing changes for ids that the usual form keeps apart."""
    cells = ["archive/2026/january/story-1.txt", "archive/2026/january/story-2.txt"]
    shorten = _shortener(cells, 20)
    assert [shorten(cell) for cell in cells] == ["archive/2…tory-1.txt", "archive/2…tory-2.txt"]
