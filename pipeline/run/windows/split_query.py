"""The settings that `overflow: split` adds to a variant, for cutting documents and sending windows, with digests."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from threading import Semaphore
from typing import TYPE_CHECKING, Any

from pipeline.agents.fingerprints import digest_of, split_question, window_question
from pipeline.agents.prompts import document_places, names_lead
from pipeline.answers.schema import CompiledSchema
from pipeline.config import ProviderConfig, ResolvedAgentConfig
from pipeline.config.split import SplitConfig
from pipeline.llm.capabilities import Preflight
from pipeline.llm.prompt_length.repetition import size_of
from pipeline.llm.replica import Client
from pipeline.long.lead import framed
from pipeline.long.sizing import Room, Sizer, too_small

if TYPE_CHECKING:
    from pipeline.agents import Agent
    from pipeline.run.plan import VariantQuery


LARGE_BYTES = 1 << 20
LARGE_AT_ONCE = 2
"""Reading and cutting a document takes one core and four times its size; more at once would only take more memory."""


@dataclass(frozen=True, slots=True)
class SplitQuery:
    """Settings for cutting and sending the long documents of one variant.

    `fingerprint`: of a document merged from windows. `question`: the digest of the question of every window.
    `schema`: of a window's answer. `sizer`: the sizes of tokens measured in this run. `turns`: limits the threads that
    read and cut large documents at the same time.
    """

    settings: SplitConfig
    fingerprint: str
    question: str
    schema: CompiledSchema
    sizer: Sizer = field(compare=False)
    turns: Semaphore = field(default_factory=lambda: Semaphore(LARGE_AT_ONCE), compare=False)

    def turn(self, size_bytes: int) -> AbstractContextManager[object]:
        """Return the context in which to read and cut a document of this size; entering it may wait for a large one."""
        return self.turns if size_bytes >= LARGE_BYTES else nullcontext()


def _sizer(settings: SplitConfig) -> Sizer:
    return Sizer(window_tokens=settings.window_tokens, overlap_tokens=settings.overlap_tokens)


def split_query(
    agent: Agent, resolved: ResolvedAgentConfig, config: ProviderConfig, *, former_query: VariantQuery | None = None
) -> SplitQuery | None:
    """Return the settings of a variant with `overflow: split`, else None.

    `config`: that of its first provider. `former_query`: its query in the former plan, whose measured sizes are kept.
    """
    settings = resolved.split
    if settings is None:
        return None
    former_split = former_query.split if former_query is not None else None
    is_same = former_split is not None and former_split.settings == settings
    return SplitQuery(
        settings,
        digest_of(split_question(resolved, config)),
        window_question(resolved, config, agent.compiled.window.schema),
        agent.compiled.window,
        former_split.sizer if former_split is not None and is_same else _sizer(settings),
    )


def window_schema_of(split: SplitQuery | None) -> Mapping[str, Any] | None:
    """Return the schema of windows as servers get it; None where documents are not cut."""
    return None if split is None else split.schema.for_server


def before_bytes(resolved: ResolvedAgentConfig, lead: str) -> int:
    """Return the size of the lead before a window, with the lines around it unless the prompt has a place for it."""
    return size_of(lead if names_lead(resolved.user_prompt) else framed("", lead))


def room_warning(query: VariantQuery, client: Client, preflight: Preflight) -> str | None:
    """Return the warning about a server whose context leaves no room for a window; None for any other server."""
    settings = query.resolved.split
    if settings is None or preflight.status != "ok" or not preflight.prompt_tokens:
        return None
    room = Room(
        context_length=preflight.context_length or client.context_length,
        max_tokens=client.config.max_tokens,
        prompt_tokens=preflight.prompt_tokens,
        reasks=query.resolved.max_reasks > 0,
        before_bytes=before_bytes(query.resolved, "x" * settings.lead_chars),
        copies=document_places(query.resolved.user_prompt),
    )
    return too_small(room)
