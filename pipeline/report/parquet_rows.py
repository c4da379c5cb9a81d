"""Rows as typed columns for a Parquet file: a column for each property of the agent's schema, then those of the record.

It must not import a library of tables: output/parquet.py writes the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pipeline.answers.resolved_schema import SchemaReader
from pipeline.errors import ConfigError
from pipeline.output.columns import ColumnType, ListOf, column_type, in_column
from pipeline.report.rows import OWN_VALUES, POSITION, REASON, STATUS, Row

_TEXTS = ListOf("text")
_MISFITS = "_misfits"
OWN_COLUMNS: Mapping[str, ColumnType] = {
    "_stale": "boolean",
    "_uri": "text",
    "_sha256": "text",
    "_agent": "text",
    "_variant": "text",
    "_fingerprint": "text",
    "_provider": "text",
    "_model": "text",
    "_attempts": "integer",
    "_reasks": "integer",
    "_repaired": "boolean",
    "_notes": _TEXTS,
    "_prompt_tokens": "integer",
    "_completion_tokens": "integer",
    "_latency_s": "number",
    "_finished_at": "text",
    "_run": "integer",
    "_run_id": "text",
    "_evidence": "json",
    "_windows": "json",
    "_merge": "json",
    _MISFITS: _TEXTS,
    "_output": "json",
}
"""The columns after the properties, with the whole answer as JSON text last, so that no value is lost."""
_OTHER: Mapping[str, ColumnType] = {"id": "text", STATUS: "text", REASON: "text", POSITION: "integer"}


class Column(NamedTuple):
    """A column: its name in the file, the path of its values, and their type. `is_own`: a value of the record."""

    name: str
    path: str
    kind: ColumnType
    is_own: bool


def columns_of(
    schema: Mapping[str, Any] | None, fields: Sequence[str] | None, *, explode: str | None, failed: bool
) -> list[Column]:
    """Return the columns: the named fields, else each top-level property and every value of the record.

    ConfigError for two columns whose names differ by case only.
    """
    types = {**OWN_COLUMNS, **_OTHER}
    if fields is None:
        names = (schema or {}).get("properties") or {}
        answers = [_column_of_answer(schema, name, None) for name in names]
        own = [*([REASON] if failed else []), *OWN_COLUMNS]
        columns = [Column("id", "id", "text", True), *answers, *(Column(name, name, types[name], True) for name in own)]
    else:
        columns = [
            Column(path, path, types[path], True) if path in types else _column_of_answer(schema, path, explode)
            for path in fields
        ]
    for name, number in Counter(column.name.lower() for column in columns).items():
        if number > 1:
            raise ConfigError(f"--format parquet: {number} columns are called {name!r}, need --fields to choose one")
    return columns


def column_rows(rows: Iterable[Row], columns: Sequence[Column]) -> Iterator[dict[str, Any]]:
    """Yield each row by column; a value that does not fit its type is null, and its path is in `_misfits`."""
    for row in rows:
        misfits: list[str] = []
        values = {
            column.name: in_column(_value(row, column), column.kind, misfits, column.path)
            for column in columns
            if column.name != _MISFITS
        }
        yield {**values, _MISFITS: list(dict.fromkeys(misfits))}


def _column_of_answer(schema: Mapping[str, Any] | None, path: str, explode: str | None) -> Column:
    """Return the column of an answer's value: `output_NAME` for a property with the name of a record's value."""
    is_taken = path == "id" or path.startswith("_")
    return Column(f"output_{path}" if is_taken else path, path, _type_at(schema, path, explode), False)


def _value(row: Row, column: Column) -> Any:
    if not column.is_own:
        return row.answer_value(column.path)
    raw = row.record.raw
    if column.path == "_stale":
        return row.record.status == "stale"
    if column.path == "_output":
        return row.record.output
    if column.path == "_provider":
        return (raw.get("model") or {}).get("provider")
    has_own_value = column.path in OWN_VALUES or column.path == POSITION
    return row.value(column.path) if has_own_value else raw.get(column.path[1:])


def _type_at(schema: Mapping[str, Any] | None, path: str, explode: str | None) -> ColumnType:
    """Return the type of the values at a path: a list for each list on its way, but for the exploded one."""
    root = schema or {}
    reader = SchemaReader(root)
    node: Any = root
    lists = 0
    steps = path.split(".")
    for number, step in enumerate(steps):
        node, _ = reader.resolved(node)
        while isinstance(node.get("items"), Mapping):
            lists += ".".join(steps[:number]) != explode
            node, _ = reader.resolved(node["items"])
        node = (node.get("properties") or {}).get(step)
    if path == explode and isinstance(node, Mapping):
        node = reader.resolved(node)[0].get("items")
    if not isinstance(node, Mapping):
        return "json"
    kind = column_type({**node, "$defs": root.get("$defs", {})})
    for _ in range(lists):
        kind = ListOf(kind)
    return kind
