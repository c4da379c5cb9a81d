"""The messages between a run and its helper processes: a JSON object and some bytes, each with its size."""

from __future__ import annotations

import json
import struct
from typing import IO, Any

SIZES = struct.Struct(">II")
"""The header of a message: the sizes in bytes of its JSON and of the data that follows."""


def read_message(stream: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    """Return the next message and its data; None at the end."""
    sizes = stream.read(SIZES.size)
    if len(sizes) < SIZES.size:
        return None
    json_bytes, data_bytes = SIZES.unpack(sizes)
    body = stream.read(json_bytes + data_bytes)
    if len(body) < json_bytes + data_bytes:
        return None
    return json.loads(body[:json_bytes]), body[json_bytes:]


def write_message(stream: IO[bytes], header: dict[str, Any], data: bytes = b"") -> None:
    """Write a message and its data."""
    text = json.dumps(header).encode("ascii")
    stream.write(SIZES.pack(len(text), len(data)) + text)
    stream.write(data)
    stream.flush()
