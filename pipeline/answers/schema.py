"""A JSON Schema, compiled once: validates values, selects the most useful violation, finds quotes.

Only keywords.py and this module import jsonschema; they must not read files, use the network or quote values.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import SchemaError, best_match
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from pipeline.answers.fast_path import Check, quick_check
from pipeline.answers.keywords import Validator, check_patterns, matches
from pipeline.answers.merge_rules import read_rules
from pipeline.answers.subschemas import QUOTE, places, without_keywords
from pipeline.answers.violations import MESSAGE_CHARS, Violation, describe, path_of, shortened, unexpected_names
from pipeline.answers.window_schema import window_schema
from pipeline.config.constraints import nearest_hint
from pipeline.config.texts import shorten
from pipeline.errors import ConfigError
from pipeline.linear_regex import TooExpensiveError
from pipeline.long.merge_rules import MergeRules, Rule

_ERRORS_LOOKED_AT = 100
_TOO_DEEP = "expected a value of the schema's depth, got one nested too deeply to check"
_TOO_EXPENSIVE = "expected strings that can be held against the patterns within seconds"
_TOO_LARGE = "expected numbers of an ordinary size, got one too large to check"
Place = tuple[str | int, ...]


@dataclass(frozen=True)
class CompiledSchema:
    """A checked schema with its validator; thread-safe.

    `schema` is as given, `for_server` lacks `x-` keywords, with its keys in the same order. `surely_keeps` accepts
    most valid values without the validator, which takes ten times as long. `root_rule` is of `merge_rules`; `where`
    names the schema in messages.
    """

    where: str
    schema: Mapping[str, Any]
    for_server: Mapping[str, Any]
    validator: Draft202012Validator
    resolver: Any
    names: frozenset[str]
    has_quotes: bool
    surely_keeps: Check | None
    root_rule: Rule

    @property
    def merge_rules(self) -> MergeRules:
        """The rules by which the answers about the windows of a document are merged."""
        describe = partial(path_of, names=self.names)
        return MergeRules(root=self.root_rule, violation=self._violation_text, describe=describe)

    @cached_property
    def window(self) -> CompiledSchema:
        """The schema of the answer about a window, which does not show the whole document."""
        loosened = window_schema(self.schema, accepts_null=partial(_accepts_null, self.validator))
        return compile_schema(loosened, where=f"{self.where}, for a window")

    def _violation_text(self, value: Any) -> str | None:
        broken = self.violation(value)
        return None if broken is None else f"{broken.path}: {broken.message}"

    def violation(self, value: Any) -> Violation | None:
        """Return the most useful violation; None for a valid value."""
        try:
            if self.surely_keeps is not None and self.surely_keeps(value):
                return None
            violation = best_match(islice(self.validator.iter_errors(value), _ERRORS_LOOKED_AT))
        except RecursionError:
            return Violation("$", _TOO_DEEP)
        except TooExpensiveError:
            return Violation("$", _TOO_EXPENSIVE)
        except (OverflowError, ValueError):
            return Violation("$", _TOO_LARGE)
        if violation is None:
            return None
        message = describe(violation.validator, violation.schema, value=violation.instance)
        extra = (
            unexpected_names(violation.schema, violation.instance)
            if violation.validator == "additionalProperties"
            else ()
        )
        return Violation(path_of(violation.absolute_path, names=self.names), message, extra)

    def quotes(self, value: Any) -> list[tuple[str, str]]:
        """Return (place, text) of each string that must be a quote from the document, for a message."""
        return [(path_of(place, names=self.names), text) for place, text in self.quoted(value)]

    def quoted(self, value: Any) -> list[tuple[Place, str]]:
        """Return (place, text) of each string that must be a quote from the document, without duplicates."""
        return list(dict.fromkeys(_quoted(self, self.schema, value=value, place=()))) if self.has_quotes else []


def compile_schema(schema: Mapping[str, Any], *, where: str) -> CompiledSchema:
    """Check and compile a schema; ConfigError with `where` and the place when it is not valid."""
    plain_schema = _plain(schema, where)
    kind = plain_schema.get("type", "object" if isinstance(plain_schema.get("properties"), dict) else None)
    if kind != "object":
        raise ConfigError(f'{where}: the schema must be of an object ("type": "object"), got type {shortened(kind)}')
    _check_keywords(plain_schema, where)
    # a schema without a type would accept any value that is no object
    validator = Validator({**plain_schema, "type": "object"}, registry=Registry())
    root = DRAFT202012.create_resource(plain_schema)
    resolver = Registry().with_resource("", root).crawl().resolver_with_root(root)
    nodes = list(places(plain_schema, "$"))
    unevaluated = any("unevaluatedProperties" in node for _, node in nodes)
    for place, node in nodes:
        _check_place(node, resolver, where=where, place=place)
        check_patterns(node, at=f"{where}: at {place}", names_matter=unevaluated)
    compiled = CompiledSchema(
        where=where,
        schema=plain_schema,
        for_server=without_keywords(plain_schema, lambda keyword: keyword.startswith("x-")),
        validator=validator,
        resolver=resolver,
        names=frozenset(name for _, node in nodes for name in _names(node)),
        has_quotes=any(node.get(QUOTE) for _, node in nodes),
        surely_keeps=quick_check({**plain_schema, "type": "object"}),
        root_rule=read_rules(plain_schema, accepts_null=partial(_accepts_null, validator), where=where),
    )
    broken = compiled.violation({})
    if broken is not None and broken.message == _TOO_DEEP:
        raise ConfigError(f"{where}: the schema refers to itself without end, need a $ref that leads elsewhere")
    return compiled


def _accepts_null(validator: Draft202012Validator, part: Any) -> bool:
    try:
        return bool(validator.evolve(schema=part).is_valid(None))
    except RecursionError:  # a reference that leads to itself; compile_schema refuses it
        return False


def _plain(schema: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the schema as plain JSON; ConfigError for YAML dates and keys that are not strings."""
    if not isinstance(schema, Mapping):
        raise ConfigError(f"{where}: got {type(schema).__name__}, need a JSON Schema (a mapping)")
    try:
        plain_schema: dict[str, Any] = json.loads(json.dumps(dict(schema), allow_nan=False))
        if plain_schema != schema:
            raise ValueError("a key is not a string (in YAML, quote yes, no, on, off and numbers)")
    except (TypeError, ValueError, RecursionError) as cause:
        raise ConfigError(f"{where}: the schema is not JSON: {shorten(str(cause), MESSAGE_CHARS)}") from cause
    return plain_schema


