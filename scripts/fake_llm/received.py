"""A request as the fake server received it, and the functions that decide its answer or its fault."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fake_llm.faults import Fault


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """A received request. `n` counts the chats of its document from 1 (0: no chat). `at`: Unix time."""

    path: str
    method: str
    headers: Mapping[str, str]
    body: Any
    document: str
    at: float
    n: int = 0


Answer = Callable[[str, "Mapping[str, Any] | None"], str]
"""Returns the text of an answer to a prompt and its schema."""

Faults = Callable[[ReceivedRequest, int], "Fault | None"]
"""Returns the fault of the n-th request for a document, None for an answer."""


def model_in(request: ReceivedRequest) -> str:
    """Return the model name in a request."""
    return str(request.body.get("model", "")) if isinstance(request.body, dict) else ""
