"""A JSON Schema, compiled once: does a value keep it, what is the one thing worth saying, which strings are quotes.

Only keywords.py and this module know jsonschema; they read no file, use no network and repeat no value they judge.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import SchemaError, best_match
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from pipeline.answers.fast_path import Check, quick_check
from pipeline.answers.keywords import Validator, check_patterns, matches
from pipeline.answers.subschemas import QUOTE, places, without_keywords
from pipeline.answers.violations import MESSAGE_CHARS, Violation, describe, path_of, short
from pipeline.config.constraints import nearest_hint
from pipeline.errors import ConfigError
from pipeline.linear_regex import TooExpensiveError

_ERRORS_LOOKED_AT = 100
_TOO_DEEP = "expected a value of the schema's depth, got one nested too deeply to check"
_TOO_EXPENSIVE = "expected strings that can be held against the patterns within seconds"
_TOO_LARGE = "expected numbers of an ordinary size, got one too large to check"
Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class CompiledSchema:
    """A checked schema with its validator; safe to share between threads.

    `schema` is as given, `for_server` is without `x-` keywords, its keys in the same order. `surely_keeps` spares
    most valid values the validator, which takes ten times as long.
    """

    schema: Mapping[str, Any]
    for_server: Mapping[str, Any]
    validator: Draft202012Validator
    resolver: Any
    names: frozenset[str]
    has_quotes: bool
    surely_keeps: Check | None

    def violation(self, value: Any) -> Violation | None:
        """None when the value keeps the schema, else the one violation worth saying."""
        try:
            if self.surely_keeps is not None and self.surely_keeps(value):
                return None
            worst = best_match(islice(self.validator.iter_errors(value), _ERRORS_LOOKED_AT))
        except RecursionError:
            return Violation("$", _TOO_DEEP)
        except TooExpensiveError:
            return Violation("$", _TOO_EXPENSIVE)
        except (OverflowError, ValueError):
            return Violation("$", _TOO_LARGE)
        if worst is None:
            return None
        message = describe(worst.validator, worst.schema, value=worst.instance)
        return Violation(path_of(worst.absolute_path, names=self.names), message)

    def quotes(self, value: Any) -> list[tuple[str, str]]:
        """The strings of a valid value that must stand in the document, each with its place, once."""
        if not self.has_quotes:
            return []
        found = dict.fromkeys(_quoted(self, self.schema, value=value, place=()))
        return [(path_of(place, names=self.names), text) for place, text in found]


def compile_schema(schema: Mapping[str, Any], *, where: str) -> CompiledSchema:
    """The schema, checked and ready; ConfigError naming `where` and the place when it cannot be used."""
    plain = _plain(schema, where)
    kind = plain.get("type", "object" if isinstance(plain.get("properties"), dict) else None)
    if kind != "object":
        raise ConfigError(f'{where}: the schema must be of an object ("type": "object"), got type {short(kind)}')
    _check_keywords(plain, where)
    # a schema without a type would let anything but an object pass
    validator = Validator({**plain, "type": "object"}, registry=Registry())
    root = DRAFT202012.create_resource(plain)
    resolver = Registry().with_resource("", root).crawl().resolver_with_root(root)
    nodes = list(places(plain, "$"))
    unevaluated = any("unevaluatedProperties" in node for _, node in nodes)
    for place, node in nodes:
        _check_place(node, resolver, where=where, place=place)
        check_patterns(node, at=f"{where}: at {place}", names_matter=unevaluated)
    compiled = CompiledSchema(
        schema=plain,
        for_server=without_keywords(plain, lambda keyword: keyword.startswith("x-")),
        validator=validator,
        resolver=resolver,
        names=frozenset(name for _, node in nodes for name in _names(node)),
        has_quotes=any(node.get(QUOTE) for _, node in nodes),
        surely_keeps=quick_check({**plain, "type": "object"}),
    )
    broken = compiled.violation({})
    if broken is not None and broken.message == _TOO_DEEP:
        raise ConfigError(f"{where}: the schema refers to itself without end, need a $ref that leads elsewhere")
    return compiled


def _plain(schema: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The schema as JSON would give it back; YAML knows dates, and keys that are not strings."""
    if not isinstance(schema, Mapping):
        raise ConfigError(f"{where}: got {type(schema).__name__}, need a JSON Schema (a mapping)")
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(schema), allow_nan=False))
        if plain != schema:
            raise ValueError("a key is not a string (in YAML, quote yes, no, on, off and numbers)")
    except (TypeError, ValueError, RecursionError) as cause:
        raise ConfigError(f"{where}: the schema is not JSON: {str(cause)[:MESSAGE_CHARS]}") from cause
    return plain


