"""Providers in order: an ask goes to the first that is available, and on to the next when that one cannot do it.

It starts no thread and keeps nothing of a document.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline.errors import kind_of
from pipeline.llm.provider import AskResult, ExtractionRequest, Provider
from pipeline.llm.replica import Replica, Start
from pipeline.llm.sharing import HeldModel
from pipeline.records import ExtractionAttempt

logger = logging.getLogger(__name__)

FALLBACK_WARNING_S = 60.0
FALLBACK_REPEAT_S = 600.0
"""How long a fallback answers before a warning says why, and how long until the next one."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why no provider is available: `dead_end` when each of them refuses our settings."""

    dead_end: bool
    message: str


class Failover:
    """What the workers ask; safe for many threads. `orders`: for each variant its providers, the first first."""

    def __init__(
        self, orders: Mapping[str, Sequence[Provider]], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.orders = orders
        self._clock = clock
        self._warn_at: dict[str, float] = {}
        self.providers = tuple(dict.fromkeys(provider for order in orders.values() for provider in order))
        self._serving = {variant: order[0] for variant, order in orders.items()}

    @property
    def first(self) -> Provider:
        """The provider that is meant to answer."""
        return self.providers[0]

    @property
    def available(self) -> bool:
        """True while each variant has a provider with an available replica."""
        return all(any(provider.available for provider in order) for order in self.orders.values())

    @property
    def serving(self) -> list[Replica]:
        """The replicas that the next document may go to: those in use of each variant's first available provider."""
        first = (next((provider for provider in order if provider.available), None) for order in self.orders.values())
        return [
            replica
            for provider in dict.fromkeys(first)
            if provider
            for replica in provider.replicas
            if replica.state == "up"
        ]

    def context_length(self, variant: str) -> int | None:
        """The smallest context in tokens of the replicas that a document of this variant may go to; None: not told."""
        provider = next((each for each in self.orders.get(variant, ()) if each.available), None)
        replicas = [each for each in provider.replicas if each.state == "up"] if provider else []
        lengths = [replica.clients[variant].context_length for replica in replicas]
        return min((tokens for tokens in lengths if tokens is not None), default=None)

    @property
    def trouble(self) -> Trouble | None:
        """Why nothing can be asked; None while something can."""
        if self.available:
            return None
        unavailable = [provider for provider in self.providers if not provider.available]
        troubles = [provider.trouble for provider in unavailable]
        dead_end = all(replica is not None and replica.state == "misconfigured" for replica in troubles)
        return Trouble(dead_end, "; ".join(provider.complaint for provider in unavailable))

    @property
    def examined(self) -> dict[str, bool]:
        """Whether each provider that was examined can be asked, by name."""
        return {
            provider.name: provider.available
            for provider in self.providers
            if any(replica.why for replica in provider.replicas)
        }

    @property
    def held(self) -> HeldModel | None:
        """The model that requests wait for, of the first provider whose server is busy for others; else None."""
        return next((held for provider in self.providers if (held := provider.held) is not None), None)

    def ask(self, question: ExtractionRequest) -> AskResult:
        """The first provider's settled answer; `unavailable` only when none was alive to fail at it.

        A provider that was held back is looked at here, when one that lives could not do this document.
        """
        attempts: list[ExtractionAttempt] = []
        losses = 0
        settled = False
        refused = False
        for provider in self.orders[question.variant]:
            sent = question.first
            if sent is not None and provider is not sent.provider:
                continue
            if settled:
                provider.wake()
            if sent is None and not provider.available:
                continue
            result = provider.ask(question)
            question = question if sent is None else replace(question, first=None)
            attempts += result.attempts
            losses += result.losses
            refused = refused or result.refused
            if (result.unavailable and losses) or result.postponed:
                break
            if not result.unavailable:
                settled = True
                if _is_final(result):
                    break
        return AskResult(tuple(attempts), unavailable=not settled, losses=losses, refused=refused)

    def special_tokens(self, candidates: Collection[str], *, variant: str) -> frozenset[str]:
        """Return which texts a tokenizer of the available providers takes for a special token."""
        if not candidates:
            return frozenset()
        available = [provider for provider in self.orders[variant] if provider.available]
        return frozenset().union(*(each.special_tokens(candidates, variant=variant) for each in available))

    def quarantine(self) -> None:
        """Keeps providers that nobody has looked at out of use, until `recover` finds that they are needed.

        Called before anybody looks.
        """
        for provider in self.providers:
            for replica in provider.replicas:
                replica.quarantine()

    def recover(self, start: Start) -> None:
        """Check what is unavailable, and a fallback once it is needed. Called by the one prober."""
        for order in self.orders.values():
            for provider in order:
                if provider.available:
                    break
                for replica in provider.replicas:
                    replica.retry_at = float("-inf") if replica.why is None else replica.retry_at
        for provider in self.providers:
            provider.recover(start)
        self._log_switches()
        self._warn_of_fallbacks()

    def _warn_of_fallbacks(self) -> None:
        """Log why a fallback has been answering for so long; a switch back ends it."""
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
            old = self._serving[variant]
            new = next((provider for provider in order if provider.available), None)
            if new is None or new is old:
                continue
            self._serving[variant] = new
            models = [provider.replicas[0].client.config.model for provider in (old, new)]
            fields = {
                "old_provider": old.name,
                "new_provider": new.name,
                "old_model": models[0],
                "new_model": models[1],
            }
            logger.info("provider switched", extra={**fields, "variant": variant})

    def close(self) -> None:
        """Closes the idle connections of all providers."""
        for provider in self.providers:
            provider.close()


def _is_final(result: AskResult) -> bool:
    """True unless the provider lives and could not do it for reasons of its own: then the next one is asked."""
    last = result.attempts[-1]
    return last.ok or kind_of(last.reason or "") != "backend"
