"""The evidence of merged answers: each quote of the result keeps its place and window; no other one has any."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.answers.schema import compile_schema
from pipeline.evidence import Evidence, json_pointer
from pipeline.long.merging import Part, merge

QUOTE = {"type": ["string", "null"], "x-quote": True}
NAME = {"type": ["string", "null"]}


def object_of(**properties: Any) -> dict[str, Any]:
    """Return the schema of an object."""
    return {"type": "object", "properties": properties}


ROW = object_of(name=NAME, quote=QUOTE)
PERSON = object_of(name=NAME, quote=QUOTE, further={"type": "array", "items": QUOTE})
COMPILED = compile_schema(
    object_of(
        title=QUOTE,
        score={"type": "number", "x-merge": "max"},
        best={**QUOTE, "x-merge": "best", "x-by": "score"},
        last={**QUOTE, "x-merge": "last"},
        whole={**ROW, "x-merge": "last"},
        fields=PERSON,
        map={"type": "object", "additionalProperties": PERSON},
        rows={"type": "array", "x-merge": "concat", "items": ROW},
        people={"type": "array", "x-key": "name", "items": PERSON},
        words={"type": "array", "items": QUOTE, "maxItems": 3, "x-over": "cut"},
    ),
    where="quotes",
)
MARK = "quote"
QUOTES = st.sampled_from([None, MARK])
NAMES = st.sampled_from([None, "", "Halden Ltd", "halden ltd.", "a/b~c"])
ROWS = st.fixed_dictionaries({}, optional={"name": NAMES, "quote": QUOTES})
PEOPLE = st.fixed_dictionaries({}, optional={"name": NAMES, "quote": QUOTES, "further": st.lists(QUOTES, max_size=3)})
ANSWERS = st.fixed_dictionaries(
    {},
    optional={
        "title": QUOTES,
        "score": st.sampled_from([0, 1, 2]),
        "best": QUOTES,
        "last": QUOTES,
        "whole": ROWS,
        "fields": PEOPLE,
        "map": st.dictionaries(st.sampled_from(["a", "a/b~", ""]), PEOPLE, max_size=2),
        "rows": st.lists(ROWS, max_size=3),
        "people": st.lists(PEOPLE, max_size=3),
        "words": st.lists(QUOTES, max_size=3),
    },
)


def numbered(value: Any, place: tuple[str | int, ...], evidence: list[Evidence], *, start: int) -> Any:
    """Return the answer with a different text for each quote, and add its place to `evidence`."""
    if isinstance(value, dict):
        return {name: numbered(item, (*place, name), evidence, start=start) for name, item in value.items()}
    if isinstance(value, list):
        return [numbered(item, (*place, at), evidence, start=start) for at, item in enumerate(value)]
    if value != MARK:
        return value
    at = start + len(evidence)
    evidence.append(Evidence(path=json_pointer(place), start=at, end=at + 1, match="exact", count=1))
    return f"{MARK} {at}"


def quotes_in(value: Any, place: tuple[str | int, ...] = ()) -> dict[str, int]:
    """Return the place in the document of each quote of a value, by its path."""
    if isinstance(value, dict):
        items: list[tuple[str | int, Any]] = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    else:
        is_quote = isinstance(value, str) and value.startswith(f"{MARK} ")
        return {json_pointer(place): int(value.split()[1])} if is_quote else {}
    return {path: at for step, item in items for path, at in quotes_in(item, (*place, step)).items()}


@settings(max_examples=100, deadline=None)
@given(answers=st.lists(ANSWERS, min_size=1, max_size=4))
def test_each_quote_of_the_result_keeps_its_place_and_window(answers: list[dict[str, Any]]) -> None:
    """This holds for objects, maps, lists and whole objects of any rule."""
    parts = []
    for number, answer in enumerate(answers):
        evidence: list[Evidence] = []
        value = numbered(answer, (), evidence, start=number * 90)
        parts.append(Part(number * 90, number * 90 + 100, value, evidence))
    result = merge(COMPILED.merge_rules, parts, text="Halden. " * 100)
    assert {quote["path"]: quote["start"] for quote in result.evidence} == quotes_in(result.value)
    assert all(quote["window"] == quote["start"] // 90 + 1 for quote in result.evidence)
    assert len({quote["path"] for quote in result.evidence}) == len(result.evidence)
