"""`pipeline try FILE…`: documents through the agent now, with all that is said on the way; how one develops a prompt.

It must not write anything: no record, no lock, no report.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice

from pipeline.cli.arguments import load_app
from pipeline.cli.flags import add_config_flags, count
from pipeline.config import AppConfig
from pipeline.documents import FORMATS, ListingCounts, load_entries
from pipeline.errors import EXIT_FAILURES, EXIT_LATER, EXIT_OK, REASONS, ConfigError, TryLaterError
from pipeline.llm.failover import Failover
from pipeline.llm.provider import AskResult, ExtractionRequest
from pipeline.llm.replica import at_once
from pipeline.logs import visible
from pipeline.output.copies import Copied
from pipeline.records import Entry, ExtractionAttempt, Failure, Outcome, Postponed, Result
from pipeline.run.plan import ExtractionPlan, build_plan, schema_warnings
from pipeline.run.process import process
from pipeline.run.refresh import Refresher
from pipeline.terminal import BOLD, DIM, GREEN, RED, block, plural, tinted, wants_colour, write_out

EXAMPLES = "example:\n  pipeline try data/inbox/today.txt --agent appointments --set agents_dir=my_agents"


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the flags of this command."""
    command.add_argument("input", nargs="+", metavar="FILE", help="a document, or a folder or file of several")
    command.add_argument("--limit", metavar="N", type=count, default=10, help="documents at most; default: 10")
    add_config_flags(command, places=False)


def main(arguments: argparse.Namespace, *, environ: Mapping[str, str]) -> int:
    """0 when every document gave a valid record, 1 when one failed, 3 when a server went away."""
    app = _impatient(load_app(arguments, environ=environ))
    stop, counts = threading.Event(), ListingCounts()
    plan = build_plan(app, stop=stop)
    entries = list(islice(load_entries(app.input, output=None, counts=counts), arguments.limit))
    if not entries:
        named = ", ".join(source.uri for source in app.input.uri)
        raise ConfigError(f"try: got {visible(named)}, which holds no document; read are {' '.join(FORMATS)}")
    try:
        for warning in schema_warnings(plan):
            write_out(visible(f"warning: {warning}"))
        _find_server(app, plan, stop=stop)
        said = Transcript(plan.client, colour=wants_colour(sys.stdout, environ))
        codes = [said.document(entry, plan) for entry in entries]
    finally:
        plan.client.close()
    return max(codes)


def _impatient(app: AppConfig) -> AppConfig:
    """The configuration for somebody who is looking on: a server that is not there is not waited for."""
    return replace(app, runner=replace(app.runner, startup_wait_s=0.0))


def _find_server(app: AppConfig, plan: ExtractionPlan, *, stop: threading.Event) -> None:
    """Returns when a provider can be asked; ConfigError or TryLaterError says why none can."""
    Refresher(app, load=lambda: app, stop=stop).establish(plan, start=at_once)
    trouble = plan.client.trouble
    if trouble is not None:
        raise TryLaterError(f"no provider can be asked: {trouble.message}")


class Transcript:
    """Asks as its client does, and prints what goes out and comes back."""

    def __init__(self, client: Failover, *, colour: bool) -> None:
        self._client, self._colour = client, colour
        self._system: str | None = None
        self._user: str | None = None

    def document(self, entry: Entry, plan: ExtractionPlan) -> int:
        """The exit code that this document alone would give."""
        if self._system is not None:
            self._print("")
        self._user = None
        variant = plan.query_for(entry.id).resolved.variant
        self._heading(f"document {entry.id}, agent {plan.agent.name}, variant {variant}", BOLD)
        outcome = process(entry, plan, client=self, alone=True).outcome
        assert not isinstance(outcome, Copied)  # found only by a run
        self._print(*self._verdict(outcome))
        if isinstance(outcome, Result):
            return EXIT_OK
        return EXIT_FAILURES if isinstance(outcome, Failure) else EXIT_LATER

    def ask(self, question: ExtractionRequest) -> AskResult:
        """What the client says."""
        system, user = question.prompts.get("system", ""), question.prompts["user"]
        if self._user is not None:
            self._print_again(user)
        else:
            known = system == self._system
            self._heading("system prompt" + (", the same as before" if known else f", {len(system):,} characters"))
            self._text("" if known else system, tint=DIM)
            self._heading(f"user prompt, {len(user):,} characters")
            self._text(user, tint=DIM)
        self._system, self._user = system, user
        asked = self._client.ask(question)
        for attempt in asked.attempts:
            self._attempt(attempt)
        return asked

    def _print_again(self, user: str) -> None:
        """What another ask of the same document adds to its prompt, or that it is a shorter one."""
        before = self._user or ""
        if user.startswith(before):
            self._heading("asked again, with this added to the user prompt")
            self._text(user[len(before) :].lstrip("\n"), tint=DIM)
        else:
            self._heading(f"asked again, with a user prompt of {len(user):,} instead of {len(before):,} characters")
            self._text(user, tint=DIM)

    def _attempt(self, attempt: ExtractionAttempt) -> None:
        who = f"{attempt.model.provider}, model {attempt.model.name}, at {attempt.model.endpoint}"
        tokens = f", {attempt.prompt_tokens} tokens in, {attempt.completion_tokens} out"
        took = f"{attempt.latency_s:.1f} s" + (tokens if attempt.prompt_tokens is not None else "")
        if attempt.ok:
            self._heading(f"answer of {who} ({took})")
        else:
            self._heading(f"no answer of {who} ({took}): {attempt.error}: {attempt.message}", RED)
        self._text(attempt.raw_text or "")

    def _verdict(self, outcome: Outcome) -> Iterator[str]:
        if isinstance(outcome, Result):
            yield tinted("output", BOLD, colour=self._colour)
            yield block(json.dumps(outcome.output, ensure_ascii=False, indent=2))
            yield tinted("VALID", BOLD + GREEN, colour=self._colour) + _remarks(outcome)
            return
        failure = outcome.failure if isinstance(outcome, Postponed) else outcome
        assert isinstance(failure, Failure)
        name = "NO SERVER" if isinstance(outcome, Postponed) else "FAILED"
        yield tinted(f"{name} {failure.reason}", BOLD + RED, colour=self._colour) + visible(
            f" ({failure.stage}): {failure.message}"
        )
        advice = REASONS.get(failure.reason)
        if advice is not None:
            yield f"  to do: {advice.advice}"

    def _heading(self, text: str, tint: str = BOLD) -> None:
        self._print(tinted(visible(text), tint, colour=self._colour))

    def _text(self, text: str, *, tint: str = "") -> None:
        if text:
            self._print(*(tinted(line, tint, colour=self._colour) for line in block(text).splitlines()))

    def _print(self, *lines: str) -> None:
        write_out("\n".join(lines) + "\n")


def _remarks(result: Result) -> str:
    """What is worth knowing of a valid record, in one line."""
    parts = [plural(result.attempts, "request"), f"{result.latency_s:.1f} s"]
    parts += [f"asked again {plural(result.reasks, 'time')}"] if result.reasks else []
    parts += ["the answer was not clean JSON and was mended"] if result.repaired else []
    parts += [f"notes: {', '.join(result.notes)}"] if result.notes else []
    return visible(" " + ", ".join(parts))
