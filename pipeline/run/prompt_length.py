"""The prompt limits that a run detected at its servers, the detection's cost, and possibly truncated results."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

from pipeline.llm.overhead import VerifierRegistry
from pipeline.llm.prompt_length.detected_limits import AcceptedResult, DetectedLimits
from pipeline.llm.prompt_length.repetition import EXEMPT_TOKENS, UNVERIFIED
from pipeline.llm.prompt_length.verifier import PromptVerifier
from pipeline.llm.replica import Client
from pipeline.output import Output
from pipeline.report.run_summary import Overhead, PromptLength
from pipeline.terminal import plural

logger = logging.getLogger(__name__)


def overhead(registry: VerifierRegistry) -> Overhead:
    """Return the requests that belong to no document, and their prompt tokens, for the report."""
    counts = registry.overhead.counts
    return Overhead(counts.requests, counts.prompt_tokens)


def limits(registry: VerifierRegistry) -> list[PromptLength]:
    """Return the findings about each server whose prompts were verified, for the report."""
    return [
        _prompt_length(verifier)
        for _, verifier in registry.all()
        if verifier.verifications or verifier.finding.unverified
    ]


def _prompt_length(verifier: PromptVerifier) -> PromptLength:
    unverified = verifier.finding.unverified or None
    return PromptLength(verifier.name, verifier.verifications, verifier.context_length, unverified)


def long_prompt_state(client: Client) -> str:
    """Return a server's behaviour with long prompts, and the setting to change where it cannot be verified."""
    finding = client.verifier.finding
    configured = client.config.context_length
    if configured is not None:
        return f"not sent when they are longer than the configured context_length of {configured} tokens"
    if finding.unverified:
        advice = "set the provider's `context_length`, so that longer documents fail instead of being cut"
        return f"{UNVERIFIED}: {finding.unverified}; {advice}"
    if finding.truncation is not None:
        limit = finding.truncation.context_length
        return f"cut without an error beyond {limit} tokens; such documents fail as prompt_truncated"
    if finding.refuses:
        return "refused by the server; no verification needed"
    if finding.verified_tokens:
        length = finding.verified_tokens
        return f"read whole up to {length} tokens (verified); a longer document is verified when the run reads it"
    return f"not verified yet; a run verifies them with its first document of {EXEMPT_TOKENS} tokens or more"


def doubtful_results(output: Output, registry: VerifierRegistry) -> list[str]:
    """Return the ids of this run's results that may have been cut before a limit was detected, and were not verified.

    Reads the results of the output only if a limit was detected after results of that server had been accepted.
    """
    late = [(endpoint, verifier.limits) for endpoint, verifier in registry.all() if verifier.limits]
    if not late:
        return []
    ids = sorted(_cut_ids(output, late))
    if ids:
        count = plural(len(ids), "result")
        logger.error("%s may come from prompts cut before the limit was found; the next run repeats them", count)
    return ids


def _cut_ids(output: Output, late: list[tuple[str, DetectedLimits]]) -> Iterator[str]:
    """Yield the ids of results that may be cut, and those of their copies, which are later in the file."""
    shared = set[str]()
    for line, key in output.backend.records("results", since=output.stamp.run):
        if key.run != output.stamp.run:
            continue
        record = json.loads(line)
        if not shared.isdisjoint(record["notes"]):
            yield record["id"]
        result = AcceptedResult(
            record["id"],
            record["usage"]["prompt_tokens"] or 0,
            record["attempts"],
            record["finished_at"],
            UNVERIFIED in record["notes"],
        )
        if any(record["model"]["endpoint"] == endpoint and limits.doubts(result) for endpoint, limits in late):
            shared.add(f"shared:{record['id']}")
            yield record["id"]
