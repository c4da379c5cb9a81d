"""Confidence intervals of shares, precision, recall and F1: exact numbers, equal on every machine."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.truth.intervals import (
    Estimate,
    Triple,
    change,
    documents_needed,
    documents_needed_as_measured,
    estimates,
    verdict_of,
    wilson,
)

RIGHT: Triple = (1, 0, 0)
WRONG: Triple = (0, 1, 1)
COUNTS = st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4))


def _rounded(estimate: Estimate) -> tuple[float | None, ...]:
    return tuple(
        None if number is None else round(number, 4) for number in (estimate.value, estimate.low, estimate.high)
    )


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [(10, 10, 0.7225, 1), (9, 10, 0.5958, 0.9821), (90, 100, 0.8256, 0.9448), (0, 10, 0, 0.2775)],
)
def test_wilson_interval_has_its_published_values(right: int, total: int, low: float, high: float) -> None:
    """The bounds are rounded to four digits."""
    assert tuple(round(bound, 4) for bound in wilson(right, total)) == (low, high)


def test_documents_needed_for_a_gate() -> None:
    """35 of 35 is the first result that is surely over 0.9."""
    assert documents_needed(1, 0.9) == 35
    assert documents_needed(0.95, 0.9) == 139
    assert documents_needed(0.93, 0.9) == 385
    assert documents_needed(0.9, 0.9) is None


@pytest.mark.parametrize(
    ("kinds", "times", "bound"),
    [
        ([RIGHT], 40, 0.95),
        ([RIGHT] * 19 + [WRONG], 10, 0.92),
        ([(20, 0, 0), (19, 1, 1), (20, 0, 0), (9, 11, 11)], 10, 0.83),
        ([(17, 3, 3), (18, 2, 2), (16, 4, 4), (16, 4, 4)], 10, 0.82),
    ],
)
def test_measured_number_of_needed_documents_is_accurate(kinds: list[Triple], times: int, bound: float) -> None:
    """A third more documents pass the gate and a third fewer do not, however many values each has."""
    measured = estimates(kinds * times)["f1"]
    advised = documents_needed_as_measured(measured, bound)
    assert advised is not None
    for share, passes in ((4 / 3, True), (2 / 3, False)):
        repeated = kinds * round(advised * share / len(kinds))
        low = estimates(repeated)["f1"].low
        assert low is not None
        assert (low >= bound) is passes


def test_many_values_per_document_need_fewer_documents() -> None:
    """Wilson's interval counts each document only as right or wrong."""
    measured = estimates([(17, 3, 3), (18, 2, 2), (16, 4, 4), (16, 4, 4)] * 10)["f1"]
    assert (documents_needed_as_measured(measured, 0.82) or 0) < (documents_needed(measured.value or 0, 0.82) or 0) / 5
    assert documents_needed_as_measured(measured, 0.9) is None


def test_interval_of_a_small_sample_is_widened() -> None:
    """Two added documents widen it."""
    intervals = estimates([(2, 0, 0), (1, 1, 0), (0, 1, 1), (3, 0, 1), (1, 0, 0)])
    assert _rounded(intervals["f1"]) == (0.7778, 0.365, 0.9219)
    assert _rounded(intervals["precision"]) == (0.7778, 0.3509, 0.9375)
    assert _rounded(intervals["recall"]) == (0.7778, 0.3731, 0.9315)


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        ([RIGHT] * 10, (1, 0.75, 1)),
        ([RIGHT] * 40, (1, 0.9286, 1)),
        ([RIGHT] * 90 + [WRONG] * 10, (0.9, 0.8333, 0.951)),
        ([], (None, None, None)),
        ([(0, 0, 0)], (None, None, None)),
    ],
)
def test_f1_interval(documents: list[Triple], expected: tuple[float | None, ...]) -> None:
    """Ten right of ten do not give "100 % to 100 %", and no counts give null, never 0 or 1."""
    assert _rounded(estimates(documents)["f1"]) == expected


def test_two_differing_documents_are_too_few() -> None:
    """The paired difference of ten documents proves nothing."""
    difference = change([(WRONG, RIGHT)] * 2 + [(RIGHT, RIGHT)] * 8, "f1")
    assert (round(difference.value or 0, 4), difference.low, round(difference.high or 0, 4), difference.differing) == (
        0.2,
        0,
        0.5,
        2,
    )
    assert verdict_of(difference, min_documents=1) == "too_few"


def test_eight_improved_documents_of_forty_are_better() -> None:
    """The verdict needs the configured minimum of documents."""
    difference = change([(WRONG, WRONG)] * 2 + [(WRONG, RIGHT)] * 8 + [(RIGHT, RIGHT)] * 30, "f1")
    assert [round(number or 0, 4) for number in (difference.value, difference.low, difference.high)] == [
        0.2,
        0.075,
        0.325,
    ]
    assert (difference.differing, verdict_of(difference, min_documents=30)) == (8, "better")
    assert verdict_of(difference, min_documents=41) == "too_few"
    worse = change([(RIGHT, WRONG)] * 8 + [(RIGHT, RIGHT)] * 32, "f1")
    assert verdict_of(worse, min_documents=30) == "worse"


@settings(deadline=None, max_examples=40)
@given(st.lists(COUNTS, max_size=12))
def test_value_lies_within_its_interval(documents: list[Triple]) -> None:
    """0 <= low <= value <= high <= 1 wherever the value is defined."""
    for estimate in estimates(documents).values():
        if estimate.value is not None:
            assert estimate.low is not None
            assert estimate.high is not None
            assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
