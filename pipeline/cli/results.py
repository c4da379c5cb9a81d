"""`pipeline results [OUT]`: the current result of every document as a table, JSON Lines, CSV or Parquet.

It must not call a model or change an output.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.cli.accepting import read_ids
from pipeline.cli.arguments import output_config
from pipeline.cli.flags import CommaList, add_out, count
from pipeline.cli.outdated_rows import OutdatedRows
from pipeline.cli.saving import save
from pipeline.cli.value_profiles import profile_output
from pipeline.errors import EXIT_OK, ConfigError
from pipeline.output import backend_of, read_runs
from pipeline.output.backend import ReadableOutput
from pipeline.output.current import CurrentRecords
from pipeline.output.parquet import parquet_table
from pipeline.report.parquet_rows import column_rows, columns_of
from pipeline.report.rows import (
    POSITION,
    REASON,
    Condition,
    Row,
    check_paths,
    parse_condition,
    paths_of_schema,
    paths_of_value,
    rows_of,
)
from pipeline.report.table_formats import STATUS_COLUMNS, csv_lines, json_lines, table_lines
from pipeline.terminal import plural, stream_out, width_of

EXAMPLES = """examples:
  pipeline results out
  pipeline results out --format csv --fields id,confidence,companies.name --save companies.csv
  pipeline results out --where 'confidence >= 50' --where companies
  pipeline results out --explode companies --fields id,companies.name,companies.ticker"""

SHOWN_ROWS = 50
"""Rows of a table on a terminal without --limit."""
_SEARCHED_RECORDS = 1000
"""Results that are searched for a path that the schema does not have."""


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the flags of this command."""
    add_out(command)
    add = command.add_argument_group("rows and columns").add_argument
    formats = ("table", "jsonl", "csv", "parquet")
    add("--format", choices=formats, help="default: table on a terminal, else jsonl; parquet needs --save")
    help_text = "columns by dotted path; own values begin with _ (_status, _model, …)"
    add("--fields", metavar="A,B.C", action=CommaList, help=help_text)
    add(
        "--where",
        metavar="COND",
        action="append",
        default=[],
        help="'PATH OP VALUE' with = != < <= > >= ~, or PATH, or !PATH; all must hold",
    )
    add("--ids", metavar="ID|@FILE", nargs="+", action="extend", help="only these documents")
    add("--explode", metavar="LIST", help="a row for each item of a list")
    add("--current", action="store_true", help="no rows of an earlier prompt, or from before a document failed")
    add("--failed", action="store_true", help="a row for failed documents too")
    add(
        "--profile",
        action="store_true",
        help="what the values look like, instead of the rows (JSON with --format jsonl)",
    )
    add("--profile-values", action="store_true", help="show frequent texts of answers in the profile")
    add("--limit", metavar="N", type=count, help="at most N rows")
    add("--save", metavar="FILE", help="write a file, replaced when all is written")
    add("--csv-raw", action="store_true", help="do not protect cells that a spreadsheet would run as a formula")


def main(arguments: argparse.Namespace, *, environ: Mapping[str, str]) -> int:
    """Print or save the rows; return 0, also without any. ConfigError for paths and ids that no record has."""
    if arguments.format == "parquet" and not arguments.save:
        raise ConfigError("--format parquet: need --save FILE, as it is not text")
    backend = backend_of(output_config(arguments, environ=environ))
    if arguments.profile:
        as_json = arguments.format == "jsonl"
        texts = arguments.profile_values
        width = width_of(sys.stdout, environ)
        stream_out(profile_output(backend, as_json=as_json, show_texts=texts, width=width))
        return EXIT_OK
    current_records = CurrentRecords(backend)
    conditions = [parse_condition(text) for text in arguments.where]
    fields = _fields(arguments, backend, conditions)
    ids = _ids(arguments.ids)
    limit = arguments.limit
    form = arguments.format or ("table" if sys.stdout.isatty() and not arguments.save else "jsonl")
    if form == "table" and limit is None and sys.stdout.isatty() and not arguments.save:
        limit = SHOWN_ROWS
    counts = OutdatedRows()
    rows = _rows(current_records, arguments, ids=ids, conditions=conditions, where=backend.where)
    selected = counts.count(rows if limit is None else islice(rows, limit))
    columns = fields if arguments.fields or arguments.explode else None
    if form == "parquet":
        save(Path(arguments.save), _parquet(selected, backend, columns, arguments))
    elif arguments.save:
        save(Path(arguments.save), _formatted(selected, form, fields, columns, arguments, environ=environ))
    else:
        stream_out(_formatted(selected, form, fields, columns, arguments, environ=environ))
    sys.stderr.writelines(f"{line}\n" for line in counts.lines([condition.path for condition in conditions]))
    if limit is not None and next(rows, None) is not None:
        sys.stderr.write(f"only the first {limit} rows are shown (--limit)\n")
    elif current_records.without_result and not arguments.failed:
        verb = "document failed and has" if current_records.without_result == 1 else "documents failed and have"
        sys.stderr.write(f"{current_records.without_result:,} {verb} no row (--failed)\n")
    return EXIT_OK


