"""The output of `pipeline try` for a document: prompts, answers, windows and the verdict.

It must not write a record.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pipeline.config.resolved_agent import EXAMPLE_TURN
from pipeline.documents.metadata_names import METADATA, aliases_of, is_filled
from pipeline.errors import EXIT_FAILURES, EXIT_LATER, EXIT_OK, REASONS, ConfigError, cause_of
from pipeline.llm.failover import Failover
from pipeline.llm.provider import AskResult, ExtractionRequest
from pipeline.logs import visible
from pipeline.records import Entry, ExtractionAttempt, Failure, Left, Outcome, Postponed, Result, Unchanged
from pipeline.report.window_facts import merge_lines
from pipeline.run.document.process import process
from pipeline.run.plan import ExtractionPlan
from pipeline.run.windows.cutting import CutDocument, Divided, Window
from pipeline.run.windows.sequential import ask_all_windows, ask_one_window
from pipeline.terminal import BOLD, DIM, GREEN, RED, block, fitted, hanging_indent, in_colour, plural, write_out
from pipeline.window_answers import WindowAnswer


class Transcript:
    """A client that prints each prompt and each answer."""

    def __init__(self, client: Failover, *, colour: bool, width: int, agent_file: str) -> None:
        self._client = client
        self._width = width
        self._agent_file = agent_file
        self._colour = colour
        self._system: str | None = None
        self._user: str | None = None
        self._answer: object = None

    def document(self, entry: Entry, plan: ExtractionPlan, *, window: int | None = None) -> int:
        """Process one document, or one of its windows, and return the exit code that it alone would give.

        ConfigError for a document without this window.
        """
        if self._system is not None:
            self._print("")
        self._user = None
        variant = plan.query_for(entry.id).resolved.variant
        self._heading(f"document {entry.id}, agent {plan.agent.name}, variant {variant}", BOLD)
        outcome = process(entry, plan, client=self, alone=True).outcome
        if window is not None:
            return self._one_window(entry, outcome, plan, number=window)
        if isinstance(outcome, CutDocument):
            outcome = ask_all_windows(outcome, plan, client=self, begin=self._window)
        assert isinstance(outcome, (Result, Failure, Postponed, Left, Unchanged))  # others are found only by a run
        self._print(*self._verdict(outcome))
        if isinstance(outcome, Result):
            return EXIT_OK
        return EXIT_FAILURES if isinstance(outcome, Failure) else EXIT_LATER

    def _one_window(self, entry: Entry, outcome: object, plan: ExtractionPlan, *, number: int) -> int:
        """Process one window of a document that was cut."""
        if not isinstance(outcome, CutDocument):
            if isinstance(outcome, (Failure, Postponed)):
                self._print(*self._verdict(outcome))
                return EXIT_FAILURES if isinstance(outcome, Failure) else EXIT_LATER
            raise ConfigError(f"--window: got {number}, but {entry.id} was sent whole, it has no windows")
        windows = outcome.windows
        if not 1 <= number <= windows:
            raise ConfigError(f"--window: got {number}, need a number from 1 to {windows}, the windows of {entry.id}")
        own = ask_one_window(outcome, plan, number=number, client=self, begin=self._window)
        self._print(*self._verdict(own))
        if isinstance(own, WindowAnswer):
            return EXIT_OK
        return EXIT_FAILURES if isinstance(own, (Failure, Divided)) else EXIT_LATER

    def _window(self, number: int, windows: int, window: Window) -> None:
        """Print the part of a document that the next exchange is about."""
        start, end = window.span
        self._user = None
        self._heading(f"window {number} of {windows}, characters {start:,} to {end:,}")

    def special_tokens(self, candidates: Collection[str], *, variant: str) -> frozenset[str]:
        """Return which texts a tokenizer of the servers takes for a special token."""
        return self._client.special_tokens(candidates, variant=variant)

    def ask(self, question: ExtractionRequest) -> AskResult:
        """Send the request, print prompts and answers, and return the result."""
        system = question.prompts.get("system", "")
        user = question.prompts["user"]
        if self._user is None:
            self._print_metadata(question.metadata)
        if self._user is not None:
            self._print_reask(user)
        else:
            is_same = system == self._system
            self._heading("system prompt" + (", the same as before" if is_same else f", {len(system):,} characters"))
            self._text("" if is_same else system, tint=DIM)
            for name, text in question.prompts.items():
                if name.startswith(EXAMPLE_TURN) and not is_same:
                    self._heading(f"{name.replace('_', ' ')}, {len(text):,} characters")
                    self._text(text, tint=DIM)
            self._heading(f"user prompt, {len(user):,} characters")
            self._text(user, tint=DIM)
        self._system = system
        self._user = user
        result = self._client.ask(question)
        for attempt in result.attempts:
            self._attempt(attempt)
        return result

    def _print_metadata(self, metadata: Mapping[str, Any]) -> None:
        """Print each value of the document's metadata by the names under which a prompt may use it."""
        self._heading(f"metadata: {plural(len(metadata), 'value') if metadata else 'none'}")
        for name, value in metadata.items():
            value_text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            self._text(f"${name}{_use_of(name, metadata)}: {value_text}", tint=DIM)

    def _print_reask(self, user: str) -> None:
        """Print the text that a re-ask adds to the prompt, or the whole prompt if that is shorter."""
        before = self._user or ""
        if user.startswith(before):
            self._heading("further request, with this added to the user prompt")
            self._text(user[len(before) :].lstrip("\n"), tint=DIM)
        else:
            self._heading(f"further request, with a user prompt of {len(user):,} instead of {len(before):,} characters")
            self._text(user, tint=DIM)

    def _attempt(self, attempt: ExtractionAttempt) -> None:
        server_text = f"{attempt.model.provider}, model {attempt.model.name}, at {attempt.model.endpoint}"
        tokens = f", {attempt.prompt_tokens} tokens in, {attempt.completion_tokens} out"
        took = f"{attempt.latency_s:.1f} s" + (tokens if attempt.prompt_tokens is not None else "")
        if attempt.ok:
            self._heading(f"answer from {server_text} ({took})")
        else:
            self._heading(f"no answer from {server_text} ({took}): {attempt.error}: {attempt.message}", RED)
        self._answer = _plain_object(attempt.raw_text or "")
        self._text(attempt.raw_text or "" if self._answer is None else _pretty(self._answer))

    def _verdict(self, outcome: Outcome | WindowAnswer | Divided) -> Iterator[str]:
        if isinstance(outcome, Divided):
            parts = ", ".join(f"{window.span.start:,} to {window.span.end:,}" for window in outcome.windows)
            text = f"DIVIDED: a run sends this window again in smaller ones, characters {parts}"
            yield from hanging_indent(text, indent=0, width=self._width)
            return
        if isinstance(outcome, WindowAnswer) and outcome.model is None:
            yield in_colour("BLANK", BOLD + GREEN, colour=self._colour) + ": this window holds no text and is not sent"
            return
        if isinstance(outcome, (Result, WindowAnswer)):
            if outcome.output != self._answer or (isinstance(outcome, Result) and outcome.windows is not None):
                yield in_colour("output", BOLD, colour=self._colour)
                yield block(_pretty(outcome.output))
            yield from self._merged(outcome)
            yield in_colour("VALID", BOLD + GREEN, colour=self._colour) + _facts_line(outcome)
            return
        failure = outcome.failure if isinstance(outcome, Postponed) else outcome
        assert isinstance(failure, Failure)
        name = "SERVER UNAVAILABLE" if isinstance(outcome, Postponed) else "FAILED"
        head = f"{name} {failure.reason}"
        first, *more_lines = hanging_indent(f"{head} ({failure.stage}): {failure.message}", indent=0, width=self._width)
        yield first.replace(head, in_colour(head, BOLD + RED, colour=self._colour), 1)
        yield from more_lines
        advice = REASONS.get(failure.reason)
        if advice is not None:
            cause = cause_of(failure.reason, error=failure.error, notes=failure.notes)
            yield from fitted([f"  to do: {visible(advice.advice_for(self._agent_file, {cause}))}"], self._width)

    def _merged(self, outcome: Result | WindowAnswer) -> Iterator[str]:
        """Yield the conflicts, the dropped items, and the places of the quotes of a merged record."""
        if isinstance(outcome, Result) and outcome.windows is not None:
            lines = merge_lines({"merge": outcome.merge, "evidence": outcome.evidence})
            yield from fitted(map(visible, lines), self._width)

    def _heading(self, text: str, tint: str = BOLD) -> None:
        lines = fitted([visible(text)], self._width)
        self._print(*(in_colour(line, tint, colour=self._colour) for line in lines))

    def _text(self, text: str, *, tint: str = "") -> None:
        if text:
            lines = fitted(block(text).splitlines(), self._width)
            self._print(*(in_colour(line, tint, colour=self._colour) for line in lines))

    def _print(self, *lines: str) -> None:
        write_out("\n".join(lines) + "\n")


def _pretty(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)


def _plain_object(text: str) -> dict[str, Any] | None:
    """Return the object that an answer consists of, or None for an answer that is more than that, or no JSON."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _use_of(name: str, metadata: Mapping[str, Any]) -> str:
    """Return a remark about a metadata name in a prompt: its other names, or its declaration."""
    if name not in METADATA:
        return " (declare it in `variables`)"
    names = [f"${alias}" for alias in aliases_of(name)[1:] if not is_filled(metadata.get(alias))]
    return f" (or {', '.join(names)})" if names else ""


def _facts_line(result: Result | WindowAnswer) -> str:
    """Return the facts of a valid record in one line."""
    parts = [plural(result.attempts, "request"), f"{result.latency_s:.1f} s"]
    parts += [plural(result.reasks, "correction")] if result.reasks else []
    parts += ["the answer was not clean JSON and was repaired"] if result.repaired else []
    parts += [f"notes: {', '.join(result.notes)}"] if result.notes else []
    return visible(" " + ", ".join(parts))
