"""Merging: one record from the answers about the windows of a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from pipeline.answers.schema import CompiledSchema, compile_schema
from pipeline.errors import DocumentError
from pipeline.evidence import Evidence
from pipeline.long.merging import Merged, Part, merge

STRING = {"type": "string"}
NUMBER = {"type": "number"}
TEXT = "." * 1000


def compiled(properties: Mapping[str, Any], **more: Any) -> CompiledSchema:
    """Return a closed schema in which all properties are required."""
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return compile_schema({**schema, **more}, where="agents/a.yaml: schema")


def merged(properties: Mapping[str, Any], answers: Sequence[Mapping[str, Any]], **more: Any) -> Merged:
    """Return the merged answers about windows of 100 characters, of which two neighbours share 10."""
    parts = [Part(at * 90, at * 90 + 100, answer) for at, answer in enumerate(answers)]
    return merge(compiled(properties, **more).merge_rules, parts, text=TEXT)


def of(field: Mapping[str, Any], *values: Any) -> Any:
    """Return the merged value of one field."""
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
def test_each_merge_rule_gives_its_value(rule: dict[str, Any], values: list[Any], expected: Any) -> None:
    """Null, blank texts and `x-empty` values are ignored if a window has another value."""
    assert of(rule, *values) == expected


def test_items_with_equal_keys_are_merged() -> None:
    """The first form and position are kept; missing fields come from others; differing values are conflicts."""
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
def test_unmergeable_parts_fail_the_document(field: Any, values: list[Any], message: str) -> None:
    """The message quotes no value."""
    with pytest.raises(DocumentError) as caught:
        of(field, *values)
    assert (caught.value.reason, caught.value.stage, str(caught.value)) == ("merge_failed", "validate", message)


ROW = {"type": "object", "properties": {"payer": STRING, "q": {"type": "string", "x-quote": True}}}
PAID = "Halden Ltd pays 5.00 EUR."


def quoting(text: str, span: tuple[int, int], *places: int) -> Part:
    """Return a part with a row for the sentence at each of these positions of the text."""
    rows = [{"payer": "Halden Ltd", "q": PAID} for _ in places]
    evidence = [
        Evidence(path=f"/rows/{at}/q", start=place, end=place + len(PAID), match="exact", count=1)
        for at, place in enumerate(places)
    ]
    assert all(text[place : place + len(PAID)] == PAID for place in places)
    return Part(*span, {"rows": rows}, evidence)


class TestRowsOfATable:
    """`concat`: equal rows are merged only where two windows have the same sentence."""

    text = f"{PAID} {'x' * 74}{PAID} {PAID} {'y' * 100}"
    rules = compiled({"rows": {"type": "array", "items": ROW}}).merge_rules

    def test_sentence_in_two_windows_is_one_row(self) -> None:
        """Two equal sentences in the overlap are two rows, each with its own position."""
        parts = [quoting(self.text, (0, 160), 0, 100, 126), quoting(self.text, (95, 252), 100, 126)]
        result = merge(self.rules, parts, text=self.text)
        assert (len(result.value["rows"]), result.absorbed) == (3, 2)
        assert [(quote["path"], quote["start"], quote["window"]) for quote in result.evidence] == [
            ("/rows/0/q", 0, 1),
            ("/rows/1/q", 100, 1),
            ("/rows/2/q", 126, 1),
        ]

    def test_row_missed_by_the_first_window_is_kept(self) -> None:
        """Its sentence is in the overlap as well."""
        parts = [quoting(self.text, (0, 160), 0, 126), quoting(self.text, (95, 252), 100, 126)]
        result = merge(self.rules, parts, text=self.text)
        assert [(quote["start"], quote["window"]) for quote in result.evidence] == [(0, 1), (126, 1), (100, 2)]
        assert result.origins["/rows/2"] == (2, "/rows/0")

    def test_row_quoted_from_the_lead_belongs_to_the_first_window(self) -> None:
        """Each window includes the document's beginning, and some models answer from it."""
        spans = [(0, 60), (50, 130), (120, 190), (180, 252)]
        parts = [quoting(self.text, span, 0) for span in spans]
        result = merge(self.rules, parts, text=self.text)
        assert (len(result.value["rows"]), result.absorbed) == (1, 3)

    def test_shared_text_limits_repetitions_without_quotes(self) -> None:
        """It has the sentence once, so one of two equal rows per window is the same."""
        rules = compiled({"rows": {"type": "array", "items": {"type": "object", "properties": {"payer": STRING}}}})
        answer = {"rows": [{"payer": "Halden Ltd"}, {"payer": "Halden Ltd"}]}
        parts = [Part(0, 126, answer), Part(100, 252, answer)]
        assert merge(rules.merge_rules, parts, text=self.text).absorbed == 1


