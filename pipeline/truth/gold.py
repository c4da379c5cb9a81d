"""The gold file: the correct values of documents by human judgement, one JSON object per line, appended only.

A property that is missing from a document's gold is not judged. It must not read an output.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.answers.schema import CompiledSchema, compile_schema
from pipeline.answers.subschemas import without_keywords
from pipeline.config.constraints import nearest_hint
from pipeline.errors import ConfigError
from pipeline.truth.comparators import canonical_json, is_something

SETS = ("dev", "holdout")
SAMPLE = "sample"
MOST_NAMED = 3
WHY = (SAMPLE, "disputed", "failed", "ids")
_log = logging.getLogger(__name__)

Key = tuple[str, str]
"""The id of a document, and the sha256 of its bytes."""


@dataclass(frozen=True, slots=True)
class GoldDocument:
    """All judgements of one document. `incomplete`: lists that gold does not name completely (`partial`)."""

    id: str
    sha256: str
    gold: Mapping[str, Any] = field(default_factory=dict)
    unknown: frozenset[str] = frozenset()
    incomplete: frozenset[str] = frozenset()
    set: str = "dev"
    why: str = SAMPLE
    how: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """The sha256 of the judgements; equal digests mean the same gold."""
        text = canonical_json([self.gold, sorted(self.unknown), sorted(self.incomplete)])
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Gold:
    """A gold file in memory: its documents, and those of each reviewer that `by` names."""

    path: str
    sha256: str
    lines: int
    documents: Mapping[Key, GoldDocument]
    by_person: Mapping[str, Mapping[Key, GoldDocument]]

    @property
    def accepted_unchanged(self) -> float | None:
        """The share of judged properties that a reviewer accepted unchanged; None when no line has `how`."""
        ways = Counter(way for document in self.documents.values() for way in document.how.values())
        return ways["accepted"] / ways.total() if ways else None


def read_gold(path: Path, schema: Mapping[str, Any], *, agent: str | None = None) -> Gold:
    """Read a gold file and check it against an agent's schema without its `required`.

    ConfigError for a file that cannot be read, and for an invalid line, with its number. A truncated last line is
    skipped with a warning.
    """
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise ConfigError(f"--gold: {path} cannot be read: {exc.strerror or exc}") from exc
    relaxed = relaxed_schema(schema, where=str(path))
    lines = [checked_line(line, at, schema=relaxed, agent=agent) for at, line in _parsed(path, data)]
    people = dict.fromkeys(line["by"] for line in lines if line.get("by"))
    return Gold(
        path=str(path),
        sha256=hashlib.sha256(data).hexdigest(),
        lines=len(lines),
        documents=folded_lines(lines),
        by_person={person: folded_lines(line for line in lines if line.get("by") == person) for person in people},
    )


def gold_lines(path: Path) -> list[Mapping[str, Any]]:
    """Return the objects of a gold file, unchecked; ConfigError for a line that is not JSON."""
    return [line for _, line in _parsed(path, path.read_bytes()) if isinstance(line, dict)]


def relaxed_schema(schema: Mapping[str, Any], *, where: str) -> CompiledSchema:
    """Return the schema for gold: the agent's without `required`."""
    return compile_schema(without_keywords(dict(schema), lambda keyword: keyword == "required"), where=where)


def folded_lines(lines: Iterable[Mapping[str, Any]]) -> dict[Key, GoldDocument]:
    """Return the documents of checked lines; for each top-level property the last line with it counts."""
    documents: dict[Key, GoldDocument] = {}
    for line in lines:
        key = (line["id"], line["sha256"])
        if line["gold"] is None:
            documents.pop(key, None)
        else:
            documents[key] = _with_line(documents.get(key) or GoldDocument(*key), line)
    return documents


def _with_line(before: GoldDocument, line: Mapping[str, Any]) -> GoldDocument:
    unknown = frozenset(line.get("unknown") or ())
    incomplete = frozenset(line.get("partial") or ())
    judged = {*line["gold"], *map(_top, unknown), *map(_top, incomplete)}
    values = {name: value for name, value in before.gold.items() if name not in unknown}
    return GoldDocument(
        id=before.id,
        sha256=before.sha256,
        gold={**values, **line["gold"]},
        unknown=unknown | {path for path in before.unknown if _top(path) not in judged},
        incomplete=incomplete | {path for path in before.incomplete if _top(path) not in judged},
        set=line.get("set") or before.set,
        why=line.get("why") or before.why,
        how={**before.how, **(line.get("how") or {})},
    )


