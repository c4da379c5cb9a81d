"""Special tokens by the server's own tokenizer: which texts found in documents are one special token to it.

    candidates of a document (special_tokens.py) ─▶ not asked before? ─▶ POST /tokenize, once each ─▶ kept for the run

vLLM 0.32 and SGLang count one token for the text of a special token; llama.cpp tells special tokens from others by
`parse_special`. It asks only through what its caller hands it, and trouble there never fails a document.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

MOST_ASKED = 256
"""Texts that one server is asked about in a run."""
MOST_FAILURES = 2
"""Requests without a usable reply after which the server is not asked again."""

IsSpecial = Callable[[str], bool | None]
"""Asks a server whether a text is one special token; None when it does not say."""


@dataclass(frozen=True, slots=True)
class TokenIds:
    """A reply of /tokenize; `counted`: it has a count, as vLLM's and SGLang's have, and llama.cpp's has not."""

    tokens: tuple[object, ...]
    counted: bool


def token_ids(body: Mapping[str, Any] | None) -> TokenIds | None:
    """Return the ids of a reply, or None when it is none."""
    tokens = body.get("tokens") if body is not None else None
    return TokenIds(tuple(tokens), "count" in (body or {})) if isinstance(tokens, list) else None


class SpecialTokens:
    """What one server's tokenizer said of each text; safe for many threads."""

    def __init__(self) -> None:
        self._special: dict[str, bool] = {}
        self._failures = 0
        self._lock = threading.Lock()

    def among(self, candidates: Iterable[str], is_special: IsSpecial) -> frozenset[str]:
        """Return the candidates that are special tokens; those not asked about before are asked about now."""
        special = []
        for text in candidates:
            cached = self._special.get(text)
            if cached if cached is not None else self._ask(text, is_special):
                special.append(text)
        return frozenset(special)

    def _ask(self, text: str, is_special: IsSpecial) -> bool:
        with self._lock:
            if text not in self._special:
                if self._failures >= MOST_FAILURES or len(self._special) >= MOST_ASKED:
                    return False
                answer = is_special(text)
                if answer is None:
                    self._failures += 1
                    return False
                self._special[text] = answer
            return self._special[text]
