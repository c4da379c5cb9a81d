"""The complete body of a reply, which ends after its stated length, its last chunk, or its last event.

It must not interpret the answer in the body.
"""

from __future__ import annotations

import re
from typing import Any

from pipeline.llm.transport.call_errors import CallFailedError
from pipeline.llm.transport.pool import Exchange

STREAM_END_S = 0.5
"""Seconds to wait for the end of the body after the last event; vLLM sends both in one segment."""

_CHUNK_BYTES = 65536
_LAST_EVENT = re.compile(rb"[\r\n]data: ?\[DONE\]")
_LAST_LINE = re.compile(rb'"done": ?true[,}]')
_TAIL_BYTES = 32


class StreamEnd:
    """Detects the last event of a stream: `data: [DONE]` of server-sent events, `"done": true` of Ollama's lines.

    Neither can occur in an answer: line ends and quotes are escaped there.
    """

    def __init__(self, content_type: str | None) -> None:
        self.was_seen = False
        has_lines = "ndjson" in (content_type or "")
        self._last = _LAST_LINE if has_lines else _LAST_EVENT
        self._word = b'"done"' if has_lines else b"[DONE]"
        self._tail = b"\n"

    def add(self, chunk: bytes) -> None:
        """Take the next bytes of the body."""
        data = self._tail + chunk
        # this search for a fixed word is ten times as fast as the pattern, and mostly makes the pattern unnecessary
        self.was_seen = self.was_seen or (self._word in data and self._last.search(data) is not None)
        self._tail = data[-_TAIL_BYTES:]


def read_body(raw: Any, max_bytes: int) -> bytes:
    """Return the whole body; CallFailedError `response_too_large` as soon as it exceeds `max_bytes`.

    Some gateways keep a stream open after its last event; the body then ends there, and its connection is not reused.
    """
    chunks: list[bytes] = []
    size = 0
    packed = "Content-Encoding" in raw.headers  # some servers compress although only `identity` is accepted
    end = StreamEnd(raw.headers.get("Content-Type"))
    while chunk := _next_chunk(raw, packed=packed, has_ended=end.was_seen):
        end.add(chunk)
        size += len(chunk)
        if size > max_bytes:
            raise CallFailedError("response_too_large", "response_too_large")
        chunks.append(chunk)
        if raw.length_remaining == 0 and not packed:
            break
    return b"".join(chunks)


def _next_chunk(raw: Any, *, packed: bool, has_ended: bool) -> bytes:
    """Return the next bytes; none at the end of the body, or when a stream stays open after its last event."""
    if not has_ended:
        return bytes(raw.read(_CHUNK_BYTES, decode_content=packed))
    if packed or not isinstance(raw, Exchange):
        return b""
    raw.end_within(STREAM_END_S)
    try:
        return raw.read(_CHUNK_BYTES)
    except TimeoutError:
        return b""
