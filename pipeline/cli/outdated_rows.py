"""The count of outdated rows in `pipeline results`: stale rows, and rows of an earlier prompt.

It must not omit a row: --current and --where do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from pipeline.report.rows import PROMPT, STATUS, Row
from pipeline.terminal import grouped, plural


class OutdatedRows:
    """The numbers of written rows: all, the `stale` ones, and those of an `earlier` prompt."""

    def __init__(self) -> None:
        self.rows = 0
        self.stale = 0
        self.earlier = 0

    def count(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Yield the rows, and count them."""
        for row in rows:
            self.rows += 1
            self.stale += row.record.status == "stale"
            self.earlier += row.record.prompt == "earlier"
            yield row

    def lines(self, conditions: Collection[str]) -> Iterator[str]:
        """Yield a line for each kind of outdated rows, except the kinds that a condition on these columns selects."""
        stale = ("is stale: its document", "are stale: their documents")
        earlier = ("is", "are")
        kinds = (
            (STATUS, "stale", self.stale, stale, "failed in a later run"),
            (
                PROMPT,
                "earlier",
                self.earlier,
                earlier,
                "of an earlier prompt, schema or model than that of the last run",
            ),
        )
        for column, value, number, (singular, plural_word), sentence in kinds:
            if number and column not in conditions:
                advice = f"--where '{column} = {value}' shows only these, --current leaves them out"
                rows = f"{grouped(number)} of {plural(self.rows, 'row')} {singular if number == 1 else plural_word}"
                yield f"{rows} {sentence} ({advice})"
