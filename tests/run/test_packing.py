"""A message arrives in the other process as it was sent."""

from __future__ import annotations

import io
from dataclasses import fields
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.documents.containers import PeekedBytes
from pipeline.llm.prompt_length.verification_case import PromptMeasurements
from pipeline.record_lines import to_line
from pipeline.records import Entry, ExtractionAttempt, Result, Stamp, Try, Unchanged
from pipeline.run.workers.messages import Call, Claim, ClaimReply, FinishedTask, ReturnedTask, Task, WorkerReady
from pipeline.run.workers.packing import pack, unpack

T = TypeVar("T")
TEXT = st.text(max_size=20)
SECONDS = st.floats(0, 1e6)
DURATIONS = ("queue_s", "load_s", "retry_after_s")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)


def records(kind: type[T], **given: st.SearchStrategy[Any]) -> st.SearchStrategy[T]:
    """Return records with a value for each field: by its type, or a given one."""
    own = [attribute.name for attribute in fields(kind) if attribute.name not in given]  # type: ignore[arg-type]
    return st.builds(kind, **dict.fromkeys(own, ...), **given)  # type: ignore[arg-type]


OBJECTS = st.dictionaries(TEXT, JSON, max_size=3)
RESULTS = records(
    Result,
    output=OBJECTS,
    metadata=OBJECTS,
    evidence=st.none() | st.tuples(st.fixed_dictionaries({"path": TEXT, "start": st.integers()})),
    windows=st.none() | OBJECTS,
    merge=st.none() | OBJECTS,
    latency_s=SECONDS,
    history=st.just(()) | st.tuples(st.builds(Try, TEXT, TEXT, TEXT, SECONDS)),
)
SOME_SECONDS = st.none() | SECONDS
ATTEMPTS = records(ExtractionAttempt, latency_s=SECONDS, **dict.fromkeys(DURATIONS, SOME_SECONDS))
CALLS = st.builds(Call, ATTEMPTS, SECONDS, SECONDS, st.binary(max_size=32))
PROMPTS = st.builds(PromptMeasurements)
ENTRIES = records(Entry, read=st.builds(PeekedBytes, st.binary(max_size=20)))
TASKS = st.builds(Task, st.integers(0), st.integers(0), st.integers(0), ENTRIES, SECONDS, st.booleans())
OTHERS = st.one_of(
    st.builds(FinishedTask, st.integers(), st.builds(Unchanged, TEXT, st.booleans()), st.none(), st.none()),
    st.builds(ReturnedTask, st.integers(), st.none() | CALLS),
    st.builds(Claim, st.integers(), TEXT, TEXT, TEXT),
    st.builds(ClaimReply, st.integers(), st.none() | st.tuples(TEXT, st.integers()), st.none() | TEXT),
    st.just(WorkerReady()),
)


@given(st.builds(FinishedTask, st.integers(), RESULTS, CALLS, st.none() | PROMPTS))
def test_result_arrives_as_it_was_sent(done: FinishedTask) -> None:
    """All values are equal, and the line of the record is the same byte for byte: its keys keep their order."""
    arrived = unpack(io.BytesIO(pack(done)))
    assert arrived == done
    assert isinstance(arrived, FinishedTask)
    assert isinstance(arrived.outcome, Result)
    assert isinstance(done.outcome, Result)
    assert to_line(arrived.outcome, Stamp(1, "run")) == to_line(done.outcome, Stamp(1, "run"))


@given(TASKS)
def test_document_arrives_with_its_bytes(task: Task) -> None:
    """The entry is equal in all fields, also in those that do not count in a comparison."""
    arrived = unpack(io.BytesIO(pack(task)))
    assert arrived == task
    assert isinstance(arrived, Task)
    assert arrived.entry.read() == task.entry.read()
    assert list(arrived.entry.__dict__) == [attribute.name for attribute in fields(Entry)]


@given(OTHERS)
def test_other_messages_arrive_as_they_were_sent(message: object) -> None:
    """They keep their type, which decides how they are handled."""
    arrived = unpack(io.BytesIO(pack(message)))
    assert arrived == message
    assert type(arrived) is type(message)


@given(st.lists(TASKS | OTHERS, min_size=1, max_size=3), st.data())
def test_killed_process_leaves_only_whole_messages(messages: list[object], data: st.DataObject) -> None:
    """A stream that ends at any byte yields the messages before it, and then its end."""
    packed = [pack(message) for message in messages]
    stream = b"".join(packed)
    end = data.draw(st.integers(0, len(stream)))
    reader = io.BytesIO(stream[:end])
    whole = [message for at, message in enumerate(messages) if len(b"".join(packed[: at + 1])) <= end]
    assert [unpack(reader) for _ in whole] == whole
    assert unpack(reader) is None


def test_record_without_a_field_is_refused() -> None:
    """A tuple with too few values would give a record without its last fields."""
    with pytest.raises(ValueError, match="shorter"):
        unpack(io.BytesIO(pack(("Task", 1, 2, 3, ("id",), 0.0, False))))
