"""The messages about single documents as plain tuples, which pickle writes and reads in half of the time.

    Task, FinishedTask, Claim, ClaimReply ─▶ (kind, values…) ─▶ bytes on a pipe ─▶ (kind, values…) ─▶ an equal message

The other messages are rare, and are pickled unchanged. It must not omit a value of a message.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from operator import attrgetter, itemgetter
from typing import Any, BinaryIO, TypeVar

from pipeline.documents.containers import PeekedBytes
from pipeline.llm.prompt_length.verification_case import PromptMeasurements
from pipeline.records import Entry, ExtractionAttempt, ModelMetadata, Result, Usage
from pipeline.run.workers.messages import Call, Claim, ClaimReply, FinishedTask, Task

PROTOCOL = 5

R = TypeVar("R", Entry, ExtractionAttempt, Result)


def _names(record: type[Any]) -> list[str]:
    return [attribute.name for attribute in fields(record)]


_ENTRY = _names(Entry)
_ATTEMPT = _names(ExtractionAttempt)
_RESULT = _names(Result)
_entry_values = itemgetter(*_ENTRY)
_attempt_values = itemgetter(*_ATTEMPT)
_result_values = itemgetter(*_RESULT)
_model_values = attrgetter(*_names(ModelMetadata))
_usage_values = attrgetter(*_names(Usage))


def pack(message: object) -> bytes:
    """Return a message as bytes; raise pickle's error for an entry that only this process can read."""
    plain: object = message
    if isinstance(message, Task):
        plain = _task(message)
    elif isinstance(message, FinishedTask) and message.call is not None and isinstance(message.outcome, Result):
        plain = _done(message, message.outcome, message.call)
    elif isinstance(message, (Claim, ClaimReply)):
        plain = (type(message).__name__, *message)
    return pickle.dumps(plain, PROTOCOL)


def unpack(stream: BinaryIO) -> object | None:
    """Return the next message of a stream; None at its end, even in the middle of a message."""
    with suppress(EOFError, pickle.UnpicklingError):
        plain: object = pickle.load(stream)
        return _REBUILD[plain[0]](*plain[1:]) if type(plain) is tuple else plain
    return None


def _task(task: Task) -> tuple[object, ...]:
    entry = task.entry
    peeked = entry.read.data if isinstance(entry.read, PeekedBytes) else None
    values = entry.__dict__ if peeked is None else {**entry.__dict__, "read": peeked}
    return ("Task", task.number, task.plan, task.client, _entry_values(values), task.tokens_per_weight, task.alone)


def _to_task(
    number: int, plan: int, client: int, values: tuple[object, ...], tokens_per_weight: float, alone: bool
) -> Task:
    entry = _record(Entry, _ENTRY, values)
    if isinstance(entry.read, bytes):
        entry.__dict__["read"] = PeekedBytes(entry.read)
    return Task(number, plan, client, entry, tokens_per_weight, alone)


def _done(done: FinishedTask, result: Result, call: Call) -> tuple[object, ...]:
    attempt = call.attempt
    plain_result = {**result.__dict__, "model": _model_values(result.model), "usage": _usage_values(result.usage)}
    plain_attempt = {**attempt.__dict__, "model": _model_values(attempt.model)}
    request = (_attempt_values(plain_attempt), call.started, call.ended, call.digest)
    return ("FinishedTask", done.number, _result_values(plain_result), request, done.prompt and tuple(done.prompt))


def _to_done(
    number: int, values: tuple[object, ...], request: tuple[Any, ...], prompt: tuple[Any, ...] | None
) -> FinishedTask:
    result: Any = _record(Result, _RESULT, values)
    result.__dict__.update(model=ModelMetadata(*result.model), usage=Usage(*result.usage))
    attempt_values, *sending = request
    attempt: Any = _record(ExtractionAttempt, _ATTEMPT, attempt_values)
    attempt.__dict__["model"] = ModelMetadata(*attempt.model)
    measurements = None if prompt is None else PromptMeasurements(*prompt)
    return FinishedTask(number, result, Call(attempt, *sending), measurements)


def _record(kind: type[R], names: list[str], values: tuple[object, ...]) -> R:
    """Return a record with these values; its fields keep their order, in which lines of JSON are written."""
    record = object.__new__(kind)
    record.__dict__.update(zip(names, values, strict=True))
    return record


_REBUILD: dict[object, Callable[..., object]] = {
    "Task": _to_task,
    "FinishedTask": _to_done,
    "Claim": Claim,
    "ClaimReply": ClaimReply,
}
