"""Drift between runs: planted drift is marked, chance is not."""

from __future__ import annotations

import random

import pytest
from drift_trial import SCHEMA, run_of

from pipeline.values.drift import LEVEL, difference_p, drift
from pipeline.values.profiling import ProfileBuilder
from pipeline.values.value_profile import EMPTY, merged


def test_shift_to_usd_is_marked_first() -> None:
    """Other fields are not marked."""
    rng = random.Random(7)
    report = drift(run_of(rng, 400, drifts_from=200), run_of(rng, 400))
    assert (report.moves[0].field, report.moves[0].value) == ("currency", '"USD"')
    assert 0.65 < report.moves[0].share < 0.85 and report.moves[0].share_before < 0.6
    assert {move.field for move in report.moves} == {"currency"}


def test_runs_without_drift_are_rarely_marked() -> None:
    """Fewer than one in fifty of 250 pairs are (`scripts/drift_trial.py` simulates 1,000)."""
    rng = random.Random(11)
    marked = sum(bool(drift(run_of(rng, 30), run_of(rng, rng.choice([20, 60, 150]))).moves) for _ in range(250))
    assert marked < 5


def test_drop_in_filled_share_is_marked() -> None:
    """The share of filled documents is compared as well."""
    full, empty = ProfileBuilder(SCHEMA, random=random.random), ProfileBuilder(SCHEMA, random=random.random)
    for _ in range(50):
        full.add({"supplier": "Acme"}, variant="v", fingerprint="f")
        empty.add({"supplier": None}, variant="v", fingerprint="f")
    report = drift(*(merged(builder.profiles().values()) for builder in (empty, full)))
    assert report.moves[0].is_filled and (report.moves[0].share, report.moves[0].share_before) == (0, 1)


def test_small_significant_move_is_not_marked() -> None:
    """One percentage point of 100,000 documents is significant but irrelevant."""
    profiles = []
    for true in (51_000, 50_000):
        builder = ProfileBuilder(SCHEMA, random=random.random)
        for number in range(100_000):
            builder.add({"paid": number < true}, variant="v", fingerprint="f")
        profiles.append(merged(builder.profiles().values()))
    assert difference_p(51_000, 100_000, 50_000, 100_000) < LEVEL / 100
    assert drift(*profiles).moves == ()


def test_too_few_documents_are_not_compared() -> None:
    """Nine documents or none are too few."""
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
def test_fisher_test_has_textbook_values(counts: tuple[int, int, int, int], p: float) -> None:
    """The tables are small and the test is two-sided."""
    assert difference_p(*counts) == pytest.approx(p, rel=0.02)


def test_exact_and_approximate_test_agree_at_their_border() -> None:
    """At an expected count of 40 the p-values differ by less than a factor of five."""
    exact, approximate = difference_p(25, 200, 54, 200), difference_p(27, 200, 56, 200)
    assert 0.2 < approximate / exact < 5
