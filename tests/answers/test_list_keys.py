"""The keys of lists, by the paths that comparisons use."""

from __future__ import annotations

from pipeline.answers.list_keys import list_keys


def test_keys_are_found_behind_references_null_and_other_lists() -> None:
    """This includes a recursive schema; a list without a key is left out."""
    holders = {"type": "array", "x-key": ["name", "date"], "items": {"type": "object"}}
    company = {
        "type": "object",
        "properties": {"holders": holders, "subsidiaries": {"type": "array", "items": {"$ref": "#/$defs/company"}}},
    }
    companies = {"type": "array", "x-key": "name", "items": {"$ref": "#/$defs/company"}}
    properties = {"companies": {"anyOf": [companies, {"type": "null"}]}, "tags": {"type": "array"}}
    schema = {"type": "object", "properties": properties, "$defs": {"company": company}}
    assert list_keys(schema) == {"companies": ["name"], "companies.holders": ["name", "date"]}
