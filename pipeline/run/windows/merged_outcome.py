"""The answers about all windows of a document → its outcome: merged, with evidence, ledger and total cost.

    answers ─▶ merged (long/merging.py) ─▶ Result, or Failure `merge_failed`

It runs in a worker, and sends no request.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.answers import evidence_of
from pipeline.evidence import Evidence
from pipeline.long import find_window_quotes
from pipeline.long.merging import Merged, Part, merge
from pipeline.long.windows import Span
from pipeline.records import ExtractionAttempt, Failure, ModelMetadata, Result, Usage, changed, utc_now
from pipeline.run.document.attempts import requests_sent, total_of, usage, with_notes
from pipeline.run.document.process import FinishedEntry, outcome_of_steps
from pipeline.run.document.state import DocumentState, ExtractionClient
from pipeline.run.plan import ExtractionPlan
from pipeline.run.windows.cutting import LongDocument
from pipeline.run.windows.window_text import quotable_text, visible_spans
from pipeline.window_answers import WindowAnswer

_COLUMNS = ("start", "end", "prompt_tokens", "completion_tokens", "attempts", "reasks", "model")


@dataclass(slots=True)
class Cost:
    """The requests of this run for one document: sums over all windows, including those that were divided."""

    attempts: int = 0
    reasks: int = 0
    usage: Usage = field(default_factory=Usage)
    latency_s: float = 0.0

    def add(self, attempts: Sequence[ExtractionAttempt]) -> None:
        """Add the requests of one attempt at a window."""
        self.attempts += requests_sent(attempts, None)
        self.usage = total_of(self.usage, usage(attempts, None))
        self.latency_s += sum(attempt.latency_s for attempt in attempts)

    def plus_earlier(self, earlier_failure: Failure | None) -> tuple[int, Usage]:
        """Return requests and tokens plus those of an earlier failure, such as a request with the whole document."""
        if earlier_failure is None:
            return self.attempts, self.usage
        return self.attempts + earlier_failure.attempts, total_of(self.usage, earlier_failure.usage)


def merge_windows(
    long: LongDocument,
    read: Callable[[], Sequence[WindowAnswer]],
    plan: ExtractionPlan,
    *,
    cost: Cost,
    reused: int,
    divided: int,
    elapsed_s: float,
    client: ExtractionClient,
    now: Callable[[], str] = utc_now,
) -> FinishedEntry:
    """Return the outcome of a document whose windows are all answered; never raises.

    `read` returns the answers, which are large. `divided`: how many windows were divided.
    """
    state = DocumentState(long.entry, long.query, client, sha256=long.document.sha256, stage="validate")

    def steps() -> Result:
        answers = read()
        state.notes = with_notes(long.document.notes, *_window_notes(answers, divided=divided))
        parts = [Part(answer.start, answer.end, answer.output, _evidence(long, answer)) for answer in answers]
        merged = merge(long.query.schema.merge_rules, parts, text=long.document.text)
        return _result(long, merged, answers, state=state, cost=cost, reused=reused, elapsed_s=elapsed_s, now=now)

    finished = outcome_of_steps(state, plan, steps, alone=True, now=now)
    if isinstance(finished.outcome, Failure):
        attempts, tokens = cost.plus_earlier(long.earlier_failure)
        return replace(finished, outcome=changed(finished.outcome, attempts=attempts, usage=tokens, reasks=cost.reasks))
    return finished


def _window_notes(answers: Iterable[WindowAnswer], *, divided: int) -> Iterable[str]:
    """Return the notes of all windows, each once."""
    notes = dict.fromkeys(note for answer in answers for note in answer.notes)
    return (*notes, "windows_divided") if divided else notes


def _evidence(long: LongDocument, answer: WindowAnswer) -> Sequence[Evidence]:
    """Return the places of a window's quotes in the whole text; search them if an earlier version wrote no places."""
    if answer.evidence is not None:
        return answer.evidence
    if answer.output is None or not (quotes := long.split.schema.quoted(answer.output)):
        return []
    span = Span(answer.start, answer.end)
    texts = [quote for _, quote in quotes]
    shown = quotable_text(long, span)
    places = find_window_quotes(texts, long.document.text, spans=visible_spans(long, span), shown=shown)
    return evidence_of(zip(quotes, places, strict=True), long.pages)


def _result(
    long: LongDocument,
    merged: Merged,
    answers: Sequence[WindowAnswer],
    *,
    state: DocumentState,
    cost: Cost,
    reused: int,
    elapsed_s: float,
    now: Callable[[], str],
) -> Result:
    document = long.document
    attempts, tokens = cost.plus_earlier(long.earlier_failure)
    ledger, models = _ledger(merged, answers, chars=len(document.text), reused=reused, elapsed_s=elapsed_s)
    contexts = [answer.context_length for answer in answers if answer.context_length is not None]
    merge_notes = _notes(merged, models=len(models), reused=reused)
    return Result(
        id=long.entry.id,
        uri=long.entry.uri,
        sha256=document.sha256,
        agent=long.query.resolved.agent,
        variant=long.query.resolved.variant,
        fingerprint=long.split.fingerprint,
        output=merged.value,
        model=models[0],
        attempts=attempts,
        reasks=cost.reasks,
        repaired=any(answer.repaired for answer in answers),
        notes=with_notes(state.notes, *merge_notes),
        usage=tokens,
        context_length=min(contexts, default=None),
        document_chars=len(document.text),
        metadata=document.metadata,
        text_sha256=long.text_sha256,
        evidence=merged.evidence,
        windows=ledger,
        merge=merged.record(),
        latency_s=round(cost.latency_s, 3),
        finished_at=now(),
        version=long.entry.version,
        history=long.earlier_failure.history if long.earlier_failure is not None else (),
        question_sha256=long.question_sha256,
    )


def _notes(merged: Merged, *, models: int, reused: int) -> list[str]:
    """Return the notes about the merging."""
    notes = ["document_split"]
    notes += ["windows_reused"] if reused else []
    notes += ["several_models"] if models > 1 else []
    notes += ["merge_conflicts"] if merged.conflicts_total else []
    return notes + (["items_dropped"] if merged.dropped else [])


def _ledger(
    merged: Merged, answers: Sequence[WindowAnswer], *, chars: int, reused: int, elapsed_s: float
) -> tuple[dict[str, Any], list[ModelMetadata]]:
    """Return the ledger, with a row for each window, and the models, by their number of windows."""
    by_span = {Span(answer.start, answer.end): answer for answer in answers}
    answers_by_window = [by_span[Span(*span)] for span in merged.windows]
    counts = Counter(answer.model for answer in answers_by_window if answer.model is not None)
    models = [model for model, _ in counts.most_common()]
    rows = [
        [
            answer.start,
            answer.end,
            answer.usage.prompt_tokens,
            answer.usage.completion_tokens,
            answer.attempts,
            answer.reasks,
            models.index(answer.model) if answer.model is not None else None,
        ]
        for answer in answers_by_window
    ]
    model_rows = [{"provider": m.provider, "name": m.name, "endpoint": m.endpoint, "digest": m.digest} for m in models]
    ledger = {
        "chars": chars,
        "reused": reused,
        "columns": list(_COLUMNS),
        "rows": rows,
        "models": model_rows,
        "elapsed_s": round(elapsed_s, 3),
    }
    return ledger, models
