"""The value at one place of a schema: its kind, and the keywords of all schemas that apply to it.

It looks through references, `allOf`, and `anyOf` or `oneOf` with null, and must not import a validator.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.answers.resolved_schema import NULL, SchemaReader

Kind = Literal["string", "number", "boolean", "object", "array", "mixed"]

_KINDS: Mapping[str, Kind] = {
    "string": "string",
    "number": "number",
    "integer": "number",
    "boolean": "boolean",
    "object": "object",
    "array": "array",
}
_MOST_SOURCES = 100


@dataclass(frozen=True, slots=True)
class SchemaNode:
    """One value of a schema. `sources`: the schemas that apply to it with their places, that of the place itself first.

    `structure`: these as one. `kind`: of the values except null; `mixed` for several, tuples and arrays of arrays.
    """

    sources: tuple[tuple[str, Mapping[str, Any]], ...]
    structure: Mapping[str, Any]
    kind: Kind

    @property
    def place(self) -> str:
        """The place of the value's own schema."""
        return self.sources[0][0]

    def keyword(self, name: str) -> tuple[str, Any] | None:
        """Return the place and the value of a keyword; the outermost one wins."""
        return next(((place, node[name]) for place, node in self.sources if name in node), None)

    def value(self, name: str, default: Any = None) -> Any:
        """Return the value of a keyword."""
        placed = self.keyword(name)
        return default if placed is None else placed[1]

    @property
    def choices(self) -> list[Any] | None:
        """Return the values of `enum` or `const`; None without either."""
        if "const" in self.structure:
            return [self.structure["const"]]
        choices = self.structure.get("enum")
        return choices if isinstance(choices, list) else None


class SchemaNodes:
    """The nodes of one schema, which must be valid."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._reader = SchemaReader(root)

    def target(self, reference: str) -> Mapping[str, Any]:
        """Return the schema that a reference leads to."""
        return self._reader.target(reference)

    def node(self, schema: Any, place: str) -> SchemaNode:
        """Return the node of the value that a part of the schema describes."""
        sources = tuple(self._sources(schema, place, set()))
        structure, _ = self._reader.resolved(schema)
        return SchemaNode(sources or ((place, {}),), structure, self._kind(structure))

    def _sources(self, schema: Any, place: str, visited: set[int]) -> Iterator[tuple[str, Mapping[str, Any]]]:
        if not isinstance(schema, Mapping) or id(schema) in visited or len(visited) >= _MOST_SOURCES:
            return
        visited.add(id(schema))
        yield place, schema
        if isinstance(schema.get("$ref"), str):
            yield from self._sources(self._reader.target(schema["$ref"]), _place_of(schema["$ref"]), visited)
        for keyword in ("anyOf", "oneOf"):
            branches = schema.get(keyword, [])
            non_null = [number for number, branch in enumerate(branches) if branch != NULL]
            if len(non_null) == 1:
                yield from self._sources(branches[non_null[0]], f"{place}.{keyword}[{non_null[0]}]", visited)
        for number, part in enumerate(schema.get("allOf", [])):
            yield from self._sources(part, f"{place}.allOf[{number}]", visited)

    def _kind(self, structure: Mapping[str, Any]) -> Kind:
        kinds = structure.get("type")
        names = [kinds] if isinstance(kinds, str) else [name for name in kinds or () if name != "null"]
        names = names or _implied(structure)
        mapped = {_KINDS.get(name, "mixed") for name in names}
        kind: Kind = mapped.pop() if len(mapped) == 1 else "mixed"
        if kind == "array" and self._holds_arrays(structure):
            return "mixed"
        return kind

    def _holds_arrays(self, structure: Mapping[str, Any]) -> bool:
        """Return True for a tuple, and for an array of arrays."""
        if "prefixItems" in structure:
            return True
        items, _ = self._reader.resolved(structure.get("items", {}))
        kinds = items.get("type", ())
        return "array" in ([kinds] if isinstance(kinds, str) else kinds)


def _implied(structure: Mapping[str, Any]) -> list[str]:
    """Return the types that the other keywords of a schema without `type` imply."""
    if "properties" in structure:
        return ["object"]
    choices = [structure["const"]] if "const" in structure else structure.get("enum", [])
    return [_type_name(choice) for choice in choices if choice is not None]


def _type_name(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "number"
    return "string" if isinstance(value, str) else "mixed"


def _place_of(reference: str) -> str:
    """Return the place that a reference within the schema leads to."""
    steps = [step.replace("~1", "/").replace("~0", "~") for step in reference.removeprefix("#").strip("/").split("/")]
    return "$" + "".join(f".{step}" for step in steps if step)