def _check_keywords(plain_schema: Any, where: str) -> None:
    """Raise ConfigError for a schema that is not of draft 2020-12, or a pattern that does not compile."""
    try:
        Draft202012Validator.check_schema(plain_schema, format_checker=FormatChecker(["regex"]))
    except SchemaError as cause:
        place = cause.json_path
        message = f"{where}: at {place}: not JSON Schema draft 2020-12: {shorten(cause.message, MESSAGE_CHARS)}"
        raise ConfigError(message) from cause
    except RecursionError as cause:
        raise ConfigError(f"{where}: the schema is nested too deeply") from cause


def _check_place(node: dict[str, Any], resolver: Any, *, where: str, place: str) -> None:
    """Raise ConfigError for a reference without a target in the schema, or a misplaced keyword."""
    for keyword in ("$ref", "$dynamicRef"):
        if isinstance(node.get(keyword), str):
            _check_ref(node[keyword], resolver, at=f"{where}: at {place}.{keyword}")
    if "$id" in node and place != "$":
        raise ConfigError(f"{where}: at {place}.$id: accepted at the top of the schema only")
    quote = node.get(QUOTE, False)
    kinds = node.get("type", ["string"])
    if not isinstance(quote, bool) or (quote and "string" not in ([kinds] if isinstance(kinds, str) else kinds)):
        problem = f"got {shortened(quote)} on type {shortened(kinds)}"
        raise ConfigError(f"{where}: at {place}.{QUOTE}: {problem}, need true, on a string")
    if node.get("additionalProperties") is False and not node.get("patternProperties"):
        _check_required(node.get("required", ()), node.get("properties", {}), at=f"{where}: at {place}.required")


