"""`pipeline check`: the resolved settings, secrets masked, then the preflight of every provider."""

from __future__ import annotations

import argparse
import threading
from collections.abc import Iterator, Mapping

from pipeline.cli.arguments import load_app
from pipeline.cli.flags import add_config_flags
from pipeline.config import OutputConfig
from pipeline.config.keys import provider_key
from pipeline.config.loading import describe
from pipeline.config.yaml_file import dump_yaml
from pipeline.errors import EXIT_CONFIG, EXIT_LATER, EXIT_OK, PipelineError
from pipeline.llm.capabilities import Preflight
from pipeline.llm.provider import Provider
from pipeline.llm.replica import Replica
from pipeline.llm.verification import look
from pipeline.logs import visible
from pipeline.output import check_store, folder_of
from pipeline.run.examination import SIDE_BY_SIDE, examine, side_by_side
from pipeline.run.plan import build_plan, schema_warnings
from pipeline.run.prompt_length import proof_state
from pipeline.run.runner import start_thread
from pipeline.run.switching import switch_warnings
from pipeline.terminal import write_out

EXAMPLES = "example:\n  pipeline check --config config/prod.yaml"

_EXIT_CODES = {"ok": EXIT_OK, "misconfigured": EXIT_CONFIG, "unreachable": EXIT_LATER}


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the flags of this command."""
    add_config_flags(command)


def main(arguments: argparse.Namespace, *, environ: Mapping[str, str]) -> int:
    """Return 0 when the first provider passes, 2 for an error that a retry cannot fix, 3 when it is unreachable."""
    app = load_app(arguments, environ=environ)
    plan = build_plan(app, stop=threading.Event())
    write_out(dump_yaml(describe(app)))
    write_out(f"agent {plan.agent.name} ({', '.join(plan.queries)}): {plan.agent.description}")
    for warning in [*schema_warnings(plan), *switch_warnings(app, plan)]:
        write_out(visible(f"warning: {warning}"))
    codes: list[int] = []
    for provider in plan.client.providers:
        source = app.places.get(provider_key(provider.name, "base_url"), "the default")
        preflights = [_examined(provider, replica, first=not codes, source=source) for replica in provider.replicas]
        codes.append(min(EXIT_CONFIG if result.unpaid else _EXIT_CODES[result.status] for result in preflights))
    plan.client.close()
    return max(codes[0], _check_output(app.output))


def _examined(provider: Provider, replica: Replica, *, first: bool, source: str) -> Preflight:
    """What was found at one server, after it was printed, a block for each variant."""
    place = f"{provider.name} at {replica.client.model.endpoint}"
    found = examine(
        provider, replica, start=start_thread, report=lambda message: write_out(visible(f"WAITING {place}: {message}"))
    )
    waits = found.status != "ok" and replica.sharing.held is not None
    blocks = {next(iter(replica.clients)): found} if waits else replica.found
    for variant, preflight in blocks.items():
        if preflight.status == "ok":
            look(replica.clients[variant])
        named = f"{place}, variant {variant}" if len(replica.clients) > 1 else place
        proof = proof_state(replica.clients[variant])
        write_out("\n".join(_lines(named, preflight, first=first, proof=proof)))
    write_out(visible(f"        address from: {source}"))
    if replica.client.endpoint.proxy:
        write_out(visible(f"        through the proxy {replica.client.endpoint.proxy}"))
    if found.status == "ok" and (served := side_by_side(replica.client, start=start_thread)) is not None:
        write_out(f"        requests side by side: {_slots(served)}")
    return found


def _slots(served: int) -> str:
    if served >= SIDE_BY_SIDE:
        return f"{served} or more"
    return f"{served} (the others wait in the server's queue; OLLAMA_NUM_PARALLEL of the server raises it)"


def _check_output(config: OutputConfig) -> int:
    """Return the exit code of a test write to an object store; 0 for a folder."""
    if folder_of(config.uri) is not None:
        return EXIT_OK
    try:
        check_store(config)
    except PipelineError as error:
        write_out(visible(f"FAILED  output {error}"))
        return error.exit_code
    write_out(visible(f"OK      output {config.uri}: conditional writes are decided by the store"))
    return EXIT_OK


def _lines(place: str, found: Preflight, *, first: bool, proof: str) -> Iterator[str]:
    """Yield the preflight's facts of one server and variant, one per line; `proof`: how it handles long prompts."""
    role = "provider" if first else "fallback"
    if found.status != "ok":
        yield visible(f"FAILED  {role} {place}: {found.message}")
        return
    yield visible(f"OK      {role} {place}: model {found.model}")
    facts = {
        "server version": found.server,
        "context length": found.context_length and f"{found.context_length} tokens",
        "prompt without a document": found.prompt_tokens and f"{found.prompt_tokens} tokens",
        "long prompts": proof,
        "model load": found.load_s and f"{found.load_s:.1f} s",
        "schema": found.enforcement,
        "think": None if found.think is None else str(found.think).lower(),
        "digest": found.digest,
    }
    yield from (visible(f"        {name}: {fact}") for name, fact in facts.items() if fact)
    yield from (visible(f"        not enforced: {keyword}") for keyword in found.unenforced)
    yield from (visible(f"        warning: {warning}") for warning in found.warnings)
