"""One record from the answers about the windows of a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from pipeline.answers.schema import CompiledSchema, compile_schema
from pipeline.errors import DocumentError
from pipeline.long.merging import Merged, Part, merge

STRING = {"type": "string"}
NUMBER = {"type": "number"}
TEXT = "." * 1000


def compiled(properties: Mapping[str, Any], **more: Any) -> CompiledSchema:
    """A closed schema in which all properties are required."""
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return compile_schema({**schema, **more}, where="agents/a.yaml: schema")


def merged(properties: Mapping[str, Any], answers: Sequence[Mapping[str, Any]], **more: Any) -> Merged:
    """The answers about windows of 100 characters, of which two neighbours share 10, as one."""
    parts = [Part(at * 90, at * 90 + 100, answer) for at, answer in enumerate(answers)]
    return merge(compiled(properties, **more).merge_rules, parts, text=TEXT)


def of(field: Mapping[str, Any], *values: Any) -> Any:
    """What the values of one field become."""
    return merged({"s": field}, [{"s": value} for value in values]).value["s"]


@pytest.mark.parametrize(
    ("rule", "values", "expected"),
    [
        ({**STRING, "x-merge": "first"}, [None, " ", "b", "a"], "b"),
        ({**STRING}, [None, "b", "a"], "b"),
        ({**STRING, "x-merge": "last"}, ["b", "a", None], "a"),
        ({**STRING, "x-merge": "longest"}, ["b", "aaa", "bbb"], "aaa"),
        ({**STRING, "x-merge": "shortest"}, ["bb", "a", "b"], "a"),
        ({**STRING, "x-merge": "min"}, ["2024-03-07", "2023-12-31"], "2023-12-31"),
        ({**NUMBER, "x-merge": "max"}, [1, 2.5, None, 2], 2.5),
        ({**STRING, "x-merge": "majority"}, ["a", "b", "B.", "c"], "b"),
        ({**NUMBER, "x-merge": "sum"}, [0.1, 0.2, 3], 3.3),
        ({**STRING, "x-merge": "join"}, ["A.", "a", "b"], "A.\n\nb"),
        ({"type": "boolean"}, [False, True], True),
        ({"type": "boolean", "x-merge": "all"}, [True, False], False),
        ({**STRING, "x-empty": ["none"]}, ["none", "x"], "x"),
        ({**STRING, "x-empty": ["none"]}, ["None", "none"], "None"),
        ({"type": "array", "items": STRING}, [["a", "b"], ["B", "c"]], ["a", "b", "c"]),
    ],
)
def test_each_rule_takes_its_value(rule: dict[str, Any], values: list[Any], expected: Any) -> None:
    """Null, blank texts and the values of `x-empty` count as nothing while a window has something."""
    assert of(rule, *values) == expected


def test_items_with_one_key_become_one() -> None:
    """The first form and place stay; what the first lacks comes from others; what differs is a conflict."""
    item = {"type": "object", "properties": {"name": STRING, "n": {"type": ["integer", "null"]}}, "required": ["name"]}
    rows = {"type": "array", "items": item, "x-key": "name"}
    result = merged(
        {"rows": rows},
        [
            {"rows": [{"name": "Halden Ltd.", "n": None}, {"name": "Bo", "n": 1}]},
            {"rows": [{"name": "bo", "n": 2}, {"name": "halden  ltd", "n": 5}]},
        ],
    )
    assert result.value == {"rows": [{"name": "Halden Ltd.", "n": 5}, {"name": "Bo", "n": 1}]}
    assert (result.absorbed, result.conflicts_total) == (2, 1)
    assert result.record()["conflicts"] == [
        {
            "path": "/rows/1/n",
            "rule": "first",
            "taken": {"window": 1, "value": 1},
            "others": [{"window": 2, "value": 2}],
        }
    ]


@pytest.mark.parametrize(
    ("field", "values", "message"),
    [
        (
            NUMBER,
            [None, None],
            "$.s: none of the 2 windows gave a value, the schema needs one: allow null or give a default",
        ),
        ({**STRING, "x-merge": "same"}, ["a", None, "b"], "$.s: windows 1 and 3 differ (x-merge: same)"),
        (
            {"type": "array", "items": STRING, "maxItems": 2},
            [["a", "b"], ["c"]],
            "$.s: 3 items after merging 2 windows, the schema allows 2: raise maxItems (x-window-items bounds one "
            "answer), or set x-over: cut",
        ),
    ],
)
def test_parts_that_do_not_go_together_fail_the_document(field: Any, values: list[Any], message: str) -> None:
    """With a message that quotes no value."""
    with pytest.raises(DocumentError) as caught:
        of(field, *values)
    assert (caught.value.reason, caught.value.stage, str(caught.value)) == ("merge_failed", "validate", message)
