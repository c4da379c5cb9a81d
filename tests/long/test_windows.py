"""Windows of long texts: no gap, none too large, good boundaries, and only the missing text beside earlier windows."""

from __future__ import annotations

import random
import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.long.windows import LEAST_WINDOW_CHARS, MOST_WINDOWS, Span, TooManyWindowsError, covers, cut, divide

PIECES = (
    *("Halden Ltd pays 1,240.50 EUR. ", "a line\n", "\n\n", "\f", "# Heading\n", "1 | 2 | 3\n", "“Quoted.” ", "\r\n"),
    *("報告書によると、売上は増加した。", "été ", "e\u0301", "👩\u200d👩\u200d👧", "❤\ufe0f", "नि", "…", "\u0301"),
    *("x" * 40, "\ud800", "   "),
)
TEXTS = st.lists(st.sampled_from(PIECES), max_size=400).map("".join)
SIZES = st.tuples(st.integers(64, 2000), st.floats(0, 0.25)).map(lambda size: (size[0], int(size[0] * size[1])))


def size(text: str) -> int:
    """Return the size in bytes of UTF-8."""
    return len(text.encode("utf-8", "surrogatepass"))


@given(text=TEXTS, sizes=SIZES)
@settings(max_examples=200, deadline=None)
def test_windows_cover_the_text_and_none_is_too_large(text: str, sizes: tuple[int, int]) -> None:
    """Starts and ends grow, neighbours share at most the overlap, and the result is deterministic."""
    budget, overlap = sizes
    spans = cut(text, budget, overlap)
    assert covers(spans, len(text))
    assert spans == cut(text, budget, overlap)
    assert all(0 < size(text[start:end]) <= budget for start, end in spans)
    assert all(a.start < b.start and a.end < b.end for a, b in pairwise(spans))
    assert all(size(text[b.start : a.end]) <= overlap + 3 for a, b in pairwise(spans))
    if size(text) <= budget:
        assert len(spans) == bool(text)


@given(text=TEXTS, sizes=SIZES)
@settings(max_examples=100, deadline=None)
def test_no_cluster_is_split(text: str, sizes: tuple[int, int]) -> None:
    """No window begins or ends before a combining mark if another position exists."""
    for span in cut(text, *sizes):
        for place in span:
            if not 0 < place < len(text) or not unicodedata.category(text[place]).startswith("M"):
                continue
            cluster = text[:place].rstrip("\u0301\ufe0f\u200d\u093f")
            assert size(text[len(cluster) : place]) > sizes[0] // 8, (place, text[place - 3 : place + 3])


def test_space_with_a_combining_mark_is_no_boundary() -> None:
    """White space stays with its mark."""
    text = "x" * 48 + " \u0301" + "y" * 40
    assert [text[start:end][:1] for start, end in cut(text, 64, 0)] == ["x", " "]


@given(text=TEXTS, sizes=SIZES, other=SIZES, seed=st.integers(0, 999))
@settings(max_examples=200, deadline=None)
def test_only_uncovered_text_gets_new_windows(
    text: str, sizes: tuple[int, int], other: tuple[int, int], seed: int
) -> None:
    """With earlier windows of any size the text is covered, and all that are not within another one stay."""
    rng = random.Random(seed)
    laid = [span for span in cut(text, *other) if rng.random() < 0.5]
    spans = cut(text, *sizes, laid=laid)
    assert covers(spans, len(text))
    assert all(a.start < b.start and a.end < b.end for a, b in pairwise(spans))
    new = [span for span in spans if span not in laid]
    assert all(size(text[start:end]) <= sizes[0] for start, end in new)
    assert all(any(s.start <= span.start and span.end <= s.end for s in spans) for span in laid)
    if covers(laid, len(text)):
        assert new == []


def test_answered_windows_are_kept() -> None:
    """After a kill the windows of the first run stay, and the others come out the same."""
    text = "".join(f"Line {number} of a long report.\n" for number in range(4000))
    spans = cut(text, 8000, 400)
    again = cut(text, 8000, 400, laid=spans[:5] + spans[7:])
    assert again[:5] == spans[:5]
    assert set(spans[7:]) <= set(again)
    assert len(again) <= len(spans) + 1


def test_window_within_another_one_is_dropped() -> None:
    """If a whole window is answered, its halves are not needed."""
    text = "a b " * 1000
    halves = divide(text, Span(0, 4000), 100)
    assert halves is not None
    assert cut(text, 64_000, 100, laid=[*halves, Span(0, 4000)]) == [Span(0, 4000)]


