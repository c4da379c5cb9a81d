"""Generate an instance of a JSON Schema from the schema and a document's text, always the same one.

It supports the keywords that extraction schemas use, and must not be used for validation.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

DEEP = 6
QUOTING = re.compile(r"quote|evidence|excerpt|verbatim|passage", re.I)
FENCED = re.compile(r"<(\w*(?:document|article|text|source)\w*)\b[^>]*>(.*?)</\1>", re.S | re.I)
FORMATS = {
    "date": "2024-05-17",
    "date-time": "2024-05-17T08:30:00Z",
    "time": "08:30:00Z",
    "email": "desk@example.org",
    "uri": "urn:example:1",
    "uuid": "6f1c1f1e-3b7a-4f0e-9a55-0d6f2b1c7a10",
    "hostname": "example.org",
    "ipv4": "192.0.2.7",
    "duration": "P1D",
}
PATTERNS = ("ABC", "abc", "A", "a", "EUR", "US", "us", "2024-05-17", "2024", "Q1", "1", "12", "0.5", "A1", "X.Y")


@dataclass(frozen=True, slots=True)
class Seed:
    """State of the generator: the document, a number derived from it, the property's name, the depth."""

    root: Mapping[str, Any]
    document_text: str
    number: int
    name: str = ""
    depth: int = 0

    def inner(self, number: int, name: str) -> Seed:
        """Return the seed of a value inside this one."""
        return Seed(self.root, self.document_text, number, name, self.depth + 1)


def answer_for(document_text: str, schema: Mapping[str, Any]) -> str:
    """Return the JSON text of a valid instance; the same for the same document and schema."""
    digest = hashlib.sha256(document_text.encode("utf-8", "surrogatepass")).digest()
    seed = Seed(schema, document_text, int.from_bytes(digest[:6], "big"))
    return json.dumps(instance(schema, seed), ensure_ascii=False)


def quote_from(prompt: str) -> str:
    """Return a passage of the document in a prompt, without markers."""
    fenced = FENCED.findall(prompt)
    text = fenced[-1][1] if fenced else prompt
    lines = (part.strip() for line in text.splitlines() for part in re.split(r"\[\[.*?\]\]|[<>`|]", line))
    longest = max(lines, key=len, default="").encode("utf-8", "ignore").decode()
    return longest if len(longest) <= 80 else longest[:80].rpartition(" ")[0] or longest[:80]


def instance(schema: object, seed: Seed) -> Any:
    """Return a value that fits a schema."""
    if not isinstance(schema, Mapping):
        return "ok"
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][seed.number % len(schema["enum"])]
    if "$ref" in schema:
        return instance(resolve(str(schema["$ref"]), seed.root), seed.inner(seed.number, seed.name))
    for keyword in ("anyOf", "oneOf"):
        if schema.get(keyword):
            return instance(branch(schema[keyword], seed), seed)
    if schema.get("allOf"):
        return instance(merged(schema), seed)
    kind = type_of(schema, seed)
    maker = {"object": an_object, "array": an_array, "string": a_string, "integer": a_number, "number": a_number}
    return (
        maker[kind](schema, seed) if kind in maker else {"boolean": bool(seed.number & 1), "null": None}.get(kind, "ok")
    )


def type_of(schema: Mapping[str, Any], seed: Seed) -> str:
    """Return the type to generate; null, if allowed, ends a recursion."""
    kind = schema.get("type")
    if isinstance(kind, list):
        return "null" if seed.depth > DEEP and "null" in kind else str(kind[0])
    if kind:
        return str(kind)
    return "object" if "properties" in schema else "array" if "items" in schema else "string"


def branch(branches: list[Any], seed: Seed) -> Any:
    """Return the first branch, or, deep in a recursion, one without a reference."""
    if seed.depth > DEEP:
        return next((b for b in branches if isinstance(b, Mapping) and "$ref" not in b), branches[0])
    return branches[0]


