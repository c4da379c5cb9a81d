"""The places of quotes in a shown document: whatever the white space is, and in linear time."""

from __future__ import annotations

import re
import time

from hypothesis import given
from hypothesis import strategies as st

from pipeline.review.marks import JoinedWords

TEXTS = st.text("ab \n\u00a0", max_size=40)


@given(TEXTS, st.text("ab \n", max_size=6))
def test_a_quote_is_found_with_any_white_space(text: str, quote: str) -> None:
    """In the same places as by a pattern that has white space between the words."""
    words = quote.split()
    pattern = r"\s+".join(map(re.escape, words))
    assert JoinedWords(text).places_of(quote) == [match.span() for match in re.finditer(pattern, text) if words]


def test_a_long_quote_that_is_nearly_everywhere_is_found_in_linear_time() -> None:
    """A quote is the model's, and the text anybody's: a pattern of its words tries each place to its end."""
    started = time.process_time()
    assert JoinedWords("a " * 200_000).places_of("a " * 100_000 + "b") == []
    assert time.process_time() - started < 5