@pytest.mark.parametrize(
    ("better", "worse"),
    [("\f", "# H\n"), ("\n# Heading\n", "\n\n"), ("\n\n", "\n"), ("\n", ". "), (". ", " "), ("。", ""), (" ", "")],
)
def test_better_kind_of_boundary_wins(better: str, worse: str) -> None:
    """It wins even if a worse boundary comes later."""
    text = "x" * 900 + better + "y" * 30 + worse + "z" * 900
    (_, end), _ = cut(text, 1000, 0)
    place = 900 + (1 if better.startswith("\n#") else len(better))
    assert end == place


def test_page_start_equals_a_form_feed() -> None:
    """The text does not show the page starts of a PDF."""
    text = "word " * 400
    assert cut(text, 1100, 0, page_starts=[0, 977, 1500])[0] == Span(0, 977)


def test_windows_have_even_sizes() -> None:
    """No last window is tiny: a text slightly too large gives two halves."""
    text = "word " * 230
    sizes = [end - start for start, end in cut(text, 1000, 0)]
    assert max(sizes) < 1.6 * min(sizes)


@given(text=TEXTS, overlap=st.integers(0, 100))
@settings(max_examples=100, deadline=None)
def test_halves_cover_their_window(text: str, overlap: int) -> None:
    """They meet in its middle half, neither is the whole, and short windows are not divided."""
    halves = divide(text, Span(0, len(text)), overlap)
    if halves is None:
        assert len(text) < 4 * LEAST_WINDOW_CHARS
        return
    first, second = halves
    assert covers(halves, len(text))
    assert min(first.end - first.start, second.end - second.start) >= LEAST_WINDOW_CHARS
    assert first.end < len(text) and second.start > 0
    assert size(text[second.start : first.end]) <= overlap
    assert divide(text, Span(0, min(len(text), 2 * LEAST_WINDOW_CHARS - 1)), 0) is None


@pytest.mark.parametrize(
    ("spans", "chars", "whole"),
    [([], 0, True), ([], 1, False),
     ([(0, 5), (5, 9)], 9, True), ([(0, 5), (6, 9)], 9, False), ([(3, 9), (0, 4)], 9, True),
     ([(0, 9), (2, 3)], 9, True), ([(1, 9)], 9, False), ([(0, 9)], 10, False), ([(0, 11)], 10, False)],
)  # fmt: skip
def test_covers_detects_gaps(spans: list[Span], chars: int, whole: bool) -> None:
    """There must be no gap at the beginning, in between or at the end, and no excess."""
    assert covers(spans, chars) is whole


def test_impossible_window_arguments_are_refused() -> None:
    """Cases are sizes without progress, windows of another text, and too many windows."""
    for budget, overlap in ((63, 0), (100, 26), (100, -1)):
        with pytest.raises(ValueError, match=f"got {budget} and {overlap}"):
            cut("text", budget, overlap)
    with pytest.raises(ValueError, match="of a text of 4 characters"):
        cut("text", 64, 0, laid=[Span(0, 5)])
    with pytest.raises(TooManyWindowsError, match="10,000 windows of 64 bytes"):
        cut("x" * 64 * (MOST_WINDOWS + 1), 64, 0)


@pytest.mark.slow
@pytest.mark.parametrize("overlap", [0, 200, 800, 20_000])
@pytest.mark.parametrize("piece", ["Nothing was paid. ", "港" * 9 + " ", "x"])
def test_dividing_again_and_again_ends(piece: str, overlap: int) -> None:
    """This holds even for an overlap longer than a half: each half is at most seven eighths of its window."""
    text = (piece * 2000)[:20_000]
    window = Span(0, len(text))
    for _ in range(60):
        halves = divide(text, window, overlap)
        if halves is None:
            return
        own = [Span(start - window.start, end - window.start) for start, end in halves]
        assert covers(own, window.end - window.start)
        window = max(halves, key=lambda half: half.end - half.start)
    pytest.fail("the larger half is as large as its window")


@pytest.mark.parametrize("piece", ["word ", "x", "\n", " ", ". ", ".", "\"'", "\u0301", "é\n", "#", "\u200d", "。"])
def test_cutting_takes_linear_time(piece: str) -> None:
    """No search of a boundary repeats the text of the previous one, whatever the ten megabytes repeat."""
    text = piece * (10_000_000 // len(piece.encode()))
    assert covers(cut(text, 16_000, 800), len(text))
