"""Patterns without backtracking: the meaning of Python's engine, in time linear in the text."""

from __future__ import annotations

import random
import re
import time
import warnings

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.linear_regex import LinearRegex, TooExpensiveError, UnsupportedPatternError
from pipeline.linear_regex.automaton import MAX_VISITS, Automaton
from pipeline.linear_regex.program import Program, parse

LEAVES = [
    "a",
    "b",
    "A",
    "ß",
    "0",
    ".",
    r"\d",
    r"\w",
    r"\s",
    r"\S",
    "[ab]",
    "[^a]",
    r"[a-f\d]",
    r"[^\W_]",
    r"\.",
    "ſ",
    "İ",
]
POSITIONS = ["^", "$", r"\b", r"\B", r"\A", r"\Z"]
REPEATS = ["*", "+", "?", "{2}", "{1,3}", "{0,2}", "*?", "+?", "??", "{1,2}?"]

leaves = st.sampled_from(LEAVES + POSITIONS)
patterns = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=4).map("".join),
        st.lists(inner, min_size=2, max_size=3).map(lambda each: f"(?:{'|'.join(each)})"),
        st.tuples(inner, st.sampled_from(REPEATS)).map(lambda pair: f"({pair[0]}){pair[1]}"),
        inner.map(lambda text: f"(?={text})"),
        inner.map(lambda text: f"(?!{text})"),
        inner.map(lambda text: f"(?i:{text})"),
        inner.map(lambda text: f"(?a-i:{text})"),
        inner.map(lambda text: f"(?s:{text})"),
        inner.map(lambda text: f"(?m:{text})"),
    ),
    max_leaves=8,
)
behind = st.tuples(st.sampled_from(["<=", "<!"]), st.lists(leaves, min_size=1, max_size=2).map("".join), patterns).map(
    lambda parts: f"(?{parts[0]}{parts[1]}){parts[2]}"
)
texts = st.text("abAfß0 _.\nİſK٣", max_size=12)


def automaton(pattern: str) -> LinearRegex:
    """Return the compiled pattern, without the fallback to Python's engine."""
    result = LinearRegex(pattern)
    tree = parse(pattern)
    result._automaton = Automaton(Program(tree, tree.state.flags, back=False))
    return result


def check_matches(pattern: str, examples: list[str]) -> None:
    """Check search and fullmatch against Python's engine for a pattern without back references."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            expected = re.compile(pattern)
        except re.error:
            assume(False)
        result = automaton(pattern)
        for text in [*examples, ""]:
            assert result.search(text) == (expected.search(text) is not None), (pattern, text)
            assert result.fullmatch(text) == (expected.fullmatch(text) is not None), (pattern, text)


patterns_and_texts = given(st.one_of(patterns, behind), st.lists(texts, min_size=1, max_size=4))


@settings(deadline=None, max_examples=400)
@patterns_and_texts
def test_matches_equal_those_of_the_standard_library(pattern: str, examples: list[str]) -> None:
    """This holds for search and fullmatch of any pattern without back references, and any text."""
    check_matches(pattern, examples)


@pytest.mark.slow
@settings(deadline=None, max_examples=2000)
@patterns_and_texts
def test_matches_of_many_patterns_equal_those_of_the_standard_library(pattern: str, examples: list[str]) -> None:
    """The same property with more examples."""
    check_matches(pattern, examples)


@pytest.mark.parametrize("text", ["", "a", "a\n", "\n", "a\nb", "aé", "Ⅷ9", "\ud800x"])
@pytest.mark.parametrize(
    "pattern",
    [
        r"^\w+$", r"\A\w+\Z", r"(?m)^b$", r"(?i)É", r"(?ai)\w$", r"(?x) a  # one\n b?", r"^(?!\s*$).+", r"(?<!a)b?$",
        r"^(?=.*\d)(?=.*[A-Za-z]).{2,}$", r"[\ud800-\udfff]", r"^[^\x00-\x7f]+$", r"(?s)a.b", r"(a|b)*?\n?$", r"\B", "",
    ],
)  # fmt: skip
def test_common_pattern_features(pattern: str, text: str) -> None:
    """Flags, anchors, look-around, ranges and surrogates have the meaning of `re`."""
    assert automaton(pattern).search(text) == bool(re.search(pattern, text))
    assert LinearRegex(pattern).search(text) == bool(re.search(pattern, text))


@pytest.mark.parametrize(
    "pattern", [r"(a)\1", r"(?P<x>a)(?P=x)", r"(a)?(?(1)b|c)", "(?:a{1000}){1000}", "(?:(?:a{99}){99}){99}"]
)
def test_backtracking_or_huge_patterns_are_refused(pattern: str) -> None:
    """Back references, and repeats that would fill the memory, are refused at compile time."""
    with pytest.raises(UnsupportedPatternError):
        LinearRegex(pattern)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("^(a+)+$", "a" * 1_000_000 + "!"),
        ("^(a|aa)+$", "a" * 1_000_000 + "!"),
        ("^(a|a)*$", "a" * 1_000_000 + "!"),
        (r"^(\w+\s?)*$", "a " * 500_000 + "!"),
        (r"^([a-z]+)*\d$", "a" * 1_000_000),
        (r"a*a*a*a*b", "a" * 1_000_000),
        (r"\s+$", " " * 1_000_000 + "x"),
        (r"^(?=(a+)+$).", "a" * 1_000_000 + "!"),
        (r"(?:a?){30}a{30}c", "a" * 100_000),
        (r"(x+x+)+y", "x" * 1_000_000),
    ],
)
def test_matching_takes_linear_time(pattern: str, text: str) -> None:
    """Patterns that hang Python's engine need about a second for a megabyte."""
    started = time.process_time()
    assert LinearRegex(pattern).search(text) is False
    assert time.process_time() - started < 10


def test_search_steps_are_bounded() -> None:
    """A pattern and a text that together need too many steps are given up."""
    pattern = LinearRegex(r"x.{1,3000}foo|(a|b)*a(a|b){500}c")
    text = "".join(random.Random(1).choices("xyab", k=60_000))
    started = time.process_time()
    with pytest.raises(TooExpensiveError):
        pattern.search(text)
    assert time.process_time() - started < 30
    assert MAX_VISITS <= 10_000_000


@pytest.mark.parametrize(
    ("pattern", "plain"),
    [
        ("^[A-Z]{1,5}$", True), ("^(foo|bar)$", True), (r"^\d{4}-\d{2}-\d{2}$", True), ("^x-", True), ("^.*$", True),
        ("^(a+)+$", False), (".*a", False), ("^a*b*$", False), ("(ab|cd){9}", False), ("^(?!a)", False), ("", True),
    ],
)  # fmt: skip
def test_only_unambiguous_patterns_use_pythons_engine(pattern: str, plain: bool) -> None:
    """No text makes Python's engine try more than a few ways for them."""
    assert LinearRegex(pattern).is_plain is plain
