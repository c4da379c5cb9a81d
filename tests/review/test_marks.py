"""Positions of quotes in a displayed document, with any white space and in linear time."""

from __future__ import annotations

import re
import time

from hypothesis import given
from hypothesis import strategies as st

from pipeline.review.marks import JoinedWords, marks_of, pieces_of

TEXTS = st.text("ab \n\u00a0", max_size=40)


@given(TEXTS, st.text("ab \n", max_size=6))
def test_quote_is_found_with_any_white_space(text: str, quote: str) -> None:
    """Positions equal those of a pattern with white space between the words."""
    words = quote.split()
    pattern = r"\s+".join(map(re.escape, words))
    assert JoinedWords(text).places_of(quote) == [match.span() for match in re.finditer(pattern, text) if words]


def test_repetitive_long_quote_is_found_in_linear_time() -> None:
    """A pattern of its words would try each position to its end."""
    started = time.process_time()
    assert JoinedWords("a " * 200_000).places_of("a " * 100_000 + "b") == []
    assert time.process_time() - started < 5


@given(st.text("ab \n", max_size=40), st.lists(st.text("ab ", min_size=1, max_size=4), max_size=4), st.data())
def test_evidence_position_is_marked_as_the_proof(text: str, quotes: list[str], data: st.DataObject) -> None:
    """Other positions of the quote are marked too, and the pieces join to the text."""
    places = st.integers(0, len(text)).flatmap(lambda end: st.tuples(st.integers(0, max(end - 1, 0)), st.just(end)))
    evidence = {f"/{n}": data.draw(places) for n in range(len(quotes)) if data.draw(st.booleans())}
    marks = marks_of(text, [(f"/{n}", quote) for n, quote in enumerate(quotes)], evidence)
    pieces = pieces_of(text, marks)
    assert "".join(piece.text for piece in pieces) == text
    for mark in marks:
        start, end = mark.proof or (0, 0)
        assert "".join(piece.text for piece in pieces if mark.number in piece.proves) == text[start:end]
        if (given := evidence.get(mark.pointer, (0, 0)))[0] < given[1]:
            assert mark.proof == given
        elif mark.places:
            assert mark.proof == mark.places[0]
