"""`pipeline report [OUT]`: the report of an output, built anew from its records and runs; it calls no model."""

from __future__ import annotations

import argparse
import sys
import webbrowser
from collections.abc import Mapping
from contextlib import closing
from typing import Any

from pipeline.agents.fingerprints import translated
from pipeline.cli.arguments import output_config
from pipeline.cli.flags import add_out
from pipeline.errors import EXIT_OK, ConfigError
from pipeline.output import backend_of, folder_of, read_runs
from pipeline.report import build_report, write_newest
from pipeline.report.text import summary_text
from pipeline.terminal import wants_colour, write_out

EXAMPLES = "examples:\n  pipeline report out\n  pipeline report out --text"


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the flags of this command."""
    add_out(command)
    command.add_argument("--open", action="store_true", help="show report.html in the browser, too")
    command.add_argument("--text", action="store_true", help="print the summary only; write nothing")


def main(arguments: argparse.Namespace, *, environ: Mapping[str, str]) -> int:
    """Prints the summary and, but for --text, writes the report; ConfigError when no run ever ended there."""
    config = output_config(arguments, environ=environ)
    backend = backend_of(config)
    runs = read_runs(backend)
    if not runs:
        raise ConfigError(f"no report for {config.uri!r}: there is no finished run in it (runs/*.json)")

    def counts() -> dict[str, Any]:
        with closing(backend.read()) as index:
            for equated in (translated(runs), *(run.get("former_fingerprints", {}) for run in runs)):
                for former, present in equated.items():
                    index.equate([former], present)
            return index.counts()

    if arguments.text:
        report = build_report(runs, counts())
    else:
        report = write_newest(backend.replace, runs=lambda: read_runs(backend), counts=counts)
    write_out(summary_text(report, colour=wants_colour(sys.stdout, environ)))
    if arguments.open:
        _show(config.uri)
    return EXIT_OK


def _show(output: str) -> None:
    """Opens the page; ConfigError when it is not on this machine, or there is no browser."""
    folder = folder_of(output)
    page = None if folder is None else folder / "report.html"
    if page is None or not page.is_file():
        raise ConfigError(f"--open: got {output!r}, which has no report.html on this machine")
    if not webbrowser.open(page.resolve().as_uri()):
        raise ConfigError(f"--open: no browser was found (BROWSER names one); the page is {page}")
