"""The formulas of scripts/bench_scale.py reproduce the measured numbers for the measured size."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from fleet_laws import Fleet, Law, pages
from fleet_site import Cost, _kind

COST = Cost(
    Counter({"LIST in": 2, "GET in": 1, "LIST results": 1, "LIST errors": 1, "PUT results": 1, "PUT manifests": 1})
    + Counter({"LIST .runs": 5, "PUT runs": 1, "GET accepted.jsonl": 1}),
    *(0, 0.0, 0, 0.0, math.nan, math.nan, 0),
)


def test_formula_reproduces_the_measurement() -> None:
    """With one file and one part it gives the requests of that run."""
    fleet = Fleet(1000, 1)
    assert (fleet.files, fleet.parts) == (1, 1)
    counts = Law.of(COST).requests(fleet, reads_all=True, own_files=1)
    assert counts == {"LIST": 9, "GET": 2, "PUT": 3}


def test_requests_grow_with_files_and_parts() -> None:
    """Every shard lists every file, and the parts of all shards."""
    fleet = Fleet(100_000_000, 1000)
    counts = Law.of(COST).requests(fleet, reads_all=True, own_files=10)
    assert counts["GET"] == fleet.files + 1 == 10_001
    assert counts["LIST"] == 5 + 2 * pages(fleet.files) + 2 * pages(fleet.parts)
    assert Law.of(COST).requests(fleet, reads_all=False, own_files=10)["GET"] == 11


@pytest.mark.parametrize(
    ("method", "target", "kind"),
    [
        ("GET", "/tests?list-type=2&prefix=scale%2Fone%2Fin%2F", "LIST in"),
        ("GET", "/tests/scale/one/in/00001.jsonl", "GET in"),
        ("PUT", "/tests/scale/one/out/results/000001-000000.jsonl", "PUT results"),
        ("GET", "/tests?list-type=2&prefix=scale%2Fone%2Fout%2F.runs%2F", "LIST .runs"),
        ("PUT", "/tests/scale/one/out/report.json", "PUT report"),
    ],
)
def test_requests_are_counted_by_category(method: str, target: str, kind: str) -> None:
    """These are the input, the kinds of output files, and listings by prefix."""
    assert _kind(method, target) == kind
