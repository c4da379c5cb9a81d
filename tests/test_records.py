"""Records: copies with changed fields, and the JSON line of a record."""

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
def test_changed_equals_dataclasses_replace(values: dict[str, object]) -> None:
    """Fields and order are equal, and the original does not change."""
    attempt = ExtractionAttempt(MODEL, raw_text="x", error="e")
    copy = changed(attempt, **values)
    assert copy == replace(attempt, **values)  # type: ignore[arg-type]
    assert list(vars(copy)) == list(vars(attempt))
    assert attempt == ExtractionAttempt(MODEL, raw_text="x", error="e")


def test_changed_refuses_an_unknown_name() -> None:
    """A misspelt field would otherwise be silently lost."""
    with pytest.raises(TypeError, match="ExtractionAttempt has no latency"):
        changed(ExtractionAttempt(MODEL), latency=1.0)


@pytest.mark.parametrize("record", [RESULT, FAILURE])
def test_record_line_has_its_fields_in_order(record: Result | Failure) -> None:
    """`v`, the record's fields and the run's follow each other; nested records are mappings, missing values null."""
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


def test_non_json_value_in_a_record_raises() -> None:
    """NaN is a ValueError, an object a TypeError, and neither becomes a line."""
    with pytest.raises(ValueError, match="JSON"):
        to_line(changed(RESULT, output=float("nan")), Stamp(1, "r"))
    with pytest.raises(TypeError, match="object"):
        to_line(changed(RESULT, output=object()), Stamp(1, "r"))
