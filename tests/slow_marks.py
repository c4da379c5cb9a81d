"""Marks for long parametrized tests: which cases `make test` runs, and which only `make test-long`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def mostly_slow(values: Iterable[Any]) -> list[Any]:
    """Return the first value as it is, and each other one with the mark `slow`."""
    first, *others = values
    return [first, *(pytest.param(value, marks=pytest.mark.slow) for value in others)]