def _top(path: str) -> str:
    return path.partition(".")[0]


def _parsed(path: Path, data: bytes) -> Iterator[tuple[str, Any]]:
    """Yield (FILE:NUMBER, value) for each line that is not blank; ConfigError for a line that is not JSON."""
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        at = f"{path}:{number}"
        try:
            yield at, json.loads(line, parse_float=finite, parse_constant=finite)
        except (ValueError, RecursionError) as exc:
            if number == len(lines):  # the last line, which has no LF
                _log.warning("The last line is incomplete and was skipped.", extra={"gold": at})
                return
            raise ConfigError(f"{at}: is not valid JSON") from exc


def finite(text: str) -> float:
    """Return the number; ValueError for NaN and for a number beyond the range of a float, which are not JSON."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def checked_line(line: Any, at: str, *, schema: CompiledSchema, agent: str | None) -> dict[str, Any]:
    """Return a line whose fields have the documented types and whose gold is valid; ConfigError otherwise."""
    if not isinstance(line, dict):
        raise ConfigError(f"{at}: is not an object, need id, sha256 and gold")
    for name in ("id", "sha256"):
        if not isinstance(line.get(name), str) or not line[name]:
            hint = f" (pipeline review OUT --import {at.rpartition(':')[0]} fills it in)" if name == "sha256" else ""
            raise ConfigError(f"{at}: got no {name}, need the document's{hint}")
    if "gold" not in line:
        raise ConfigError(f"{at}: got no gold, need an object with the judged properties, or null to withdraw them")
    if line.get("agent") is not None and agent is not None and line["agent"] != agent:
        raise ConfigError(f"{at}: agent is {line['agent']!r}, but the output is of {agent!r}")
    _check_choice(line, "set", SETS, at=at)
    _check_choice(line, "why", WHY, at=at)
    for name in ("unknown", "partial"):
        _check_paths(line.get(name), at=f"{at}: {name}", schema=schema)
    how = line.get("how") or {}
    if not isinstance(how, dict) or not all(isinstance(way, str) for way in how.values()):
        raise ConfigError(f"{at}: how is not an object, need the judged properties with accepted, corrected or typed")
    if not isinstance(line.get("by") or "", str):
        raise ConfigError(f"{at}: by is not a text, need the reviewer's name")
    _check_gold(line["gold"], at, schema=schema)
    return line


def _check_choice(line: Mapping[str, Any], name: str, choices: tuple[str, ...], *, at: str) -> None:
    if line.get(name) is not None and line[name] not in choices:
        raise ConfigError(f"{at}: {name} is {line[name]!r}, need one of {', '.join(choices)}")


def _check_paths(paths: Any, *, at: str, schema: CompiledSchema) -> None:
    if paths is None:
        return
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise ConfigError(f'{at} is not a list of paths, need one as in ["risks", "companies.ticker"]')
    for path in paths:
        if not set(path.split(".")) <= schema.names:
            raise ConfigError(f"{at} names {path!r}, which the schema does not have")


def _check_gold(gold: Any, at: str, *, schema: CompiledSchema) -> None:
    if gold is None:
        return
    if not isinstance(gold, dict):
        raise ConfigError(f"{at}: gold is not an object, need one with the judged properties, or null to withdraw them")
    try:
        violation = schema.violation(_without_nothing(gold))
        canonical_json(gold)
    except RecursionError:
        raise ConfigError(f"{at}: gold is nested too deeply") from None
    if violation is not None:
        place = violation.path.removeprefix("$").removeprefix(".") or "gold"
        raise ConfigError(f"{at}: {place}: {violation.message}{unexpected_names(violation.unexpected, schema)}")


def unexpected_names(unexpected: Sequence[str], schema: CompiledSchema) -> str:
    """Return the first names that the schema lacks, with the nearest name that it has."""
    if not unexpected:
        return ""
    ellipsis = ", …" if len(unexpected) > MOST_NAMED else ""
    return f": {', '.join(map(repr, unexpected[:MOST_NAMED]))}{ellipsis}{nearest_hint(unexpected[0], schema.names)}"


def _without_nothing(value: Any) -> Any:
    """Return a value without null, "" and []: all of these mean "not mentioned" in any schema."""
    if isinstance(value, dict):
        return {name: _without_nothing(inner) for name, inner in value.items() if is_something(inner)}
    if isinstance(value, list):
        return [_without_nothing(item) for item in value if is_something(item)]
    return value