def _check_required(required: Iterable[str], properties: Iterable[str], *, at: str) -> None:
    """Raise ConfigError for a required property that is not accepted, so that no object is valid."""
    for name in required:
        if name not in properties:
            message = f"{shortened(name)} is none of the properties, and no others are accepted"
            raise ConfigError(f"{at}: {message}{nearest_hint(name, properties)}")


def _check_ref(ref: str, resolver: Any, *, at: str) -> None:
    """Raise ConfigError for a reference whose target is not in this schema."""
    accepted = 'need a place in this schema, such as "#/$defs/name"'
    if not ref.startswith("#"):
        raise ConfigError(f"{at}: got {shortened(ref)}, which is outside of the schema; {accepted}")
    try:
        target = resolver.lookup(ref).contents
    except Unresolvable as cause:
        raise ConfigError(f"{at}: got {shortened(ref)}, which is not there; {accepted}") from cause
    # a reference may point below an unknown keyword, which has not been checked yet
    _check_keywords(target, at)
    for _, node in places(target, ""):
        check_patterns(node, at=at, names_matter=False)


def _names(node: dict[str, Any]) -> Iterator[str]:
    """Yield the property names in a schema."""
    for keyword in ("properties", "required"):
        names = node.get(keyword)
        yield from (name for name in names if isinstance(name, str)) if isinstance(names, (dict, list)) else ()


def _quoted(compiled: CompiledSchema, schema: Any, *, value: Any, place: Place) -> Iterator[tuple[Place, str]]:
    """Yield the quotes in a valid value, walking schema and value side by side."""
    if not isinstance(schema, Mapping):
        return
    if schema.get(QUOTE) and isinstance(value, str):
        yield place, value
    for sub in _applied(compiled, schema, value=value):
        yield from _quoted(compiled, sub, value=value, place=place)
    for step, item in _steps(value):
        for sub in _inner(schema, step):
            yield from _quoted(compiled, sub, value=item, place=(*place, step))


def _steps(value: Any) -> Iterable[tuple[str | int, Any]]:
    """Return the items of an array or the properties of an object; empty for other values."""
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, list) else ()


def _applied(compiled: CompiledSchema, schema: Mapping[str, Any], *, value: Any) -> Iterator[Any]:
    """Yield the schemas that apply to the same value: references, and the branches it is valid against."""

    def is_valid(branch: Any) -> bool:
        return bool(compiled.validator.evolve(schema=branch).is_valid(value))

    for keyword in ("$ref", "$dynamicRef"):
        if keyword in schema:
            yield compiled.resolver.lookup(schema[keyword]).contents
    yield from schema.get("allOf", [])
    yield from filter(is_valid, [*schema.get("anyOf", []), *schema.get("oneOf", [])])
    if "if" in schema:
        yield from [schema["if"], schema.get("then")] if is_valid(schema["if"]) else [schema.get("else")]
    if isinstance(value, dict):
        yield from (sub for name, sub in schema.get("dependentSchemas", {}).items() if name in value)


def _inner(schema: Mapping[str, Any], step: str | int) -> list[Any]:
    """Return the schemas of one item or property, with `items` and `additionalProperties` as fallbacks."""
    if isinstance(step, int):
        prefix = schema.get("prefixItems", [])
        return [prefix[step] if step < len(prefix) else schema.get("items")]
    properties = schema.get("properties", {})
    subs = [properties[step]] if step in properties else []
    subs += [sub for pattern, sub in schema.get("patternProperties", {}).items() if matches(pattern, step)]
    return subs or [schema.get("additionalProperties")]
