"""The output of `pipeline check`: whether a run may use it, and the documents that a run would extract again.

It writes nothing. The records are read only where an earlier run had another question.
"""

from __future__ import annotations

from contextlib import closing

from pipeline.config import AppConfig
from pipeline.output import RunIndex, backend_of, check_agent
from pipeline.run.plan import ExtractionPlan
from pipeline.run.selection.prompt_change import NO_CHANGE, PromptChange, check_redo, prompt_change
from pipeline.run.selection.redoing import equate_former
from pipeline.run.selection.selection import SelectionRules
from pipeline.shards import WHOLE


def survey_output(app: AppConfig, plan: ExtractionPlan) -> PromptChange:
    """Return the done documents that a run would extract again.

    ConfigError for what a run would refuse: an output of another agent, more changed documents than `runner.max_redo`
    allows. OutputError when the output cannot be read.
    """
    backend = backend_of(app.output)
    runs = RunIndex(backend, WHOLE)
    check_agent(backend.where, {run["agent"] for run in runs.recent()[-1:] if "agent" in run}, plan.agent.name)
    if len(plan.queries) == 1 and runs.answered() <= plan.fingerprints:
        return NO_CHANGE
    with closing(backend.read()) as index:
        equate_former(app, plan, index=index, backend=backend, runs=runs)
        change = prompt_change(app, plan, index=index, runs=runs)
    check_redo(change, app, rules=SelectionRules(run_id=""))
    return change
