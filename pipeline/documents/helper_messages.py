"""The messages between a run and its helper processes: a JSON object and some bytes, each with its size."""

from __future__ import annotations

import json
import struct
from typing import IO, Any

SIZES = struct.Struct(">II")
"""Before each message: the bytes of its JSON, and of the data that follows."""


def read_message(stream: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    """The next message and its data; None at the end."""
    sizes = stream.read(SIZES.size)
    if len(sizes) < SIZES.size:
        return None
    head_bytes, data_bytes = SIZES.unpack(sizes)
    body = stream.read(head_bytes + data_bytes)
    if len(body) < head_bytes + data_bytes:
        return None
    return json.loads(body[:head_bytes]), body[head_bytes:]


def write_message(stream: IO[bytes], head: dict[str, Any], data: bytes = b"") -> None:
    """Write a message and its data."""
    text = json.dumps(head).encode("ascii")
    stream.write(SIZES.pack(len(text), len(data)) + text)
    stream.write(data)
    stream.flush()
