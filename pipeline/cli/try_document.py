"""`pipeline try FILE…`: send documents now and print prompts, answers and verdicts, to develop a prompt.

It must not write a record, a lock or a report.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.cli.arguments import config_file, load_app, say_config
from pipeline.cli.flags import add_config_flags, count
from pipeline.config import AppConfig, InputSource
from pipeline.config.resolved_agent import EXAMPLE_TURN
from pipeline.documents import FORMATS, ListingCounts, NamedDocuments, load_entries, possible_ids
from pipeline.documents.conversions import how_to_convert
from pipeline.documents.metadata_names import METADATA, aliases_of, is_filled
from pipeline.errors import EXIT_FAILURES, EXIT_LATER, EXIT_OK, REASONS, ConfigError, TryLaterError
from pipeline.llm.failover import Failover
from pipeline.llm.provider import AskResult, ExtractionRequest
from pipeline.logs import visible
from pipeline.output import left_out
from pipeline.records import Entry, ExtractionAttempt, Failure, Left, Outcome, Postponed, Result, Unchanged
from pipeline.run.document.process import process
from pipeline.run.plan import ExtractionPlan, address_warnings, build_plan, schema_warnings
from pipeline.run.refresh import Refresher
from pipeline.run.runner import start_thread
from pipeline.run.windows.cutting import Cut, Window
from pipeline.run.windows.sequential import asked_alone
from pipeline.terminal import (
    BOLD,
    DIM,
    GREEN,
    RED,
    block,
    fitted,
    hanging,
    plural,
    tinted,
    unwrapped_or_width,
    wants_colour,
    write_out,
)

EXAMPLES = """examples:
  pipeline try inbox/example.txt
  pipeline try 2026/01/story.txt --agent appointments"""


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the flags of this command."""
    command.add_argument(
        "documents",
        nargs="+",
        metavar="ID|FILE",
        help="a document of the input, by id or path; or any file or folder of documents",
    )
    command.add_argument("--limit", metavar="N", type=count, default=10, help="at most N documents; default: 10")
    add_config_flags(command, places=False)


def main(arguments: argparse.Namespace, *, environ: Mapping[str, str]) -> int:
    """Return 0 when every document gave a valid record, 1 when one failed, 3 when a server became unavailable."""
    app = _impatient(load_app(arguments, environ=environ))
    stop = threading.Event()
    say_config(config_file(arguments, environ=environ))
    plan = build_plan(app, stop=stop)
    entries = list(islice(_entries(app, arguments.documents), arguments.limit))
    try:
        for warning in [*address_warnings(app, plan), *schema_warnings(plan)]:
            lines = hanging(f"warning: {warning}", indent=0, width=unwrapped_or_width(sys.stdout, environ))
            write_out("\n".join(lines))
        _find_server(app, plan, stop=stop)
        colour = wants_colour(sys.stdout, environ)
        width = unwrapped_or_width(sys.stdout, environ)
        transcript = Transcript(plan.client, colour=colour, width=width, agent_file=plan.agent.editable)
        codes = [transcript.document(entry, plan) for entry in entries]
    finally:
        plan.client.close()
    return max(codes)


def _impatient(app: AppConfig) -> AppConfig:
    """Return the configuration for interactive use: do not wait for an unavailable server."""
    return replace(app, runner=replace(app.runner, startup_wait_s=0.0))


def _entries(app: AppConfig, names: Sequence[str]) -> Iterator[Entry]:
    """Yield the named documents: as a run would take them from the input, else those of a path outside of it.

    ConfigError for a name that is neither, or that holds no document.
    """
    outside = [name for name in names if Path(name).exists() and len(set(possible_ids(name, app.input))) == 1]
    named = NamedDocuments([name for name in names if name not in outside], app.input)
    if named.missing():
        yield from named.pick(load_entries(app.input, output=left_out(app), counts=ListingCounts()))
    for name in named.missing():
        if Path(name).exists():  # in the input's folder, and not among its documents
            outside.append(name)
        else:
            raise ConfigError(
                f"try: got {visible(name)}: there is no such file or document of the input{named.hint(name)}"
            )
    if not outside:
        return
    config = replace(app.input, uri=tuple(InputSource(name) for name in outside))
    counts = ListingCounts()
    yield from load_entries(config, output=None, counts=counts)
    if not counts.listed:
        uris = visible(", ".join(outside))
        advice = next(filter(None, map(how_to_convert, counts.ignored)), f"formats: {' '.join(FORMATS)}")
        raise ConfigError(f"try: got {uris}, which holds no document; {advice}")


def _find_server(app: AppConfig, plan: ExtractionPlan, *, stop: threading.Event) -> None:
    """Return when a provider is available; raise ConfigError or TryLaterError with the cause when none is."""
    Refresher(app, load=lambda: app, stop=stop).establish(plan, start=start_thread)
    trouble = plan.client.trouble
    if trouble is not None:
        raise TryLaterError(f"no provider is available: {trouble.message}")


