"""`pipeline check`: report whether a run could start now, the servers, the input, and the changed settings."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from pipeline.cli.arguments import config_file, load_app, same_command
from pipeline.cli.check_text import (
    INDENT,
    CheckedOutput,
    CheckedServer,
    input_lines,
    output_lines,
    remedies,
    remedy_lines,
    server_lines,
    setting_lines,
    split_texts,
    verdict_lines,
    waiting_lines,
)
from pipeline.cli.flags import add_config_flags
from pipeline.cli.local_servers import USUAL, LocalServer, found_servers
from pipeline.config import AppConfig
from pipeline.config.keys import provider_key
from pipeline.config.loading import describe
from pipeline.config.yaml_file import dump_yaml
from pipeline.errors import EXIT_CONFIG, EXIT_LATER, EXIT_OK, PipelineError
from pipeline.llm.capabilities import Preflight
from pipeline.llm.provider import Provider
from pipeline.llm.replica import Replica
from pipeline.logs import visible
from pipeline.output import check_store, folder_of
from pipeline.run.plan import ExtractionPlan, address_warnings, build_plan, schema_warnings
from pipeline.run.preview.examination import Server, examine_all, side_by_side
from pipeline.run.preview.input_survey import survey_input
from pipeline.run.preview.output_survey import survey_output
from pipeline.run.preview.window_forecast import sizes_texts
from pipeline.run.prompt_length import long_prompt_state
from pipeline.run.runner import start_thread
from pipeline.run.selection.switching import switch_warnings
from pipeline.terminal import BOLD, hanging_indent, in_colour, unwrapped_or_width, wants_colour, write_out

EXAMPLES = "examples:\n  pipeline check\n  pipeline check --config config/prod.yaml --all"

REPLICA_LOGGER = "pipeline.llm.replica"
"""Logger whose warnings of unusable servers are hidden: this command reports them anyway."""
_EXIT_CODES = {"ok": EXIT_OK, "misconfigured": EXIT_CONFIG, "unreachable": EXIT_LATER}


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the flags of this command."""
    add_config_flags(command)
    command.add_argument("--all", action="store_true", help="print every setting, not only those that were changed")


def main(arguments: argparse.Namespace, *, environ: Mapping[str, str]) -> int:
    """Return 0 when a run could start, 2 for an error that a retry cannot fix, 3 when something is unreachable."""
    logging.getLogger(REPLICA_LOGGER).setLevel(logging.ERROR)
    app = load_app(arguments, environ=environ)
    file = config_file(arguments, environ=environ)
    plan = build_plan(app, stop=threading.Event())
    try:
        checked = _examined(app, plan)
        survey = survey_input(app, plan)
        sizes = sizes_texts(plan)
    finally:
        plan.client.close()
    codes = [_code_of(own) for own in _by_provider(checked)]
    output = _output(app, plan)
    code = _first_to_fix(codes[0], survey.code, output.code)
    warnings = [*schema_warnings(plan), *switch_warnings(app, plan), *survey.overlaps]
    colour = wants_colour(sys.stdout, environ)
    width = unwrapped_or_width(sys.stdout, environ)
    agent = f"agent {plan.agent.name} ({', '.join(plan.queries)})"
    sections = {
        "Servers": [line for server in checked for line in server_lines(server, width=width)],
        "Input": list(input_lines(app, survey, width=width)),
        "Output": list(output_lines(output, width=width)),
        "Agent": [
            *hanging_indent(f"{agent}: {plan.agent.description}".removesuffix(": "), indent=INDENT, width=width),
            *(line for text in split_texts(sizes, survey) for line in hanging_indent(text, indent=INDENT, width=width)),
            *(line for text in warnings for line in hanging_indent(f"warning: {text}", indent=INDENT, width=width)),
        ],
        "Settings": list(_settings(app, str(file.path) if file else "", every=arguments.all, width=width)),
    }
    write_out("\n".join(verdict_lines(checked, survey, output, code, colour=colour, width=width)))
    for warning in address_warnings(app, plan):
        write_out("\n".join(hanging_indent(warning, indent=INDENT, width=width)))
    for remedy in remedies(checked, _other_servers(plan) if codes[0] == EXIT_LATER else ()):
        command = same_command(arguments, command="check", without=remedy.settings)
        write_out("\n".join(remedy_lines(remedy, command, width=width)))
    for title, lines in sections.items():
        write_out("\n".join(["", in_colour(visible(title), BOLD, colour=colour), *lines]))
    return code


