"""Positions of quotes: exact matches first, then folded ones; similar passages never match."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.documents.special_tokens import break_special_tokens
from pipeline.long import QuotePlace, find_quotes, is_blank
from pipeline.long.folding import FoldedText, LineEnd, folded
from pipeline.long.quotes import joined

NEWS = "Three ships reached Rotterdam; the first two were unloaded before noon, the third waits."


def place_of(quote: str, text: str, **more: object) -> QuotePlace | None:
    """Return the position of one quote."""
    return find_quotes([quote], text, **more)[0]  # type: ignore[arg-type]


def match_in(quote: str, text: str, **more: object) -> tuple[str, str] | None:
    """Return how a quote was matched, and the text at its position."""
    place = place_of(quote, text, **more)
    return None if place is None else (place.match, text[place.start : place.end])


class TestExamples:
    """The examples of the specification, and its rules."""

    def test_literal_quote_is_an_exact_match(self) -> None:
        """Position and count equal those of `find` and `count`."""
        assert place_of("the", "the cat, the dog") == QuotePlace(0, 3, "exact", 2)

    @pytest.mark.parametrize(
        ("quote", "there"),
        [
            ('"soft landing"', "“soft landing”"),
            ("the bank's own", "the bank’s own"),
            ("office", "o\ufb03ce"),
            ("international", "inter-\nnational"),
            ("international", "inter-  \r\n  national"),
            ("international", "inter\u00adnational"),
            ("international", "inter\u00ad\nnational"),
            ("long-term", "long-\nterm"),
            ("long- term", "long-\nterm"),
            ("long-term", "long\u2011term"),
            ("2019-2020", "2019\u20132020"),
            ("two words", "two \n\t words"),
            ("two words", "two\u00a0words"),
            ("two  words", "two words"),
            ("caf\u00e9s", "cafe\u0301s"),
            ("cafe\u0301s", "caf\u00e9s"),
            ("\uac00", "\u1100\u1161"),
            ("ガス", "ｶﾞｽ"),
            ("ABC 12", "ＡＢＣ\u3000１２"),
            ("zero", "ze\u200bro"),
            ("1 km2", "1 km²"),
            ("« so »", "“ so ”"),
            ("人、山", "人\u200b、山"),
        ],
    )
    @pytest.mark.parametrize("around", [("", ""), ("before ", " after"), ("«\u00a0ﬁrst\n\n", "\u00a0»\n")])
    def test_folded_match_has_the_extent_of_its_passage(self, quote: str, there: str, around: tuple[str, str]) -> None:
        """It covers the whole passage and no more."""
        assert match_in(quote, there.join(around)) == ("folded", there)

    @pytest.mark.parametrize(
        "quote",
        [
            "The first two were unloaded before noon.",
            "…the first two were unloaded before noon…",
            "“The first two were unloaded before noon!”",
            "[...] the first two were unloaded before noon",
            "the first  two were unloaded before noon.",
        ],
    )
    def test_punctuation_at_the_ends_and_the_first_capital_may_differ(self, quote: str) -> None:
        """Models add a capital and a full stop when they quote the middle of a sentence."""
        assert match_in(quote, NEWS) == ("edges", "the first two were unloaded before noon")

    @pytest.mark.parametrize(
        ("quote", "text"),
        [
            ("The First two were unloaded before noon.", NEWS),
            ("the first two were, unloaded before noon", NEWS),
            ("first two.", NEWS),
            ("unloaded before.", NEWS),
            ("it is so.", "and it is so, always"),
            ("Art of the deal is known", "the part of the deal is known"),
            ("the first two […] before noon", NEWS),
            ("rotterdam", NEWS),
            ("re-cover", "recover"),
            ("e", "\u00e9"),
            ("cafe", "x cafe\u0301 y".replace("e\u0301", "\u00e9")),
            ("a\u0301b", "a\u0301\u0323b".replace("a", "x")),
            ("", "text"),
            (" \n", "text here"),
        ],
    )
    def test_similar_passages_do_not_match(self, quote: str, text: str) -> None:
        """Cases are other case, other inner punctuation, too few words, part of a cluster, and a blank quote."""
        assert place_of(quote, text) is None

    def test_exact_match_wins_over_an_earlier_folded_one(self) -> None:
        """The order of the rules comes before the order of the text."""
        assert place_of('a "b" c', 'a “b” c and a "b" c') == QuotePlace(12, 19, "exact", 1)

    def test_equal_quotes_match_successive_occurrences(self) -> None:
        """They may have different forms; beyond the last occurrence the first one is repeated."""
        quotes = ["x y", "z", "x y", "x y", "x y"]
        assert [place and (place.start, place.count) for place in find_quotes(quotes, "x y, z, x  y, x y")] == [
            (0, 3), (5, 1), (8, 3), (14, 3), (0, 3),
        ]  # fmt: skip

    def test_folded_occurrences_are_counted(self) -> None:
        """Passages that fold to the same text are occurrences of one quote."""
        assert find_quotes(["x  y"] * 2, "x y x\ny x\u00a0y") == [
            QuotePlace(0, 3, "folded", 3), QuotePlace(4, 7, "folded", 3),
        ]  # fmt: skip


class TestWhatTheModelSaw:
    """Positions refer to the whole text, whichever part of it was in the prompt."""

    def test_quote_does_not_span_two_parts(self) -> None:
        """The two ends of a cut document are searched separately, with offsets of the whole text."""
        text = "alpha beta gamma delta"
        parts = [(0, 10), (17, 22)]
        assert place_of("delta", text, spans=parts) == QuotePlace(17, 22, "exact", 1)
        assert place_of("beta", text, spans=parts) == QuotePlace(6, 10, "exact", 1)
        assert place_of("gamma", text, spans=parts) is None
        assert place_of("betadelta", text, spans=parts) is None
        assert place_of("beta delta", text, spans=parts) is None

    @pytest.mark.parametrize("token", ["<|im_end|>", "[INST]", "</s>", "<｜end｜>"])
    def test_quote_may_have_a_broken_special_token(self, token: str) -> None:
        """The model's text had an added space that the document does not have."""
        text = f"< |x| >\n“{token}” and “{token}” end a message, 🙂 they say."
        shown, _ = break_special_tokens(text)
        quote = break_special_tokens(f'"{token}" and "{token}" end a message')[0]
        assert quote not in text
        assert match_in(quote, text, prompt_text=shown) == ("folded", f"“{token}” and “{token}” end a message")
        edges = f"{quote}…"
        match, there = match_in(edges, text, prompt_text=shown) or ("", "")
        assert match == "edges"
        assert there.endswith("” end a message")

    def test_parts_of_a_cut_document_may_have_special_tokens(self) -> None:
        """Both shifts of positions are undone."""
        text = "one <|a|> two three four <|b|> five"
        parts = [(0, 13), (25, 35)]
        shown, _ = break_special_tokens(joined(text, parts))
        assert match_in("< |b|> five", text, spans=parts, prompt_text=shown) == ("folded", "<|b|> five")


