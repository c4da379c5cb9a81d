"""`pipeline plan`: list the input once, divide it into chunks, and print the commands that process them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from pipeline.cli.flags import add_config_flags, count, size_bytes

if TYPE_CHECKING:
    from pipeline.run.chunks.planning import Planned

EXAMPLES = """examples:
  pipeline plan --chunks 1000
  pipeline plan --input s3://bucket/corpus --output s3://bucket/out --chunk-bytes 256MB
  pipeline run --chunk 0"""

_MOST_NAMED = 12
"""The most chunks that a message names."""


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the flags of this command."""
    add_config_flags(command)
    command.add_argument("--count", action="store_true", help="print only the number of chunks, for a workflow")
    size = command.add_argument_group("chunks").add_mutually_exclusive_group()
    size.add_argument(
        "--chunks",
        metavar="N",
        type=count,
        help="divide new files into N chunks of about equal bytes",
    )
    size.add_argument(
        "--chunk-bytes",
        metavar="B",
        type=size_bytes,
        help="the size of a chunk, as in 256MB; default: that of the earlier plan, else 64 MiB",
    )


def main(arguments: argparse.Namespace, *, environ: Mapping[str, str]) -> int:
    """Write the plan into the output; 1 when the input has fewer documents than input.min_documents, else 0."""
    from pipeline.cli.arguments import config_file, load_app, same_command, say_config
    from pipeline.errors import EXIT_FAILURES, EXIT_OK
    from pipeline.run.chunks.planning import make_plan
    from pipeline.terminal import write_out

    say_config(config_file(arguments, environ=environ))
    app = load_app(arguments, environ=environ)
    planned = make_plan(app, chunks=arguments.chunks, chunk_bytes=arguments.chunk_bytes)
    if arguments.count:
        write_out(str(planned.head.chunks))
    else:
        write_out("\n".join(_lines(planned, run=same_command(arguments), least=app.input.min_documents)))
    return EXIT_OK if planned.listing.files >= min(1, app.input.min_documents) else EXIT_FAILURES


def _lines(planned: Planned, *, run: str, least: int) -> Iterator[str]:
    from pipeline.terminal import plural

    new_chunks = planned.head.chunks - planned.first
    if new_chunks:
        containers = f" and {plural(planned.containers, 'file')} of many documents" if planned.containers else ""
        contents = f"{plural(planned.documents, 'document')}{containers}, {plural(planned.bytes, 'byte')}"
        yield f"Planned {plural(new_chunks, 'chunk')}: {contents} in {plural(planned.files, 'file')}."
        yield f"  bytes of a chunk   {planned.least_bytes:,} to {planned.most_bytes:,}"
    else:
        chunks = plural(planned.head.chunks, "chunk")
        yield f"Nothing new: the plan has {chunks} for {plural(planned.listing.files, 'file')}."
    if planned.listing.ignored:
        kinds = ", ".join(f"{kind} {number:,}" for kind, number in planned.listing.ignored.most_common(8))
        yield f"  ignored            {sum(planned.listing.ignored.values()):,} ({kinds})"
    if least and not planned.listing.files:
        yield f"The input has no documents (input.min_documents: {least})."
    if planned.changed:
        chunks = plural(len(planned.changed), "earlier chunk")
        yield f"Files of {chunks} have changed or are gone: run again {_numbers(planned.changed)}."
    if new_chunks:
        yield from _next_lines(planned, run=run, new_chunks=new_chunks)


def _next_lines(planned: Planned, *, run: str, new_chunks: int) -> Iterator[str]:
    last = planned.head.chunks - 1
    yield "Next, each chunk once, in any order and on any machine; the same command again resumes it:"
    yield f"  {run} --chunk {planned.first}"
    if new_chunks > 1:
        chunks = f"{planned.first}-{last}" if planned.first else str(new_chunks)
        yield f"or as {new_chunks:,} tasks of a scheduler, with PIPELINE_CHUNKS={chunks} in their environment:"
        yield f"  {run}"


def _numbers(chunks: list[int]) -> str:
    numbers = ", ".join(map(str, chunks[:_MOST_NAMED]))
    return numbers if len(chunks) <= _MOST_NAMED else f"{numbers} and {len(chunks) - _MOST_NAMED:,} more"
