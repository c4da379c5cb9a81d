"""The lint of an agent's schema: keywords that JSON Schema would ignore, and answers that it would let through."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import AGENT, PACKAGE_PARENT, Place
from hypothesis import given
from hypothesis import strategies as st

from pipeline.agents import load_agent
from pipeline.answers.lint import KEYWORDS, check_known_keywords, warnings_of
from pipeline.answers.schema import compile_schema
from pipeline.errors import ConfigError

BOUNDED = {"type": "string", "maxLength": 9}


def schema_of(field: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a closed schema with one field."""
    return {"type": "object", "properties": {"s": field}, "required": ["s"], "additionalProperties": False, **more}


@pytest.mark.parametrize(
    ("keyword", "nearest"),
    [("x-quotes", "x-quote"), ("x-qoute", "x-quote"), ("maxLenght", "maxLength"), ("nullable", None), ("Enum", "enum")],
)
def test_unknown_keyword_is_an_error_with_the_nearest_one(keyword: str, nearest: str | None) -> None:
    """JSON Schema would silently ignore the keyword and its rule."""
    with pytest.raises(ConfigError, match=rf"\$\.properties\.s\.{keyword}: got an unknown keyword") as error:
        check_known_keywords(schema_of({**BOUNDED, keyword: 3}), where="agents/a.yaml: schema")
    assert nearest is None or str(error.value).endswith(f"the nearest is {nearest}")


def test_x_keywords_and_data_are_not_unknown_keywords() -> None:
    """These are `x-label`, names of properties, and values of `default`, `enum` and `x-` keywords."""
    field = {**BOUNDED, "x-label": "Name", "x-form": {"row": 1}, "default": {"any": 1}, "x-quote": True}
    check_known_keywords(schema_of(field), where="a")
    check_known_keywords({"type": "object", "properties": {"maxLenght": BOUNDED}}, where="a")


@given(name=st.text(min_size=1).filter(lambda name: name not in KEYWORDS and not name.startswith("x-")))
def test_any_unknown_keyword_is_refused(name: str) -> None:
    """The error names the position in the schema."""
    with pytest.raises(ConfigError, match="unknown keyword"):
        check_known_keywords(schema_of({name: 1}), where="a")


def test_schema_without_required_fields_causes_a_warning() -> None:
    """An echoed schema, or an object around the answer, would silently be a result."""
    (loose,) = warnings_of(compile_schema({"type": "object", "properties": {"s": BOUNDED}}, where="a"))
    assert "{} is a valid answer, and so are the echoed schema" in loose
    assert warnings_of(compile_schema(schema_of(BOUNDED), where="a")) == []


def test_unbounded_strings_and_arrays_are_named() -> None:
    """The warning has their places; an enumeration needs no limit."""
    items = {"type": "array", "items": {"type": ["string", "null"]}}
    (warning,) = warnings_of(compile_schema(schema_of(items), where="a"))
    assert "no limit at $.properties.s, $.properties.s.items:" in warning
    assert warnings_of(compile_schema(schema_of({"type": "string", "enum": ["a"]}), where="a")) == []


@pytest.mark.parametrize("name", ["extractor", "event_classifier"])
def test_built_in_agents_have_no_lint_warnings(name: str) -> None:
    """They come with the program."""
    assert warnings_of(load_agent(name).compiled) == []


@pytest.mark.parametrize("path", sorted((PACKAGE_PARENT / "config" / "quickstart" / "agents").glob("*.yaml")))
def test_starter_agents_have_no_lint_warnings(path: Path) -> None:
    """`init` writes them."""
    assert warnings_of(load_agent(path.stem, agents_dir=path.parent).compiled) == []


def test_check_run_and_try_lint_the_schema(place: Place) -> None:
    """An error in the schema ends each command with 2 before any request; a warning is printed by each."""
    (name,) = place.documents(1)
    schema: dict[str, Any] = {**AGENT["schema"], "properties": {"summary": {"type": "string", "maxLenght": 9}}}
    place.configure(agent={"schema": schema})
    for command in (("check",), ("run",), ("try", f"inbox/{name}")):
        ran = place.call(*command)
        assert ran.code == 2
        assert "$.properties.summary.maxLenght: got an unknown keyword" in ran.err
    assert place.sent_documents() == []
    place.configure(agent={"schema": {"type": "object", "properties": {"summary": {"type": "string"}}}})
    for command in (("check",), ("try", f"inbox/{name}"), ("run", "--log-level", "debug")):
        ran = place.call(*command)
        assert ran.code == 0, ran.err
        assert "{} is a valid answer" in ran.out + ran.err
        assert "no limit at $.properties.summary" in ran.out + ran.err
