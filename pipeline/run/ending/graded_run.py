"""Grades of the whole output at the end of a run, when `eval.gold` is set: gates can then fail a nightly run.

It must not stop a run at its end: unsuitable gold is refused before the first document is read.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import AppConfig
from pipeline.config.models import EvalConfig
from pipeline.errors import EXIT_FAILURES, ConfigError
from pipeline.output import Output
from pipeline.output.compaction import EVAL_NAME
from pipeline.records import utc_now
from pipeline.run.plan import ExtractionPlan
from pipeline.shards import Shard

if TYPE_CHECKING:
    from pipeline.truth.evaluate import EvalOptions, Evaluation

VERDICT = "ANSWERS BELOW THE GATE"
_log = logging.getLogger(__name__)


class UngradedError(Exception):
    """The output has no document of the gold with the judged bytes; the message names the states of the documents."""


def options_of(config: EvalConfig, *, cost_per_hour: float | None) -> EvalOptions | None:
    """Return the settings for grading; None without `eval.gold`. ConfigError for half a baseline."""
    if config.gold is None:
        return None
    from pipeline.truth.evaluate import EvalOptions  # slow to import, and most runs grade nothing

    if (config.baseline is None) is not (config.max_drop is None):
        missing = "eval.max_drop (--max-drop)" if config.max_drop is None else "eval.baseline (--baseline)"
        raise ConfigError(f"{missing}: is not set, need both a baseline and the most that a metric may drop")
    return EvalOptions(
        gold=Path(config.gold),
        part=config.set,
        fields=config.fields,
        min_documents=config.min_documents,
        gates=[f"{name}={least:g}" for name, least in config.fail_under.items()],
        gates_key="eval.fail_under",
        baseline=None if config.baseline is None else Path(config.baseline),
        max_drop=config.max_drop,
        cost_per_hour=cost_per_hour,
    )


def check_gold(app: AppConfig, plan: ExtractionPlan) -> EvalOptions | None:
    """Return the settings for grading at the end; ConfigError for gold, fields or gates that do not fit the agent."""
    options = options_of(app.eval, cost_per_hour=app.cost.per_hour)
    if options is None:
        return None
    if options.part != "dev":
        raise ConfigError("eval.set: got 'holdout', which each run would open, need dev (pipeline eval --set holdout)")
    from pipeline.truth.evaluate import read_judgements, without_documents

    options = replace(options, agent=plan.agent.name, schema=plan.agent.schema)
    gold, _, _ = read_judgements(options)
    if options.is_gated and not any(document.set == options.part for document in gold.documents.values()):
        raise ConfigError(without_documents(gold, options.part))
    return options


def grade_run(output: Output, options: EvalOptions) -> Evaluation | None:
    """Grade the output and write eval.json; None when a shard is missing, UngradedError without a judged document."""
    if missing_shards(output):
        _log.info("The last shard to end grades the answers")
        return None
    from pipeline.truth.evaluate import evaluate

    try:
        evaluation = evaluate([(output.where, output.backend)], options, now=utc_now())
    except ConfigError as error:
        raise UngradedError(str(error)) from error
    content = json.dumps(evaluation.content, ensure_ascii=False, indent=1)
    output.backend.replace(EVAL_NAME, content.encode("utf-8", "backslashreplace") + b"\n")
    return evaluation


def missing_shards(output: Output) -> list[int]:
    """Return the shards of this count that have not finished a run yet; the present one has."""
    if output.stamp.shard is None:
        return []
    output.run_index.refresh()
    finished = {*output.run_index.finished_shards(), output.shard}
    return [number for number in range(output.shard.siblings) if Shard(number, output.shard.count) not in finished]


def failed_gates(evaluation: Evaluation) -> tuple[int, str, str]:
    """Return exit code, message and verdict of a run whose gates failed."""
    messages = "; ".join(gate.told for gate in evaluation.gates if not gate.passed)
    return EXIT_FAILURES, f"answers below the gate: {messages}", VERDICT


def unevaluated_gates(error: UngradedError) -> tuple[int, str, str]:
    """Return exit code, message and verdict of a run whose gates could not be evaluated and so must not pass."""
    return EXIT_FAILURES, f"answers below the gate: no gate could be evaluated: {error}", VERDICT


def run_content(evaluation: Evaluation) -> Mapping[str, Any]:
    """Return the evaluation for runs/RUN_ID.json and the report: without the counts of each document."""
    outputs = [
        {name: value for name, value in output.items() if name != "documents"}
        for output in evaluation.content["outputs"]
    ]
    return {**evaluation.content, "outputs": outputs}
