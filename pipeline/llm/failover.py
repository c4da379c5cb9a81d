"""Providers in order: a request goes to the first available one, and to the next if that one fails.

It starts no thread and keeps no document.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline.errors import kind_of
from pipeline.llm.provider import AskResult, ExtractionRequest, Provider
from pipeline.llm.replica import Replica, Start
from pipeline.llm.sharing import LoadConflict
from pipeline.records import ExtractionAttempt

logger = logging.getLogger(__name__)

FALLBACK_WARNING_S = 60.0
FALLBACK_REPEAT_S = 600.0
"""Seconds for which a fallback answers before a warning gives the reason, and seconds until the next warning."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """The reason why no provider is available. `dead_end`: each of them refuses the settings."""

    dead_end: bool
    message: str


class Failover:
    """The providers that workers send requests to; thread-safe. `orders`: the providers of each variant, in order."""

    def __init__(
        self, orders: Mapping[str, Sequence[Provider]], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.orders = orders
        self._clock = clock
        self._warn_at: dict[str, float] = {}
        self.providers = tuple(dict.fromkeys(provider for order in orders.values() for provider in order))
        self._serving = {variant: order[0] for variant, order in orders.items()}

    @property
    def first_provider(self) -> Provider:
        """The first provider of the configuration."""
        return self.providers[0]

    @property
    def available(self) -> bool:
        """Return True when each variant has a provider with an available replica."""
        return all(any(provider.available for provider in order) for order in self.orders.values())

    @property
    def serving(self) -> list[Replica]:
        """The replicas that may get the next document: those of each variant's first available provider."""
        first = (next((provider for provider in order if provider.available), None) for order in self.orders.values())
        return [
            replica
            for provider in dict.fromkeys(first)
            if provider
            for replica in provider.replicas
            if replica.state == "up"
        ]

    def context_length(self, variant: str) -> int | None:
        """Return the smallest context of the replicas that may get a document of this variant; None: not reported."""
        provider = next((candidate for candidate in self.orders.get(variant, ()) if candidate.available), None)
        replicas = [replica for replica in provider.replicas if replica.state == "up"] if provider else []
        lengths = [replica.clients[variant].context_length for replica in replicas]
        return min((tokens for tokens in lengths if tokens is not None), default=None)

    @property
    def trouble(self) -> Trouble | None:
        """The reason why no request can be sent; None while one can."""
        if self.available:
            return None
        unavailable = [provider for provider in self.providers if not provider.available]
        troubles = [provider.trouble for provider in unavailable]
        dead_end = all(replica is not None and replica.state == "misconfigured" for replica in troubles)
        return Trouble(dead_end, "; ".join(provider.complaint for provider in unavailable))

    @property
    def examined(self) -> dict[str, bool]:
        """The availability of each provider that was examined, by name."""
        return {
            provider.name: provider.available
            for provider in self.providers
            if any(replica.preflight for replica in provider.replicas)
        }

    @property
    def load_conflict(self) -> LoadConflict | None:
        """The first conflict with other clients of a server that requests wait for; None without one."""
        conflicts = (provider.load_conflict for provider in self.providers)
        return next((conflict for conflict in conflicts if conflict is not None), None)

    def ask(self, question: ExtractionRequest) -> AskResult:
        """Return the first final result of the providers; `unavailable` only when none of them was alive.

        A quarantined provider is examined here after an available one has failed on this document.
        """
        attempts: list[ExtractionAttempt] = []
        losses = 0
        is_settled = False
        was_refused = False
        for provider in self.orders[question.variant]:
            sent_request = question.sent_request
            if sent_request is not None and provider is not sent_request.provider:
                continue
            if is_settled:
                provider.wake()
            if sent_request is None and not provider.available:
                continue
            result = provider.ask(question)
            question = question if sent_request is None else replace(question, sent_request=None)
            attempts += result.attempts
            losses += result.losses
            was_refused = was_refused or result.was_refused
            if (result.unavailable and losses) or result.postponed:
                break
            if not result.unavailable:
                is_settled = True
                if _is_final(result):
                    break
        return AskResult(tuple(attempts), unavailable=not is_settled, losses=losses, was_refused=was_refused)

    def special_tokens(self, candidates: Collection[str], *, variant: str) -> frozenset[str]:
        """Return the texts that are special tokens of an available provider's model."""
        if not candidates:
            return frozenset()
        available = [provider for provider in self.orders[variant] if provider.available]
        return frozenset().union(*(provider.special_tokens(candidates, variant=variant) for provider in available))

    def quarantine(self) -> None:
        """Make all providers unavailable until `recover` examines them; called before the first examination."""
        for provider in self.providers:
            for replica in provider.replicas:
                replica.quarantine()

    def recover(self, start: Start) -> None:
        """Examine unavailable providers, and a fallback once it is needed. Called by the one prober."""
        for order in self.orders.values():
            for provider in order:
                if provider.available:
                    break
                for replica in provider.replicas:
                    replica.retry_at = float("-inf") if replica.preflight is None else replica.retry_at
        for provider in self.providers:
            provider.recover(start)
        self._log_switches()
        self._warn_of_fallbacks()

    def _warn_of_fallbacks(self) -> None:
        """Log why a fallback answers, until the first provider is available again."""
        now = self._clock()
        for variant, order in self.orders.items():
            first = order[0]
            serving = self._serving[variant]
            if serving is first or first.available:
                self._warn_at.pop(variant, None)
            elif now >= self._warn_at.setdefault(variant, now + FALLBACK_WARNING_S):
                self._warn_at[variant] = now + FALLBACK_REPEAT_S
                logger.warning(
                    "provider %s is still unavailable, the fallback %s answers: %s",
                    first.name,
                    serving.name,
                    first.complaint,
                    extra={"variant": variant},
                )

    def _log_switches(self) -> None:
        for variant, order in self.orders.items():
            former_provider = self._serving[variant]
            new_provider = next((provider for provider in order if provider.available), None)
            if new_provider is None or new_provider is former_provider:
                continue
            self._serving[variant] = new_provider
            models = [provider.replicas[0].client.config.model for provider in (former_provider, new_provider)]
            fields = {
                "old_provider": former_provider.name,
                "new_provider": new_provider.name,
                "old_model": models[0],
                "new_model": models[1],
            }
            logger.info("provider switched", extra={**fields, "variant": variant})

    def close(self) -> None:
        """Close the idle connections of all providers."""
        for provider in self.providers:
            provider.close()


def _is_final(result: AskResult) -> bool:
    """Return False for a failure of the provider itself, after which the next provider is tried."""
    last = result.attempts[-1]
    return last.ok or kind_of(last.reason or "") != "backend"
