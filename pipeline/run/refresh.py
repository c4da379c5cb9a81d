"""The search for an available provider at the start, and new plans when the configuration changes during a run.

At the start `establish` waits for each variant's first provider (`startup_wait_s`), then takes the first fallback that
passes its preflight. A first provider whose error remains, such as a wrong key, ends the run at once.

During the run `refresh` compares the versions (size and mtime) of the configuration and agent files. After a change it
loads them, keeps the settings that are fixed for a run, builds a new plan, and checks its first provider. A plan that
passes is returned, and the runner uses it for the next document. A plan that is refused is reported once; it is
tried again only after another change of a file, because the same settings would be refused again.

It builds and checks plans; it must not switch to them, as only the runner knows which documents are in flight.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path

from pipeline.agents import Agent, load_agent
from pipeline.config import AppConfig
from pipeline.config.changes import differences, with_fixed_settings
from pipeline.errors import ConfigError
from pipeline.llm.provider import Provider
from pipeline.llm.replica import Start
from pipeline.run.plan import ExtractionPlan, build_plan
from pipeline.run.stop_rules import LogWait

logger = logging.getLogger(__name__)

MAX_START_PAUSE_S = 5.0
LOOK_S = 0.02
SIBLING_S = 5.0
"""Time limit for the other replicas when one refuses the settings: a wrong model is reported within seconds."""
Versions = list[tuple[int, int] | None]


class Refresher:
    """The current plan of a run and its configuration; methods are called by one thread at a time."""

    def __init__(
        self,
        app: AppConfig,
        *,
        load: Callable[[], AppConfig],
        watched_files: Iterable[Path] = (),
        stop: threading.Event,
        resumes: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`resumes`: the run continues an earlier one, so it waits for a server that refuses its requests."""
        self._app = app
        self._load = load
        self._stop = stop
        self._clock = clock
        self._resumes = resumes
        self._plan: ExtractionPlan | None = None
        self._logged: set[str] = set()
        self._watched_files = tuple(watched_files)
        self._known_versions = self._versions()

    def establish(self, plan: ExtractionPlan, *, start: Start, log_wait: LogWait) -> None:
        """Return when each variant has an available provider, or when the run has to wait for one.

        Raise ConfigError when a first provider has an error that remains, no other can replace it, and the run resumes
        no earlier one. A fallback that is not needed gets no preflight, which might load its model.
        """
        self._plan = plan
        plan.client.quarantine()
        availability: dict[Provider, bool] = {}
        for order in plan.client.orders.values():
            self._establish(plan, order, availability=availability, start=start, log_wait=log_wait)

    def _establish(
        self,
        plan: ExtractionPlan,
        order: Sequence[Provider],
        *,
        availability: dict[Provider, bool],
        start: Start,
        log_wait: LogWait,
    ) -> None:
        runner = self._app.runner
        for provider, fallback in zip_longest(order, order[1:]):
            if provider not in availability:
                patience_s = runner.startup_wait_s if fallback else min(runner.startup_wait_s, runner.max_outage_s)
                log = partial(_log_wait, log_wait, plan, provider, fallback=fallback)
                availability[provider] = self._wait_for(provider, patience_s, start=start, log_wait=log)
            if availability[provider]:
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
        """Return a new, checked plan when the configuration requires one; None when nothing changes.

        A refused plan is checked again only after a watched file has changed. A plan whose server cannot be reached is
        checked at each call, because the server may just be starting.
        """
        for provider in self._plan.client.providers if self._plan else ():
            for replica in provider.replicas:
                replica.client.endpoint.reload_key()
        versions = self._versions()
        if self._app.runner.refresh == "off" or self._plan is None or versions == self._known_versions:
            return None
        try:
            return self._build_changed_plan(self._plan, versions, start=start)
        except ConfigError as error:
            self._log_once(f"the changed configuration cannot be used; the run keeps the previous one: {error}")
            return None

    def _build_changed_plan(
        self, former_plan: ExtractionPlan, versions: Versions, *, start: Start
    ) -> ExtractionPlan | None:
        """Return the plan of the present configuration; None when no change concerns the plan, or it is refused."""
        present_config = self._load()
        if present_config == self._app:
            self._logged.clear()
        app = self._without_fixed_settings(present_config)
        agent = self._agent(former_plan)
        changes = list(differences(self._app, app)) + (
            [f"agent {agent.name}"] if agent is not former_plan.agent else []
        )
        if not set(changes) - {"runner.refresh"}:
            self._app = app
            self._known_versions = versions
            return None
        plan = build_plan(app, stop=self._stop, agent=agent, former_plan=former_plan)
        plan.client.quarantine()
        if not self._wait_for(plan.client.first_provider, 0.0, start=start, log_wait=lambda: None):
            self._reject(plan, versions)
            return None
        self._log(former_plan, plan, changes=changes)
        self._app = app
        self._plan = plan
        self._known_versions = versions
        return plan

    def _reject(self, plan: ExtractionPlan, versions: Versions) -> None:
        trouble = plan.client.first_provider.trouble
        if trouble is not None and trouble.preflight is not None:  # None: the run ended during the check
            complaint = "the provider of the changed configuration cannot be used; the run keeps the previous one"
            self._log_once(f"{complaint}: {trouble.preflight.message}")
            if trouble.state == "misconfigured":
                self._known_versions = versions
        plan.client.close()

    def _versions(self) -> Versions:
        """Return the version of each watched file, in order; None for one that is missing."""
        return [_version(path) for path in self._watched_files]

    def _wait_for(self, provider: Provider, patience_s: float, *, start: Start, log_wait: Callable[[], None]) -> bool:
        """Return True as soon as one replica passes its preflight.

        Return False when the time is up and no preflight is running, or when one replica refuses the settings and no
        other replica passes within seconds. A running preflight may be loading a model, so it is waited for, unless
        other clients keep the server's memory in use.
        """
        deadline = self._clock() + patience_s
        dead_end_at = float("inf")
        provider.retry_within(0.0)
        while True:
            provider.recover(start)
            now = self._clock()
            is_checking = any(replica.is_checking and replica.sharing.conflict is None for replica in provider.replicas)
            if provider.available:
                return True
            if any(replica.is_dead_end for replica in provider.replicas):
                dead_end_at = min(dead_end_at, now + SIBLING_S if is_checking else now)
            if now >= dead_end_at or (now >= deadline and not is_checking):
                return False
            if not is_checking:
                log_wait()
            provider.retry_within(MAX_START_PAUSE_S)
            if self._stop.wait(LOOK_S):
                return False

    def _log_fallback(self, first_provider: Provider, fallback: Provider) -> None:
        if fallback is not first_provider:
            reason = (
                first_provider.trouble.preflight.message
                if first_provider.trouble and first_provider.trouble.preflight
                else "it does not answer"
            )
            self._log_once(
                f"provider {first_provider.name} cannot be used ({reason}); taking the fallback {fallback.name}"
            )

    def _without_fixed_settings(self, present_config: AppConfig) -> AppConfig:
        """Return the configuration with the run's own values of fixed settings; report a change of these once."""
        app = with_fixed_settings(present_config, self._app)
        if fixed := list(differences(app, present_config)):
            self._log_once(f"{', '.join(fixed)} cannot change in a run: left for the next one")
        return app

    def _agent(self, plan: ExtractionPlan) -> Agent:
        """Return the agent of its present file with `refresh: all`, else the one of the start."""
        former = plan.agent
        present = load_agent(self._app.agent, agents_dir=self._app.agents_dir)
        if (present.settings, present.variants, present.schema) == (former.settings, former.variants, former.schema):
            return former
        if self._app.runner.refresh == "all":
            return present
        self._log_once(
            f"agent {former.name} changed in mid-run: left for the next run (runner.refresh: all takes it now)"
        )
        return former

    def _log_once(self, message: str) -> None:
        """Log the warning, unless it was written before."""
        if message not in self._logged:
            self._logged.add(message)
            logger.warning("%s", message)

    def _log(self, former_plan: ExtractionPlan, new_plan: ExtractionPlan, *, changes: list[str]) -> None:
        """Log the provider, model or variant of the next requests if it changes, else the changed settings."""
        former_fields = _log_fields(former_plan)
        new_fields = _log_fields(new_plan)
        if former_fields == new_fields:
            logger.info("configuration taken over", extra={"changed": ", ".join(changes)})
            return
        fields = {
            "old_provider": former_fields["provider"],
            "new_provider": new_fields["provider"],
            "old_model": former_fields["model"],
            "new_model": new_fields["model"],
            "endpoint": new_fields["endpoints"],
            "variant": new_fields["variant"],
        }
        logger.info("provider switched", extra=fields)


def _log_wait(log_wait: LogWait, plan: ExtractionPlan, provider: Provider, *, fallback: Provider | None) -> None:
    """Log the wait for a provider; without a fallback, with the message of an outage, which it is a part of."""
    if fallback is not None:
        log_wait(provider.complaint, fallback.name)
    elif (trouble := plan.client.trouble) is not None:
        log_wait(trouble.message, None)


def _log_fields(plan: ExtractionPlan) -> dict[str, str]:
    """Return provider, models, replicas and variants of a plan as fields of the log."""
    provider = plan.client.first_provider
    serving = next((replica for replica in provider.replicas if replica.state == "up"), provider.replicas[0])
    return {
        "provider": provider.name,
        "model": ",".join(dict.fromkeys(client.config.model for client in serving.clients.values())),
        "endpoints": ",".join(provider.endpoints),
        "variant": ",".join(plan.queries),
    }


def dead_ends(plan: ExtractionPlan) -> str:
    """Return one line for each provider with an error that a retry cannot repair."""
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
