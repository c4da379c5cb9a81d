"""`pipeline eval [OUT …] --gold FILE`: grade answers against human judgements.

It calls a model only with --ask, which asks for the documents of the gold again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import replace

from pipeline.cli.arguments import load_app, output_config, user_name
from pipeline.cli.flags import add_storage_flags
from pipeline.config import AppConfig
from pipeline.errors import EXIT_FAILURES, EXIT_OK, ConfigError
from pipeline.output import backend_of
from pipeline.output.compaction import EVAL_NAME
from pipeline.records import utc_now
from pipeline.run.ending.graded_run import options_of
from pipeline.terminal import wants_colour, width_of, write_out
from pipeline.truth.eval_json import without_documents
from pipeline.truth.eval_text import evaluation_text
from pipeline.truth.evaluate import HOLDOUT, EvalOptions, Evaluation, evaluate, note_opening

EXAMPLES = """examples:
  pipeline eval out --gold gold.jsonl
  pipeline eval out out/trial --gold gold.jsonl
  pipeline eval --fail-under overall.f1=0.8 --baseline kept/eval.json --max-drop 0.02
  pipeline eval --ask --config config/prod.yaml --quiet"""


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the flags of this command."""
    command.add_argument(
        "outputs",
        metavar="OUT",
        nargs="*",
        help="outputs to grade, the first is the reference; default: output.uri of the configuration",
    )
    add = command.add_argument
    add("--gold", metavar="FILE", help="the judged documents, a JSON object a line; default: eval.gold")
    add(
        "--set",
        metavar="NAME|KEY=VALUE",
        action="append",
        default=[],
        help="dev or holdout, the part to grade; or any setting by its dotted key; repeatable",
    )
    add("--by", choices=("variant", "model"), help="one row for each variant or model of an output")
    add(
        "--fail-under",
        metavar="FIELD.METRIC=N",
        action="append",
        default=[],
        help="exit 1 unless the lower bound reaches N; FIELD.METRIC:point=N compares the value; repeatable",
    )
    add("--baseline", metavar="FILE", help="an earlier eval.json, to compare with")
    drop = "exit 1 when F1 or a gated metric fell by N or more and the whole interval of the change is below 0"
    add("--max-drop", metavar="N", type=_share, help=drop)
    add("--ask", action="store_true", help="first ask for the documents of eval.input again, into eval.output")
    add("--json", action="store_true", help="print eval.json, for programs")
    add("--no-write", action="store_true", help="write no eval.json")
    add("--quiet", action="store_true", help="print nothing on exit 0 (for cron mail)")
    add_storage_flags(command, settings=False)


def main(arguments: argparse.Namespace, *, environ: Mapping[str, str]) -> int:
    """Print the grades; return 0, or 1 when a gate failed. ConfigError for gold or gates that do not fit."""
    parts = [text for text in arguments.set if "=" not in text]
    arguments.set = [text for text in arguments.set if "=" in text]
    app = load_app(arguments, environ=environ)
    options = _options(arguments, app, part=parts[-1] if parts else app.eval.set)
    outputs = list(arguments.outputs) or [app.output.uri]
    code = EXIT_OK
    if arguments.ask:
        code = _ask(arguments, app, environ=environ)
        if code not in (EXIT_OK, EXIT_FAILURES):
            return code
        outputs = [asked_output(app)]
    if options.by and len(outputs) > 1:
        raise ConfigError(f"--by: got {len(outputs)} outputs, need one")
    backends = [backend_of(output_config(arguments, environ=environ, uri=uri)) for uri in outputs]
    evaluation = evaluate(list(zip(outputs, backends, strict=True)), options, now=utc_now())
    if options.part == HOLDOUT:
        note_opening(options.gold, evaluation, by=user_name())
    elif not arguments.no_write:
        content = json.dumps(evaluation.content, ensure_ascii=False, indent=1)
        backends[0].replace(EVAL_NAME, content.encode("utf-8", "backslashreplace") + b"\n")
    if not (arguments.quiet and evaluation.exit_code == EXIT_OK):
        _print(evaluation, arguments, environ=environ)
    return max(code, evaluation.exit_code)


def asked_output(app: AppConfig) -> str:
    """Return the output of `pipeline eval --ask`."""
    return app.eval.output or f"{app.output.uri.rstrip('/')}-eval"


def _options(arguments: argparse.Namespace, app: AppConfig, *, part: str) -> EvalOptions:
    """Return the configuration's options with those of the flags over them."""
    if part not in ("dev", HOLDOUT):
        raise ConfigError(f"--set: got {part!r}, need dev, holdout or KEY=VALUE")
    flags = {"gold": arguments.gold, "baseline": arguments.baseline, "max_drop": arguments.max_drop}
    config = replace(app.eval, **{name: value for name, value in flags.items() if value is not None})
    options = options_of(config, cost_per_hour=app.cost.per_hour)
    if options is None:
        raise ConfigError("--gold: got none, need a file of judged documents (or eval.gold in the configuration)")
    if arguments.fail_under:
        options = replace(options, gates=arguments.fail_under, gates_key="--fail-under")
    return replace(options, part=part, by=arguments.by)


def _ask(arguments: argparse.Namespace, app: AppConfig, *, environ: Mapping[str, str]) -> int:
    """Run the documents of the gold again into their own output; return the exit code of the run."""
    from pipeline.run.options import RunOptions
    from pipeline.run.session import run

    if app.eval.input is None:
        raise ConfigError("eval.input: is not set, need the documents of the gold for --ask")
    if arguments.outputs:
        raise ConfigError(f"--ask: got the output {arguments.outputs[0]!r} as well, need none: it is eval.output")
    overrides = [f"input.uri={app.eval.input}", f"output.uri={asked_output(app)}", "eval.gold=null"]
    run_arguments = argparse.Namespace(**{**vars(arguments), "set": [*arguments.set, *overrides]})
    options = RunOptions(redo="all", quiet=True, progress="none", command="pipeline eval --ask")
    return run(options, load=lambda: load_app(run_arguments, environ=environ), environ=environ)


def _print(evaluation: Evaluation, arguments: argparse.Namespace, *, environ: Mapping[str, str]) -> None:
    if arguments.json:
        content = evaluation.content
        content = without_documents(content) if content["gold"]["set"] == HOLDOUT else content
        write_out(json.dumps(content, ensure_ascii=False, indent=1))
        return
    colour = wants_colour(sys.stdout, environ)
    write_out(evaluation_text(evaluation.content, colour=colour, width=width_of(sys.stdout, environ)))


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, need a number from 0 to 1")
    return value
