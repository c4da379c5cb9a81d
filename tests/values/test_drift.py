"""A planted drift is marked; chance is not."""

from __future__ import annotations

import random

import pytest
from drift_trial import SCHEMA, run_of

from pipeline.values.drift import LEVEL, difference_p, drift
from pipeline.values.profiling import ProfileBuilder
from pipeline.values.value_profile import EMPTY, merged


def test_a_model_that_says_usd_from_the_middle_on_is_marked() -> None:
    """The share of USD, before all others; other fields are not marked."""
    rng = random.Random(7)
    found = drift(run_of(rng, 400, drifts_from=200), run_of(rng, 400))
    assert (found.moves[0].field, found.moves[0].value) == ("currency", '"USD"')
    assert 0.65 < found.moves[0].share < 0.85 and found.moves[0].share_before < 0.6
    assert {move.field for move in found.moves} == {"currency"}


def test_runs_without_drift_are_hardly_ever_marked() -> None:
    """Of 250 pairs fewer than one in fifty, with few and many documents (`scripts/drift_trial.py` simulates 1,000)."""
    rng = random.Random(11)
    marked = sum(bool(drift(run_of(rng, 30), run_of(rng, rng.choice([20, 60, 150]))).moves) for _ in range(250))
    assert marked < 5


def test_a_field_that_is_no_longer_filled_is_marked() -> None:
    """The share of filled documents is one of those compared."""
    full, empty = ProfileBuilder(SCHEMA, random=random.random), ProfileBuilder(SCHEMA, random=random.random)
    for _ in range(50):
        full.add({"supplier": "Acme"}, variant="v", fingerprint="f")
        empty.add({"supplier": None}, variant="v", fingerprint="f")
    found = drift(*(merged(each.profiles().values()) for each in (empty, full)))
    assert found.moves[0].is_filled and (found.moves[0].share, found.moves[0].share_before) == (0, 1)


def test_a_small_move_is_not_marked() -> None:
    """One point of a hundred thousand documents is sure, and does not matter."""
    profiles = []
    for true in (51_000, 50_000):
        builder = ProfileBuilder(SCHEMA, random=random.random)
        for number in range(100_000):
            builder.add({"paid": number < true}, variant="v", fingerprint="f")
        profiles.append(merged(builder.profiles().values()))
    assert difference_p(51_000, 100_000, 50_000, 100_000) < LEVEL / 100
    assert drift(*profiles).moves == ()


def test_too_few_documents_are_not_compared() -> None:
    """Nine, or none."""
    rng = random.Random(1)
    assert drift(run_of(rng, 9), run_of(rng, 500)).compared == 0
    assert drift(run_of(rng, 50), EMPTY).compared == 0


@pytest.mark.parametrize(
    ("counts", "p"),
    [
        ((1, 10, 11, 14), 0.00276),
        ((0, 10, 0, 10), 1.0),
        ((5, 10, 5, 10), 1.0),
        ((8, 10, 1, 6), 0.03497),
    ],
)
def test_the_exact_test_has_the_textbook_values(counts: tuple[int, int, int, int], p: float) -> None:
    """Fisher's two-sided test of small tables."""
    assert difference_p(*counts) == pytest.approx(p, rel=0.02)


def test_both_tests_agree_where_they_meet() -> None:
    """At an expected count of 40 the two p-values differ by a third at most."""
    exact, approximate = difference_p(25, 200, 54, 200), difference_p(27, 200, 56, 200)
    assert 0.2 < approximate / exact < 5
