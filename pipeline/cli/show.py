"""`pipeline show [OUT] ID`: a document's record with each quote in its surroundings, as text or as a page.

It must not call a model or change an output.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.cli.arguments import load_app, output_config
from pipeline.cli.errors import record_facts, record_lines
from pipeline.cli.flags import add_storage_flags
from pipeline.cli.input_document import read_document
from pipeline.cli.saving import save
from pipeline.documents import possible_ids
from pipeline.errors import EXIT_FAILURES, EXIT_OK
from pipeline.logs import visible
from pipeline.output import backend_of
from pipeline.report.evidence_page import evidence_page
from pipeline.report.failures import story
from pipeline.report.quote_lines import quote_lines
from pipeline.report.shown_document import ShownDocument, shown_document
from pipeline.terminal import (
    BOLD,
    YELLOW,
    bytes_out,
    in_colour,
    paragraph,
    pasteable,
    wants_colour,
    width_of,
    write_out,
)

EXAMPLES = """examples:
  pipeline show out 2026/01/story.txt
  pipeline show out report.pdf --html evidence.html
  pipeline show out report.pdf --text | sha256sum"""


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the flags of this command."""
    text = "the output: a folder, or s3://bucket/prefix, gs://…, az://…; default: output.uri of the configuration"
    command.add_argument("output", metavar="OUT", nargs="?", help=text)
    command.add_argument("document", metavar="ID", help="the document, by id or by its path in the input")
    forms = command.add_mutually_exclusive_group()
    forms.add_argument("--text", action="store_true", help="print the document's text as it was read, and nothing else")
    forms.add_argument("--html", metavar="FILE", help="write a page: the text with its quotes marked, and the record")
    command.add_argument("--all", action="store_true", help="with --html: the whole of a very long text")
    command.add_argument(
        "--input",
        metavar="URI",
        action="append",
        help="the input to read, if it is not that of the configuration; repeatable",
    )
    add_storage_flags(command)


def main(arguments: argparse.Namespace, *, environ: Mapping[str, str]) -> int:
    """Return 0; with --text 1 when the text is not the record's. ConfigError for an unknown document."""
    app = load_app(arguments, environ=environ)
    backend = backend_of(output_config(arguments, environ=environ))
    ids = list(dict.fromkeys(possible_ids(arguments.document, app.input)))
    history = story(backend, ids, flag="show")
    text, trouble = read_document(app, history["id"])
    document = shown_document(history["records"], text, trouble=trouble, prompts=history["prompts"])
    if arguments.text:
        return _print_text(document)
    if arguments.html:
        page = evidence_page(document, record_facts(document.record), whole_texts=arguments.all)
        save(Path(arguments.html), [page])
        write_out(f"{arguments.html}: {_sentence(document)}")
    else:
        colour = wants_colour(sys.stdout, environ)
        width = width_of(sys.stdout, environ)
        all_records = shlex.join(["pipeline", "errors", backend.where, "--show", history["id"]])
        write_out("\n".join(_lines(document, all_records, colour=colour, width=width)))
    return EXIT_OK


def _print_text(document: ShownDocument) -> int:
    """Print the text that the record is about; without it print the reason to stderr and return 1."""
    if document.text is None or document.trouble:
        sys.stderr.write(visible(document.trouble) + "\n")
        return EXIT_FAILURES
    bytes_out(document.text.encode("utf-8"))
    return EXIT_OK


def _sentence(document: ShownDocument) -> str:
    quotes = len(document.marked)
    return visible(document.trouble) or f"{quotes} {'quote is' if quotes == 1 else 'quotes are'} marked"


def _lines(document: ShownDocument, all_records: str, *, colour: bool, width: int) -> Iterator[str]:
    if document.trouble:
        yield from (in_colour(line, BOLD + YELLOW, colour=colour) for line in paragraph(document.trouble, width=width))
    if document.notice:
        yield from (in_colour(line, BOLD + YELLOW, colour=colour) for line in paragraph(document.notice, width=width))
    if document.is_stale:
        yield from pasteable("all records", all_records, indent=0, width=width)
    yield from record_lines(document.record, colour=colour, is_current=True, is_stale=document.is_stale, width=width)
    yield from quote_lines(document, colour=colour, width=width)