def _examined(app: AppConfig, plan: ExtractionPlan) -> list[CheckedServer]:
    """Return the findings of all servers, which are examined concurrently."""
    servers = [Server(provider, replica) for provider in plan.client.providers for replica in provider.replicas]

    def report(server: Server, message: str) -> None:
        width = unwrapped_or_width(sys.stdout, os.environ)
        write_out("\n".join(waiting_lines(server.place, message, width=width)))

    preflights = examine_all(servers, start=start_thread, report=report)
    return [_checked(app, plan, server, preflight) for server, preflight in zip(servers, preflights, strict=True)]


def _checked(app: AppConfig, plan: ExtractionPlan, server: Server, preflight: Preflight) -> CheckedServer:
    replica = server.replica
    waits = preflight.status != "ok" and replica.sharing.conflict is not None
    served = side_by_side(replica.client, start=start_thread) if preflight.status == "ok" else None
    return CheckedServer(
        place=server.place,
        provider=server.provider.name,
        is_first=server.provider is plan.client.providers[0],
        preflight=preflight,
        blocks={next(iter(replica.clients)): preflight} if waits else _as_sent(replica),
        proofs={variant: long_prompt_state(client) for variant, client in replica.clients.items()},
        address_from=app.places.get(provider_key(server.provider.name, "base_url"), "the default"),
        proxy=replica.client.endpoint.proxy or "",
        side_by_side=served,
    )


def _as_sent(replica: Replica) -> dict[str, Preflight]:
    """Return the preflights by variant; a `think` in `request` or `extra_body` replaces the one of the settings."""
    return {
        variant: replace(preflight, think=replica.clients[variant].config.extra_body.get("think", preflight.think))
        for variant, preflight in replica.preflights.items()
    }


def _other_servers(plan: ExtractionPlan) -> Iterator[LocalServer]:
    """Yield the servers at the usual ports of this machine that the configuration does not name."""
    configured = {base_url for provider in plan.client.providers for base_url in _addresses(provider)}
    yield from found_servers(place for place in USUAL if place.url not in configured)


def _addresses(provider: Provider) -> list[str]:
    return [replica.client.endpoint.base_url for replica in provider.replicas]


def _by_provider(checked: Sequence[CheckedServer]) -> list[list[CheckedServer]]:
    """Return the servers of each provider, in the order of the providers."""
    names = dict.fromkeys(server.provider for server in checked)
    return [[server for server in checked if server.provider == name] for name in names]


def _code_of(servers: Sequence[CheckedServer]) -> int:
    """Return the exit code of one provider: that of its best replica."""
    preflights = [server.preflight for server in servers]
    return min(EXIT_CONFIG if preflight.unpaid else _EXIT_CODES[preflight.status] for preflight in preflights)


def _first_to_fix(*codes: int) -> int:
    """Return the exit code of a run: an error that a retry cannot fix comes before those that it can."""
    return EXIT_CONFIG if EXIT_CONFIG in codes else max(codes)


def _output(app: AppConfig, plan: ExtractionPlan) -> CheckedOutput:
    """Return the findings about the output; to one in an object store, an object is written as a test."""
    config = app.output
    in_store = folder_of(config.uri) is None
    try:
        check_store(config)
        change = survey_output(app, plan)
    except PipelineError as error:
        return CheckedOutput(config.uri, error.exit_code, str(error))
    return CheckedOutput(config.uri, in_store=in_store, change=str(change) if change.changed else "")


def _settings(app: AppConfig, file: str, *, every: bool, width: int) -> Iterator[str]:
    if every:
        yield dump_yaml(describe(app)).rstrip()
        return
    source = f"config file: {file}" if file else "no config file found; using built-in defaults"
    yield from hanging_indent(source, indent=INDENT, width=width)
    yield from setting_lines(app, width=width)
    yield from hanging_indent("all others have their defaults: `pipeline check --all`", indent=INDENT, width=width)
