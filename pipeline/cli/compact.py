"""`pipeline compact [OUT]`: keep the last record of each id and fingerprint, in few files, also as Parquet."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Mapping

from pipeline.agents.fingerprints import questions_of
from pipeline.cli.arguments import open_to_change, output_config
from pipeline.cli.flags import add_out
from pipeline.errors import EXIT_OK
from pipeline.output import ReadableOutput, read_runs
from pipeline.output.compaction import PARQUET_NAME, compact, last_lines
from pipeline.output.parquet import library, parquet
from pipeline.terminal import fitted, plural, unwrapped_or_width, write_out

EXAMPLES = "examples:\n  pipeline compact out\n  pipeline compact s3://bucket/out --format parquet"

logger = logging.getLogger(__name__)


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the flags of this command."""
    add_out(command)
    command.add_argument(
        "--format",
        choices=("jsonl", "parquet"),
        default="jsonl",
        help="parquet: also write results.parquet (needs the extra `parquet`)",
    )
    command.add_argument(
        "--drop-history",
        action="store_true",
        help="keep only the last line of each id; default: also the result of its previous fingerprint, for `diff`",
    )


def _rows(backend: ReadableOutput) -> Iterator[bytes]:
    """Yield the Parquet file of the current results, with the columns of the newest agent's schema."""
    questions = list(questions_of(read_runs(backend)))
    schema = questions[-1].get("schema") if questions else None
    return parquet((line for line, _ in last_lines(backend)), answer_schema=schema)


def main(arguments: argparse.Namespace, *, environ: Mapping[str, str]) -> int:
    """Rewrite the output under its lock; safe to kill and to repeat. Return the exit code."""
    config = output_config(arguments, environ=environ)
    if arguments.format == "parquet":
        library()
    with open_to_change(config, arguments, environ=environ) as output:
        counts = output.index.counts()
        lost_answers = compact(output.backend, output.index, history=not arguments.drop_history)
        if lost_answers:
            message = "removed %s of earlier fingerprints; `pipeline diff --by fingerprint` can no longer compare them"
            logger.warning(message, plural(lost_answers, "answer"))
        names = ["results"]
        if arguments.format == "parquet":
            output.backend.replace(PARQUET_NAME, _rows(output.backend))
            names.append(PARQUET_NAME)
        scope = "the last line of each id" if arguments.drop_history else "the last line of each id and fingerprint"
        results = plural(counts["done"] + counts["stale"], "result")
        text = f"{output.where}: {results} and {plural(counts['failed'], 'error')}; {' and '.join(names)} kept {scope}."
        write_out("\n".join(fitted([text], unwrapped_or_width(sys.stdout, environ))))
    return EXIT_OK
