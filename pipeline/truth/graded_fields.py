"""The fields of a schema as a tree with the rule that compares each of them.

The items of a list have the path of the list (`companies.ticker`), as in `pipeline diff`. It must not see answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.answers.resolved_schema import SchemaReader, type_of
from pipeline.answers.subschemas import QUOTE
from pipeline.config.constraints import nearest_hint
from pipeline.errors import ConfigError
from pipeline.truth.comparators import COMPARISONS, Comparator

OFF = "off"
LONGEST_COMPARED = 100
"""A string that may be longer is free text: two correct answers have different words, so it is not compared."""
_SETTINGS = ("compare", "abs", "rel", "at_least", "key")


@dataclass(frozen=True, slots=True)
class Leaf:
    """A single value. `comparator`: None for an ungraded field. `has_few_values`: it gets a confusion table."""

    path: str
    comparator: Comparator | None
    has_few_values: bool = False


@dataclass(frozen=True, slots=True)
class ObjectField:
    """An object with named properties; the root has the path ""."""

    path: str
    properties: Mapping[str, Field]


@dataclass(frozen=True, slots=True)
class ScalarList:
    """A list of single values, graded as a multiset."""

    path: str
    item: Leaf


@dataclass(frozen=True, slots=True)
class ObjectList:
    """A list of objects, which are paired one to one; `key` names the property that identifies an object."""

    path: str
    item: ObjectField
    key: str | None = None


Field = Leaf | ObjectField | ScalarList | ObjectList


def graded_fields(schema: Mapping[str, Any], settings: Mapping[str, Mapping[str, Any]]) -> ObjectField:
    """Return the fields of a schema, compared by `settings` (path → compare, abs, rel, at_least, key) or by default.

    ConfigError for a path that the schema lacks, with the nearest one, and for settings that do not apply.
    """
    root = _Builder(schema, settings).field(schema, path="", inside=frozenset())
    if not isinstance(root, ObjectField):
        return ObjectField("", {})
    fields_by_path = {field.path: field for field in every_field(root)}
    for path, own in settings.items():
        _check_settings(path, own, fields_by_path=fields_by_path)
    return root


def every_field(field: Field) -> Iterator[Field]:
    """Yield a field and all fields below it; the items of a list are not fields of their own."""
    yield field
    inner = field.properties if isinstance(field, ObjectField) else {}
    inner = field.item.properties if isinstance(field, ObjectList) else inner
    for below in inner.values():
        yield from every_field(below)


def paths_in_lists(field: Field, *, in_list: bool = False) -> Iterator[str]:
    """Yield the paths of the properties of objects in lists, which are graded pair by pair."""
    if in_list:
        yield field.path
    inner = field.item if isinstance(field, ObjectList) else field
    if isinstance(inner, ObjectField):
        for below in inner.properties.values():
            yield from paths_in_lists(below, in_list=in_list or isinstance(field, ObjectList))


def leaves(field: Field) -> Iterator[Leaf]:
    """Yield the single values and the items of lists of them, whether they are compared or off."""
    for below in every_field(field):
        if isinstance(below, Leaf):
            yield below
        elif isinstance(below, ScalarList):
            yield below.item


class _Builder:
    """Builder of the tree, with the settings of each field."""

    def __init__(self, root: Mapping[str, Any], settings: Mapping[str, Mapping[str, Any]]) -> None:
        self._reader = SchemaReader(root)
        self._settings = settings

    def field(self, schema: Any, *, path: str, inside: frozenset[frozenset[str]]) -> Field:
        """Return the field of a schema. `inside`: the references of each enclosing field; a repeated one becomes one
        value.

        Fields that share a base (`allOf`) differ in their other references.
        """
        node, followed = self._reader.resolved(schema)
        if followed in inside:
            return self._leaf(node, path)
        if followed:
            inside |= {followed}
        kind = type_of(node)
        properties = node.get("properties")
        if kind == "object" and isinstance(properties, dict) and properties:
            return self._object(properties, path=path, inside=inside)
        if kind == "array" and "prefixItems" not in node:
            return self._list(node, path=path, inside=inside)
        return self._leaf(node, path)

    def _object(self, properties: Mapping[str, Any], *, path: str, inside: frozenset[frozenset[str]]) -> ObjectField:
        prefix = f"{path}." if path else ""
        return ObjectField(
            path,
            {name: self.field(sub, path=f"{prefix}{name}", inside=inside) for name, sub in properties.items()},
        )

    def _list(self, node: Mapping[str, Any], *, path: str, inside: frozenset[frozenset[str]]) -> Field:
        item = self.field(node.get("items", {}), path=path, inside=inside)
        if isinstance(item, ObjectField):
            return ObjectList(path, item, self._settings.get(path, {}).get("key") or node.get("x-key"))
        if isinstance(item, Leaf):
            return ScalarList(path, item)
        return self._leaf({}, path)  # a list of lists is one value

    def _leaf(self, node: Mapping[str, Any], path: str) -> Leaf:
        own = self._settings.get(path, {})
        compare = own.get("compare")
        if compare is None:
            compare = default_comparison(node)
        elif compare is False:
            compare = OFF
        is_closed_set = "enum" in node or type_of(node) == "boolean"
        if compare not in COMPARISONS:
            return Leaf(path, None, is_closed_set)
        tolerances = {name: own[name] for name in ("abs", "rel", "at_least") if name in own}
        return Leaf(path, Comparator(compare, **tolerances), is_closed_set)


def default_comparison(node: Mapping[str, Any]) -> str:
    """Return the comparison of a field that `eval.fields` does not name."""
    kind = type_of(node)
    if node.get(QUOTE):
        return OFF
    if "enum" in node or "const" in node or kind in ("boolean", "integer"):
        return "exact"
    if kind == "number":
        return "number"
    if kind != "string":
        return "exact"
    if node.get("format") in ("date", "date-time"):
        return "date"
    return OFF if node.get("maxLength", 0) > LONGEST_COMPARED else "text"


def _check_settings(path: str, own: Mapping[str, Any], *, fields_by_path: Mapping[str, Field]) -> None:
    at = f"eval.fields.{path}"
    field = fields_by_path.get(path) if path else None
    if field is None:
        paths = [name for name in fields_by_path if name]
        raise ConfigError(f"{at}: the schema has no such field{nearest_hint(path, paths)}")
    for name in own:
        if name not in _SETTINGS:
            raise ConfigError(f"{at}: got {name!r}, need one of {', '.join(_SETTINGS)}{nearest_hint(name, _SETTINGS)}")
    compare = own.get("compare", None)
    if compare not in (None, False, OFF, *COMPARISONS):
        need = ", ".join([*COMPARISONS, OFF])
        raise ConfigError(f"{at}.compare: got {compare!r}, need one of {need}{nearest_hint(str(compare), COMPARISONS)}")
    if isinstance(field, (ObjectField, ObjectList)) and set(own) - {"key"}:
        raise ConfigError(f"{at}: is an object, need a rule for each of its properties ({path}.NAME)")
    if "key" in own:
        _check_key(own["key"], at=f"{at}.key", field=field)
    for name, maximum in (("abs", None), ("rel", None), ("at_least", 1)):
        _check_tolerance(own.get(name, 0), at=f"{at}.{name}", maximum=maximum)


def _check_key(key: Any, *, at: str, field: Field) -> None:
    if not isinstance(field, ObjectList):
        raise ConfigError(f"{at}: only a list of objects has a key")
    if key not in field.item.properties:
        hint = nearest_hint(str(key), field.item.properties)
        raise ConfigError(f"{at}: got {key!r}, need a property of the objects of {field.path}{hint}")


def _check_tolerance(value: Any, *, at: str, maximum: float | None) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not value >= 0 or (maximum is not None and value > maximum):
        need = "a number from 0 to 1" if maximum is not None else "a number >= 0"
        raise ConfigError(f"{at}: got {value!r}, need {need}")
