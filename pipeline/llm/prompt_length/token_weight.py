"""Rough upper estimate of a text's tokens from its kinds of characters; the counts of the run then scale it.

Bytes alone mislead: English has 4 to 5 bytes per token, base64 far fewer. A run that has read only articles would
underestimate base64 or a table of numbers. The weights are therefore high on purpose.
"""

from __future__ import annotations

import math
import re

from pipeline.llm.prompt_length.repetition import BYTES_PER_TOKEN, size_of

_WORD = re.compile(r"(?<![A-Za-z0-9+/])[A-Za-z]?[a-z]{1,15}(?![A-Za-z0-9+/])")
_BLANKS = re.compile(r"\s{2,}|[^\S ]")
_DENSE = re.compile(r"[!-~]")
LETTERS_PER_TOKEN = 4
BLANKS_PER_TOKEN = 4
DENSE_TOKENS = 0.85
"""Tokens per digit, sign or letter outside a word: some tokenizers have one for each digit."""
OTHER_TOKENS = 0.5
"""Tokens per byte outside ASCII."""


def weigh(text: str) -> int:
    """Return an upper estimate of the tokens of a text."""
    words = _WORD.findall(text)
    blanks = _BLANKS.findall(text)
    size_bytes = size_of(text)
    ascii_bytes = sum(map(str.isascii, text)) if not text.isascii() else size_bytes
    dense = len(_DENSE.findall(text)) - sum(map(len, words))
    word_tokens = sum(1 + len(word) // LETTERS_PER_TOKEN for word in words)
    blank_tokens = sum(math.ceil(len(blank) / BLANKS_PER_TOKEN) for blank in blanks)
    estimate = word_tokens + blank_tokens + DENSE_TOKENS * dense + OTHER_TOKENS * (size_bytes - ascii_bytes)
    return math.ceil(min(estimate, size_bytes / BYTES_PER_TOKEN))