class Transcript:
    """A client that prints each prompt and each answer."""

    def __init__(self, client: Failover, *, colour: bool, width: int, agent_file: str) -> None:
        self._client = client
        self._width = width
        self._agent_file = agent_file
        self._colour = colour
        self._system: str | None = None
        self._user: str | None = None

    def document(self, entry: Entry, plan: ExtractionPlan) -> int:
        """Process one document and return the exit code that it alone would give."""
        if self._system is not None:
            self._print("")
        self._user = None
        variant = plan.query_for(entry.id).resolved.variant
        self._heading(f"document {entry.id}, agent {plan.agent.name}, variant {variant}", BOLD)
        outcome = process(entry, plan, client=self, alone=True).outcome
        if isinstance(outcome, Cut):
            outcome = asked_alone(outcome, plan, client=self, begin=self._window)
        assert isinstance(outcome, (Result, Failure, Postponed, Left, Unchanged))  # others are found only by a run
        self._print(*self._verdict(outcome))
        if isinstance(outcome, Result):
            return EXIT_OK
        return EXIT_FAILURES if isinstance(outcome, Failure) else EXIT_LATER

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
            known = system == self._system
            self._heading("system prompt" + (", the same as before" if known else f", {len(system):,} characters"))
            self._text("" if known else system, tint=DIM)
            for name, text in question.prompts.items():
                if name.startswith(EXAMPLE_TURN) and not known:
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
            shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            self._text(f"${name}{_use_of(name, metadata)}: {shown}", tint=DIM)

    def _print_reask(self, user: str) -> None:
        """Print what a further request for the document adds to its prompt, or the whole prompt when it is shorter."""
        before = self._user or ""
        if user.startswith(before):
            self._heading("further request, with this added to the user prompt")
            self._text(user[len(before) :].lstrip("\n"), tint=DIM)
        else:
            self._heading(f"further request, with a user prompt of {len(user):,} instead of {len(before):,} characters")
            self._text(user, tint=DIM)

    def _attempt(self, attempt: ExtractionAttempt) -> None:
        who = f"{attempt.model.provider}, model {attempt.model.name}, at {attempt.model.endpoint}"
        tokens = f", {attempt.prompt_tokens} tokens in, {attempt.completion_tokens} out"
        took = f"{attempt.latency_s:.1f} s" + (tokens if attempt.prompt_tokens is not None else "")
        if attempt.ok:
            self._heading(f"answer from {who} ({took})")
        else:
            self._heading(f"no answer from {who} ({took}): {attempt.error}: {attempt.message}", RED)
        self._text(attempt.raw_text or "")

    def _verdict(self, outcome: Outcome) -> Iterator[str]:
        if isinstance(outcome, Result):
            yield tinted("output", BOLD, colour=self._colour)
            yield block(json.dumps(outcome.output, ensure_ascii=False, indent=2))
            yield tinted("VALID", BOLD + GREEN, colour=self._colour) + _remarks(outcome)
            return
        failure = outcome.failure if isinstance(outcome, Postponed) else outcome
        assert isinstance(failure, Failure)
        name = "SERVER UNAVAILABLE" if isinstance(outcome, Postponed) else "FAILED"
        head = f"{name} {failure.reason}"
        first, *others = hanging(f"{head} ({failure.stage}): {failure.message}", indent=0, width=self._width)
        yield first.replace(head, tinted(head, BOLD + RED, colour=self._colour), 1)
        yield from others
        advice = REASONS.get(failure.reason)
        if advice is not None:
            yield from fitted([f"  to do: {visible(advice.advice_for(self._agent_file))}"], self._width)

    def _heading(self, text: str, tint: str = BOLD) -> None:
        lines = fitted([visible(text)], self._width)
        self._print(*(tinted(line, tint, colour=self._colour) for line in lines))

    def _text(self, text: str, *, tint: str = "") -> None:
        if text:
            lines = fitted(block(text).splitlines(), self._width)
            self._print(*(tinted(line, tint, colour=self._colour) for line in lines))

    def _print(self, *lines: str) -> None:
        write_out("\n".join(lines) + "\n")


def _use_of(name: str, metadata: Mapping[str, Any]) -> str:
    """Return what else a user has to know about a name of metadata in a prompt: other names, or its declaration."""
    if name not in METADATA:
        return " (declare it in `variables`)"
    others = [f"${alias}" for alias in aliases_of(name)[1:] if not is_filled(metadata.get(alias))]
    return f" (or {', '.join(others)})" if others else ""


def _remarks(result: Result) -> str:
    """Return the facts of a valid record in one line."""
    parts = [plural(result.attempts, "request"), f"{result.latency_s:.1f} s"]
    parts += [plural(result.reasks, "correction")] if result.reasks else []
    parts += ["the answer was not clean JSON and was repaired"] if result.repaired else []
    parts += [f"notes: {', '.join(result.notes)}"] if result.notes else []
    return visible(" " + ", ".join(parts))
