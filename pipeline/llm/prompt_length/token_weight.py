"""Rough upper estimate of a text's tokens by its kinds of characters; a run's own counts then scale it.

Bytes alone mislead: English has 4 to 5 bytes a token, base64 far fewer, and a run that has seen only articles would
take base64 or a table of numbers for shorter than it is. The weights are meant to be on the high side.
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
"""Tokens for each digit, sign or letter outside of a word: some tokenizers have one for each digit."""
OTHER_TOKENS = 0.5
"""Tokens for each byte outside of ASCII."""


def weigh(text: str) -> int:
    """Return about how many tokens a text has at most."""
    words = _WORD.findall(text)
    blanks = _BLANKS.findall(text)
    size_bytes = size_of(text)
    ascii_bytes = sum(map(str.isascii, text)) if not text.isascii() else size_bytes
    dense = len(_DENSE.findall(text)) - sum(map(len, words))
    found = sum(1 + len(word) // LETTERS_PER_TOKEN for word in words)
    found += sum(math.ceil(len(blank) / BLANKS_PER_TOKEN) for blank in blanks)
    estimate = found + DENSE_TOKENS * dense + OTHER_TOKENS * (size_bytes - ascii_bytes)
    return math.ceil(min(estimate, size_bytes / BYTES_PER_TOKEN))
