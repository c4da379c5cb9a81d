"""`pipeline errors [OUT]`: failures by reason with the commands that retry them; with --show all records of a document.

It must not call a model. Only --accept and --unaccept write, and only `accepted.jsonl`.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from pipeline.cli.accepting import change_accepted
from pipeline.cli.arguments import load_app, open_to_change, output_config
from pipeline.cli.flags import CommaList, add_out, count
from pipeline.cli.missing_quotes import missing_quote_lines
from pipeline.config import AppConfig
from pipeline.config.texts import shorten
from pipeline.documents import possible_ids
from pipeline.errors import EXIT_OK, REASKED, ConfigError
from pipeline.logs import visible
from pipeline.output import OutputBackend, backend_of
from pipeline.report.failures import failures, story
from pipeline.report.window_facts import answered_spans, window_facts
from pipeline.stores import printable
from pipeline.terminal import (
    BOLD,
    GREEN,
    RED,
    YELLOW,
    block,
    cut,
    grouped,
    in_colour,
    labelled,
    pasteable,
    plural,
    wants_colour,
    width_of,
    write_out,
)

EXAMPLES = """examples:
  pipeline errors out
  pipeline errors out --show 2026/01/story.txt
  pipeline errors out --accept document_empty,unsupported_format
  pipeline errors out --accept @ids.txt"""

_CLASSES = {"backend": "the server", "config": "the settings", "document": "the documents", "answer": "the answers"}


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the flags of this command."""
    add_out(command)
    command.add_argument(
        "--show", metavar="ID", help="show one document: requests, answers, complaints, earlier records"
    )
    command.add_argument("--examples", metavar="N", type=count, default=3, help="examples per group; default: 3")
    command.add_argument("--json", action="store_true", help="print JSON, for programs")
    add = command.add_argument_group("accepted failures").add_argument
    value_name = "REASON,...|@FILE"
    help_text = "accept failures, by reason or by the ids in a file: they no longer count"
    add("--accept", metavar=value_name, action=CommaList, help=help_text)
    add("--unaccept", metavar=value_name, action=CommaList, help="revoke the acceptance")


def main(arguments: argparse.Namespace, *, environ: Mapping[str, str]) -> int:
    """Return 0, also with failures; ConfigError when the output has no record of the document to show."""
    config = output_config(arguments, environ=environ)
    colour = wants_colour(sys.stdout, environ)
    width = width_of(sys.stdout, environ)
    if arguments.accept or arguments.unaccept:
        with open_to_change(config, arguments, environ=environ) as output:
            write_out(change_accepted(output, accept=arguments.accept, unaccept=arguments.unaccept))
        return EXIT_OK
    backend = backend_of(config)
    app = _app(arguments, environ=environ) if arguments.show else None
    if arguments.show:
        report = _with_windows(story(backend, _ids(arguments, app)), backend)
    else:
        report = failures(backend, examples=arguments.examples)
    if arguments.json:
        write_out(json.dumps(report, indent=1))
    else:
        show = partial(_story, app=app) if arguments.show else _failures
        write_out("\n".join(show(report, colour=colour, width=width)))
    return EXIT_OK


def _with_windows(listing: Mapping[str, Any], backend: OutputBackend) -> dict[str, Any]:
    """Return the records, with the answered windows of a document that failed in one of its windows."""
    newest, *earlier = listing["records"]
    if newest.get("window") is None:
        return dict(listing)
    spans = answered_spans(backend.windows(clock=time.monotonic).read(), newest)
    return {**listing, "records": [{**newest, "answered_windows": [list(span) for span in spans]}, *earlier]}


def _app(arguments: argparse.Namespace, *, environ: Mapping[str, str]) -> AppConfig | None:
    """Return the configuration; None when it is not valid: an output can be read without it."""
    try:
        return load_app(arguments, environ=environ)
    except ConfigError:
        return None


def _ids(arguments: argparse.Namespace, app: AppConfig | None) -> list[str]:
    """Return the possible ids of a named document: the name as an id, and the id of that path in the input."""
    if app is None:
        return [printable(arguments.show)]
    return list(dict.fromkeys(possible_ids(arguments.show, app.input)))


def _failures(listing: Mapping[str, Any], *, colour: bool, width: int) -> Iterator[str]:
    where = visible(listing["output"])
    if not listing["failed"]:
        yield in_colour(f"No failed documents in {where}", BOLD + GREEN, colour=colour) + _done(listing)
        return
    yield in_colour(f"{plural(listing['failed'], 'failed document')} in {where}", BOLD + RED, colour=colour) + _done(
        listing
    )
    for group in listing["groups"]:
        yield ""
        accepted = f", {grouped(group['accepted'])} of them accepted" if group["accepted"] else ""
        yield f"{grouped(group['count']):>7}  {in_colour(visible(group['reason']), BOLD, colour=colour)}{accepted}"
        for example in group["examples"]:
            yield from labelled("example", cut(visible(example["id"]), width - 26), indent=9, width=width)
            message = shorten(visible(example["message"] or ""), 3 * (width - 26))
            yield from labelled("", message, indent=9, width=width)
        yield from labelled("to do", group["advice"], indent=9, width=width)
        yield from pasteable("retry", group["command"], indent=9, width=width)
    for kind, command in listing["commands"].items():
        yield ""
        yield f"Retry all failures caused by {_CLASSES.get(kind, 'the pipeline')}:"
        yield from pasteable("", command, indent=2, width=width)
    yield ""
    yield "All details of one document:"
    command = shlex.join(["pipeline", "errors", listing["output"], "--show", _first_id(listing)])
    yield from pasteable("", command, indent=2, width=width)


