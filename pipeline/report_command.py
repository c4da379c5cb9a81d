"""`pipeline report OUT`: the report of an output, built anew from its records and runs; it calls no model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from contextlib import closing

from pipeline.arguments import output_config, write_out
from pipeline.colours import wants_colour
from pipeline.errors import EXIT_OK, ConfigError
from pipeline.output import medium_of, read_runs
from pipeline.report import build_report, write_report
from pipeline.summary_text import summary_text


def main(arguments: argparse.Namespace, *, environ: Mapping[str, str]) -> int:
    """Writes report.json and report.html and prints the summary; ConfigError when no run ever ended there."""
    medium = medium_of(output_config(arguments, environ=environ))
    runs = read_runs(medium)
    if not runs:
        raise ConfigError(f"no report for {arguments.output!r}: there is no finished run in it (runs/*.json)")
    with closing(medium.read()) as index:
        report = build_report(runs, index.counts())
    write_report(medium.replace, report)
    write_out(summary_text(report, colour=wants_colour(sys.stdout, environ)))
    return EXIT_OK
