"""`pipeline review [OUT]`: judge answers on a local web page, with the document beside the form; saved as gold.

It must not call a model or change an output.
"""

from __future__ import annotations

import argparse
import sys
import webbrowser
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.cli.accepting import read_ids
from pipeline.cli.arguments import config_file, load_app, output_config, user_name
from pipeline.cli.flags import add_storage_flags, count, port
from pipeline.config import AppConfig
from pipeline.config.loading import load_config, parse_set
from pipeline.errors import EXIT_OK, ConfigError, OutputError
from pipeline.logs import visible
from pipeline.output import backend_of, folder_of
from pipeline.output.backend import OutputBackend
from pipeline.output.runs import read_runs
from pipeline.records import utc_now
from pipeline.review import choice
from pipeline.review.choice import Candidate
from pipeline.review.importing import import_lines
from pipeline.review.server import ReviewServer
from pipeline.review.session import ReviewOptions, ReviewSession, judged_keys
from pipeline.review.static_page import page_without_documents, static_page
from pipeline.review.texts import read_texts
from pipeline.stores.local import FILE_MODE
from pipeline.terminal import plural, write_out
from pipeline.truth.evaluate import question_of
from pipeline.truth.gold import read_gold

EXAMPLES = """examples:
  pipeline review out
  pipeline review out --sample 100 --blind --by anna
  pipeline review out out/trial --disputed
  pipeline review out --ids mail/17.eml
  pipeline review out --html page.html"""