def _done(listing: Mapping[str, Any]) -> str:
    accepted = f", {grouped(listing['accepted'])} of them accepted" if listing["accepted"] else ""
    return f"{accepted}; {plural(listing['done'], 'document')} {'is' if listing['done'] == 1 else 'are'} done"


def _first_id(listing: Mapping[str, Any]) -> str:
    return next((str(example["id"]) for group in listing["groups"] for example in group["examples"]), "ID")


def _story(history: Mapping[str, Any], *, app: AppConfig | None, colour: bool, width: int) -> Iterator[str]:
    raw_chars = app.output.raw_chars if app is not None else None
    for number, record in enumerate(history["records"]):
        yield from record_lines(record, colour=colour, is_current=number == 0, width=width, raw_chars=raw_chars)
        if number == 0:
            yield from missing_quote_lines(record, app, width=width)
            accepted = "yes: it does not affect the exit code" if history["accepted"] else ""
            yield from labelled("accepted", accepted, indent=2, width=width)
            yield from labelled("to do", history["advice"] or "", indent=2, width=width)
            yield from pasteable("retry", history["command"], indent=2, width=width) if history["command"] else []
        yield ""


def record_lines(
    record: Mapping[str, Any],
    *,
    colour: bool,
    is_current: bool,
    width: int,
    is_stale: bool = False,
    raw_chars: int | None = None,
) -> Iterator[str]:
    """Yield the lines of one record.

    `is_current`: the latest record; `is_stale`: a result before a failure; `raw_chars`: the setting, None if unknown.
    """
    is_done = "output" in record
    state = "STALE" if is_stale else "DONE" if is_done else "FAILED"
    name = f"{state} {record['id']}"
    head = name if is_current else f"before: {name}"
    tint = YELLOW if is_stale else GREEN if is_done else RED
    yield in_colour(visible(head), BOLD + (tint if is_current else ""), colour=colour)
    for label, text in record_facts(record).items():
        yield from labelled(label, visible(text), indent=2, width=width)
    for number, attempt in enumerate(record.get("history") or (), start=1):
        error = f"an answer, {attempt['error']}" if attempt["error"] in REASKED else attempt["error"] or "an answer"
        line = f"{attempt['provider']} at {attempt['endpoint']}, {attempt['latency_s']} s: {error}"
        yield from labelled(f"request {number}", visible(line), indent=2, width=width)
    if record.get("raw"):
        yield f"  answer ({_extent(record['raw'], raw_chars)})"
        yield block(record["raw"], indent=4)
    if is_done:
        yield "  output"
        yield block(json.dumps(record["output"], ensure_ascii=False, indent=2), indent=4)


def _extent(raw: str, raw_chars: int | None) -> str:
    """Return how much of an answer a record has; only one as long as the setting was probably cut."""
    if len(raw) == raw_chars:
        return f"its first {plural(len(raw), 'character')}, the limit of output.raw_chars"
    return plural(len(raw), "character")


def record_facts(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the facts of a record, by label."""
    model = record.get("model") or {}
    usage = record.get("usage") or {}
    tokens = usage.get("prompt_tokens") is not None
    repetition = f", {plural(record['runs'], 'run')} in a row" if record.get("runs", 1) > 1 else ""
    facts = {
        "reason": f"{record['reason']} ({record['stage']}): {record['message']}" if "reason" in record else "",
        "error": record["error"] if record.get("error") not in (None, record.get("reason")) else "",
        "finished": f"{record['finished_at']}, run {record['run']} ({record['run_id']}){repetition}",
        "file": record["uri"],
        "agent": f"{record['agent']}, variant {record['variant']}, fingerprint {record['fingerprint'][:12]}",
        "answered by": f"{model['provider']}, model {model['name']}, at {model['endpoint']}" if model else "",
        "bytes": f"sha256 {record['sha256'][:12]}" if record["sha256"] else "never read",
        "requests": f"{record['attempts']}, {plural(record.get('reasks') or 0, 'correction')}",
        "tokens": f"{usage['prompt_tokens']} in, {usage['completion_tokens']} out" if tokens else "",
        "notes": ", ".join(record["notes"]),
        **window_facts(record),
    }
    return {label: text for label, text in facts.items() if text}