def test_blank_window_is_numbered_without_an_answer() -> None:
    """Its span is in the record's rows."""
    parts = [Part(0, 10, {"s": None}), Part(10, 20, None), Part(20, 30, {"s": "a"})]
    result = merge(compiled({"s": STRING}).merge_rules, parts, text=TEXT)
    assert result.value == {"s": "a"}
    assert result.origins["/s"] == (3, "/s")
    assert [tuple(span) for span in result.windows] == [(0, 10), (10, 20), (20, 30)]


def test_x_over_cut_keeps_the_most_frequent_items() -> None:
    """They stay in document order; a text is cut at white space."""
    lists = {"type": "array", "items": STRING, "maxItems": 2, "x-over": "cut"}
    result = merged({"s": lists}, [{"s": ["a", "b"]}, {"s": ["c", "b"]}, {"s": ["c"]}])
    assert result.value == {"s": ["b", "c"]}
    assert result.record()["dropped"] == [{"path": "/s", "given": 3, "kept": 2}]
    assert (result.absorbed, result.origins["/s/1"]) == (2, (2, "/s/0"))
    text = {**STRING, "maxLength": 12, "x-merge": "join", "x-over": "cut"}
    assert of(text, "one two", "three four") == "one two"
    assert of(text, "one", "three four") == "one\n\nthree"


def test_object_may_be_merged_as_a_whole() -> None:
    """An address is not mixed from two windows; an object of only nulls counts as empty."""
    address = {"type": "object", "properties": {"street": STRING, "town": STRING}, "x-merge": "first"}
    assert of(address, None, {"street": "A 1"}, {"street": "B 2", "town": "Riga"}) == {"street": "A 1"}
    best = {**address, "x-merge": "best", "x-by": "n"}
    answers = [{"s": {"town": "Riga"}, "n": 1}, {"s": {"town": "Oslo"}, "n": 3}, {"s": {"town": "Bergen"}, "n": 3}]
    assert merged({"s": best, "n": {**NUMBER, "x-merge": "max"}}, answers).value["s"] == {"town": "Oslo"}


def test_nullable_object_without_known_parts_is_null() -> None:
    """If it is not nullable, the document fails."""
    issuer = {"type": "object", "properties": {"name": STRING}, "required": ["name"]}
    assert of({"anyOf": [issuer, {"type": "null"}]}, {"name": None}, None) is None
    with pytest.raises(DocumentError, match=r"\$\.s\.name: none of the 2 windows gave a value"):
        of(issuer, {"name": None}, {"name": None})


def test_keys_are_folded_unless_x_key_match_is_exact() -> None:
    """Numbers compare by value; an item without its key stays separate and is counted."""
    item = {"type": "object", "properties": {"name": STRING, "n": {"type": ["number", "null"]}}}
    rows = [{"name": "Halden", "n": 1}, {"name": "halden.", "n": 1.0}, {"n": 1}, {"name": " ", "n": 1}]
    answers = [{"s": [row]} for row in rows]
    folded = merged({"s": {"type": "array", "items": item, "x-key": ["name", "n"]}}, answers)
    assert (folded.value["s"], folded.unkeyed) == ([rows[0], rows[2]], 1)
    exact = {"type": "array", "items": item, "x-key": ["name", "n"], "x-key-match": "exact"}
    assert len(merged({"s": exact}, answers).value["s"]) == 3


def test_maps_are_merged_by_name() -> None:
    """Messages hide the names, because they come from the document."""
    field = {"type": "object", "additionalProperties": {"type": "number", "x-merge": "max"}}
    assert of(field, {"a": 1, "b": 2}, {"b": 3, "c": 4}) == {"a": 1, "b": 3, "c": 4}
    same = {"type": "object", "additionalProperties": {"type": "number", "x-merge": "same"}}
    with pytest.raises(DocumentError, match=r"^\$\.s\.\*: windows 1 and 2 differ"):
        of(same, {"secret": 1}, {"secret": 2})


def test_merged_answer_must_match_the_whole_schema() -> None:
    """Otherwise the document fails, and the message names the place."""
    with pytest.raises(DocumentError, match=r"^\$\.s: expected an array of at least 2 items, got an array of 1 item"):
        of({"type": "array", "items": STRING, "minItems": 2}, ["a"], ["a"])


def test_record_lists_at_most_50_conflicts_with_3_others() -> None:
    """Values are cut to 200 characters, and the total number of conflicts is given."""
    properties = {f"f{at}": STRING for at in range(60)}
    answers = [dict.fromkeys(properties, f"{number} {'x' * 300}") for number in range(6)]
    record = merged(properties, answers).record()
    assert (len(record["conflicts"]), record["conflicts_total"]) == (50, 60)
    assert len(record["conflicts"][0]["others"]) == 3
    assert len(record["conflicts"][0]["taken"]["value"]) == 200
