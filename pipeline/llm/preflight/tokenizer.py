"""Ask the server's tokenizer which texts in documents are special tokens.

    candidates of a document (special_tokens.py) ─▶ unknown? ─▶ POST /tokenize, once each ─▶ kept for the run

vLLM 0.32 and SGLang count one token for the text of a special token; llama.cpp distinguishes special tokens from others
by `parse_special`. Requests go through the caller's function, and their failure never fails a document.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

MOST_TEXTS = 256
"""Most texts that are sent to one server in a run."""
MOST_FAILURES = 2
"""Requests without a usable reply after which no more are sent to the server."""

IsSpecial = Callable[[str], bool | None]
"""Ask a server whether a text is one special token; None when it does not report that."""


@dataclass(frozen=True, slots=True)
class TokenIds:
    """A reply of /tokenize; `has_count`: vLLM and SGLang add a count, llama.cpp does not."""

    tokens: tuple[object, ...]
    has_count: bool


def token_ids(body: Mapping[str, Any] | None) -> TokenIds | None:
    """Return the ids of a reply, or None for any other reply."""
    tokens = body.get("tokens") if body is not None else None
    return TokenIds(tuple(tokens), "count" in (body or {})) if isinstance(tokens, list) else None


class SpecialTokens:
    """Texts by whether one server's tokenizer has them as special tokens; safe for many threads."""

    def __init__(self) -> None:
        self._special: dict[str, bool] = {}
        self._failures = 0
        self._lock = threading.Lock()

    def special_candidates(self, candidates: Iterable[str], is_special: IsSpecial) -> frozenset[str]:
        """Return the candidates that are special tokens; the server is asked once about each."""
        special = []
        for text in candidates:
            cached = self._special.get(text)
            if cached if cached is not None else self._ask(text, is_special):
                special.append(text)
        return frozenset(special)

    def _ask(self, text: str, is_special: IsSpecial) -> bool:
        with self._lock:
            if text not in self._special:
                if self._failures >= MOST_FAILURES or len(self._special) >= MOST_TEXTS:
                    return False
                answer = is_special(text)
                if answer is None:
                    self._failures += 1
                    return False
                self._special[text] = answer
            return self._special[text]
