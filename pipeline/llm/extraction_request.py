"""A request to a provider and its result: plain data. It sends nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.llm.prompt_length.verification import PromptsFor
from pipeline.llm.replica import Replica
from pipeline.records import ExtractionAttempt

if TYPE_CHECKING:
    from pipeline.llm.provider import Provider


@dataclass(frozen=True, slots=True)
class SentRequest:
    """One request that was sent to a replica: its attempt, and the monotonic times of its start and end.

    `keys`: how often the server's key had changed before it was sent.
    """

    provider: Provider
    replica: Replica
    attempt: ExtractionAttempt
    started_at: float
    ended_at: float
    keys: int


@dataclass(frozen=True, slots=True)
class ExtractionRequest:
    """A request: the prompts, the schema as servers get it, and the document as the prompt contains it.

    `document`: its id, for the log. `losses`: how often a server was lost over it before. `alone`: nothing else is in
    flight, and one more loss is final. `was_refused`: a server in trouble answered it with a 4xx before. `prompts_for`:
    how prompts are rebuilt for verification; None: no verification. `places`: how often the prompts contain the text.
    `metadata`: that of the document, for `try`. `sent_request`: its first request, if another process has sent it
    already.
    """

    variant: str
    prompts: Mapping[str, str]
    json_schema: Mapping[str, Any] | None
    document_text: str
    document: str = ""
    losses: int = 0
    alone: bool = False
    was_refused: bool = False
    prompts_for: PromptsFor | None = None
    places: int = 1
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)
    sent_request: SentRequest | None = None


@dataclass(frozen=True, slots=True)
class AskResult:
    """The result of one ask. `unavailable`: no server could take it, and the document is not to blame.

    `losses`: how many servers were lost while they worked on it. `was_refused`: one answered with a 4xx and then turned
    out to be in trouble. `postponed`: the document waits for a verification of its server.
    """

    attempts: tuple[ExtractionAttempt, ...] = ()
    unavailable: bool = False
    losses: int = 0
    was_refused: bool = False
    postponed: bool = False
