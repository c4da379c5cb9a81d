"""Laws of merging for any schema, rules, windows and answers."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.answers.schema import CompiledSchema, compile_schema
from pipeline.errors import DocumentError
from pipeline.long.merging import Merged, Part, merge

TEXT = "Halden. " * 400
FEW = settings(max_examples=40, deadline=None)

WORDS = st.sampled_from(
    ["", " ", "none", "Halden Ltd", "halden ltd.", "HALDEN  LTD", "Bo", "Cé", "-5", "5", "2024-03-07"]
)
NUMBERS = st.sampled_from([0, 1, 1.0, 2, 2.5, -3, 10**20])
STRING: dict[str, Any] = {"type": ["string", "null"]}
NUMBER: dict[str, Any] = {"type": ["number", "null"]}
WORDS_OR_NULL = st.none() | WORDS
NUMBERS_OR_NULL = st.none() | NUMBERS

REGROUPING = ("first", "last", "longest", "shortest", "min", "max")
SCALARS = st.one_of(
    st.sampled_from([*REGROUPING, "majority", "same", "join"]).map(
        lambda rule: ({**STRING, "x-merge": rule}, WORDS_OR_NULL)
    ),
    st.sampled_from(["first", "last", "min", "max", "majority", "same", "sum"]).map(
        lambda rule: ({**NUMBER, "x-merge": rule}, NUMBERS_OR_NULL)
    ),
    st.sampled_from(["any", "all", "first", "last", "majority", "same"]).map(
        lambda rule: ({"type": "boolean", "x-merge": rule}, st.booleans())
    ),
    st.just(({**STRING, "x-merge": "best", "x-by": "score"}, WORDS_OR_NULL)),
    st.just(({**STRING, "x-merge": "first", "x-empty": ["none"]}, WORDS_OR_NULL)),
)
FREE_SCALARS = SCALARS.filter(lambda field: field[0]["x-merge"] in {*REGROUPING, "any", "all"})


def whole_object(rule: str) -> tuple[dict[str, Any], Any]:
    """Return the schema of an object that is merged as one value, and a strategy for its values."""
    properties = {"text": STRING, "weight": NUMBER}
    by = {"x-by": "weight"} if rule == "best" else {}
    values = st.fixed_dictionaries({}, optional={"text": WORDS_OR_NULL, "weight": NUMBERS_OR_NULL})
    return {"type": "object", "properties": properties, "x-merge": rule, **by}, values


def map_of(field: tuple[dict[str, Any], Any]) -> tuple[dict[str, Any], Any]:
    """Return the schema of a map whose values are such a field, and a strategy for its values."""
    schema, values = field
    names = st.sampled_from(["a", "A", "Bo", "", "a/b~"])
    return {"type": "object", "additionalProperties": schema}, st.dictionaries(names, values, max_size=3)


WHOLE_OBJECTS = st.sampled_from(["first", "last", "majority", "same", "best"]).map(whole_object)
FREE_OBJECTS = st.sampled_from(["first", "last"]).map(whole_object)


def row_of(fields: list[tuple[dict[str, Any], Any]]) -> tuple[dict[str, Any], Any]:
    """Return the schema of a row with an optional name and these fields, and a strategy for its values."""
    properties = {"name": STRING, **{f"f{at}": schema for at, (schema, _) in enumerate(fields)}}
    values = {f"f{at}": value for at, (_, value) in enumerate(fields)}
    row = st.fixed_dictionaries({}, optional={"name": WORDS_OR_NULL, **values})
    return {"type": "object", "properties": properties}, row


def without_best(fields: list[tuple[dict[str, Any], Any]]) -> list[tuple[dict[str, Any], Any]]:
    return [field for field in fields if field[0].get("x-merge") != "best"]


ROWS = st.lists(SCALARS, max_size=2).map(without_best).map(row_of)
FREE_ROWS = st.lists(FREE_SCALARS, max_size=2).map(row_of)
UNIONS = st.one_of(
    st.just(({"type": "array", "items": {"type": "string"}}, st.lists(WORDS, max_size=4))),
    FREE_ROWS.map(lambda row: ({"type": "array", "items": row[0], "x-key": "name"}, st.lists(row[1], max_size=4))),
    FREE_ROWS.map(lambda row: ({"type": "array", "items": row[0], "x-merge": "union"}, st.lists(row[1], max_size=4))),
)
LISTS = UNIONS | st.one_of(
    ROWS.map(lambda row: ({"type": "array", "items": row[0]}, st.lists(row[1], max_size=4))),
    ROWS.map(lambda row: ({"type": "array", "items": row[0], "x-key": ["name"]}, st.lists(row[1], max_size=4))),
    st.sampled_from(["fail", "cut"]).map(
        lambda over: (
            {"type": "array", "items": {"type": "string"}, "maxItems": 3, "x-over": over},
            st.lists(WORDS, max_size=3),
        )
    ),
)


@st.composite
def cases(draw: st.DrawFn, fields: Any, *, fewest: int = 1) -> tuple[CompiledSchema, list[Part]]:
    """Draw a schema with some of the fields, also one level down, and answers of overlapping windows."""
    own = draw(st.lists(fields, min_size=1, max_size=3))
    inner = draw(st.lists(fields, max_size=2))
    properties = {f"p{at}": schema for at, (schema, _) in enumerate(own)}
    values = {f"p{at}": value for at, (_, value) in enumerate(own)}
    nested = {f"q{at}": schema for at, (schema, _) in enumerate(inner)}
    nested_values = st.fixed_dictionaries({}, optional={f"q{at}": value for at, (_, value) in enumerate(inner)})
    score = {"score": {"type": "number", "x-merge": "max"}}
    schema = {
        "type": "object",
        "properties": {**properties, **score, "inner": {"type": "object", "properties": {**nested, **score}}},
    }
    answers = draw(
        st.lists(
            st.fixed_dictionaries({}, optional={**values, "score": NUMBERS, "inner": nested_values}),
            min_size=fewest,
            max_size=5,
        )
    )
    return compile_schema(schema, where="a"), [
        Part(at * 90, at * 90 + 100, answer) for at, answer in enumerate(answers)
    ]


def merged(compiled: CompiledSchema, parts: list[Part]) -> Merged:
    """Return the merged parts."""
    return merge(compiled.merge_rules, parts, text=TEXT)


def outcome(compiled: CompiledSchema, parts: list[Part]) -> Any:
    """Return the merged record, or the reason why there is none."""
    try:
        return merged(compiled, parts)
    except DocumentError as error:
        return (error.reason, str(error))


def is_map_value(field: tuple[dict[str, Any], Any]) -> bool:
    """Return True for a field that needs no number beside it."""
    return field[0].get("x-by") != "score"


MAPS = (SCALARS | LISTS | WHOLE_OBJECTS).filter(is_map_value).map(map_of)
FREE_MAPS = (FREE_SCALARS | UNIONS | FREE_OBJECTS).map(map_of)
ANY_FIELD = SCALARS | LISTS | WHOLE_OBJECTS | MAPS
FREE_FIELD = FREE_SCALARS | UNIONS | FREE_OBJECTS | FREE_MAPS


@FEW
@given(case=cases(ANY_FIELD), seed=st.integers())
def test_order_of_arrival_does_not_matter(case: tuple[CompiledSchema, list[Part]], seed: int) -> None:
    """Values, conflicts, counts and positions are the same."""
    compiled, parts = case
    shuffled = random.Random(seed).sample(parts, len(parts))
    assert outcome(compiled, shuffled) == outcome(compiled, parts)


@FEW
@given(case=cases(ANY_FIELD), again=st.integers(0, 4), inside=st.booleans())
def test_repeated_or_contained_span_counts_once(
    case: tuple[CompiledSchema, list[Part]], again: int, inside: bool
) -> None:
    """This includes `majority` and `sum`."""
    compiled, parts = case
    part = parts[again % len(parts)]
    other = Part(part.start + 5 * inside, part.end - 5 * inside, part.value)
    assert outcome(compiled, [*parts, other]) == outcome(compiled, parts)


@FEW
@given(case=cases(FREE_FIELD), again=st.integers(0, 4))
def test_repeated_answer_does_not_change_the_values(case: tuple[CompiledSchema, list[Part]], again: int) -> None:
    """This holds for `union` and the rules that select one of the values."""
    compiled, parts = case
    part = parts[again % len(parts)]
    twice = [*parts, Part(part.start + 1, part.end + 1, part.value)]
    assert merged(compiled, twice).value == merged(compiled, parts).value


@FEW
@given(case=cases(FREE_FIELD, fewest=2), at=st.integers(1, 4))
def test_merging_is_associative(case: tuple[CompiledSchema, list[Part]], at: int) -> None:
    """Merging a merged beginning with a merged rest equals merging all windows."""
    compiled, parts = case
    at = min(at, len(parts) - 1)
    halves = [Part(some[0].start, some[-1].end, merged(compiled, some).value) for some in (parts[:at], parts[at:])]
    assert merged(compiled, halves).value == merged(compiled, parts).value


def has_no_duplicates(value: Any, schema: Any) -> bool:
    """Return whether the union lists at the top and in `inner` have no duplicates."""
    fields = [(value[name], field) for name, field in schema["properties"].items() if name in value]
    maps = [(items, field["additionalProperties"]) for items, field in fields if "additionalProperties" in field]
    fields += [(item, field) for items, field in maps for item in items.values()]
    lists = [
        (items, field)
        for items, field in fields
        if field.get("type") == "array"
        and (field.get("x-merge") == "union" or "x-key" in field or field["items"] == {"type": "string"})
    ]
    alone = {"type": "object"}
    for items, field in lists:
        compiled = compile_schema({**alone, "properties": {"l": {**field, "maxItems": 99}}}, where="a")
        if merged(compiled, [Part(0, 9, {"l": items})]).absorbed:
            return False
    return (
        "inner" not in value
        or "inner" not in schema["properties"]
        or has_no_duplicates(value["inner"], schema["properties"]["inner"])
    )


@FEW
@given(case=cases(ANY_FIELD))
def test_single_window_keeps_its_answer(case: tuple[CompiledSchema, list[Part]]) -> None:
    """This holds unless one of its union lists has duplicates."""
    compiled, parts = case
    value = parts[0].value
    if has_no_duplicates(value, compiled.schema):
        assert merged(compiled, parts[:1]).value == value


def listed(value: Any) -> int:
    """Return the number of items in the lists of an answer, at the top and in `inner`."""
    if not isinstance(value, dict):
        return 0
    return sum(len(item) if isinstance(item, list) else listed(item) for item in value.values())


@FEW
@given(case=cases(ANY_FIELD))
def test_merged_result_is_valid_and_accounts_for_every_item(case: tuple[CompiledSchema, list[Part]]) -> None:
    """Items absent from the lists of the result are in `absorbed` or `dropped`."""
    compiled, parts = case
    result = outcome(compiled, parts)
    if isinstance(result, Merged):
        assert compiled.violation(result.value) is None
        lost = sum(drop.given - drop.kept for drop in result.dropped)
        assert sum(listed(part.value) for part in parts) == listed(result.value) + result.absorbed + lost
    else:
        assert result[0] == "merge_failed"
