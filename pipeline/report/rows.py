"""Rows of `pipeline results`: values by dotted path, conditions, and one row for each item of a list.

It must hold no more than one record, and must not format anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.answers.resolved_schema import SchemaReader
from pipeline.config.constraints import nearest
from pipeline.errors import ConfigError
from pipeline.output.current import Record

POSITION = "_position"
STATUS = "_status"
REASON = "_reason"
PROMPT = "_prompt"
NOTES = "_notes"
_CONDITION = re.compile(r"\s*(!?)([^\s=!<>~]+)\s*(?:(!=|<=|>=|=|<|>|~)(.*))?", re.DOTALL)

OWN_VALUES: Mapping[str, Callable[[Record], Any]] = {
    "id": lambda record: record.id,
    STATUS: lambda record: record.status,
    REASON: lambda record: record.reason,
    PROMPT: lambda record: record.prompt,
    "_sha256": lambda record: record.raw.get("sha256"),
    "_uri": lambda record: record.raw.get("uri"),
    "_run": lambda record: record.raw.get("run"),
    "_run_id": lambda record: record.raw.get("run_id"),
    "_model": lambda record: (record.raw.get("model") or {}).get("name"),
    "_variant": lambda record: record.raw.get("variant"),
    "_fingerprint": lambda record: record.raw.get("fingerprint"),
    "_finished_at": lambda record: record.raw.get("finished_at"),
    "_latency_s": lambda record: record.raw.get("latency_s"),
    "_prompt_tokens": lambda record: (record.raw.get("usage") or {}).get("prompt_tokens"),
    "_completion_tokens": lambda record: (record.raw.get("usage") or {}).get("completion_tokens"),
    NOTES: lambda record: record.raw.get("notes"),
    "_evidence": lambda record: record.raw.get("evidence"),
    "_windows": lambda record: record.raw.get("windows"),
    "_merge": lambda record: record.raw.get("merge"),
}
"""The values of a record besides its answer, by column name."""


@dataclass(frozen=True, slots=True)
class Row:
    """A record, or one item of the exploded list of a record; `position` is None without an item."""

    record: Record
    explode: str | None = None
    position: int | None = None
    item: Any = None

    def value(self, path: str) -> Any:
        """Return the value of a column; a path through a list gives a list, a missing value is None."""
        if path in OWN_VALUES:
            return OWN_VALUES[path](self.record)
        return self.position if path == POSITION else self.answer_value(path)

    def answer_value(self, path: str) -> Any:
        """Return the value at a path of the answer, also of a property with the name of a record's value."""
        if self.explode is not None and (path == self.explode or path.startswith(f"{self.explode}.")):
            inner_path = path[len(self.explode) + 1 :]
            return _value_at(self.item, inner_path.split(".") if inner_path else [])
        return _value_at(self.record.output, path.split("."))


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition `PATH OP VALUE`, or PATH alone: it has a value (`operator` is `is`), or none (`!`)."""

    path: str
    operator: str
    value: Any = None

    def holds(self, row: Row) -> bool:
        """Return True when the row meets the condition; of a list, any item suffices, and for != none may be equal."""
        value = row.value(self.path)
        if self.operator in ("is", "!"):
            return _is_something(value) is (self.operator == "is")
        values = list(_flat(value)) if isinstance(value, list) else [value]
        if self.operator == "!=":
            return not any(_compare("=", candidate, self.value) for candidate in values)
        return any(_compare(self.operator, candidate, self.value) for candidate in values)


def parse_condition(text: str) -> Condition:
    """Parse the value of --where; ConfigError for anything else."""
    match = _CONDITION.fullmatch(text)
    if match is None or (match[1] and match[3]):
        raise ConfigError(f"--where: got {text!r}, need PATH OP VALUE with =, !=, <, <=, >, >= or ~, or PATH, or !PATH")
    negated, path, operator, value = match.groups()
    if operator is None:
        return Condition(path, "!" if negated else "is")
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        parsed = value.strip()
    if operator == "~" and not isinstance(parsed, str):
        parsed = value.strip()
    return Condition(path, operator, parsed)


def rows_of(record: Record, explode: str | None) -> Iterator[Row]:
    """Yield one row, or with `explode` one for each item of the list; a record without items keeps one row."""
    items = _value_at(record.output, explode.split(".")) if explode is not None else None
    if not isinstance(items, list) or not items:
        yield Row(record, explode)
        return
    for position, item in enumerate(items):
        yield Row(record, explode, position, item)


def paths_of_schema(schema: Mapping[str, Any]) -> list[str]:
    """Return the dotted paths of the properties of a schema, also through lists and references, in its order."""
    return list(dict.fromkeys(path for path, _ in SchemaReader(schema).values(schema) if path))


def paths_of_value(value: Any, prefix: str = "") -> list[str]:
    """Return the dotted paths of an answer, also through lists, in its order."""
    if isinstance(value, Mapping):
        paths = []
        for name, inner in value.items():
            paths += [f"{prefix}{name}", *paths_of_value(inner, f"{prefix}{name}.")]
        return paths
    if isinstance(value, list):
        return list(dict.fromkeys(path for item in value for path in paths_of_value(item, prefix)))
    return []


def check_paths(paths: Iterable[str], output_paths: Sequence[str], *, flag: str) -> None:
    """Raise ConfigError, with the nearest path, for a path that neither the schema nor the results have."""
    column_paths = [*OWN_VALUES, POSITION, *output_paths]
    for path in paths:
        if path not in column_paths:
            near = nearest(path, column_paths)
            raise ConfigError(f"{flag}: got {path!r}, which no result has{f'; the nearest is {near}' if near else ''}")


def _flat(items: Sequence[Any]) -> Iterator[Any]:
    """Yield the items of a list and of the lists in it; a path through two lists gives such a nested list."""
    for item in items:
        if isinstance(item, list):
            yield from _flat(item)
        else:
            yield item


def _value_at(value: Any, steps: Sequence[str]) -> Any:
    for number, step in enumerate(steps):
        if isinstance(value, list):
            return [_value_at(item, steps[number:]) for item in value]
        if not isinstance(value, Mapping):
            return None
        value = value.get(step)
    return value


def _compare(operator: str, left: Any, right: Any) -> bool:
    if operator == "~":
        text = left if isinstance(left, str) else json.dumps(left, ensure_ascii=False)
        return bool(right.casefold() in text.casefold()) if left is not None else False
    if operator == "=":
        return bool(left == right) and isinstance(left, bool) is isinstance(right, bool)
    if _is_number(left) is not _is_number(right) or not (_is_number(left) or isinstance(left, str)):
        return False
    if not _is_number(left) and not isinstance(right, str):
        return False
    ordered: Mapping[str, Callable[[Any, Any], bool]] = {
        "<": lambda a, b: bool(a < b),
        "<=": lambda a, b: bool(a <= b),
        ">": lambda a, b: bool(a > b),
        ">=": lambda a, b: bool(a >= b),
    }
    return ordered[operator](left, right)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_something(value: Any) -> bool:
    if isinstance(value, str):
        return bool(value.strip())
    if isinstance(value, list):
        return any(map(_is_something, value))
    return value is not None
