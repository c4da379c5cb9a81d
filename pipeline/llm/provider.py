"""One provider: the replicas of one model, used side by side, and requests to them with retries.

    ask ─▶ the replica with the least in flight ─▶ call_llm ─▶ result, or: back-off ─▶ is the server alive? ─▶ retry

A server is alive if a tiny completion succeeds, or another request has been completed since. This module starts no
thread: workers call `ask`, and one prober calls `recover` repeatedly. Replicas are examined side by side, so that a
server that hangs delays no other.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection

from pipeline.errors import PROVES_LIFE, ConfigError
from pipeline.llm.capabilities import Preflight
from pipeline.llm.extraction_request import AskResult, ExtractionRequest, SentRequest
from pipeline.llm.preflight.tokenizer import SpecialTokens
from pipeline.llm.prompt_length.verification import too_long, verifiable_prompt, verified
from pipeline.llm.refusals import is_refusal, is_settled
from pipeline.llm.replica import Replica, Start, Tools
from pipeline.llm.retry import RetryPolicy
from pipeline.llm.sharing import LoadConflict
from pipeline.llm.vllm import VLLMClient
from pipeline.records import ExtractionAttempt

__all__ = ["LOSSES_BEFORE_ALONE", "AskResult", "ExtractionRequest", "Provider"]

logger = logging.getLogger(__name__)

LOOK_UP_EVERY_S = 60.0
LOSSES_BEFORE_ALONE = 3
"""A document in flight at this many losses of a server is sent alone once."""


class Provider:
    """The replicas of one model, and requests to them; safe for many threads.

    `find`: takes the known replicas and returns the current ones; None: they never change.
    """

    def __init__(
        self,
        name: str,
        replicas: list[Replica],
        *,
        policy: RetryPolicy,
        tools: Tools,
        find: Callable[[list[Replica]], list[Replica]] | None = None,
    ) -> None:
        self.name = name
        self.replicas = replicas
        self.policy = policy
        self._tools = tools
        self._find = find
        self._lock = threading.Lock()
        self._tokens = SpecialTokens()
        self._looked_up_at = tools.clock()

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The URLs of the replicas as records contain them."""
        return tuple(replica.endpoint for replica in self.replicas)

    @property
    def available(self) -> bool:
        """Return whether at least one replica is not marked unavailable."""
        return any(replica.state == "up" for replica in self.replicas)

    @property
    def trouble(self) -> Replica | None:
        """The replica that explains best why the provider is unavailable; None when it is available."""
        if self.available:
            return None
        return min(self.replicas, key=lambda replica: (not replica.is_dead_end, replica.changed_at))

    @property
    def load_conflict(self) -> LoadConflict | None:
        """The conflict with other clients that requests wait for; None without one."""
        return next(
            (replica.sharing.conflict for replica in self.replicas if replica.sharing.conflict is not None), None
        )

    @property
    def complaint(self) -> str:
        """The provider's name, the server, and why it is unavailable."""
        replica = self.trouble
        reason = replica.preflight.message if replica and replica.preflight else "unavailable"
        return f"{self.name} ({replica.client.model.endpoint if replica else ''}): {reason}"

    def ask(self, question: ExtractionRequest) -> AskResult:
        """Send the request until it has a result, no retry remains (max_retries + 1 requests), or no replica.

        A refused request is sent once more after its server has completed another one; a second refusal is final.
        """
        failures: list[ExtractionAttempt] = []
        losses = 0
        failed_at = float("inf")
        was_refused = question.was_refused
        first_request = question.sent_request
        while (sent_request := first_request or self._send(question)) is not None:
            first_request = None
            replica = sent_request.replica
            attempt = sent_request.attempt
            started_at = sent_request.started_at
            moment = sent_request.ended_at
            refusal = is_refusal(attempt)
            if not refusal and not attempt.retryable:
                replica.mark_alive(started_at)
                return self._verify(replica, question, attempt, failures)
            failures.append(attempt)
            if replica.sharing.conflicted_since(started_at):  # it waited for other clients of the server
                return AskResult(tuple(failures), unavailable=True, losses=losses, was_refused=was_refused)
            if refusal:
                if not is_settled(
                    replica, attempt, began=started_at, moment=moment, keys=sent_request.keys, is_second=was_refused
                ):
                    return AskResult(tuple(failures), unavailable=True, losses=losses, was_refused=True)
                if was_refused:
                    return AskResult(tuple(failures), losses=losses)
                was_refused = True
                continue
            self._note(replica, attempt, document=question.document, started_at=started_at)
            failed_at = min(failed_at, moment)
            if not self.policy.allows(failures):
                is_dead = not (self.available and self._proves_alive(replica, attempt, since=failed_at))
                losses += is_dead and _may_be_lost(attempt)
                return AskResult(tuple(failures), unavailable=is_dead, losses=losses, was_refused=was_refused)
            if self.available and self._tools.sleep(self.policy.delay_s(failures, self._tools.rng)) is True:
                return AskResult(tuple(failures), unavailable=True, losses=losses, was_refused=was_refused)
            losses += self._was_lost(replica, attempt, moment)
            if losses and (question.alone or question.losses + losses >= LOSSES_BEFORE_ALONE):
                return AskResult(tuple(failures), unavailable=True, losses=losses, was_refused=was_refused)
            self._proves_alive(replica, attempt, since=failed_at)
        return AskResult(tuple(failures), unavailable=True, losses=losses, was_refused=was_refused)

    def special_tokens(self, candidates: Collection[str], *, variant: str) -> frozenset[str]:
        """Return the texts that are special tokens of the model; an empty set if no server reports them."""
        replica = next((candidate for candidate in self.replicas if candidate.state == "up"), None)
        client = replica.clients[variant] if replica is not None else None
        if not isinstance(client, VLLMClient):
            return frozenset()
        return self._tokens.special_candidates(candidates, client.is_special_token)

    def examine(self, replica: Replica) -> Preflight:
        """Return the full preflight of a replica, and update its state."""
        return replica.check(full=True)

    def wake(self) -> None:
        """Examine the quarantined replicas that were never examined."""
        for replica in self.replicas:
            if replica.state != "up" and replica.preflight is None:
                replica.check(full=True)

    def retry_within(self, pause_s: float) -> None:
        """Shorten the pause of each unavailable replica to this time."""
        latest = self._tools.clock() + pause_s
        for replica in self.replicas:
            replica.retry_at = min(replica.retry_at, latest)

    def recover(self, start: Start) -> None:
        """Examine each unavailable replica whose pause is over. Called by the one prober.

        Once a minute, also look up the current replicas.
        """
        if self._find is not None and self._tools.clock() - self._looked_up_at >= LOOK_UP_EVERY_S:
            self._looked_up_at = self._tools.clock()
            self._update_replicas(self._find)
        for replica in self.replicas:
            replica.recover(start)

    def close(self) -> None:
        """Close the idle connections of all replicas."""
        for replica in self.replicas:
            replica.client.close()

    def _update_replicas(self, find: Callable[[list[Replica]], list[Replica]]) -> None:
        """Look up the current replicas; keep the old ones while a key or certificate file is being replaced."""
        try:
            self._set_replicas(find(self.replicas))
        except ConfigError as error:
            logger.warning("cannot update the replicas for now: %s", error, extra={"provider": self.name})

    def _set_replicas(self, current: list[Replica]) -> None:
        """Use these replicas; a new one gets requests after its preflight."""
        with self._lock:
            removed = [replica for replica in self.replicas if replica not in current]
            for replica in current:
                if replica not in self.replicas:
                    replica.quarantine()
                    replica.retry_at = self._tools.clock()
            self.replicas = current
        for replica in removed:
            replica.client.close()

    def take(self) -> Replica | None:
        """Return the replica for the next request, and count the request as in flight there; None without a replica."""
        with self._lock:
            available_replicas = [replica for replica in self.replicas if replica.state == "up"]
            if not available_replicas:
                return None
            if len(available_replicas) == 1:
                available_replicas[0].in_flight += 1
                return available_replicas[0]
            least = min(replica.in_flight / replica.share for replica in available_replicas)
            next_replica = self._tools.rng.choice(
                [candidate for candidate in available_replicas if candidate.in_flight / candidate.share == least]
            )
            next_replica.in_flight += 1
            return next_replica

    def release(self, replica: Replica) -> None:
        """Count a request to a replica as no longer in flight."""
        with self._lock:
            replica.in_flight -= 1

    def _send(self, question: ExtractionRequest) -> SentRequest | None:
        replica = self.take()
        if replica is None:
            return None
        started_at = self._tools.clock()
        keys = replica.client.endpoint.key_changes
        attempt = self._call(replica, question)
        return SentRequest(self, replica, attempt, started_at, self._tools.clock(), keys)

    def _call(self, replica: Replica, question: ExtractionRequest) -> ExtractionAttempt:
        try:
            client = replica.clients[question.variant]
            if (was_refused := too_long(client, question.prompts)) is not None:
                return was_refused
            with replica.sharing.pending(client):
                return client.call_llm(question.prompts, question.json_schema, question.document_text)
        finally:
            self.release(replica)

    def _verify(
        self,
        replica: Replica,
        question: ExtractionRequest,
        attempt: ExtractionAttempt,
        failures: list[ExtractionAttempt],
    ) -> AskResult:
        """Return the result once the attempt's prompt is verified; else the document is postponed."""
        prompt = verifiable_prompt(question)
        if prompt is None:
            return AskResult((*failures, attempt))
        is_only_replica = len(self.replicas) == 1
        client = replica.clients[question.variant]
        final = verified(client, prompt, attempt, may_wait=lambda: is_only_replica and self._tools.sleep(0) is not True)
        if final is None:
            return AskResult((*failures, attempt), unavailable=True, postponed=True)
        return AskResult((*failures, final))

    def _note(self, replica: Replica, attempt: ExtractionAttempt, *, document: str, started_at: float) -> None:
        logger.warning(
            "request failed",
            extra={"provider": self.name, "endpoint": attempt.model.endpoint, "reason": attempt.reason}
            | {"error": attempt.error, "document": document},
        )
        if attempt.reason in PROVES_LIFE:
            replica.mark_alive(started_at)
        elif not attempt.sent:
            replica.mark_unavailable(Preflight("unreachable", attempt.reason, attempt.error or ""), probed=False)

    def _proves_alive(self, replica: Replica, attempt: ExtractionAttempt, *, since: float) -> bool:
        """Return whether the server is alive, by the attempt itself or by its completions since."""
        return attempt.reason in PROVES_LIFE or self._is_alive(replica, since)

    def _is_alive(self, replica: Replica, since: float) -> bool:
        """Return whether the provider has completed a request since; else send a tiny completion.

        An unavailable replica gets no completion: its pause would grow with each document that it fails.
        """
        if self._completed_since(since) or replica.state != "up":
            return self._completed_since(since)
        return replica.check(full=False).status == "ok" or self._completed_since(since)

    def _completed_since(self, moment: float) -> bool:
        return any(replica.completed_since(moment) for replica in self.replicas)

    def _was_lost(self, replica: Replica, attempt: ExtractionAttempt, moment: float) -> bool:
        """Return whether the server was lost during this attempt: it closed the connection, or it is not alive now.

        It was not lost if another request in flight there at that moment has been completed since.
        """
        if not _may_be_lost(attempt) or replica.survived(moment):
            return False
        return attempt.reason == "connection_error" or not self._is_alive(replica, moment)


def _may_be_lost(attempt: ExtractionAttempt) -> bool:
    """Return whether the server may have been lost during this attempt; one that hangs counts as lost."""
    return attempt.lost or attempt.reason == "timeout"
