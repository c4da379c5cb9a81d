"""Evaluate outputs against a gold file: read, grade, compare, judge the gates.

It must not call a model or print anything.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import EXIT_FAILURES, EXIT_OK, ConfigError
from pipeline.output.backend import ReadableOutput
from pipeline.output.runs import read_runs
from pipeline.report import plain
from pipeline.report.numbers import RunNumbers
from pipeline.report.numbers_text import documents_per_second
from pipeline.terminal import plural
from pipeline.truth.comparators import canonical_json
from pipeline.truth.eval_json import Openings, evaluation_json, gold_json, output_json
from pipeline.truth.evaluation import (
    OVERALL,
    OutputDifference,
    OutputResult,
    difference,
    output_result,
    people_agreement,
)
from pipeline.truth.gates import Gate, GateResult, completeness_gate, judge_drop, judge_gate, parse_gate
from pipeline.truth.gold import Gold, read_gold
from pipeline.truth.graded_fields import ObjectField, every_field, graded_fields, leaves
from pipeline.truth.graded_output import ABSENT, CHANGED, GradedOutput, grade_output, read_last_records
from pipeline.truth.intervals import METRICS

HOLDOUT = "holdout"
_GROUP_KEYS = {"variant": lambda record: record.variant, "model": lambda record: record.model}


@dataclass(frozen=True, slots=True)
class EvalOptions:
    """Scope and limits of an evaluation. `agent` and `schema`: None for those of the newest run.

    `gates` are texts FIELD.METRIC=NUMBER; `gates_key` is the flag or setting they come from, for messages.
    """

    gold: Path
    part: str = "dev"
    fields: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    min_documents: int = 30
    gates: Sequence[str] = ()
    gates_key: str = "--fail-under"
    baseline: Path | None = None
    max_drop: float | None = None
    by: Literal["variant", "model"] | None = None
    cost_per_hour: float | None = None
    agent: str | None = None
    schema: Mapping[str, Any] | None = None

    @property
    def is_gated(self) -> bool:
        """True when the evaluation can fail: there are gates, or a limit for the drop of a metric."""
        return bool(self.gates) or self.max_drop is not None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The results of an evaluation, and the content of eval.json."""

    results: Sequence[OutputResult]
    differences: Sequence[OutputDifference]
    gates: Sequence[GateResult]
    content: Mapping[str, Any]

    @property
    def exit_code(self) -> int:
        """0, or 1 when a gate failed or cannot be judged."""
        return EXIT_OK if all(gate.passed for gate in self.gates) else EXIT_FAILURES


def evaluate(outputs: Sequence[tuple[str, ReadableOutput]], options: EvalOptions, *, now: str) -> Evaluation:
    """Grade outputs against the first one as the reference; ConfigError when gold, fields or gates do not fit them."""
    runs = read_runs(outputs[0][1])
    if options.schema is None:
        agent, schema = question_of(runs, outputs[0][0])
        options = replace(options, agent=agent, schema=schema)
    gold, fields, gates = read_judgements(options)
    graded = [_graded(name, backend, gold, fields, options) for name, backend in outputs]
    outputs_shown = graded if options.by is None else graded[0].parts(_GROUP_KEYS[options.by])
    results = [output_result(output, fields) for output in outputs_shown]
    differences = [] if options.by else _differences(results, gates, min_documents=options.min_documents)
    # gates judge the whole output, also when it is shown by variant or model
    verdicts = _judge(output_result(graded[0], fields) if options.by else results[0], gates, graded[0], options)
    content = evaluation_json(
        gold=gold_json(gold, graded[0], part=options.part),
        outputs=[
            output_json(result, min_documents=options.min_documents, per_1000=_per_1000(runs, options))
            for result in results
        ],
        differences=differences,
        gates=verdicts,
        people=people_agreement(gold, fields),
        openings=read_openings(options.gold),
        at=now,
    )
    return Evaluation(results, differences, verdicts, content)


def read_judgements(options: EvalOptions) -> tuple[Gold, ObjectField, list[Gate]]:
    """Return the gold, the fields and the gates; ConfigError for a field or gate that does not fit the schema."""
    schema = options.schema or {}
    fields = graded_fields(schema, options.fields)
    if all(leaf.comparator is None for leaf in leaves(fields)):
        paths = [leaf.path for leaf in leaves(fields)]
        names = ", ".join(paths) or "the schema has none"
        need = f"name a comparison, as in eval: {{fields: {{{paths[0] if paths else 'summary'}: {{compare: text}}}}}}"
        raise ConfigError(f"eval.fields: no field is graded, as quotes and long texts are off ({names}); {need}")
    field_paths = [field.path for field in every_field(fields) if field.path]
    gates = [parse_gate(text, fields=field_paths, key=options.gates_key) for text in options.gates]
    return read_gold(options.gold, schema, agent=options.agent), fields, gates


