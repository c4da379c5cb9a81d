"""`pipeline report [OUT]`: rebuild the report of an output from its records and runs.

It must not call a model.
"""

from __future__ import annotations

import argparse
import sys
import webbrowser
from collections.abc import Mapping
from contextlib import closing

from pipeline.agents.fingerprints import translated
from pipeline.cli.arguments import output_config
from pipeline.cli.flags import add_out
from pipeline.cli.value_profiles import current_profiles
from pipeline.errors import EXIT_OK, ConfigError, OutputError
from pipeline.output import ReadableOutput, backend_of, folder_of, read_runs
from pipeline.report import RunSummary, build_report, read_summaries, write_newest
from pipeline.report.run_summary import OutputCounts
from pipeline.report.text import summary_text
from pipeline.terminal import wants_colour, width_of, write_out

EXAMPLES = "examples:\n  pipeline report out\n  pipeline report out --text"


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the flags of this command."""
    add_out(command)
    command.add_argument("--open", action="store_true", help="also open report.html in the browser")
    command.add_argument("--profile-values", action="store_true", help="show frequent texts of answers in the profile")
    command.add_argument("--text", action="store_true", help="print the summary only; write no file")


def main(arguments: argparse.Namespace, *, environ: Mapping[str, str]) -> int:
    """Print the summary and, without --text, write the report; ConfigError when the output has no finished run."""
    config = output_config(arguments, environ=environ)
    backend = backend_of(config)
    runs = read_runs(backend)
    if not runs:
        raise ConfigError(f"no report for {config.uri!r}: it holds no finished run (runs/*.json)")

    def counts() -> OutputCounts:
        with closing(backend.read()) as index:
            for equated in (translated(runs), *(run.get("former_fingerprints", {}) for run in runs)):
                for former, present in equated.items():
                    index.equate([former], present)
            return OutputCounts.from_json(index.counts())

    exact = current_profiles(backend, runs, show_texts=arguments.profile_values)
    if arguments.text:
        summaries = list(map(RunSummary.from_json, runs))
        report = build_report(summaries, counts(), awaits_shards=_is_in_use(backend), exact=exact)
    else:
        report = write_newest(
            backend.replace,
            runs=lambda: read_summaries(backend),
            counts=counts,
            awaits_shards=_is_in_use(backend),
            exact=exact,
        )
    colour = wants_colour(sys.stdout, environ)
    write_out(summary_text(report, colour=colour, width=width_of(sys.stdout, environ)))
    if arguments.open:
        _show(config.uri)
    return EXIT_OK


def _is_in_use(backend: ReadableOutput) -> bool:
    """Return True while shards are active, so that others may be waiting; False when that is unknown."""
    try:
        return backend.is_in_use()
    except OutputError:
        return False


def _show(output: str) -> None:
    """Open the page; ConfigError when it is not on this machine or no browser is found."""
    folder = folder_of(output)
    page = None if folder is None else folder / "report.html"
    if page is None or not page.is_file():
        raise ConfigError(f"--open: got {output!r}, which has no report.html on this machine")
    if not webbrowser.open(page.resolve().as_uri()):
        raise ConfigError(f"--open: no browser was found (BROWSER names one); the page is {page}")
