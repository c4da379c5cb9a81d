"""The text of `pipeline check`: a verdict, the findings about servers and input, and the changed settings.

It sends no request and reads no document.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.cli.local_servers import LocalServer, chat_models
from pipeline.config import AppConfig, mask_url
from pipeline.config.differences import changed_settings
from pipeline.config.keys import provider_key
from pipeline.errors import EXIT_CONFIG, EXIT_OK
from pipeline.llm.capabilities import Preflight
from pipeline.run.preview.examination import SIDE_BY_SIDE
from pipeline.run.preview.input_survey import InputSurvey
from pipeline.run.preview.window_forecast import forecast_text
from pipeline.terminal import BOLD, GREEN, RED, YELLOW, hanging_indent, in_colour, pasteable, plural

INDENT = 8
_KINDS_SHOWN = 8


@dataclass(frozen=True, slots=True)
class CheckedServer:
    """The findings about one server. `blocks`: its preflight by variant; `proofs`: its state with long prompts.

    `address_from`: where its address was set. `side_by_side`: requests it works on at the same time, None if unknown.
    """

    place: str
    provider: str
    is_first: bool
    preflight: Preflight
    blocks: Mapping[str, Preflight]
    proofs: Mapping[str, str]
    address_from: str
    proxy: str
    side_by_side: int | None


@dataclass(frozen=True, slots=True)
class CheckedOutput:
    """The findings about the output: `trouble`, with its exit code, when a run could not use it.

    `change`: how many of its documents a run would extract again, and why; "" for none.
    """

    uri: str
    code: int = EXIT_OK
    trouble: str = ""
    in_store: bool = False
    change: str = ""


@dataclass(frozen=True, slots=True)
class Remedy:
    """An alternative model or server: a sentence, and the settings that select it."""

    text: str
    settings: Mapping[str, str]


def waiting_lines(place: str, message: str, *, width: int) -> list[str]:
    """Return the message about a server that the command waits for."""
    return hanging_indent(f"WAITING {place}: {message}", indent=0, hang=INDENT, width=width)


def verdict_lines(
    checked: Sequence[CheckedServer],
    survey: InputSurvey,
    output: CheckedOutput,
    code: int,
    *,
    colour: bool,
    width: int,
) -> Iterator[str]:
    """Yield the verdict: whether a run could start now, and the obstacles."""
    first = [server for server in checked if server.is_first]
    available = [server for server in first if server.preflight.status == "ok"]
    troubles = [f"{server.place}: {server.preflight.message}" for server in checked if server.preflight.status != "ok"]
    troubles += [f"input: {survey.trouble}"] if survey.trouble else []
    troubles += [output.trouble] if output.trouble else []
    if code != EXIT_OK:
        reason = _obstacle(survey, code, has_server=bool(available))
        yield in_colour(f"NOT READY: {reason} (exit code {code})", BOLD + RED, colour=colour)
        yield from (line for trouble in troubles for line in hanging_indent(trouble, indent=INDENT, width=width))
        return
    if output.change:
        again = "`pipeline run` extracts those that are still in the input again, `--dry-run` shows the cost"
        troubles.append(f"{output.change}: {again}")
    warned = bool(troubles) or not survey.found or survey.failed > 0
    servers = f"{len(available)} of {plural(len(first), 'server')}, " if len(first) > 1 else ""
    summary = (
        f"{available[0].place}, {servers}model {available[0].preflight.model}; {_input_summary(survey)}"
        if available
        else ""
    )
    label = "READY, WITH WARNINGS" if warned else "READY"
    lines = hanging_indent(f"{label}: {summary}", indent=0, width=width, hang=2)
    yield from (in_colour(line, BOLD + (YELLOW if warned else GREEN), colour=colour) for line in lines)
    yield from (line for trouble in troubles for line in hanging_indent(trouble, indent=INDENT, width=width))


def _obstacle(survey: InputSurvey, code: int, *, has_server: bool) -> str:
    """Return what must be changed, or what is not available."""
    if code == EXIT_CONFIG:
        changed = "the input" if has_server and survey.code == code else "a server"
        return f"a setting or {changed} must be changed"
    if not has_server:
        return "the server is not available"
    return f"the {'input' if survey.code == code else 'output'} is not available"


def remedies(checked: Sequence[CheckedServer], other_servers: Iterable[LocalServer]) -> Iterator[Remedy]:
    """Yield the alternatives: another model of the first server, and other servers of this machine."""
    first = next(server for server in checked if server.is_first)
    models = chat_models(first.preflight.models) if first.preflight.reason == "model_not_found" else ()
    if models:
        yield Remedy(f"To use {models[0]} there:", {provider_key(first.provider, "model"): models[0]})
    for server in other_servers:
        section = server.section
        settings = {"provider": section, f"{section}.base_url": server.place.url}
        if server.place.type == "openai":
            settings["vllm.type"] = "openai"
        if server.models:
            settings[f"{section}.model"] = server.models[0]
        yield Remedy(f"{server.text()}. To use it:", settings)


def remedy_lines(remedy: Remedy, command: str, *, width: int) -> Iterator[str]:
    """Yield a remedy and its command, which is the present one with more settings."""
    flags = " ".join(f"--set {shlex.quote(f'{key}={value}')}" for key, value in remedy.settings.items())
    yield from hanging_indent(remedy.text, indent=INDENT, width=width)
    yield from pasteable("", f"{command} {flags}", indent=INDENT + 2, width=width)


def _input_summary(survey: InputSurvey) -> str:
    if survey.trouble:
        return "the input cannot be listed"
    at_least = "" if survey.is_complete else "at least "
    unreadable = f", {survey.failed:,} of the {survey.read:,} read cannot be used" if survey.failed else ""
    return f"{at_least}{plural(survey.found, 'document')} in the input{unreadable}"


def server_lines(server: CheckedServer, *, width: int) -> Iterator[str]:
    """Yield the facts of one server, a block for each variant."""
    for variant, preflight in server.blocks.items():
        place = f"{server.place}, variant {variant}" if len(server.proofs) > 1 else server.place
        role = "provider" if server.is_first else "fallback"
        if preflight.status != "ok":
            # the verdict has shown the message of the server itself
            reason = preflight.reason if preflight.message == server.preflight.message else preflight.message
            yield from hanging_indent(f"FAILED  {role} {place}: {reason}", indent=0, width=width, hang=INDENT)
        else:
            yield from hanging_indent(
                f"OK      {role} {place}: model {preflight.model}", indent=0, width=width, hang=INDENT
            )
            for fact in _facts(preflight, server.proofs[variant]):
                yield from hanging_indent(fact, indent=INDENT, width=width)
    yield from hanging_indent(f"address from: {server.address_from}", indent=INDENT, width=width)
    if server.proxy:
        yield from hanging_indent(f"through the proxy {server.proxy}", indent=INDENT, width=width)
    if server.side_by_side is not None:
        yield from hanging_indent(f"requests side by side: {_slots(server.side_by_side)}", indent=INDENT, width=width)


def _slots(served: int) -> str:
    if served >= SIDE_BY_SIDE:
        return f"{served} or more"
    return f"{served} (the others wait in the server's queue; OLLAMA_NUM_PARALLEL of the server raises it)"


def _facts(preflight: Preflight, proof: str) -> Iterator[str]:
    facts = {
        "server version": preflight.server,
        "context length": preflight.context_length and f"{preflight.context_length} tokens",
        "prompt without a document": preflight.prompt_tokens and f"{preflight.prompt_tokens} tokens",
        "long prompts": proof,
        "model load": preflight.load_s and f"{preflight.load_s:.1f} s",
        "schema": preflight.enforcement,
        "think": None if preflight.think is None else str(preflight.think).lower(),
        "digest": preflight.digest,
        "other models": ", ".join(name for name in preflight.models if name != preflight.model),
    }
    yield from (f"{name}: {fact}" for name, fact in facts.items() if fact)
    yield from (f"not enforced: {keyword}" for keyword in preflight.unenforced)
    yield from (f"warning: {warning}" for warning in preflight.warnings)


def input_lines(app: AppConfig, survey: InputSurvey, *, width: int) -> Iterator[str]:
    """Yield the contents of the input: documents by kind, files passed over, and documents that cannot be read."""
    where = ", ".join(mask_url(source.uri) for source in app.input.uri)
    if survey.trouble:
        yield from hanging_indent(f"FAILED  {survey.trouble}", indent=0, width=width, hang=INDENT)
    else:
        yield from hanging_indent(f"{where}: {_documents_text(survey)}", indent=INDENT, width=width)
    if survey.ignored_files:
        number = sum(survey.ignored_files.values())
        yield from hanging_indent(
            f"passed over: {plural(number, 'file')} ({_kinds(survey.ignored_files)})", indent=INDENT, width=width
        )
    if survey.read:
        scope = "all of them" if survey.is_complete and survey.read == survey.found else f"the first {survey.read:,}"
        outcome = f"{survey.failed:,} cannot be used" if survey.failed else "all readable"
        yield from hanging_indent(f"read: {scope}, {outcome}", indent=INDENT, width=width)
    for document in survey.unreadable:
        yield from hanging_indent(
            f"warning: {document.id}: {document.reason}: {document.message}", indent=INDENT, width=width
        )
    if survey.failed > len(survey.unreadable):
        yield " " * INDENT + f"and {survey.failed - len(survey.unreadable):,} more"


def output_lines(output: CheckedOutput, *, width: int) -> Iterator[str]:
    """Yield the place of the output, and why it cannot be used: the verdict shows the full message."""
    if output.trouble:
        yield from hanging_indent(f"FAILED  output {output.trouble}", indent=0, width=width, hang=INDENT)
    elif output.in_store:
        decided = "conditional writes are decided by the store"
        yield from hanging_indent(f"OK      output {output.uri}: {decided}", indent=0, width=width, hang=INDENT)
    else:
        yield from hanging_indent(output.uri, indent=INDENT, width=width)


def _documents_text(survey: InputSurvey) -> str:
    at_least = "" if survey.is_complete else "at least "
    kinds = f" ({_kinds(survey.kinds)})" if survey.kinds else ""
    return f"{at_least}{plural(survey.found, 'document')}{kinds}"


def _kinds(kinds: Mapping[str, int]) -> str:
    parts = [f"{kind} {number:,}" for kind, number in list(kinds.items())[:_KINDS_SHOWN]]
    return ", ".join(parts + (["…"] if len(kinds) > _KINDS_SHOWN else []))


def split_texts(sizes: Sequence[str], survey: InputSurvey) -> list[str]:
    """Return the sizes of windows and the forecast for the documents read; empty without sizes."""
    if not sizes or not survey.forecast.documents:
        return list(sizes)
    is_complete = survey.is_complete and survey.read == survey.found
    scope = "" if is_complete else f"of the first {plural(survey.read, 'document')}, "
    return [*sizes, f"split: {scope}{forecast_text(survey.forecast, is_estimate=False)}"]


def setting_lines(app: AppConfig, *, width: int) -> Iterator[str]:
    """Yield the settings that differ from their defaults, each with its source."""
    for setting in changed_settings(app):
        value = _setting_text(setting.value)
        yield from hanging_indent(
            f"{setting.key}: {value}   ({setting.place})", indent=INDENT, width=width, hang=INDENT + 2
        )


def _setting_text(value: object) -> str:
    """Return a value in the notation of the config file; an unnamed input as its address."""
    if isinstance(value, list) and value and all(isinstance(item, Mapping) and not item.get("name") for item in value):
        value = value[0].get("uri") if len(value) == 1 else [item.get("uri") for item in value]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