def read_openings(gold: Path) -> Openings:
    """Return how often the holdout of a gold file was graded, and with how many different prompts and schemas."""
    try:
        lines = _opening_log(gold).read_bytes().splitlines()
    except OSError:
        return Openings()
    questions = {canonical_json(_fingerprints(line)) for line in lines}
    return Openings(len(lines), len(questions))


def _fingerprints(line: bytes) -> Any:
    """Return the fingerprints in a line of GOLD.opened; None for a broken line."""
    try:
        return json.loads(line).get("fingerprints")
    except (ValueError, AttributeError, RecursionError):
        return None


def note_opening(gold: Path, evaluation: Evaluation, *, by: str) -> None:
    """Append a line to GOLD.opened that names who graded the holdout; ConfigError when it cannot be written."""
    first = evaluation.content["outputs"][0]
    line = {
        "at": evaluation.content["at"],
        "by": by,
        "fingerprints": first["fingerprints"],
        "overall_f1": first["overall"]["f1"]["value"],
    }
    try:
        with _opening_log(gold).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    except OSError as exc:
        raise ConfigError(
            f"{_opening_log(gold)} cannot be written: {exc.strerror or exc}; it counts the looks"
        ) from exc


def _opening_log(gold: Path) -> Path:
    return gold.with_name(f"{gold.name}.opened")


def question_of(runs: Sequence[Mapping[str, Any]], output: str) -> tuple[str | None, Mapping[str, Any]]:
    """Return the agent and the schema of the newest run."""
    for run in reversed(runs):
        for question in run.get("config", {}).get("question", {}).values():
            if isinstance(question.get("schema"), dict):
                return question.get("agent"), question["schema"]
    raise ConfigError(f"{output}: holds no completed run, need the output of a run")


def _graded(name: str, backend: ReadableOutput, gold: Gold, fields: ObjectField, options: EvalOptions) -> GradedOutput:
    """Grade one output; ConfigError when it has no gold document."""
    ids = {id for id, _ in gold.documents}
    output = grade_output(name, read_last_records(backend, ids), gold, fields, part=options.part)
    if not output.documents:
        raise ConfigError(without_documents(gold, options.part))
    if not any(document.is_graded for document in output.documents):
        counts = f"{output.count(CHANGED)} changed, {output.count(ABSENT)} absent"
        number = len(output.documents)
        raise ConfigError(f"--gold: none of its {number} documents is in {name} with the same bytes ({counts})")
    return output


def without_documents(gold: Gold, part: str) -> str:
    """Return an error message for a gold file that judges no document of a set, with the remedy."""
    if not gold.documents:
        return f"--gold: {gold.path} has no line yet; docs/truth.md says how to write one"
    (name, number), *_ = Counter(document.set for document in gold.documents.values()).most_common()
    count_text = f"0 of {plural(len(gold.documents), 'document')} in the set {part!r}"
    return f"--gold: {gold.path}: {count_text}; {number} in {name!r}: use --set {name}"


def _differences(
    results: Sequence[OutputResult], gates: Sequence[Gate], *, min_documents: int
) -> list[OutputDifference]:
    gated = [(gate.field, gate.metric) for gate in gates if gate.metric in METRICS]
    compared = dict.fromkeys([(OVERALL, "f1"), *gated])
    return [
        difference(results[0], output, field=field_name, metric=metric, min_documents=min_documents)
        for output in results[1:]
        for field_name, metric in compared
    ]


def _judge(result: OutputResult, gates: Sequence[Gate], graded: GradedOutput, options: EvalOptions) -> list[GateResult]:
    verdicts = [judge_gate(gate, result, min_documents=options.min_documents) for gate in gates]
    if options.baseline is not None and options.max_drop is not None:
        verdicts += judge_drop(
            result,
            _read_json(options.baseline),
            max_drop=options.max_drop,
            gates=gates,
            min_documents=options.min_documents,
        )
    missing_count = graded.count(ABSENT) + graded.count(CHANGED)
    lacking = completeness_gate(graded=len(graded.documents) - missing_count, missing=missing_count)
    return [*verdicts, lacking] if verdicts and lacking is not None else verdicts


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as exc:
        raise ConfigError(f"--baseline: {path} cannot be read as an eval.json: {exc}") from exc
    if not isinstance(value, dict):
        raise ConfigError(f"--baseline: {path} is not an eval.json")
    return value


def _per_1000(runs: Sequence[Mapping[str, Any]], options: EvalOptions) -> float | None:
    """Return the cost of 1,000 documents at the rate of the newest run with requests; None without `cost.per_hour`."""
    if options.cost_per_hour is None:
        return None
    for run in reversed(runs):
        rate = documents_per_second(plain.from_json(RunNumbers, run.get("stats")))
        if rate:
            return round(options.cost_per_hour / (rate * 3600) * 1000, 4)
    return None
