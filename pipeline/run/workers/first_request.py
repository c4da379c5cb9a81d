"""The first request of a document, in a worker process: read it, send it once, judge the answer. Writes nothing.

    task ─▶ process() with one request ─▶ FinishedTask: a plain result, or a document that needs no request
                      └─ anything else ─▶ ReturnedTask: the main process continues from the attempt, or starts again

So all state about servers and earlier documents stays in the main process: retries, health, failover, re-asks, and the
verification of prompt lengths. A killed worker process loses none of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from pipeline.llm.extraction_request import AskResult, ExtractionRequest
from pipeline.llm.prompt_length.verification import fits, measured, verifiable_prompt
from pipeline.llm.replica import Client
from pipeline.output.copies import Copied
from pipeline.records import Result, Unchanged
from pipeline.run.document.process import process
from pipeline.run.plan import ExtractionPlan
from pipeline.run.selection.copies import Questions
from pipeline.run.workers.messages import Call, FinishedTask, ReturnedTask, Task, digest_of
from pipeline.stores import ReadingStoppedError


@dataclass(slots=True)
class OneRequest:
    """A client that sends one request through one client; a document that needs more goes back to the main process."""

    client: Client
    tokens_per_weight: float
    question: ExtractionRequest | None = None
    call: Call | None = None
    clock: Callable[[], float] = field(default=time.monotonic)

    def ask(self, question: ExtractionRequest) -> AskResult:
        """Return the answer; ReadingStoppedError when there is none, and at a second call."""
        if self.question is not None or not fits(
            self.client, question.prompts, tokens_per_weight=self.tokens_per_weight
        ):
            raise ReadingStoppedError
        self.question = question
        started = self.clock()
        attempt = self.client.call_llm(question.prompts, question.json_schema, question.document_text)
        self.call = Call(attempt, started, self.clock(), digest_of(question))
        if not attempt.ok:
            raise ReadingStoppedError
        return AskResult((attempt,))

    def special_tokens(self, candidates: Collection[str], *, variant: str) -> frozenset[str]:  # noqa: ARG002
        """Return an empty set; ReadingStoppedError when there are candidates that only a server can judge."""
        if candidates:
            raise ReadingStoppedError
        return frozenset()


def first_request(
    task: Task, plan: ExtractionPlan, client: Client, *, copies: Questions | None
) -> FinishedTask | ReturnedTask:
    """Return the result of a document's first request."""
    asker = OneRequest(client, task.tokens_per_weight)
    finished = process(task.entry, plan, client=asker, alone=task.alone, copies=copies)
    outcome = finished.outcome
    question = asker.question
    call = asker.call
    if isinstance(outcome, Result) and question is not None and call is not None:
        prompt = verifiable_prompt(question)
        if prompt is not None:
            return FinishedTask(task.number, outcome, call, measured(client, prompt, call.attempt))
    if call is None and isinstance(outcome, (Unchanged, Copied)):
        return FinishedTask(task.number, outcome)
    return ReturnedTask(task.number, call)