GOLD = "gold.jsonl"


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the flags of this command."""
    text = "the output; default: output.uri of the configuration"
    command.add_argument("output", metavar="OUT", nargs="?", help=text)
    command.add_argument("other", metavar="OTHER", nargs="?", help="another output, whose answers are shown as well")
    command.add_argument("--gold", metavar="FILE", help=f"where judgements go; default: eval.gold, else {GOLD}")
    group = command.add_argument_group("which documents").add_mutually_exclusive_group()
    group.add_argument(
        "--sample", metavar="N", type=count, default=choice.MOST_DOCUMENTS, help="drawn by chance; default: 50"
    )
    group.add_argument("--disputed", action="store_true", help="those on which OUT and OTHER differ most")
    group.add_argument("--failed", action="store_true", help="those that failed, with an empty form")
    group.add_argument(
        "--ids", metavar="ID|@FILE", nargs="+", action="extend", help="these, also when they were judged before"
    )
    add = command.add_argument_group("review").add_argument
    add("--blind", action="store_true", help="show no answers")
    add("--by", metavar="NAME", help="who judges; default: the login name")
    add("--input", metavar="URI", action="append", help="where the documents are; default: as in the newest run")
    add("--port", metavar="N", type=port, default=0, help="default: any free port")
    add("--no-open", action="store_true", help="open no browser, only print the address")
    add("--html", metavar="FILE", help="write one page to read, instead of serving one to judge on")
    add("--import", metavar="FILE", dest="imported", help="append judgements of a file, filling in sha256")
    add_storage_flags(command)


def main(arguments: argparse.Namespace, *, environ: Mapping[str, str]) -> int:
    """Serve the page until Ctrl-C and return 0; ConfigError when there is nothing to judge."""
    if arguments.disputed and arguments.other is None:
        raise ConfigError("--disputed: got one output, need OTHER to compare it with")
    app = load_app(argparse.Namespace(**{**vars(arguments), "input": None, "output": None}), environ=environ)
    config = output_config(arguments, environ=environ)
    backend = backend_of(config)
    runs = read_runs(backend)
    agent, schema = question_of(runs, config.uri)
    options = ReviewOptions(
        output=config.uri,
        gold=_gold_path(arguments, app, config.uri),
        agent=agent,
        schema=schema,
        by=arguments.by or user_name(),
        blind=arguments.blind,
        holdout=app.eval.holdout,
        other=arguments.other,
        fields=app.eval.fields,
    )
    if not schema.get("properties"):
        raise ConfigError("review: the schema of the newest run has no properties, need some to judge")
    if arguments.imported:
        write_out(import_lines(Path(arguments.imported), backend, options, now=utc_now()))
        return EXIT_OK
    candidates = _candidates(arguments, backend, options, environ=environ)
    if not candidates:
        return _all_judged(arguments, options)
    # as in the run: the ids of documents depend on it
    app = replace(_input_app(arguments, app, runs, environ=environ), output=config)
    texts = read_texts(app, candidates)
    try:
        session = ReviewSession(options, candidates, texts, now=utc_now)
        _report_troubles(session, candidates, app)
        if arguments.html:
            _write_page(Path(arguments.html), static_page(session))
            return EXIT_OK
        return _serve(session, arguments, environ=environ)
    finally:
        texts.close()


def _gold_path(arguments: argparse.Namespace, app: AppConfig, output: str) -> Path:
    """Return the gold file; ConfigError for one inside of the output, which may be thrown away."""
    path = Path(arguments.gold or app.eval.gold or GOLD)
    folder = folder_of(output)
    if folder is not None and path.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"--gold: got {path}, which lies in the output; need a place that outlives it")
    if not path.parent.is_dir():
        raise ConfigError(f"--gold: got {path}, whose folder does not exist")
    return path


def _candidates(
    arguments: argparse.Namespace, backend: OutputBackend, options: ReviewOptions, *, environ: Mapping[str, str]
) -> list[Candidate]:
    """Return the documents to review; ConfigError for an id that the output does not have."""
    judged = frozenset[tuple[str, str]]()
    if options.gold.exists():
        judged = judged_keys(read_gold(options.gold, options.schema, agent=options.agent).documents.values())
    other = None
    if arguments.other is not None:
        other = backend_of(output_config(arguments, environ=environ, uri=arguments.other))
    if arguments.ids:
        ids = frozenset[str]().union(
            *(
                read_ids(argument[1:], flag="--ids") if argument.startswith("@") else {argument}
                for argument in arguments.ids
            )
        )
        candidates = choice.named(backend, ids)
        if missing := sorted(ids - {candidate.id for candidate in candidates}):
            raise ConfigError(f"--ids: got {missing[0]!r}: {options.output} has no record of it")
    elif arguments.failed:
        candidates = choice.failed(backend, judged=judged)
    elif arguments.disputed and other is not None:
        keys = {path: str(own["key"]) for path, own in options.fields.items() if own.get("key")}
        candidates = choice.disputed(backend, other, judged=judged, keys=keys)
    else:
        candidates = choice.sampled(backend, arguments.sample, judged=judged)
    return choice.with_other(candidates, other) if other is not None and not arguments.disputed else candidates


def _input_app(
    arguments: argparse.Namespace, app: AppConfig, runs: list[dict[str, Any]], *, environ: Mapping[str, str]
) -> AppConfig:
    """Return the configuration with the input of --input or --config, else with that of the newest run."""
    overrides: dict[str, object] = dict(map(parse_set, arguments.set))
    if arguments.input:
        overrides["input.uri"] = arguments.input
    elif not arguments.config and runs:
        # secrets of a store are masked in a run's summary: those come from the configuration
        recorded = runs[-1].get("config", {}).get("input", {})
        overrides = {f"input.{name}": value for name, value in recorded.items() if name != "storage"} | overrides
    elif not runs:
        return app
    return load_config(config_file(arguments, environ=environ), environ=environ, overrides=overrides)


def _report_troubles(session: ReviewSession, candidates: list[Candidate], app: AppConfig) -> None:
    """Print which documents cannot be judged; ConfigError when not one can."""
    texts = session.unavailable
    counts = ", ".join(
        f"{number} {kind}"
        for kind in ("gone", "changed", "unreadable")
        if (number := sum(trouble == kind for trouble in texts.values()))
    )
    where = ", ".join(source.uri for source in app.input.uri)
    if not session.candidates:
        raise ConfigError(
            f"review: none of the {len(candidates)} documents can be read from {visible(where)} ({counts})"
        )
    for document_id, trouble in texts.items():
        advice = {"changed": ", run again first", "gone": f" from {where}", "unreadable": ""}[trouble]
        sys.stderr.write(visible(f"{document_id}: {trouble}{advice}") + "\n")


def _all_judged(arguments: argparse.Namespace, options: ReviewOptions) -> int:
    """Report that no document remains to be judged, also on the page of --html."""
    kind = ""
    if arguments.failed or arguments.disputed:
        kind = "failed " if arguments.failed else "disputed "
    sentence = f"{options.output} holds no {kind}document without a judgement in {options.gold}."
    if arguments.html:
        _write_page(Path(arguments.html), page_without_documents(options.output, sentence=sentence))
    advice = f"Next: pipeline eval {options.output} --gold {options.gold}; --ids ID shows a judged document again."
    write_out(f"{sentence} {advice}")
    return EXIT_OK


def _write_page(path: Path, text: str) -> None:
    try:
        path.touch(FILE_MODE)  # it holds text of documents
        path.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise OutputError(f"{path} cannot be written: {exc.strerror or exc}") from exc


def _serve(session: ReviewSession, arguments: argparse.Namespace, *, environ: Mapping[str, str]) -> int:
    """Serve until Ctrl-C, and print how many documents were judged."""
    try:
        server = ReviewServer(session, port=arguments.port)
    except OSError as exc:
        raise ConfigError(f"--port: {arguments.port} cannot be used: {exc.strerror or exc}") from exc
    options = session.options
    number = plural(len(session.candidates), "document")
    try:
        write_out(f"{number} to judge, saved to {options.gold} as {visible(options.by)}. Ctrl-C ends.\n{server.url}")
        if not arguments.no_open and _has_browser(environ):
            webbrowser.open(server.url)
        server.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:
        server.server_close()
    judged = session.judged
    write_out(f"{plural(judged, 'document')} judged; next: pipeline eval {options.output} --gold {options.gold}")
    return EXIT_OK


def _has_browser(environ: Mapping[str, str]) -> bool:
    """Return True where a browser opens a window; a text browser would take the terminal from this command."""
    return sys.platform == "darwin" or bool(environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))
