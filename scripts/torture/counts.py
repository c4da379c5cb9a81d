"""The counts of a campaign: runs, kills, trouble and findings."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from torture.check import Findings
from torture.server import Trouble


@dataclass(slots=True)
class RunCounts:
    """Counts and findings of a campaign."""

    runs: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    happened: Counter[str] = field(default_factory=Counter)
    findings: Findings = field(default_factory=Findings)


class CountedTrouble:
    """Trouble whose counts are added to the campaign's when it ends."""

    def __init__(self, trouble: Trouble, counts: RunCounts) -> None:
        self._trouble = trouble
        self._counts = counts

    def __enter__(self) -> Counter[str]:
        return self._trouble.__enter__().happened

    def __exit__(self, *_: object) -> None:
        self._trouble.__exit__()
        self._counts.happened += self._trouble.happened
