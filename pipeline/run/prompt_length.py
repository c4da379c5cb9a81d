"""What a run learnt of its servers' limits, what that cost, and which of its results turned out to be cut."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

from pipeline.llm.overhead import ProofBook
from pipeline.llm.prompt_length.found_limits import Accepted, FoundLimits
from pipeline.llm.prompt_length.proofs import UNVERIFIED
from pipeline.llm.prompt_length.repetition import EXEMPT_TOKENS
from pipeline.llm.replica import Client
from pipeline.output import Output
from pipeline.report.run_summary import Overhead, PromptLength
from pipeline.terminal import plural

logger = logging.getLogger(__name__)


def overhead(book: ProofBook) -> Overhead:
    """Return the requests that belong to no document, and their prompt tokens, as the report holds them."""
    spent = book.overhead.spent
    return Overhead(spent.requests, spent.prompt_tokens)


def limits(book: ProofBook) -> list[PromptLength]:
    """Return what was found of each server that had to prove that it reads prompts whole, as the report holds it."""
    return [
        PromptLength(proofs.name, proofs.proofs, proofs.context_length, proofs.finding.unverified or None)
        for _, proofs in book.all()
        if proofs.proofs or proofs.finding.unverified
    ]


def proof_state(client: Client) -> str:
    """Return what is known of a server's treatment of long prompts, and what to set where nothing can be known."""
    finding = client.proofs.finding
    limit = client.config.context_length
    if limit is not None:
        return f"not sent when they are longer than the configured context_length of {limit} tokens"
    if finding.unverified:
        advice = "set the provider's `context_length` by hand, so that longer documents fail instead of being cut"
        return f"{UNVERIFIED}: {finding.unverified}; {advice}"
    if finding.cut is not None:
        return f"cut in silence beyond {finding.cut.context_length} tokens; such documents fail as prompt_truncated"
    if finding.refuses:
        return "refused by the server, no proof needed"
    if finding.proven:
        return f"read whole up to {finding.proven} tokens (proved); a longer document is proved when it comes"
    return f"not proved yet; a run proves it with the first document of {EXEMPT_TOKENS} tokens or more"


def doubtful_results(output: Output, book: ProofBook) -> list[str]:
    """Return the ids of this run's results that may have been cut before a limit was found, and were not proved.

    Reads the results of the output only where a limit was found after results of that server had been accepted.
    """
    late = [(endpoint, proofs.limits) for endpoint, proofs in book.all() if proofs.limits]
    if not late:
        return []
    found = sorted(_cut_ids(output, late))
    if found:
        told = f"{plural(len(found), 'result')} may have been cut before the limit was found; the next run asks again"
        logger.error("%s", told)
    return found


def _cut_ids(output: Output, late: list[tuple[str, FoundLimits]]) -> Iterator[str]:
    """Yield the ids of results that may be cut, and of their copies, whose records follow them."""
    shared = set[str]()
    for line, key in output.backend.records("results", since=output.stamp.run):
        if key.run != output.stamp.run:
            continue
        record = json.loads(line)
        if not shared.isdisjoint(record["notes"]):
            yield record["id"]
        accepted = Accepted(
            record["id"],
            record["usage"]["prompt_tokens"] or 0,
            record["attempts"],
            record["finished_at"],
            UNVERIFIED in record["notes"],
        )
        if any(record["model"]["endpoint"] == endpoint and limits.doubt(accepted) for endpoint, limits in late):
            shared.add(f"shared:{record['id']}")
            yield record["id"]
