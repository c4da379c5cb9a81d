"""Comparison rules: which values agree under each rule."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.truth.comparators import COMPARISONS, Comparator, is_something

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.parametrize(
    ("compare", "first", "second", "agree"),
    [
        ("exact", True, 1, False),
        ("exact", 1.0, 1, True),
        ("exact", {"a": 1, "b": [2]}, {"b": [2.0], "a": 1}, True),
        ("exact", "A", "a", False),
        ("number", 0.1 + 0.2, 0.3, True),
        ("number", 100, 101, False),
        ("number", True, 1, False),
        ("number", 10**400, 1.5, False),
        ("text", "Acme, Inc.", "ACME INC", True),
        ("text", "“Acme”  ", "acme", True),
        ("text", "ﬁnance", "finance", True),
        ("text", "3.5", "35", False),
        ("text", "?", "!", False),
        ("text", "?", " ? ", True),
        ("text", "straße", "STRASSE", True),
        ("date", "2025-04-03", "20250403", True),
        ("date", "2025-04-03", "2025-04-03T23:00:00-05:00", True),
        ("date", "2025-04-03T23:00-05:00", "2025-04-04T04:00:00Z", True),
        ("date", "2025-04-03T23:00Z", "2025-04-03T22:00Z", False),
        ("date", "03/04/2025", "2025-04-03", False),
        ("date", "03/04/2025", "03/04/2025", True),
        ("date", "2025-02-30", "2025-02-30", True),
        ("tokens", "rates rose in Rome", "in Rome, rates fell", True),
        ("tokens", "rates rose", "shares fell", False),
        ("tokens", "…", "…", True),
    ],
)
def test_rules_are_symmetric(compare: str, first: Any, second: Any, *, agree: bool) -> None:
    """Each rule gives the expected verdict in both directions."""
    rule = Comparator(compare)
    assert rule.agree(first, second) is agree
    assert rule.agree(second, first) is agree


def test_tolerances_bound_the_difference() -> None:
    """`abs`, `rel` and `at_least` define how close values must be."""
    assert Comparator("number", abs=10).agree(60, 70)
    assert not Comparator("number", abs=9).agree(60, 70)
    assert Comparator("number", rel=0.1).agree(95, 100)
    assert not Comparator("tokens", at_least=0.9).agree("rates rose in Rome", "in Rome, rates fell")


@settings(deadline=None)
@given(st.sampled_from(sorted(COMPARISONS)), JSON, JSON)
def test_rules_accept_any_values(compare: str, first: Any, second: Any) -> None:
    """Any value agrees with itself under any rule, and no pair of values raises."""
    rule = Comparator(compare)
    assert rule.agree(first, first)
    assert isinstance(rule.agree(first, second), bool)


@settings(deadline=None)
@given(st.sampled_from(["exact", "text"]), JSON, JSON)
def test_equal_normal_forms_mean_agreement(compare: str, first: Any, second: Any) -> None:
    """Two values have the same normal form exactly if they agree."""
    rule = Comparator(compare)
    assert (rule.normal_form(first) == rule.normal_form(second)) is rule.agree(first, second)
    assert rule.normal_form(f" {first}!") == rule.normal_form(f"{first}!") or compare == "exact"


@pytest.mark.parametrize("value", [None, "", " \n", []])
def test_null_empty_list_and_blank_string_are_nothing(value: Any) -> None:
    """Such a value says that the document has none."""
    assert not is_something(value)


@pytest.mark.parametrize("value", [False, 0, "x", [0], {}])
def test_false_and_zero_are_values(value: Any) -> None:
    """They count as statements."""
    assert is_something(value)