def _rows(
    current_records: CurrentRecords,
    arguments: argparse.Namespace,
    *,
    ids: frozenset[str] | None,
    conditions: Sequence[Condition],
    where: str,
) -> Iterator[Row]:
    """Yield the selected rows; ConfigError when the output (`where`) has no record, or not one of the ids."""
    records = 0
    found_ids: set[str] = set()  # of the wanted ids only
    for record in current_records.read(failed=arguments.failed):
        records += 1
        if arguments.current and not record.is_current:
            continue
        if ids is not None:
            if record.id not in ids:
                continue
            found_ids.add(record.id)
        for row in rows_of(record, arguments.explode):
            if all(condition.holds(row) for condition in conditions):
                yield row
    if not records and not current_records.without_result:
        raise ConfigError(f"results: got {where!r}, which holds no records, need the output of a run")
    missing_ids = sorted((ids or frozenset()) - found_ids)
    if missing_ids:
        more_text = f" and {plural(len(missing_ids) - 1, 'more')[:-1]}" if len(missing_ids) > 1 else ""
        raise ConfigError(f"--ids: got {missing_ids[0]!r}{more_text}: the output has no row of it")


def _ids(values: Sequence[str] | None) -> frozenset[str] | None:
    if values is None:
        return None
    ids: set[str] = set()
    for value in values:
        ids |= read_ids(value[1:], flag="--ids") if value.startswith("@") else {value}
    return frozenset(ids)


def _fields(arguments: argparse.Namespace, backend: ReadableOutput, conditions: Sequence[Condition]) -> list[str]:
    """Return the columns; ConfigError for a path that neither the schema nor the first results have."""
    paths_of_output = paths_of_schema(_schema_of(backend))
    names = [name.strip() for name in arguments.fields.split(",") if name.strip()] if arguments.fields else []
    paths_by_flag = {"--fields": names, "--where": [condition.path for condition in conditions]}
    explode = arguments.explode
    if (
        not paths_of_output
        or any(_is_new(path, paths_of_output) for paths in paths_by_flag.values() for path in paths)
        or explode
    ):
        records = list(islice(CurrentRecords(backend).read(failed=False), _SEARCHED_RECORDS))
        paths_of_output = list(
            dict.fromkeys([*paths_of_output, *(path for record in records for path in paths_of_value(record.output))])
        )
    for flag, paths in paths_by_flag.items():
        check_paths(paths, paths_of_output, flag=flag)
    if explode is not None:
        check_paths([explode], paths_of_output, flag="--explode")
        values = [Row(record).value(explode) for record in records]
        if any(value is not None for value in values) and not any(isinstance(value, list) for value in values):
            raise ConfigError(f"--explode: got {explode!r}, which is not a list")
    return names or _default_columns(paths_of_output, explode, failed=arguments.failed)


def _is_new(path: str, known_paths: Sequence[str]) -> bool:
    return not path.startswith("_") and path != "id" and path not in known_paths


def _default_columns(paths: Sequence[str], explode: str | None, *, failed: bool) -> list[str]:
    first = [*STATUS_COLUMNS, *([REASON] if failed else [])]
    if explode is None:
        return [*first, *(path for path in paths if "." not in path)]
    items = [path for path in paths if path.startswith(f"{explode}.") and "." not in path[len(explode) + 1 :]]
    return [*first, POSITION, *(items or [explode])]


def _schema_of(backend: ReadableOutput) -> Mapping[str, Any]:
    """Return the schema of the newest run; empty when none is known."""
    for run in reversed(read_runs(backend)):
        for question in run.get("config", {}).get("question", {}).values():
            if isinstance(question.get("schema"), dict):
                schema: Mapping[str, Any] = question["schema"]
                return schema
    return {}


def _parquet(
    rows: Iterable[Row], backend: ReadableOutput, names: Sequence[str] | None, arguments: argparse.Namespace
) -> Iterator[bytes]:
    columns = columns_of(_schema_of(backend), names, explode=arguments.explode, failed=arguments.failed)
    return parquet_table({column.name: column.kind for column in columns}, column_rows(rows, columns))


def _formatted(
    rows: Iterable[Row],
    form: str,
    fields: Sequence[str],
    names: Sequence[str] | None,
    arguments: argparse.Namespace,
    *,
    environ: Mapping[str, str],
) -> Iterator[str]:
    if form == "csv":
        return csv_lines(rows, fields, raw=arguments.csv_raw)
    if form == "table":
        return table_lines(rows, fields, width=width_of(sys.stdout, environ))
    return json_lines(rows, names)