ALPHABET = "ab é\u0301\u0323e-\n\r“”\"'’ﬁfi\u00ad\u200b\u00a0ガｶﾞ가ᄀ\u1161カ🙂\u00b4½1⁄2.\u2026A"


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet=ALPHABET, max_size=14), st.text(alphabet=ALPHABET, min_size=1, max_size=6))
def test_folded_match_is_found_exactly_if_one_exists(text: str, quote: str) -> None:
    """The reference compares the quote with every part of the text that keeps clusters whole."""
    place = place_of(quote, text)
    if place is None:
        assert quote not in text or is_blank(quote)
        for line_end in LineEnd:
            folded_quote = folded(quote, line_end)
            assert not folded_quote or folded_quote not in _parts(text, line_end)
    elif place.match == "exact":
        assert (place.start, place.count) == (text.find(quote), text.count(quote))
    else:
        there = text[place.start : place.end]
        assert any(folded(there, line_end) == folded(quote, line_end) for line_end in LineEnd)


def _parts(text: str, line_end: LineEnd) -> set[str]:
    """Return the folded forms of all parts of a text that divide no cluster."""
    whole = FoldedText(text, line_end)
    size = len(whole.text)
    return {whole.text[i:j].strip() for i in range(size) for j in range(i + 1, size + 1) if whole.span(i, j)}


