"""`pipeline errors [OUT]`: what failed, why, and what to type; with --show one document's whole story.

It calls no model. Only --accept and --unaccept write, and nothing but `accepted.jsonl`.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.cli.accepting import change_accepted
from pipeline.cli.arguments import open_to_change, output_config
from pipeline.cli.flags import add_out, count
from pipeline.errors import EXIT_OK, REASKED
from pipeline.logs import visible
from pipeline.output import backend_of
from pipeline.report.failures import failures, story
from pipeline.stores import printable
from pipeline.terminal import (
    BOLD,
    GREEN,
    RED,
    WIDTH,
    block,
    cut,
    grouped,
    labelled,
    pasteable,
    plural,
    tinted,
    wants_colour,
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
    command.add_argument("--show", metavar="ID", help="one document's whole story: requests, answer, complaint, past")
    command.add_argument("--examples", metavar="N", type=count, default=3, help="documents of each group; default: 3")
    command.add_argument("--json", action="store_true", help="for programs")
    add = command.add_argument_group("failures that need no repair").add_argument
    which = "REASON,...|@FILE"
    add("--accept", metavar=which, help="accept failures, by reason or by the ids in a file: they don't count any more")
    add("--unaccept", metavar=which, help="take that back")


def main(arguments: argparse.Namespace, *, environ: Mapping[str, str]) -> int:
    """0, also when documents failed; ConfigError when the output knows nothing of the document to show."""
    config, colour = output_config(arguments, environ=environ), wants_colour(sys.stdout, environ)
    if arguments.accept or arguments.unaccept:
        with open_to_change(config, arguments, environ=environ) as output:
            write_out(change_accepted(output, accept=arguments.accept, unaccept=arguments.unaccept))
        return EXIT_OK
    backend = backend_of(config)
    shown = printable(arguments.show) if arguments.show else None  # as records have it
    found = story(backend, shown) if shown else failures(backend, examples=arguments.examples)
    if arguments.json:
        write_out(json.dumps(found, indent=1))
    else:
        lines = _story(found, colour=colour) if arguments.show else _failures(found, colour=colour)
        write_out("\n".join(lines))
    return EXIT_OK


def _failures(found: Mapping[str, Any], *, colour: bool) -> Iterator[str]:
    where = visible(found["output"])
    if not found["failed"]:
        yield tinted(f"No document stands as failed in {where}", BOLD + GREEN, colour=colour) + _done(found)
        return
    failed = "document stands" if found["failed"] == 1 else "documents stand"
    yield tinted(f"{grouped(found['failed'])} {failed} as failed in {where}", BOLD + RED, colour=colour) + _done(found)
    for group in found["groups"]:
        yield ""
        accepted = f", {grouped(group['accepted'])} of them accepted" if group["accepted"] else ""
        yield f"{grouped(group['count']):>7}  {tinted(visible(group['reason']), BOLD, colour=colour)}{accepted}"
        for example in group["examples"]:
            yield from labelled("example", cut(visible(example["id"]), WIDTH - 26), indent=9)
            yield from labelled("", cut(visible(example["message"] or ""), 3 * (WIDTH - 26)), indent=9)
        yield from labelled("to do", group["advice"], indent=9)
        yield from pasteable("again", group["command"], indent=9)
    for kind, command in found["commands"].items():
        yield ""
        yield f"All that lies with {_CLASSES.get(kind, 'the pipeline')}, again:"
        yield from pasteable("", command, indent=2)
    yield ""
    yield "One document's whole story:"
    yield from pasteable("", shlex.join(["pipeline", "errors", found["output"], "--show", _first_id(found)]), indent=2)


def _done(found: Mapping[str, Any]) -> str:
    accepted = f", {grouped(found['accepted'])} of them accepted" if found["accepted"] else ""
    return f"{accepted}; {plural(found['done'], 'document')} {'is' if found['done'] == 1 else 'are'} done"


def _first_id(found: Mapping[str, Any]) -> str:
    return next((str(example["id"]) for group in found["groups"] for example in group["examples"]), "ID")


def _story(found: Mapping[str, Any], *, colour: bool) -> Iterator[str]:
    for number, record in enumerate(found["records"]):
        yield from _record(record, colour=colour, is_current=number == 0)
        if number == 0:
            yield from labelled("accepted", "yes: it counts in no exit code" if found["accepted"] else "", indent=2)
            yield from labelled("to do", found["advice"] or "", indent=2)
            yield from pasteable("again", found["command"], indent=2) if found["command"] else []
        yield ""


def _record(record: Mapping[str, Any], *, colour: bool, is_current: bool) -> Iterator[str]:
    is_done = "output" in record
    name = f"DONE {record['id']}" if is_done else f"FAILED {record['id']}"
    head = name if is_current else f"before: {name}"
    yield tinted(visible(head), BOLD + ((GREEN if is_done else RED) if is_current else ""), colour=colour)
    for label, text in _facts(record).items():
        yield from labelled(label, visible(text), indent=2)
    for number, each in enumerate(record.get("history") or (), start=1):
        error = f"an answer, {each['error']}" if each["error"] in REASKED else each["error"] or "an answer"
        told = f"{each['provider']} at {each['endpoint']}, {each['latency_s']} s: {error}"
        yield from labelled(f"request {number}", visible(told), indent=2)
    if record.get("raw"):
        yield from labelled("answer", "as far as it was kept:", indent=2)
        yield block(record["raw"], indent=4)
    if is_done:
        yield "  output"
        yield block(json.dumps(record["output"], ensure_ascii=False, indent=2), indent=4)


def _facts(record: Mapping[str, Any]) -> dict[str, str]:
    """What is worth knowing of a record, by label."""
    model, usage = record.get("model") or {}, record.get("usage") or {}
    tokens = usage.get("prompt_tokens") is not None
    again = f", {plural(record['runs'], 'run')} in a row" if record.get("runs", 1) > 1 else ""
    facts = {
        "why": f"{record['reason']} ({record['stage']}): {record['message']}" if "reason" in record else "",
        "said": record["error"] if record.get("error") not in (None, record.get("reason")) else "",
        "when": f"{record['finished_at']}, run {record['run']} ({record['run_id']}){again}",
        "file": record["uri"],
        "asked": f"agent {record['agent']}, variant {record['variant']}, fingerprint {record['fingerprint'][:12]}",
        "answered by": f"{model['provider']}, model {model['name']}, at {model['endpoint']}" if model else "",
        "bytes": f"sha256 {record['sha256'][:12]}" if record["sha256"] else "never read",
        "requests": f"{record['attempts']}, asked again {plural(record.get('reasks') or 0, 'time')}",
        "tokens": f"{usage['prompt_tokens']} in, {usage['completion_tokens']} out" if tokens else "",
        "notes": ", ".join(record["notes"]),
    }
    return {label: text for label, text in facts.items() if text}