def _check_keywords(plain: Any, where: str) -> None:
    """Nothing, or ConfigError: the schema is not one of draft 2020-12, or a pattern does not compile."""
    try:
        Draft202012Validator.check_schema(plain, format_checker=FormatChecker(["regex"]))
    except SchemaError as cause:
        place = cause.json_path
        message = f"{where}: at {place}: not JSON Schema draft 2020-12: {cause.message[:MESSAGE_CHARS]}"
        raise ConfigError(message) from cause
    except RecursionError as cause:
        raise ConfigError(f"{where}: the schema is nested too deeply") from cause


def _check_place(node: dict[str, Any], resolver: Any, *, where: str, place: str) -> None:
    """Nothing, or ConfigError: a reference that leads out of the schema or nowhere, or a misplaced keyword."""
    for keyword in ("$ref", "$dynamicRef"):
        if isinstance(node.get(keyword), str):
            _check_ref(node[keyword], resolver, at=f"{where}: at {place}.{keyword}")
    if "$id" in node and place != "$":
        raise ConfigError(f"{where}: at {place}.$id: accepted at the top of the schema only")
    quote, kinds = node.get(QUOTE, False), node.get("type", ["string"])
    if not isinstance(quote, bool) or (quote and "string" not in ([kinds] if isinstance(kinds, str) else kinds)):
        seen = f"got {short(quote)} on type {short(kinds)}"
        raise ConfigError(f"{where}: at {place}.{QUOTE}: {seen}, need true, on a string")
    if node.get("additionalProperties") is False and not node.get("patternProperties"):
        _check_required(node.get("required", ()), node.get("properties", {}), at=f"{where}: at {place}.required")


def _check_required(required: Iterable[str], properties: Iterable[str], *, at: str) -> None:
    """Nothing, or ConfigError: a property is required that may not be there, so that no object fits."""
    for name in required:
        if name not in properties:
            told = f"{short(name)} is none of the properties, and no others are accepted"
            raise ConfigError(f"{at}: {told}{nearest_hint(name, properties)}")


def _check_ref(ref: str, resolver: Any, *, at: str) -> None:
    """Nothing, or ConfigError when the reference is not one into this very schema."""
    accepted = 'need a place in this schema, such as "#/$defs/name"'
    if not ref.startswith("#"):
        raise ConfigError(f"{at}: got {short(ref)}, which is outside of the schema; {accepted}")
    try:
        target = resolver.lookup(ref).contents
    except Unresolvable as cause:
        raise ConfigError(f"{at}: got {short(ref)}, which is not there; {accepted}") from cause
    # a reference may lead below a keyword of no meaning, where nothing has been checked yet
    _check_keywords(target, at)
    for _, node in places(target, ""):
        check_patterns(node, at=at, names_matter=False)


def _names(node: dict[str, Any]) -> Iterator[str]:
    """The property names a schema gives."""
    for keyword in ("properties", "required"):
        names = node.get(keyword)
        yield from (name for name in names if isinstance(name, str)) if isinstance(names, (dict, list)) else ()


def _quoted(compiled: CompiledSchema, schema: Any, *, value: Any, place: Place) -> Iterator[tuple[Place, str]]:
    """The quotes in a valid value, by walking the schema and the value side by side."""
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
    """The items of an array or the properties of an object; nothing of anything else."""
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, list) else ()


def _applied(compiled: CompiledSchema, schema: Mapping[str, Any], *, value: Any) -> Iterator[Any]:
    """The schemas that speak of the same value: references, and the branches it keeps."""

    def keeps(branch: Any) -> bool:
        return bool(compiled.validator.evolve(schema=branch).is_valid(value))

    for keyword in ("$ref", "$dynamicRef"):
        if keyword in schema:
            yield compiled.resolver.lookup(schema[keyword]).contents
    yield from schema.get("allOf", [])
    yield from filter(keeps, [*schema.get("anyOf", []), *schema.get("oneOf", [])])
    if "if" in schema:
        yield from [schema["if"], schema.get("then")] if keeps(schema["if"]) else [schema.get("else")]
    if isinstance(value, dict):
        yield from (sub for name, sub in schema.get("dependentSchemas", {}).items() if name in value)


def _inner(schema: Mapping[str, Any], step: str | int) -> list[Any]:
    """The schemas of one item or property, as `items` and `additionalProperties` leave them."""
    if isinstance(step, int):
        prefix = schema.get("prefixItems", [])
        return [prefix[step] if step < len(prefix) else schema.get("items")]
    named = schema.get("properties", {})
    subs = [named[step]] if step in named else []
    subs += [sub for pattern, sub in schema.get("patternProperties", {}).items() if matches(pattern, step)]
    return subs or [schema.get("additionalProperties")]
