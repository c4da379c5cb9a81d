"""Shards: which of N machines a document belongs to, decided by its id alone.

Nothing here looks at a listing's order, at how many documents there are, or at what other shards do.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from pipeline.errors import ConfigError

_SHARD = re.compile(r"([0-9]{1,5})/([0-9]{1,5})")
_FRACTION_BITS = 53


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `index` (from 0) of `count`; a count of 0 is a run without --shard, which owns everything."""

    index: int = 0
    count: int = 0

    def owns(self, id: str) -> bool:
        """True when the document with this id is this shard's; exactly one of `count` shards owns it."""
        if self.count <= 1:
            return True
        return int.from_bytes(_digest("shard", id), "big") % self.count == self.index

    @property
    def suffix(self) -> str:
        """What the names of output files carry: `-00003-of-00016`, or nothing without --shard."""
        return f"-{self.index:05d}-of-{self.count:05d}" if self.count else ""

    @property
    def label(self) -> str | None:
        """What records and logs say: `3/16`, or None without --shard."""
        return f"{self.index}/{self.count}" if self.count else None


WHOLE = Shard()
"""A run without --shard."""


def parse_shard(text: str) -> Shard:
    """The shard of `I/N`, 0 <= I < N <= 99999; anything else is a ConfigError."""
    match = _SHARD.fullmatch(text)
    index, count = (int(number) for number in match.groups()) if match else (0, 0)
    if index >= count:
        raise ConfigError(f"--shard: got {text!r}, need I/N with 0 <= I < N <= 99999, as in 3/16")
    return Shard(index, count)


def hash_fraction(purpose: str, id: str) -> float:
    """A number in [0, 1) that depends on the purpose and the id only; two purposes are independent."""
    number = int.from_bytes(_digest(purpose, id)[:8], "big") >> (64 - _FRACTION_BITS)
    return number / float(1 << _FRACTION_BITS)


def _digest(purpose: str, id: str) -> bytes:
    return hashlib.sha256(f"{purpose}\0{id}".encode("utf-8", "surrogatepass")).digest()
