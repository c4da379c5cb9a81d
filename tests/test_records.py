"""Records: copies with other values, and the line that a record makes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.record_lines import to_line
from pipeline.records import (
    ExtractionAttempt,
    Failure,
    ModelMetadata,
    Result,
    Stamp,
    Try,
    Usage,
    changed,
)

MODEL = ModelMetadata("vllm", "m", "http://127.0.0.1:1", None)
STEP = Try("vllm", None, "timeout", 1.5)
RESULT = Result(
    "i", "u", "s", "a", "default", "f", {"x": [1, None]}, MODEL, 2, 0, False, ("n",), Usage(1, None), None, 3, {}, 0.2,
    "2026-01-01T00:00:00.000Z", history=(STEP,),
)  # fmt: skip
FAILURE = Failure(
    "i", "u", None, "a", "default", "f", "call", "timeout", "timeout", "", 1, (STEP,), None, Usage(), (), 1, "t"
)


@settings(deadline=None, max_examples=50)
@given(
    st.fixed_dictionaries({}, optional={"message": st.text(), "latency_s": st.floats(0, 9), "notes": st.just(("n",))})
)
def test_changed_is_replace(values: dict[str, object]) -> None:
    """The same record, equal in all fields and in their order; the original stays as it is."""
    attempt = ExtractionAttempt(MODEL, raw_text="x", error="e")
    copy = changed(attempt, **values)
    assert copy == replace(attempt, **values)  # type: ignore[arg-type]
    assert list(vars(copy)) == list(vars(attempt))
    assert attempt == ExtractionAttempt(MODEL, raw_text="x", error="e")


def test_changed_refuses_an_unknown_name() -> None:
    """A misspelt field would otherwise be lost in silence."""
    with pytest.raises(TypeError, match="ExtractionAttempt has no latency"):
        changed(ExtractionAttempt(MODEL), latency=1.0)


@pytest.mark.parametrize("record", [RESULT, FAILURE])
def test_a_line_has_the_fields_in_order_and_plain_parts(record: Result | Failure) -> None:
    """`v`, then the record's fields, then the run's; nested records are mappings. What does not apply is null."""
    line = json.loads(to_line(changed(record, uri="v"), Stamp(7, "run-7", "0/2")))
    assert list(line) == ["v", *type(record).__dataclass_fields__, "run", "run_id", "shard"]
    of_windows = line.keys() & {"windows", "merge", "window"}
    assert of_windows == ({"windows", "merge"} if isinstance(record, Result) else {"window"})
    assert all(line[name] is None for name in of_windows)
    assert line["history"] == [{"provider": "vllm", "endpoint": None, "error": "timeout", "latency_s": 1.5}]
    assert line["usage"] in (
        {"prompt_tokens": 1, "completion_tokens": None},
        dict.fromkeys(("prompt_tokens", "completion_tokens")),
    )
    assert (line["run"], line["run_id"], line["shard"], line["uri"]) == (7, "run-7", "0/2", "v")


def test_a_value_that_is_no_json_is_refused() -> None:
    """NaN is a ValueError, an object a TypeError: neither becomes a line."""
    with pytest.raises(ValueError, match="JSON"):
        to_line(changed(RESULT, output=float("nan")), Stamp(1, "r"))
    with pytest.raises(TypeError, match="object"):
        to_line(changed(RESULT, output=object()), Stamp(1, "r"))
