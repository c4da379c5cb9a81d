"""A raw stream with a position, for readers that fetch their bytes from elsewhere."""

from __future__ import annotations

import io


class SeekableRaw(io.RawIOBase):
    """A readable, seekable stream at position `_at`; a subclass implements `seek` and `readinto`."""

    def __init__(self) -> None:
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at
