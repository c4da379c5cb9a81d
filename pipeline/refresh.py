"""The prober's work beside probing: find a provider at the start, and look at the configuration again in mid-run.

It builds and checks new plans; when they are used is the runner's business.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.agents import Agent, load_agent
from pipeline.config import AppConfig
from pipeline.errors import ConfigError
from pipeline.llm.replicas import FIRST_PAUSE_S, Provider
from pipeline.planning import build_plan
from pipeline.process import Plan

logger = logging.getLogger(__name__)

MAX_START_PAUSE_S = 5.0
_QUESTION = ("max_tokens", "temperature", "extra_body", "num_ctx")


class Refresher:
    """Looks after the plan of a run; its methods are called by the prober thread only."""

    def __init__(
        self,
        app: AppConfig,
        *,
        load: Callable[[], AppConfig],
        watched: Iterable[Path] = (),
        stop: threading.Event,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app, self._load, self._stop, self._clock = app, load, stop, clock
        self._plan: Plan | None = None
        self._said: set[str] = set()
        self._watched = tuple(watched)
        self._seen = self._versions()

    def establish(self, plan: Plan) -> None:
        """Returns when each variant's provider can be asked, or when waiting for one is up to the run.

        ConfigError when a first provider is a dead end and no other can be asked instead. A fallback that is not
        needed is not looked at: that might load its model.
        """
        self._plan = plan
        looked_at: dict[Provider, bool] = {}
        for order in plan.client.orders.values():
            self._establish(plan, order, looked_at=looked_at)
        plan.client.hold_back()

    def _establish(self, plan: Plan, order: Sequence[Provider], *, looked_at: dict[Provider, bool]) -> None:
        for provider in order:
            if provider not in looked_at:
                looked_at[provider] = self._wait_for(provider, self._app.runner.startup_wait_s)
            if looked_at[provider]:
                self._say_fallback(order[0], provider)
                return
        trouble = order[0].trouble
        if trouble is not None and trouble.state == "misconfigured" and not self._stop.is_set():
            raise ConfigError(dead_ends(plan))

    def refresh(self) -> Plan | None:
        """A new plan, checked, when the configuration asks for one; None when all stays as it is."""
        for provider in self._plan.client.providers if self._plan else ():
            for replica in provider.replicas:
                replica.client.endpoint.reload_key()
        versions = self._versions()
        if self._app.runner.refresh == "off" or self._plan is None or versions == self._seen:
            return None
        try:
            app = self._fixed(self._load())
            agent = self._agent(app)
            if app == self._app and agent is self._plan.agent:
                self._seen = versions
                return None
            plan = build_plan(app, stop=self._stop, agent=agent)
        except ConfigError as error:
            self._say_once(f"the changed configuration cannot be used, what runs stays: {error}")
            return None
        if not self._wait_for(plan.client.first, 0.0):
            trouble = plan.client.first.trouble
            why = trouble.why.message if trouble and trouble.why else "it does not answer"
            self._say_once(f"the provider of the changed configuration cannot be used, what runs stays: {why}")
            plan.client.close()
            return None
        plan.client.hold_back()
        self._log_switch(self._plan, plan)
        self._app, self._plan, self._seen = app, plan, versions
        return plan

    def _versions(self) -> list[tuple[int, int] | None]:
        """What changes when a watched file does; None for one that is not there just now."""
        return [_version(path) for path in self._watched]

    def _wait_for(self, provider: Provider, patience_s: float) -> bool:
        """True as soon as one replica passes its preflight; False when the time is up or one is a dead end."""
        deadline, pause_s = self._clock() + patience_s, FIRST_PAUSE_S
        while True:
            found = [provider.examine(replica).status for replica in provider.replicas]
            if "ok" in found:
                return True
            if "misconfigured" in found or self._clock() + pause_s > deadline or self._stop.wait(pause_s):
                return False
            self._say_once(f"waiting up to {patience_s:g} s for provider {provider.name}")
            pause_s = min(MAX_START_PAUSE_S, pause_s * 2)

    def _say_fallback(self, first: Provider, taken: Provider) -> None:
        if taken is not first:
            why = first.trouble.why.message if first.trouble and first.trouble.why else "it does not answer"
            self._say_once(f"provider {first.name} cannot be used ({why}); taking the fallback {taken.name}")

    def _fixed(self, app: AppConfig) -> AppConfig:
        """The configuration without what may not change in a run; a change there is said once."""
        keep = {name: getattr(self._app, name) for name in ("input", "output", "agent", "agents_dir")}
        if self._app.runner.refresh != "all":
            keep["variant"] = self._app.variant
            keep |= _asked_as_before(app, self._app)
        changed = [name for name, value in keep.items() if getattr(app, name) != value]
        if changed:
            self._say_once(f"{', '.join(changed)} cannot change in a run: left for the next one")
        return replace(app, **keep, origins=app.origins)

    def _agent(self, app: AppConfig) -> Agent:
        """The agent to ask: as its file is now with `refresh: all`, else as it was at the start."""
        assert self._plan is not None
        before, now = self._plan.agent, load_agent(app.agent, agents_dir=app.agents_dir)
        if (now.settings, now.variants, now.schema) == (before.settings, before.variants, before.schema):
            return before
        if app.runner.refresh == "all":
            return now
        self._say_once(
            f"agent {before.name} changed in mid-run: left for the next run (runner.refresh: all takes it now)"
        )
        return before

    def _say_once(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            logger.warning("%s", message)

    def _log_switch(self, before: Plan, after: Plan) -> None:
        old, new = before.client.first, after.client.first
        fields = {
            "old_provider": old.name,
            "new_provider": new.name,
            "old_model": old.replicas[0].client.config.model,
            "new_model": new.replicas[0].client.config.model,
            "endpoint": new.replicas[0].client.model.endpoint,
            "variant": ",".join(after.askings),
        }
        logger.info("provider switched", extra=fields)


def dead_ends(plan: Plan) -> str:
    """What is wrong with each provider that trying again will not mend, a line each."""
    found = [(provider.name, provider.trouble) for provider in plan.client.providers]
    return "\n".join(
        f"provider {name} ({replica.client.model.endpoint}): {replica.why.message}"
        for name, replica in found
        if replica is not None and replica.why is not None and replica.state == "misconfigured"
    )


def _asked_as_before(now: AppConfig, before: AppConfig) -> dict[str, Any]:
    """The providers of `now` with the part of the question that their settings hold as it was: no half archives."""
    named = {
        name: _keep_question(config, before.providers[name]) if name in before.providers else config
        for name, config in now.providers.items()
    }
    return {
        "ollama": _keep_question(now.ollama, before.ollama),
        "vllm": _keep_question(now.vllm, before.vllm),
        "providers": named,
    }


def _keep_question(now: Any, before: Any) -> Any:
    kept = {name: getattr(before, name) for name in _QUESTION if hasattr(before, name) and hasattr(now, name)}
    return replace(now, **kept)


def _version(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
