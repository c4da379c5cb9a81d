"""The prompt of an output's newest run, to distinguish its records from those of an earlier prompt, schema or model.

It reads only the summaries and records of runs, so the result does not depend on the reader's configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pipeline.errors import EXIT_CONFIG
from pipeline.output.backend import ReadableOutput
from pipeline.output.index import Index
from pipeline.output.run_index import RunIndex
from pipeline.shards import WHOLE

FINGERPRINTS = "fingerprints"
"""The key in the configuration of a run's summary that holds the fingerprint of each variant."""

Prompt = Literal["current", "earlier"]

_OF_RUN = "SELECT variant, fingerprint FROM {} WHERE run = ? GROUP BY 1, 2"


@dataclass(frozen=True, slots=True)
class NewestPrompt:
    """The fingerprints of the newest run by variant; none for an output whose runs did not record them.

    `present`: former fingerprints of records → the equal one of the newest run.
    """

    fingerprints: Mapping[str, frozenset[str]] = field(default_factory=dict)
    present: Mapping[str, str] = field(default_factory=dict)

    def of(self, variant: str, fingerprint: str) -> Prompt:
        """Return whether a record is of the newest run's prompt, schema and model, or of earlier ones."""
        now = self.fingerprints.get(variant, frozenset())
        return "earlier" if self.fingerprints and not now & {fingerprint, self.present.get(fingerprint)} else "current"


def newest_prompt(backend: ReadableOutput, index: Index) -> NewestPrompt:
    """Return the prompt of the newest run from its summary, or without a summary from its records."""
    # a run that was refused for its settings, as for a misspelt model, has no prompt that counts
    runs = [run for run in RunIndex(backend, WHOLE).recent() if run.get("exit_code") != EXIT_CONFIG]
    newest = runs[-1] if runs else {}
    recorded = newest.get("config", {}).get(FINGERPRINTS, {})
    fingerprints = {variant: frozenset([fingerprint]) for variant, fingerprint in recorded.items()}
    if newest.get("run", 0) < index.highest_run:
        fingerprints |= _of_records(index)
    return NewestPrompt(fingerprints, newest.get("former_fingerprints", {}))


def _of_records(index: Index) -> dict[str, frozenset[str]]:
    """Return the fingerprints of the records of the newest run, which is in progress or was killed, by variant."""
    by_variant: dict[str, set[str]] = {}
    for table in ("results", "errors"):
        for variant, fingerprint in index.rows(_OF_RUN.format(table), index.highest_run):
            by_variant.setdefault(index.fingerprint_of(variant), set()).add(index.fingerprint_of(fingerprint))
    return {variant: frozenset(fingerprints) for variant, fingerprints in by_variant.items()}
