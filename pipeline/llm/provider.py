"""One provider: the replicas of one model, used side by side, which of them live, and one ask with its retries.

    ask ─▶ the replica with the least in flight ─▶ call_llm ─▶ settled, or: back-off ─▶ is the server alive? ─▶ again

Alive means that a tiny completion succeeds, or that anything else was completed since. It starts no thread: workers
call `ask`, and one prober calls `recover` again and again. What that looks at is looked at side by side: a server that
hangs holds no other back.
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
from pipeline.llm.sharing import HeldModel
from pipeline.llm.vllm import VLLMClient
from pipeline.records import ExtractionAttempt

__all__ = ["LOSSES_BEFORE_ALONE", "AskResult", "ExtractionRequest", "Provider"]

logger = logging.getLogger(__name__)

LOOK_UP_S = 60.0
LOSSES_BEFORE_ALONE = 3
"""A document in flight at this many losses of a server is sent alone once."""


class Provider:
    """Asks the replicas of one model; safe for many threads.

    `find` gives the replicas there are now, those known among them; None: they never change.
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
        self.name, self.replicas, self.policy, self._tools, self._find = name, replicas, policy, tools, find
        self._lock, self._tokens = threading.Lock(), SpecialTokens()
        self._found_at = tools.clock()

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Where its replicas are, as records name them."""
        return tuple(replica.endpoint for replica in self.replicas)

    @property
    def available(self) -> bool:
        """True while at least one replica is not marked unavailable."""
        return any(replica.state == "up" for replica in self.replicas)

    @property
    def trouble(self) -> Replica | None:
        """The replica that tells best why the provider is not available; None when it is."""
        if self.available:
            return None
        return min(self.replicas, key=lambda replica: (not replica.is_dead_end, replica.since))

    @property
    def held(self) -> HeldModel | None:
        """The model that its requests wait for while other clients keep it loaded; None while they don't."""
        return next((replica.sharing.held for replica in self.replicas if replica.sharing.held is not None), None)

    @property
    def complaint(self) -> str:
        """Who it is, where, and what keeps it from being available."""
        replica = self.trouble
        why = replica.why.message if replica and replica.why else "unavailable"
        return f"{self.name} ({replica.client.model.endpoint if replica else ''}): {why}"

    def ask(self, question: ExtractionRequest) -> AskResult:
        """Ask until it is settled, the retries are used up (max_retries + 1 requests), or no replica is left.

        A refusal is sent once more when its server completes other requests; the second one is the document's own.
        """
        failures: list[ExtractionAttempt] = []
        losses, failed_at, refused = 0, float("inf"), question.refused
        first = question.first
        while (sent := first or self._send(question)) is not None:
            first = None
            replica, attempt, started, moment = (sent.replica, sent.attempt, sent.started, sent.ended)
            refusal = is_refusal(attempt)
            if not refusal and not attempt.retryable:
                replica.mark_alive(started)
                return self._verified(replica, question, attempt, failures)
            failures.append(attempt)
            if replica.sharing.held_since(started):  # it waited for other clients, and proves nothing
                return AskResult(tuple(failures), unavailable=True, losses=losses, refused=refused)
            if refusal:
                if not is_settled(replica, attempt, began=started, moment=moment, keys=sent.keys, again=refused):
                    return AskResult(tuple(failures), unavailable=True, losses=losses, refused=True)
                if refused:
                    return AskResult(tuple(failures), losses=losses)
                refused = True
                continue
            self._note(replica, attempt, document=question.document, started=started)
            failed_at = min(failed_at, moment)
            if not self.policy.allows(failures):
                dead = not (self.available and self._lives(replica, attempt, since=failed_at))
                losses += dead and _may_be_lost(attempt)
                return AskResult(tuple(failures), unavailable=dead, losses=losses, refused=refused)
            if self.available and self._tools.sleep(self.policy.delay_s(failures, self._tools.rng)) is True:
                return AskResult(tuple(failures), unavailable=True, losses=losses, refused=refused)
            losses += self._was_lost(replica, attempt, moment)
            if losses and (question.alone or question.losses + losses >= LOSSES_BEFORE_ALONE):
                return AskResult(tuple(failures), unavailable=True, losses=losses, refused=refused)
            self._lives(replica, attempt, since=failed_at)
        return AskResult(tuple(failures), unavailable=True, losses=losses, refused=refused)

    def special_tokens(self, candidates: Collection[str], *, variant: str) -> frozenset[str]:
        """Return which texts the tokenizer of its model takes for a special token; none where no server says so."""
        replica = next((candidate for candidate in self.replicas if candidate.state == "up"), None)
        client = replica.clients[variant] if replica is not None else None
        if not isinstance(client, VLLMClient):
            return frozenset()
        return self._tokens.among(candidates, client.is_special_token)

    def examine(self, replica: Replica) -> Preflight:
        """The full preflight of a replica, whose state follows it."""
        return replica.check(full=True)

    def wake(self) -> None:
        """Looks at the replicas that were held back and that nobody has looked at yet."""
        for replica in self.replicas:
            if replica.state != "up" and replica.why is None:
                replica.check(full=True)

    def retry_within(self, pause_s: float) -> None:
        """Check every unavailable replica again within this time."""
        latest = self._tools.clock() + pause_s
        for replica in self.replicas:
            replica.retry_at = min(replica.retry_at, latest)

    def recover(self, start: Start) -> None:
        """Check each unavailable replica whose pause is over. Called by the one prober.

        Once a minute it looks for replicas that came or went, too.
        """
        if self._find is not None and self._tools.clock() - self._found_at >= LOOK_UP_S:
            self._found_at = self._tools.clock()
            self._look_around(self._find)
        for replica in self.replicas:
            replica.recover(start)

    def close(self) -> None:
        """Closes the idle connections of all replicas."""
        for replica in self.replicas:
            replica.client.close()

    def _look_around(self, find: Callable[[list[Replica]], list[Replica]]) -> None:
        """Takes the replicas that are there now; all stays as it is while a key or a certificate is being changed."""
        try:
            self._adjust(find(self.replicas))
        except ConfigError as error:
            logger.warning("no new replicas for now: %s", error, extra={"provider": self.name})

    def _adjust(self, current: list[Replica]) -> None:
        """Takes the replicas that are there now; a new one is asked when it has passed its preflight."""
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
            up = [replica for replica in self.replicas if replica.state == "up"]
            if not up:
                return None
            if len(up) == 1:
                up[0].in_flight += 1
                return up[0]
            least = min(replica.in_flight / replica.share for replica in up)
            chosen = self._tools.rng.choice(
                [candidate for candidate in up if candidate.in_flight / candidate.share == least]
            )
            chosen.in_flight += 1
            return chosen

    def release(self, replica: Replica) -> None:
        """Count a request to a replica as no longer in flight."""
        with self._lock:
            replica.in_flight -= 1

    def _send(self, question: ExtractionRequest) -> SentRequest | None:
        replica = self.take()
        if replica is None:
            return None
        started, keys = self._tools.clock(), replica.client.endpoint.key_changes
        attempt = self._call(replica, question)
        return SentRequest(self, replica, attempt, started, self._tools.clock(), keys)

    def _call(self, replica: Replica, question: ExtractionRequest) -> ExtractionAttempt:
        try:
            client = replica.clients[question.variant]
            if (refused := too_long(client, question.prompts)) is not None:
                return refused
            with replica.sharing.pending(client):
                return client.call_llm(question.prompts, question.json_schema, question.document_text)
        finally:
            self.release(replica)

    def _verified(
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

    def _note(self, replica: Replica, attempt: ExtractionAttempt, *, document: str, started: float) -> None:
        logger.warning(
            "request failed",
            extra={"provider": self.name, "endpoint": attempt.model.endpoint, "reason": attempt.reason}
            | {"error": attempt.error, "document": document},
        )
        if attempt.reason in PROVES_LIFE:
            replica.mark_alive(started)
        elif not attempt.sent:
            replica.set_aside(Preflight("unreachable", attempt.reason, attempt.error or ""), probed=False)

    def _lives(self, replica: Replica, attempt: ExtractionAttempt, *, since: float) -> bool:
        """True when the attempt itself shows a living server, or it is alive by its completions since."""
        return attempt.reason in PROVES_LIFE or self._alive(replica, since)

    def _alive(self, replica: Replica, since: float) -> bool:
        """True when the provider has completed something since; else a tiny completion tells.

        An unavailable replica is skipped: its cool-down would grow with every document that it failed.
        """
        if self._completed_since(since) or replica.state != "up":
            return self._completed_since(since)
        return replica.check(full=False).status == "ok" or self._completed_since(since)

    def _completed_since(self, moment: float) -> bool:
        return any(replica.completed_since(moment) for replica in self.replicas)

    def _was_lost(self, replica: Replica, attempt: ExtractionAttempt, moment: float) -> bool:
        """True when the server went away over this attempt: it hung up, or it is dead now after its last words or none.

        Not when another request that was in flight there at that moment has been completed since.
        """
        if not _may_be_lost(attempt) or replica.outlived(moment):
            return False
        return attempt.reason == "connection_error" or not self._alive(replica, moment)


def _may_be_lost(attempt: ExtractionAttempt) -> bool:
    """True when the server may have gone away over this attempt; one that hangs for ever is as good as gone."""
    return attempt.lost or attempt.reason == "timeout"