def merged(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema merged with its allOf branches."""
    result: dict[str, Any] = {key: value for key, value in schema.items() if key != "allOf"}
    for part in schema["allOf"]:
        for key, value in part.items():
            are_mappings = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
            result[key] = {**result[key], **value} if are_mappings else value
    return result


def resolve(pointer: str, root: Mapping[str, Any]) -> Any:
    """Return the target of a local reference; KeyError if it does not exist."""
    if not pointer.startswith("#"):
        raise KeyError(pointer)
    target: Any = root
    for part in pointer[1:].split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        target = target[int(key)] if isinstance(target, list) else target[key]
    return target


def an_object(schema: Mapping[str, Any], seed: Seed) -> dict[str, Any]:
    """Return an object with its properties in the schema's order."""
    properties: Mapping[str, Any] = schema.get("properties", {})
    required = schema.get("required", ())
    names = [name for name in properties if seed.depth <= DEEP or name in required]
    names += [name for name in required if name not in properties]
    outer = f"{seed.name}." if QUOTING.search(seed.name) else ""
    return {
        name: instance(properties.get(name, {}), seed.inner(seed.number // 7 + i, outer + name))
        for i, name in enumerate(names)
    }


def an_array(schema: Mapping[str, Any], seed: Seed) -> list[Any]:
    """Return an array of as few items as allowed, but of one if possible."""
    least = int(schema.get("minItems", 0))
    count = max(least, 0 if seed.depth > DEEP else min(1, int(schema.get("maxItems", 1))))
    fixed: list[Any] = schema.get("prefixItems", [])
    kinds = [fixed[i] if i < len(fixed) else schema.get("items", {}) for i in range(count)]
    return [instance(kind, seed.inner(seed.number + i, seed.name)) for i, kind in enumerate(kinds)]


def a_string(schema: Mapping[str, Any], seed: Seed) -> str:
    """Return a string: a passage of the document for a quote."""
    least = int(schema.get("minLength", 0))
    most = int(schema.get("maxLength", 1_000_000))
    if "pattern" in schema:
        fits = (text for text in PATTERNS if least <= len(text) <= most and re.search(schema["pattern"], text))
        return next(fits, "ABC")
    if schema.get("format") in FORMATS:
        return FORMATS[schema["format"]]
    if QUOTING.search(seed.name):
        quote = quote_from(seed.document_text)[:most].strip()
        if len(quote) >= max(1, least):
            return quote
    return f"{seed.name or 'text'} {seed.number:x}".ljust(least, "x")[:most]


def a_number(schema: Mapping[str, Any], seed: Seed) -> int | float:
    """Return a number inside its bounds, an integer if one fits."""
    step = schema.get("multipleOf", 1) if schema.get("type") == "integer" else schema.get("multipleOf")
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    low = (0 if high is None else min(0, high - 100)) if low is None else low
    high = low + 100 if high is None else high
    if step:
        first = -(-low // step) + (1 if low == schema.get("exclusiveMinimum") and low % step == 0 else 0)
        last = high // step - (1 if high == schema.get("exclusiveMaximum") and high % step == 0 else 0)
        return (first + seed.number % max(1, int(last - first) + 1)) * step  # type: ignore[no-any-return]
    return round(low + (high - low) * (1 + seed.number % 98) / 100, 6)


def schemas_in(schema: object) -> Iterator[Mapping[str, Any]]:
    """Yield a schema and every schema inside it."""
    if isinstance(schema, list):
        for part in schema:
            yield from schemas_in(part)
    if not isinstance(schema, Mapping):
        return
    yield schema
    for key, value in schema.items():
        if key in ("properties", "$defs", "definitions", "patternProperties") and isinstance(value, Mapping):
            for part in value.values():
                yield from schemas_in(part)
        elif key in ("items", "prefixItems", "anyOf", "oneOf", "allOf", "not", "additionalProperties"):
            yield from schemas_in(value)
