"""The done documents whose results are of another question than the present one, and the limit for redoing them.

It reads the index and the summaries of earlier runs. The choice for each document is made in selection.py.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.agents.fingerprints import in_present_form
from pipeline.config import AppConfig
from pipeline.config.loading import describe
from pipeline.errors import ConfigError
from pipeline.output import Index, RunIndex
from pipeline.run.plan import ExtractionPlan
from pipeline.run.selection.redoing import questions
from pipeline.run.selection.selection import SelectionRules
from pipeline.terminal import plural

logger = logging.getLogger(__name__)

_ADVICE = "To see how many: --dry-run; to keep the earlier results: --redo none; to set a limit: runner.max_redo"


@dataclass(frozen=True, slots=True)
class PromptChange:
    """The number of `done` documents in an output, and how many of their results are of another question (`changed`).

    `parts`: the parts of the question that differ from those of an earlier run; empty where none is known.
    """

    changed: int = 0
    done: int = 0
    parts: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the beginning of a sentence: the number of documents extracted before a change, and the change."""
        parts = ", ".join(self.parts) or "the agent or its settings"
        were = "was" if self.changed == 1 else "were"
        return f"{self.changed:,} of {plural(self.done, 'done document')} {were} extracted before a change of {parts}"


NO_CHANGE = PromptChange()


def prompt_change(app: AppConfig, plan: ExtractionPlan, *, index: Index, runs: RunIndex) -> PromptChange:
    """Return how many results are of another question; call `equate_former` for the index before.

    After a whole run with the present question, the others are results of documents that the input no longer has.
    With several variants each document is looked up, because a change of weights moves only some of them.
    """
    recent = runs.recent()
    if len(plan.queries) > 1:
        total = changed = 0
        for total, (document_id, fingerprint) in enumerate(index.done(), start=1):  # noqa: B007
            changed += plan.query_for(document_id).present(fingerprint, failed=False) != fingerprint
    elif recent and _was_applied(app, plan, recent[-1]):
        return NO_CHANGE
    else:
        total, changed = _of_one_variant(plan, index)
    return PromptChange(changed, total, _changes(app, plan, recent)) if changed else NO_CHANGE


def _was_applied(app: AppConfig, plan: ExtractionPlan, run: Mapping[str, Any]) -> bool:
    """Return whether a run extracted every document of the present input with the present question."""
    if not run.get("all_current") or run["shard"] is not None or not run["config"].get("question"):
        return False
    same_input = run["config"].get("input") == json.loads(json.dumps(describe(app)["input"]))
    return same_input and not _changes(app, plan, [run])


def _of_one_variant(plan: ExtractionPlan, index: Index) -> tuple[int, int]:
    """Return the number of done documents, and of those with another question; (0, 0) for no other question."""
    query = next(iter(plan.queries.values()))
    if not index.other_fingerprints(query.result_fingerprints):
        return 0, 0
    counts = [item for row in index.questions().values() for item in row.items()]
    changed = sum(count for fingerprint, count in counts if query.present(fingerprint, failed=False) != fingerprint)
    return sum(count for _, count in counts), changed


def check_redo(change: PromptChange, app: AppConfig, *, rules: SelectionRules) -> None:
    """Raise ConfigError when more documents would be redone than `runner.max_redo` allows."""
    max_redo = app.runner.max_redo
    if max_redo is None or not change.changed or rules.redo is not None or rules.only_failed is not None:
        return
    if change.changed / change.done > max_redo:
        allows = "--redo changed extracts them again, --redo none keeps their results"
        raise ConfigError(f"runner.max_redo: got {max_redo:g}, but {change}; {allows}")


def log_change(change: PromptChange, rules: SelectionRules, *, limited: bool) -> None:
    """Log how many documents this run extracts again because of their question; `limited`: it may try only some."""
    if not change.changed or rules.redo == "all" or rules.only_failed is not None:
        return
    if rules.redo == "none":
        logger.warning("%s; --redo none keeps their results", change)
    elif limited or rules.ids is not None or rules.sample_threshold is not None:
        logger.warning("%s; those that this run selects will be extracted again", change)
    elif rules.redo is not None:
        logger.warning("%s; those that are still in the input will be extracted again", change)
    else:
        logger.warning("%s; those that are still in the input will be extracted again. %s", change, _ADVICE)


def _changes(app: AppConfig, plan: ExtractionPlan, runs: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the parts of the question that differ from those of the last run with another question."""
    now = questions(app, plan)
    for run in reversed(list(runs)):
        stored_questions = run.get("config", {}).get("question", {})
        before = {name: in_present_form(question) for name, question in stored_questions.items()}
        if parts := {part for name, own in now.items() for part in _differing(before.get(name), own)} if before else ():
            return tuple(sorted(parts))
    return ()


def _differing(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> set[str]:
    """Return the parts in which a variant's question differs; the variant itself when it was not used before."""
    if before is None:
        return {"variant"}
    return {key for key in before.keys() | now.keys() if before.get(key) != now.get(key)}
