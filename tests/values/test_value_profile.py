"""The value profile: counts by document, in bounded memory, mergeable, without texts."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.values.profiled_fields import FieldNode, fields_of
from pipeline.values.profiling import MAX_VARIANTS, ProfileBuilder
from pipeline.values.sketches import DistinctValues, Spread, TopValues, distinct_count, merged_hashes, merged_ranges
from pipeline.values.value_profile import ValueProfile, from_json, merged, to_json

SCHEMA: dict[str, Any] = {
    "type": "object",
    "$defs": {"party": {"type": "object", "properties": {"name": {"type": "string"}, "kind": {"enum": ["a", "b"]}}}},
    "properties": {
        "currency": {"type": ["string", "null"], "enum": ["USD", "EUR", None]},
        "supplier": {"type": "string", "maxLength": 60},
        "amount": {"type": "number"},
        "signed": {"type": "string", "format": "date"},
        "paid": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "parties": {"type": "array", "items": {"$ref": "#/$defs/party"}},
    },
}


def profile_of(outputs: Iterable[Any], *, show_texts: bool = False, schema: Any = SCHEMA) -> ValueProfile:
    builder = ProfileBuilder(schema, random=random.Random(0).random, show_texts=show_texts)
    for output in outputs:
        builder.add(output, variant="default", fingerprint="f")
    return merged(builder.profiles().values())


def test_profile_of_each_kind_of_field() -> None:
    """Shares are of documents; numbers and dates have ranges, texts and lists have lengths."""
    result = profile_of(
        [
            {
                "currency": "USD",
                "supplier": "Acme",
                "amount": 3,
                "signed": "2025-01-02",
                "paid": True,
                "tags": ["x", "x", "y"],
                "parties": [{"name": "Acme", "kind": "a"}, {"name": " ", "kind": "a"}],
            },
            {"currency": "USD", "supplier": " ", "amount": 9.5, "signed": "3112-01-01", "tags": [], "parties": []},
            {"currency": None, "supplier": "Acme", "amount": 4, "signed": "2025-06-30"},
        ]
    )
    assert result.documents == 3
    fields = result.fields
    assert (fields["currency"].filled, fields["currency"].values) == (2, {'"USD"': 2})
    assert (fields["supplier"].filled, fields["supplier"].distinct) == (2, 1)
    assert (fields["paid"].filled, fields["paid"].values) == (1, {"true": 1})
    amount, signed = fields["amount"].numbers, fields["signed"].dates
    assert amount is not None and (amount.least, amount.median, amount.greatest) == (3, 4, 9.5)
    assert signed is not None and (signed.median, signed.greatest) == ("2025-06-30", "3112-01-01")
    tags = fields["tags"]
    assert tags.items is not None and (tags.filled, tags.distinct, tags.items.greatest) == (1, 2, 3)
    assert (fields["parties"].filled, fields["parties.name"].filled) == (1, 1)
    assert fields["parties.kind"].values == {'"a"': 1}


def test_profile_has_no_free_text() -> None:
    """Texts are digests unless requested, and long texts are left out."""
    outputs = [{"supplier": "Secret Ltd", "tags": ["s" * 200], "currency": "EUR"}] * 3
    text = json.dumps(to_json(profile_of(outputs)))
    assert "Secret" not in text and "sss" not in text and "EUR" in text
    shown = json.dumps(to_json(profile_of(outputs, show_texts=True)))
    assert "Secret Ltd" in shown and "sss" not in shown


@pytest.mark.parametrize("schema", [None, {}, {"type": "object"}, {"properties": {"a": True}}, {"$ref": "#"}])
def test_any_schema_has_a_profile(schema: Any) -> None:
    """A schema without properties has no field; answers of any shape are counted."""
    assert profile_of([{"a": 1}, [], None, "x", {"a": [[1], {"b": 2}]}], schema=schema).documents == 5


def test_recursive_schema_is_followed_to_a_limit() -> None:
    """There are at most 40 fields."""
    node = {"type": "object", "properties": {name: {"$ref": "#/$defs/node"} for name in "abcdef"}}

    def paths(nodes: tuple[FieldNode, ...]) -> list[str]:
        return [path for node in nodes for path in (node.path, *paths(node.children))]

    fields = paths(fields_of({"$defs": {"node": node}, "$ref": "#/$defs/node"}))
    assert fields[0] == "a" and len(fields) == 40
    assert {"a", "b", "c", "d", "e", "f"} <= set(fields)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "currency": st.sampled_from(["USD", "EUR", None]),
                "amount": st.integers(-5, 5) | st.floats(allow_nan=False, allow_infinity=False),
                "tags": st.lists(st.sampled_from(["a", "b", ""]), max_size=3),
                "paid": st.booleans(),
            },
        ),
        max_size=30,
    ),
    st.integers(0, 30),
)
def test_merged_profiles_equal_the_whole(outputs: list[Any], cut: int) -> None:
    """With few values this is exact, also after JSON."""
    whole = profile_of(outputs)
    parts = [from_json(json.loads(json.dumps(to_json(profile_of(part))))) for part in (outputs[:cut], outputs[cut:])]
    both = merged(parts)
    assert both.documents == whole.documents
    for name, field in whole.fields.items() if whole.documents else ():
        other = both.fields[name]
        assert (other.filled, other.values, other.distinct) == (field.filled, field.values, field.distinct)
        for own, other_half in ((field.numbers, other.numbers), (field.items, other.items)):
            assert (own is None) == (other_half is None)
            if own is not None and other_half is not None:
                assert (own.count, own.least, own.greatest) == (other_half.count, other_half.least, other_half.greatest)


def test_frequent_values_are_found_among_many() -> None:
    """A value in a fifth of 50,000 has its count within the known error."""
    top = TopValues()
    for number in range(50_000):
        top.add("often" if number % 5 == 0 else f"rare {number}")
    assert len(top.counts) <= 513
    assert 10_000 - top.error <= top.counts["often"] <= 10_000
    assert top.error <= 1000


@pytest.mark.parametrize("count", [10, 48, 1000, 100_000])
def test_distinct_values_are_estimated(count: int) -> None:
    """The number is exact for few and within half for many, also after a merge."""
    halves = [DistinctValues(), DistinctValues()]
    for number in range(count):
        halves[number % 2].add(f"value {number}")
        halves[0].add(f"value {number}")
    result = distinct_count(merged_hashes(half.hashes for half in halves))
    assert result == count if count < 48 else count / 1.6 < result < count * 1.6


@pytest.mark.parametrize("seed", range(8))
def test_distinct_estimate_never_exceeds_the_count(seed: int) -> None:
    """An estimate of 120 for 114 results would look like a bug."""
    rng = random.Random(seed)
    outputs = [
        {"amount": rng.random(), "supplier": f"s{rng.random()}", "signed": f"2026-01-{n % 28 + 1:02}"}
        for n in range(114)
    ]
    fields = profile_of(outputs).fields
    assert 50 < fields["amount"].distinct <= 114 and 50 < fields["supplier"].distinct <= 114
    assert fields["signed"].distinct == 28


@pytest.mark.parametrize(
    ("values", "median"),
    [
        ([4], 4),
        ([18, 4], 11),
        ([4, 7], 5.5),
        ([1.5, 2.5], 2.0),
        ([9, 1, 3, 4], 3.5),
        ([9, 1, 3], 3),
        ([2.0**1023, 2.0**1022], 1.5 * 2.0**1022),
        ([1.5, 10**400], 10**400),
        (["2026-01-10"], "2026-01-10"),
        (["2026-01-10", "2026-08-18"], None),
        (["2026-01-10", "2026-08-18", "2026-03-01"], "2026-03-01"),
    ],
)
def test_median_of_few_values(values: list[Any], median: Any) -> None:
    """It is the mean of the two middle numbers, in one range or merged from several; two dates have no mean."""
    spread = Spread(random.Random(1).random)
    parts = []
    for value in values:
        spread.add(value)
        part = Spread(random.Random(1).random)
        part.add(value)
        parts.append(part.range())
    for result in (spread.range(), merged_ranges(parts)):
        assert result is not None and result.median == median


def test_median_is_estimated_from_a_sample() -> None:
    """For a million ordered numbers in two parts it is within a tenth; least and greatest are exact."""
    parts = []
    for begin in (0, 50_000):
        spread = Spread(random.Random(begin).random)
        for number in range(begin, begin + 50_000):
            spread.add(number)
        parts.append(spread.range())
    result = merged_ranges(parts)
    assert result is not None and (result.least, result.greatest, result.count) == (0, 99_999, 100_000)
    assert 40_000 < result.median < 60_000


@pytest.mark.slow
def test_profile_memory_is_bounded() -> None:
    """Many variants with only new values need less than 20 MB."""
    tracemalloc.start()
    try:
        builder = ProfileBuilder(SCHEMA, random=random.Random(0).random)
        for number in range(12_000):
            text = f"text {number}"
            output = {
                "supplier": text,
                "amount": number,
                "signed": f"{number % 9000 + 1000}-01-01",
                "tags": [text],
                "parties": [{"name": text}],
            }
            builder.add(output, variant=f"v{number % 20}", fingerprint=text)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20e6
    profiles = builder.profiles()
    assert len(profiles) == MAX_VARIANTS + 1
    assert sum(value.documents for value in profiles.values()) == 12_000