WORDS = st.lists(
    st.sampled_from(
        ["ships", "office", "naïve", "“soft", "landing”", "two-thirds", "été", "日本", "e\u0301t", "—", "ガス"]
    ),
    min_size=1,
    max_size=6,
).map(" ".join)


@st.composite
def planted(draw: st.DrawFn) -> tuple[str, str, int, int]:
    """Draw a quote, a text that contains it in another spelling, and its position."""
    quote = draw(WORDS)
    spelt = quote
    if draw(st.booleans()):
        spelt = unicodedata.normalize(draw(st.sampled_from(["NFD", "NFC"])), spelt)
    for old, new in draw(
        st.lists(
            st.sampled_from([
                *((" ", "\n"), (" ", " \n\t "), (" ", "\u00a0"), ("ffi", "\ufb03"), ("“", '"'), ("”", "″"), ("—", "-")),
                *(("-", "\u2011"), ("land", "lan\u00add"), ("ガ", "ｶﾞ"), ("本", "\ufeff本"), ("ship", "ship-\n")),
                *(("offi", "of-\n  fi"), ("ï", "i\u0308"), ("s", "ｓ")),
            ]),
            max_size=4,
            unique=True,
        )
    ):  # fmt: skip
        spelt = spelt.replace(old, new)
    before, after = draw(st.sampled_from([("", ""), ("Der ﬁrst: ", "."), ("x\u00a0 ", "\r\n"), ("🙂\n", " 🙂")]))
    return quote, before + spelt + after, len(before), len(before) + len(spelt)


@settings(max_examples=200, deadline=None)
@given(planted())
def test_planted_quote_is_found_at_its_position(case: tuple[str, str, int, int]) -> None:
    """The text may spell it in any accepted way, and the match has exactly its extent."""
    quote, text, start, end = case
    place = place_of(quote, text)
    assert place is not None
    assert (place.start, place.end) == (start, end)
    assert any(folded(text[start:end], line_end) == folded(quote, line_end) for line_end in LineEnd)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, len(NEWS) - 13), st.integers(12, 60), st.data())
def test_quote_with_one_different_letter_is_never_found(start: int, size: int, data: st.DataObject) -> None:
    """The length of the rest does not matter."""
    quote = NEWS[start : start + size]
    letters = [number for number, char in enumerate(quote) if char.isalpha()]
    at = data.draw(st.sampled_from(letters))
    other = data.draw(st.sampled_from([char for char in "abcxyz" if char != quote[at].lower()]))
    mutated = quote[:at] + other + quote[at + 1 :]
    assert place_of(mutated, NEWS) is None


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=20) | st.text(alphabet=ALPHABET, max_size=10))
def test_folding_is_idempotent(text: str) -> None:
    """A matched passage therefore folds to the same text as its quote."""
    once = folded(text, LineEnd.SPACED)
    assert folded(once, LineEnd.SPACED) == once


@pytest.mark.parametrize(
    ("unit", "quote"),
    [
        ("a", "a" * 200 + "b"),
        ("a\u0301", "a\u0301  " * 50),
        ("\u0301", "  \u0301" * 50),
        ("कि ", "ि  " + "कि " * 60 + "क"),
        ("-\n", "-\n  " * 100),
        ("ab-\n", "abab  ab"),
        ("the first two were ", "The  first two were the first two were x"),
        ("<|a|>", "< |a|>  x"),
        ("\u00ad", "\u00adé  x"),
        ("ﬁ\u0301\u00ad\u200b", "ﬁ  x"),
    ],
)
def test_repetitive_text_takes_linear_time(unit: str, quote: str) -> None:
    """Half a million characters match almost everywhere, for twenty quotes."""
    text = unit * (500_000 // len(unit))
    shown, _ = break_special_tokens(text)
    begun = time.process_time()
    find_quotes([quote + str(number) * (number % 3) for number in range(20)], text, prompt_text=shown)
    assert time.process_time() - begun < 10
