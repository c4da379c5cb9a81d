"""One long document, window after window, for callers that process one document at a time: `try` and the Python API.

It writes nothing and uses no earlier answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from pipeline.errors import InternalError
from pipeline.records import Failure, Left, Outcome, Postponed, Result
from pipeline.run.document.state import ExtractionClient
from pipeline.run.plan import ExtractionPlan
from pipeline.run.windows.cutting import CutDocument, Divided, Window, WindowFailed, blank_answer
from pipeline.run.windows.merged_outcome import merge_windows
from pipeline.run.windows.open_documents import OpenDocument
from pipeline.run.windows.window_outcome import ask_window
from pipeline.window_answers import WindowAnswer

Begin = Callable[[int, int, Window], object]
"""A function called before a window is sent: with its number, the number of windows so far, and the window."""


def ask_one_window(
    cut: CutDocument,
    plan: ExtractionPlan,
    *,
    number: int,
    client: ExtractionClient,
    begin: Begin = lambda _number, _total, _window: None,
) -> WindowAnswer | Failure | Postponed | Left | Divided:
    """Return the outcome of one window of a document, by its number from 1; IndexError without such a window."""
    document = OpenDocument.of(cut, plan, now=time.monotonic())
    span = document.span_of(number)
    if span in document.answered:  # a blank window, which is not sent
        return blank_answer(document.long, span)
    begin(number, document.windows, Window(span))
    outcome = ask_window(document.long, Window(span), plan, client=client, alone=True).outcome
    if isinstance(outcome, WindowFailed):
        return outcome.failure
    if isinstance(outcome, (WindowAnswer, Postponed, Left, Divided)):
        return outcome
    raise InternalError(f"a window ended as {type(outcome).__name__}")


def ask_all_windows(
    cut: CutDocument,
    plan: ExtractionPlan,
    *,
    client: ExtractionClient,
    begin: Begin = lambda _number, _total, _window: None,
) -> Outcome:
    """Return the outcome of a document that was cut into windows."""
    began = time.monotonic()
    document = OpenDocument.of(cut, plan, now=began)
    answers = [blank_answer(cut.long, span) for span in cut.blank]
    while document.waiting and document.first_failure is None:
        window = document.take()
        begin(*document.number_of(window.span), window)
        finished = ask_window(document.long, window, plan, client=client, alone=True)
        document.in_flight.remove(window.span)
        document.cost.add(finished.attempts)
        outcome = finished.outcome
        if isinstance(outcome, (Left, Postponed)):
            return outcome
        if isinstance(outcome, WindowAnswer):
            answers.append(outcome)
        elif isinstance(outcome, Divided):
            document.divide(window, outcome)
        elif isinstance(outcome, WindowFailed):
            document.fail(window, outcome.failure)
    if document.first_failure is not None:
        return document.failure()
    merged = merge_windows(
        document.long,
        lambda: answers,
        plan,
        cost=document.cost,
        reused=document.reused,
        divided=document.divided,
        elapsed_s=time.monotonic() - began,
        client=client,
    ).outcome
    if isinstance(merged, (Result, Failure, Left)):
        return merged
    raise InternalError(f"a merged document ended as {type(merged).__name__}")
