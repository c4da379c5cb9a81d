"""Detection of a resumed run: a server that refuses it is then waited for, as in the middle of a run.

A pod that is replaced while a key is being rotated must not end a backfill with exit code 2, which is not retried. A
first start must end with 2, so that a wrong key is reported within seconds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pipeline.config import AppConfig
from pipeline.output import Output
from pipeline.run.plan import ExtractionPlan
from pipeline.run.selection.redoing import questions


def has_records(output: Output, app: AppConfig, plan: ExtractionPlan) -> bool:
    """Return True when this output has records of the current query, in this shard's lines or in a run of any shard."""
    fingerprints = set(plan.fingerprints)
    if any(map(output.index.knows_question, fingerprints)) or fingerprints & output.run_index.answered():
        return True
    current_queries = json.loads(json.dumps(questions(app, plan)))
    return any(_has_records_of(run, current_queries) for run in reversed(output.run_index.recent()))


def _has_records_of(run: Mapping[str, Any], current_queries: Mapping[str, Any]) -> bool:
    """Return True when a run has records of one of these queries."""
    counts = run.get("counts", {})
    stored_queries = run.get("config", {}).get("question", {})
    has_any = bool(counts.get("done") or counts.get("failed"))
    return has_any and any(stored_queries.get(variant) == question for variant, question in current_queries.items())
