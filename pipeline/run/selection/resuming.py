"""Whether a start goes on from an earlier run: then a server that refuses it is waited for, as in mid-run.

A pod that is replaced while a key is being rotated must not end a backfill with 2, which nobody tries again; a first
start must, so that a wrong key is known within seconds.
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
    """True when this output holds records of the current question: lines of our own, or a run of any shard."""
    fingerprints = set(plan.fingerprints)
    if any(map(output.index.knows_question, fingerprints)) or fingerprints & output.run_index.answered():
        return True
    now = json.loads(json.dumps(questions(app, plan)))
    return any(_asked(run, now) for run in reversed(output.run_index.recent()))


def _asked(run: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """True when a run has records of one of these questions."""
    counts = run.get("counts", {})
    before = run.get("config", {}).get("question", {})
    has_any = bool(counts.get("done") or counts.get("failed"))
    return has_any and any(before.get(variant) == question for variant, question in now.items())
