"""Find a provider at the start, and apply changes of the configuration during a run.

It builds and checks new plans; when they are used is the runner's business.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pipeline.agents import Agent, load_agent
from pipeline.config import AppConfig
from pipeline.config.changes import allowed, differences
from pipeline.errors import ConfigError
from pipeline.llm.provider import Provider
from pipeline.llm.replica import Start
from pipeline.run.plan import ExtractionPlan, build_plan

logger = logging.getLogger(__name__)

MAX_START_PAUSE_S = 5.0
LOOK_S = 0.02
SIBLING_S = 5.0
"""Time limit for the other replicas when one refuses the settings: a wrong model is reported within seconds."""
Versions = list[tuple[int, int] | None]


class Refresher:
    """Keeper of a run's plan; its methods are called by one thread at a time."""

    def __init__(
        self,
        app: AppConfig,
        *,
        load: Callable[[], AppConfig],
        watched: Iterable[Path] = (),
        stop: threading.Event,
        resumes: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`resumes`: the run continues an earlier one, so it waits for a server that refuses it."""
        self._app = app
        self._load = load
        self._stop = stop
        self._clock = clock
        self._resumes = resumes
        self._plan: ExtractionPlan | None = None
        self._logged: set[str] = set()
        self._watched = tuple(watched)
        self._known_versions = self._versions()

    def establish(self, plan: ExtractionPlan, *, start: Start) -> None:
        """Return when each variant has an available provider, or when the run itself is to wait for one.

        ConfigError when a first provider has an error that remains, no other can replace it, and the run resumes no
        earlier one. A fallback that is not needed gets no preflight: that might load its model.
        """
        self._plan = plan
        plan.client.quarantine()
        looked_at: dict[Provider, bool] = {}
        for order in plan.client.orders.values():
            self._establish(plan, order, looked_at=looked_at, start=start)

    def _establish(
        self, plan: ExtractionPlan, order: Sequence[Provider], *, looked_at: dict[Provider, bool], start: Start
    ) -> None:
        for provider in order:
            if provider not in looked_at:
                looked_at[provider] = self._wait_for(provider, self._app.runner.startup_wait_s, start=start)
            if looked_at[provider]:
                self._log_fallback(order[0], provider)
                return
            if provider is order[0] and any(
                replica.preflight and replica.preflight.dead_end for replica in provider.replicas
            ):
                break
        trouble = order[0].trouble
        if trouble is None or not trouble.is_dead_end or self._stop.is_set():
            return
        if not self._resumes:
            raise ConfigError(dead_ends(plan))
        reason = "this output has records of the same question, so the run waits as it would have in the middle"
        self._log_once(f"{dead_ends(plan)}; {reason} (runner.config_grace_s)".replace("\n", "; "))

    def refresh(self, *, start: Start) -> ExtractionPlan | None:
        """Return a new plan, checked, when the configuration requires one; None when nothing changes.

        What was refused is not looked at again before a watched file has changed; only a server that cannot be reached
        is, since it may just be starting.
        """
        for provider in self._plan.client.providers if self._plan else ():
            for replica in provider.replicas:
                replica.client.endpoint.reload_key()
        versions = self._versions()
        if self._app.runner.refresh == "off" or self._plan is None or versions == self._known_versions:
            return None
        try:
            return self._changed(self._plan, versions, start=start)
        except ConfigError as error:
            self._log_once(f"the changed configuration cannot be used; the run keeps the previous one: {error}")
            return None

    def _changed(self, before: ExtractionPlan, versions: Versions, *, start: Start) -> ExtractionPlan | None:
        """Return the plan of the present configuration; None when no change concerns the plan, or it is refused."""
        now = self._load()
        if now == self._app:
            self._logged.clear()
        app = self._allowed(now)
        agent = self._agent(before)
        changed = list(differences(self._app, app)) + ([f"agent {agent.name}"] if agent is not before.agent else [])
        if not set(changed) - {"runner.refresh"}:
            self._app = app
            self._known_versions = versions
            return None
        plan = build_plan(app, stop=self._stop, agent=agent, before=before)
        plan.client.quarantine()
        if not self._wait_for(plan.client.first, 0.0, start=start):
            self._refuse(plan, versions)
            return None
        self._log(before, plan, changed=changed)
        self._app = app
        self._plan = plan
        self._known_versions = versions
        return plan

    def _refuse(self, plan: ExtractionPlan, versions: Versions) -> None:
        trouble = plan.client.first.trouble
        if trouble is not None and trouble.preflight is not None:  # None: the end of the run cut the look short
            complaint = "the provider of the changed configuration cannot be used; the run keeps the previous one"
            self._log_once(f"{complaint}: {trouble.preflight.message}")
            if trouble.state == "misconfigured":
                self._known_versions = versions
        plan.client.close()

    def _versions(self) -> Versions:
        """Return the version of each watched file, in order; None for one that is missing."""
        return [_version(path) for path in self._watched]

    def _wait_for(self, provider: Provider, patience_s: float, *, start: Start) -> bool:
        """Return True as soon as one replica passes its preflight.

        Return False when the time is up and no preflight is running (a model may be loading, but not while other
        clients keep it in use), or when one replica refuses the settings and no other passes within seconds.
        """
        deadline = self._clock() + patience_s
        dead_end = float("inf")
        provider.retry_within(0.0)
        while True:
            provider.recover(start)
            now = self._clock()
            looking = any(replica.is_checking and replica.sharing.conflict is None for replica in provider.replicas)
            if provider.available:
                return True
            if any(replica.is_dead_end for replica in provider.replicas):
                dead_end = min(dead_end, now + SIBLING_S if looking else now)
            if now >= dead_end or (now >= deadline and not looking):
                return False
            if not looking:
                waiting = f"waiting up to {patience_s:g} s for provider"
                self._log_once(f"{waiting} {provider.complaint}", about=f"{waiting} {provider.name}")
            provider.retry_within(MAX_START_PAUSE_S)
            if self._stop.wait(LOOK_S):
                return False

    def _log_fallback(self, first: Provider, fallback: Provider) -> None:
        if fallback is not first:
            why = first.trouble.preflight.message if first.trouble and first.trouble.preflight else "it does not answer"
            self._log_once(f"provider {first.name} cannot be used ({why}); taking the fallback {fallback.name}")

    def _allowed(self, now: AppConfig) -> AppConfig:
        """Return the configuration without settings that are fixed for a run; a change of these is reported once."""
        app = allowed(now, self._app)
        if fixed := list(differences(app, now)):
            self._log_once(f"{', '.join(fixed)} cannot change in a run: left for the next one")
        return app

    def _agent(self, plan: ExtractionPlan) -> Agent:
        """Return the agent: of its present file with `refresh: all`, else as it was at the start."""
        before = plan.agent
        now = load_agent(self._app.agent, agents_dir=self._app.agents_dir)
        if (now.settings, now.variants, now.schema) == (before.settings, before.variants, before.schema):
            return before
        if self._app.runner.refresh == "all":
            return now
        self._log_once(
            f"agent {before.name} changed in mid-run: left for the next run (runner.refresh: all takes it now)"
        )
        return before

    def _log_once(self, message: str, *, about: str = "") -> None:
        """Log the warning, unless this one, or one about the same settings, was written before."""
        if (about or message) not in self._logged:
            self._logged.add(about or message)
            logger.warning("%s", message)

    def _log(self, before: ExtractionPlan, after: ExtractionPlan, *, changed: list[str]) -> None:
        """Log the provider, model or variant that gets the next requests, or else the new settings."""
        old = _asked(before)
        new = _asked(after)
        if old == new:
            logger.info("configuration taken over", extra={"changed": ", ".join(changed)})
            return
        fields = {
            "old_provider": old["provider"],
            "new_provider": new["provider"],
            "old_model": old["model"],
            "new_model": new["model"],
            "endpoint": new["endpoints"],
            "variant": new["variant"],
        }
        logger.info("provider switched", extra=fields)


def _asked(plan: ExtractionPlan) -> dict[str, str]:
    """Return provider, models, replicas and variants of a plan as fields of the log."""
    first = plan.client.first
    serving = next((replica for replica in first.replicas if replica.state == "up"), first.replicas[0])
    return {
        "provider": first.name,
        "model": ",".join(dict.fromkeys(client.config.model for client in serving.clients.values())),
        "endpoints": ",".join(first.endpoints),
        "variant": ",".join(plan.queries),
    }


def dead_ends(plan: ExtractionPlan) -> str:
    """Return one line for each provider whose error remains however often it is tried."""
    troubles = [(provider.name, provider.trouble) for provider in plan.client.providers]
    return "\n".join(
        f"provider {name} ({replica.client.model.endpoint}): {replica.preflight.message}"
        for name, replica in troubles
        if replica is not None and replica.preflight is not None and replica.is_dead_end
    )


def _version(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
